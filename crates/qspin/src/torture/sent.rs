//! Locks that one thread takes and another one releases: a courier, who gets them from the workers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::naps::Planned;
use super::run::Run;
use super::section::Who;
use super::{signals, worker};
use crate::locks::Contender;

/// A lock that is held, and who took it.
struct Parcel {
    lock: usize,
    owner: Who,
}

#[derive(Default)]
pub(super) struct Post {
    parcels: Mutex<VecDeque<Parcel>>,
    arrived: Condvar,
    closed: AtomicBool,
    sent: AtomicU64,
}

impl Post {
    /// Whoever has the lock leaves it to the courier to release it.
    pub(super) fn send(&self, lock: usize, owner: Who) {
        self.parcels.lock().unwrap_or_else(PoisonError::into_inner).push_back(Parcel { lock, owner });
        self.sent.fetch_add(1, Relaxed);
        self.arrived.notify_one();
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Nobody sends any more.
    pub(super) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    fn next(&self) -> Option<Parcel> {
        const LOOK: Duration = Duration::from_millis(20);
        let mut parcels = self.parcels.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Read before: what was sent before it was closed is found.
            let closed = self.closed.load(Relaxed);
            if let Some(parcel) = parcels.pop_front() {
                return Some(parcel);
            } else if closed {
                return None;
            }
            parcels = self.arrived.wait_timeout(parcels, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The body of the courier, who waits for no lock: whoever waits for one that was sent waits only for it.
pub(super) fn deliver<L: Contender>(run: &'static Run<L>, number: u32) {
    let place = run.courier();
    worker::adopt(place, number);
    signals::attach(run, run.recipe.threads + 1);
    while let Some(Parcel { lock, owner }) = run.post.next() {
        let guarded = &run.locks[lock];
        let nap = Planned::choose(run, place, lock, run.now());
        guarded.exit(lock, owner, &run.overlap);
        let hand = guarded.lock.by_hand().expect("it was taken by hand");
        place.leaving.store(1, Relaxed);
        nap.begin_unlock(place);
        // SAFETY: the sender has taken it, and sent it once.
        unsafe { hand.unlock() };
        nap.end_unlock(run);
        place.leaving.store(0, Relaxed);
    }
}
