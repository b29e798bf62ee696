//! A lock that nobody else wants: hot in the caller's cache, or last used by another CPU.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

use super::cell::{Found, Order};
use super::clock::{ticks, ticks_in_order};
use super::crowd::cpu_time_ns;
use super::machine::{Line, pin};
use super::verdict::median;
use crate::locks::Contender;

/// Enough that reading the clock does not show.
const PAIRS_A_BATCH: u32 = 100_000;
const FEWEST_BATCHES: usize = 9;

/// Lock and unlock, nothing else, in batches; the median batch.
pub(super) fn hot<L: Contender>(order: &Order) -> Found {
    let lock = Line(L::new());
    if let Some(&cpu) = order.cpus.first() {
        pin(cpu);
    }
    let (cpu_start, start) = (cpu_time_ns(), ticks());
    let end = start + order.slice_ticks();
    let mut batches = Vec::new();
    while batches.len() < FEWEST_BATCHES || ticks() < end {
        let begun = ticks_in_order();
        pairs(&lock.0);
        batches.push((ticks_in_order() - begun) as f64 / f64::from(PAIRS_A_BATCH));
    }
    let acquisitions = batches.len() as u64 * u64::from(PAIRS_A_BATCH);
    let cpu_ns = (cpu_time_ns() - cpu_start) as f64;
    let pair = median(batches).unwrap_or(f64::NAN);
    Found {
        acquisitions,
        ops_per_s: order.clock.ticks_per_s / pair,
        ticks_per_pair: Some(pair),
        cpu_ns_per_op: Some(cpu_ns / acquisitions as f64),
        ..Found::default()
    }
}

// A function of its own, so that what surrounds it does not change how the loop is compiled.
#[inline(never)]
fn pairs<L: Contender>(lock: &L) {
    for _ in 0..PAIRS_A_BATCH {
        black_box(lock).with(|| black_box(()));
    }
}

/// Two CPUs take turns. The turn is a line of its own, passed after the unlock, so that the lock is free whenever it
/// is asked for and its line is where the other left it. Only lock and unlock are timed, not the turn.
pub(super) fn cold<L: Contender>(order: &Order) -> Found {
    let lock = Line(L::new());
    // The thread whose turn it is; or that it is over.
    const OVER: u32 = 2;
    let turn = Line(AtomicU32::new(0));
    let slice = order.slice_ticks();
    let player = |me: u32| {
        pin(order.cpus[me as usize]);
        let end = ticks() + slice;
        let mut samples = Vec::with_capacity(1 << 16);
        let mut acquisitions = 0;
        loop {
            let mut seen = turn.0.load(Ordering::Acquire);
            while seen == 1 - me {
                std::hint::spin_loop();
                seen = turn.0.load(Ordering::Acquire);
            }
            if seen == OVER {
                return (samples, acquisitions);
            }
            let begun = ticks_in_order();
            lock.0.with(|| ());
            let took = ticks_in_order() - begun;
            acquisitions += 1;
            if samples.len() < samples.capacity() {
                samples.push(took as f64);
            }
            let next = if begun >= end { OVER } else { 1 - me };
            turn.0.store(next, Ordering::Release);
        }
    };
    let (samples, acquisitions) = std::thread::scope(|scope| {
        let other = scope.spawn(|| player(1));
        let one = scope.spawn(|| player(0));
        let (mut samples, own) = one.join().expect("a player does not panic");
        let (others_samples, others) = other.join().expect("a player does not panic");
        samples.extend(others_samples);
        (samples, own + others)
    });
    let pair = (midmean(samples).unwrap_or(f64::NAN) - cost_of_timing()).max(1.0);
    Found { acquisitions, ops_per_s: order.clock.ticks_per_s / pair, ticks_per_pair: Some(pair), ..Found::default() }
}

/// What timing nothing takes.
fn cost_of_timing() -> f64 {
    let empty = |_| {
        let begun = ticks_in_order();
        (ticks_in_order() - begun) as f64
    };
    midmean((0..1001).map(empty).collect()).unwrap_or(0.0)
}

/// The mean of the middle half. Virtual machines have tick counters that step by tens of ticks: a median would only
/// ever be one of a few values, and a mean is at the mercy of one interrupt.
fn midmean(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let quarter = values.len() / 4;
    let middle = &values[quarter..values.len() - quarter];
    (!middle.is_empty()).then(|| middle.iter().sum::<f64>() / middle.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::midmean;

    #[test]
    fn midmean_ignores_the_extremes() {
        assert_eq!(midmean(vec![1e9, 2.0, 4.0, -1e9]), Some(3.0));
        assert_eq!(midmean(vec![5.0]), Some(5.0));
        assert_eq!(midmean(vec![]), None);
    }
}
