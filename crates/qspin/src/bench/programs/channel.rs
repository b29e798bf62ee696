//! Jobs through a bounded channel of futures-intrusive, which is a ring buffer and two lists of wakers under one lock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_intrusive::buffer::FixedHeapBuf;
use futures_intrusive::channel::shared::{GenericReceiver, GenericSender, generic_channel};
use pollster::block_on;

use crate::bench::cell::{Found, Order};
use crate::bench::clock::ticks;
use crate::bench::crowd::{found, play};

/// Jobs that wait at most.
const CAPACITY: usize = 128;

/// When it was offered, and what tells it from others.
type Job = (u64, u64);
type Buffer = FixedHeapBuf<Job>;

/// An end of the channel, for one thread.
enum End<R: lock_api_04::RawMutex + Send + Sync + 'static> {
    Offers(GenericSender<R, Job, Buffer>),
    Works(GenericReceiver<R, Job, Buffer>),
}

/// An operation is a job that is taken; it has waited since it was offered. Half of the threads offer, the others take.
pub(super) fn run<R: lock_api_04::RawMutex + Send + Sync + 'static>(order: &Order) -> Found {
    let (sender, receiver) = generic_channel::<R, Job, Buffer>(CAPACITY);
    let offering = order.cell.threads / 2;
    let end = |index| if index < offering { End::Offers(sender.clone()) } else { End::Works(receiver.clone()) };
    let ends: Vec<_> = (0..order.cell.threads).map(|index| Mutex::new(Some(end(index)))).collect();
    // From now on the channel closes when the last thread that offers is done.
    drop((sender, receiver));
    let (offered, taken) = (AtomicU64::new(0), AtomicU64::new(0));
    let tallies = play(order, |player| {
        let end = ends[player.index].lock().expect("nobody panics").take();
        match end.expect("each thread has an end of its own") {
            End::Offers(sender) => {
                let mut sum = 0_u64;
                while let Some(asked) = player.ask() {
                    let job = (asked, player.random.draw());
                    block_on(sender.send(job)).expect("the channel is open while there is one who takes");
                    sum = sum.wrapping_add(fingerprint(job));
                    player.think();
                }
                offered.fetch_add(sum, Ordering::Relaxed);
            }
            End::Works(receiver) => {
                let mut sum = 0_u64;
                while let Some(job) = block_on(receiver.receive()) {
                    player.had(job.0, ticks());
                    sum = sum.wrapping_add(fingerprint(job));
                    player.think();
                }
                taken.fetch_add(sum, Ordering::Relaxed);
            }
        }
    });
    let all_there = offered.into_inner() == taken.into_inner();
    let mut found = found(order, &tallies, all_there);
    // Shares are of those who take: the others get nothing.
    found.counts.drain(..offering);
    found
}

/// Odd, so that one job more or less shows in a sum.
fn fingerprint(job: Job) -> u64 {
    (job.0 ^ job.1.rotate_left(17)) | 1
}
