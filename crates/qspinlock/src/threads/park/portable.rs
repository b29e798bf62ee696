//! Sleeping on a word, by mutexes and condition variables: a futex by hand, for systems without one.
//!
//! **Not for signal handlers.** A handler that waits or kicks here while its thread holds the mutex of the same bench
//! waits for ever. Block the signals that take locks, or keep locks whose waiters sleep out of handlers. Nor must a handler
//! that interrupts it fork.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Where threads sleep. Several may share one, and then wake each other for no reason.
struct Bench {
    mutex: Mutex<()>,
    bell: Condvar,
}

/// Slots have low numbers, so that a process of some ten threads shares none.
const BENCHES: usize = 256;

/// New when a child is made.
struct Benches(UnsafeCell<[Bench; BENCHES]>);

// SAFETY: shared as the benches are; `others_are_gone` writes when there is nobody to share with.
#[allow(unsafe_code, reason = "promises that benches may be shared")]
unsafe impl Sync for Benches {}

static TABLE: Benches = Benches(UnsafeCell::new(NEW));

#[allow(clippy::declare_interior_mutable_const, reason = "an initialiser: every use is a new row of benches")]
const NEW: [Bench; BENCHES] = [const { Bench { mutex: Mutex::new(()), bell: Condvar::new() } }; BENCHES];

impl Bench {
    /// The bench of a token: slots are 128 or more bytes apart.
    fn of(token: &AtomicU32) -> &'static Self {
        // SAFETY: a live static. It is written to by the only thread there is, and not while that uses it.
        #[allow(unsafe_code, reason = "benches are in a cell, to be made anew")]
        let benches = unsafe { &*TABLE.0.get() };
        &benches[(&raw const *token).addr() / size_of::<crate::queue::Slot<crate::atomic::AtomicCell>>() % BENCHES]
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sleeps while the token is `value`, until `until` on the clock of `Machine::now`, or for no reason.
pub(super) fn sleep(token: &AtomicU32, value: u32, until: Option<u64>) {
    let bench = Bench::of(token);
    let guard = bench.lock();
    // Relaxed: who has changed it and then held the mutex before us is seen; who has not held it yet will find us.
    if token.load(Ordering::Relaxed) != value {
        return;
    }
    // Woken, out of time, or neither: it is all the same to who looks again. A poisoned mutex guards nothing.
    match until.map(|until| until.saturating_sub(crate::threads::clock())) {
        None => drop(bench.bell.wait(guard)),
        Some(0) => {}
        Some(left) => drop(bench.bell.wait_timeout(guard, Duration::from_nanos(left))),
    }
}

/// Ends the sleeps on the token whose value has just been changed, and perhaps others.
pub(super) fn wake(token: &AtomicU32) {
    let bench = Bench::of(token);
    // A sleeper that has looked at the token and not yet slept holds the mutex.
    drop(bench.lock());
    bench.bell.notify_all();
}

pub(in crate::threads) fn yield_cpu() {
    std::thread::yield_now();
}

/// In the child of a `fork`: threads that are gone may hold a mutex, or wait for a bell.
#[cfg(unix)]
pub(in crate::threads) fn others_are_gone() {
    // SAFETY: there is one thread, and it has no reference: it forks outside of this file, since a signal handler that
    // interrupts it inside must not fork. The old ones are not dropped: what they are made of may be in use for ever.
    #[allow(unsafe_code, reason = "puts new benches in the place of the old")]
    unsafe {
        TABLE.0.get().write(NEW);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sleeper that has looked and not yet slept would miss the bell. Too short a moment to hit by chance.
    #[test]
    fn the_bell_does_not_ring_between_look_and_sleep() {
        static TOKEN: AtomicU32 = AtomicU32::new(0);
        let looked = Bench::of(&TOKEN).lock();
        let waker = std::thread::spawn(|| wake(&TOKEN));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waker.is_finished());
        drop(looked);
        waker.join().expect("it does not panic");
    }

    /// A thread is between look and sleep when another one forks.
    #[cfg(unix)]
    #[test]
    #[allow(unsafe_code, reason = "forks")]
    fn nobody_is_inside_in_a_child() {
        static TOKEN: AtomicU32 = AtomicU32::new(0);
        let (tell, told) = std::sync::mpsc::channel();
        let (let_go, is_over) = std::sync::mpsc::channel::<()>();
        let sleeper = std::thread::spawn(move || {
            let _looked = Bench::of(&TOKEN).lock();
            let _ = tell.send(());
            let _ = is_over.recv();
        });
        told.recv().expect("it has the mutex");
        // SAFETY: the child uses nothing but benches, and ends: by an alarm if it has to.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: no preconditions.
            unsafe {
                libc::alarm(10);
                wake(&TOKEN);
                sleep(&TOKEN, 0, Some(crate::threads::clock() + 1000));
                libc::_exit(0);
            }
        }
        drop(let_go);
        sleeper.join().expect("it does not panic");
        let mut status = 0;
        // SAFETY: `status` is live.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0, "ended by the alarm: it waits for a thread that is not there");
    }
}
