//! How long a cache line takes from one CPU to another: two pinned threads pass a number to and fro.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

/// Beyond this many CPUs the pairs are too many to measure unasked.
pub(super) const FEW_CPUS: usize = 16;
/// Each pair is measured in so many short visits spread over the whole time, since a host may move virtual CPUs about.
const VISITS: usize = 3;
const VISIT: Duration = Duration::from_millis(4);
/// There-and-backs between two looks at the clock.
const BATCH: u32 = 200;

/// One way, in nanoseconds, between two CPUs.
#[derive(Debug, Serialize)]
pub(super) struct Pair {
    pub(super) cpus: [u32; 2],
    /// `None`: the two did not run at the same time while it was measured.
    pub(super) median_ns: Option<f64>,
    pub(super) least_ns: Option<f64>,
}

pub(super) fn measure(cpus: &[u32], mut step: impl FnMut()) -> Vec<Pair> {
    let pairs: Vec<[u32; 2]> =
        cpus.iter().enumerate().flat_map(|(i, &a)| cpus[i + 1..].iter().map(move |&b| [a, b])).collect();
    let mut times = vec![Vec::new(); pairs.len()];
    for _ in 0..VISITS {
        for (pair, times) in pairs.iter().zip(&mut times) {
            times.extend(visit(*pair));
            step();
        }
    }
    pairs
        .into_iter()
        .zip(times)
        .map(|(cpus, mut times)| {
            times.sort_by(f64::total_cmp);
            Pair { cpus, median_ns: times.get(times.len() / 2).copied(), least_ns: times.first().copied() }
        })
        .collect()
}

pub(super) fn steps(cpus: usize) -> u64 {
    (VISITS * cpus * cpus.saturating_sub(1) / 2) as u64
}

/// The line, alone in the two that a prefetcher fetches together.
#[repr(align(128))]
struct Ball(AtomicU32);

/// Nanoseconds one way, for each batch that was done in time.
fn visit([a, b]: [u32; 2]) -> Vec<f64> {
    let (ball, over) = (Ball(AtomicU32::new(0)), AtomicBool::new(false));
    // Waits for the ball to come with this number. False if time is over.
    let wait_for = |number| {
        while ball.0.load(Ordering::Acquire) != number {
            if over.load(Ordering::Relaxed) {
                return false;
            }
            std::hint::spin_loop();
        }
        true
    };
    thread::scope(|scope| {
        let pong = scope.spawn(|| {
            let pinned = pin(b);
            let mut number = 1;
            while pinned && wait_for(number) {
                ball.0.store(number + 1, Ordering::Release);
                number += 2;
            }
        });
        // Only this thread watches the clock, so that the other does nothing but answer; and it must watch also while
        // it waits for an answer, since the other's CPU may be busy with something else.
        let watch = scope.spawn(|| {
            thread::sleep(VISIT);
            over.store(true, Ordering::Relaxed);
        });
        let ping = scope.spawn(|| {
            let mut times = Vec::new();
            let mut number = 0;
            let mut pass = || {
                ball.0.store(number + 1, Ordering::Release);
                number += 2;
                wait_for(number)
            };
            // The first pass waits for the other thread to start.
            if !pin(a) || !pass() {
                return times;
            }
            loop {
                let start = Instant::now();
                if !(0..BATCH).all(|_| pass()) {
                    return times;
                }
                times.push(start.elapsed().as_nanos() as f64 / f64::from(2 * BATCH));
            }
        });
        let times = ping.join().unwrap_or_default();
        let _ = (watch.join(), pong.join());
        times
    })
}

/// Ties the calling thread to a CPU.
fn pin(cpu: u32) -> bool {
    let mut set = CpuSet::new();
    if cpu as usize >= CpuSet::MAX_CPU {
        return false;
    }
    set.set(cpu as usize);
    sched_setaffinity(None, &set).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_once() {
        let pairs = measure(&[], || ());
        assert!(pairs.is_empty());
        assert_eq!((steps(0), steps(1), steps(2), steps(16)), (0, 0, 3, 360));
    }

    #[test]
    fn a_cpu_that_is_not_there_has_no_time() {
        let mut seen = 0;
        let pairs = measure(&[0, 1_000_000], || seen += 1);
        assert_eq!((pairs.len(), seen), (1, 3));
        assert!(pairs[0].median_ns.is_none() && pairs[0].least_ns.is_none());
    }
}
