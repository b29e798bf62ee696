//! Several threads and one lock: each asks, has it for a section, and thinks, until time is up.
//!
//! The lock, the counter that shows whether it excludes, and what a section works on are lines of their own, side by
//! side. So a hand-off moves the lock's line and the data's, as it does in a program whose lock is not packed together
//! with its data, and the same for all locks.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use super::cell::{Found, Order};
use super::clock::{Clock, Random, busy_until, ticks};
use super::machine::{Line, pin};
use super::row::Wait;
use crate::locks::Contender;

/// What a thread does while it has the lock.
pub(super) trait Section: Sync {
    /// `entered` is when the thread had the lock, `draw` a random number.
    ///
    /// # Safety
    /// One thread at a time: the caller has the lock.
    unsafe fn work(&self, entered: u64, draw: u64);
}

/// Works for so many ticks, on nothing.
pub(super) struct Busy(u64);

impl Busy {
    pub(super) fn new(clock: Clock, ns: u32) -> Self {
        Self(clock.ticks(Duration::from_nanos(ns.into())))
    }
}

impl Section for Busy {
    #[inline]
    unsafe fn work(&self, entered: u64, _draw: u64) {
        if self.0 > 0 {
            busy_until(entered + self.0);
        }
    }
}

/// Counts with a load and a store, so that two threads at the same time lose counts. Atomic only so that a lock which
/// fails is a wrong number and not undefined behaviour; the instructions are those of a plain counter.
#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn bump(&self) {
        self.0.store(self.0.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

#[repr(C)]
struct Shared<L, S> {
    lock: Line<L>,
    counter: Line<Counter>,
    section: Line<S>,
}

/// What one thread has to tell.
struct Tally {
    /// All acquisitions.
    done: u64,
    /// Those before time was up.
    in_time: u64,
    waits: Histogram<u32>,
    cpu_ns: u64,
}

/// Two digits are enough to compare tails, and keep the histogram in the cache. Up to some hundred seconds: the parent
/// kills a child that waits for longer. Recording never resizes it.
fn histogram() -> Histogram<u32> {
    Histogram::new_with_max(1 << 40, 2).expect("two digits are allowed")
}

/// Runs the cell's threads on a lock of type `L`.
pub(super) fn race<L: Contender, S: Section>(order: &Order, section: S) -> Found {
    let threads = order.cell.threads;
    let shared = Shared { lock: Line(L::new()), counter: Line(Counter::default()), section: Line(section) };
    let gates = Gates { ready: Barrier::new(threads), go: Barrier::new(threads), start: AtomicU64::new(0) };
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let spawn = |index| {
            let (shared, gates) = (&shared, &gates);
            scope.spawn(move || run_thread(order, shared, gates, index))
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread does not panic")).collect()
    });
    let mut waits = histogram();
    for tally in &tallies {
        waits.add(&tally.waits).expect("histograms of one kind add up");
    }
    let done: u64 = tallies.iter().map(|t| t.done).sum();
    let in_time: u64 = tallies.iter().map(|t| t.in_time).sum();
    let cpu_ns: u64 = tallies.iter().map(|t| t.cpu_ns).sum();
    let ns = |ticks: u64| order.clock.ns(ticks as f64);
    let wait = Wait {
        p50: ns(waits.value_at_quantile(0.5)),
        p99: ns(waits.value_at_quantile(0.99)),
        p999: ns(waits.value_at_quantile(0.999)),
        max: ns(waits.max()),
    };
    Found {
        acquisitions: done,
        ops_per_s: in_time as f64 / order.slice_s,
        ticks_per_pair: None,
        counts: tallies.iter().map(|t| t.in_time).collect(),
        wait: (!waits.is_empty()).then_some(wait),
        cpu_ns_per_op: (done > 0).then(|| cpu_ns as f64 / done as f64),
        excluded_ok: Some(shared.counter.0.0.load(Ordering::Relaxed) == done),
    }
}

/// Where the threads meet: when all are in place, and when the time is known.
struct Gates {
    ready: Barrier,
    go: Barrier,
    start: AtomicU64,
}

fn run_thread<L: Contender, S: Section>(order: &Order, shared: &Shared<L, S>, gates: &Gates, index: usize) -> Tally {
    let cell = &order.cell;
    let pinned = cell.is_pinned(order.cpus.len());
    if pinned {
        pin(order.cpus[index]);
    }
    let mut random = Random::new(order.seed, index as u64);
    let think = order.clock.ticks(Duration::from_nanos(cell.think_ns.unwrap_or(0).into()));
    let mut tally = Tally { done: 0, in_time: 0, waits: histogram(), cpu_ns: 0 };
    if gates.ready.wait().is_leader() {
        // A little later, so that those on CPUs of their own start at the same moment.
        gates.start.store(ticks() + order.clock.ticks(Duration::from_micros(200)), Ordering::Relaxed);
    }
    gates.go.wait();
    let start = gates.start.load(Ordering::Relaxed);
    let end = start + order.slice_ticks();
    if pinned {
        busy_until(start);
    }
    let cpu_start = cpu_time_ns();
    loop {
        let draw = random.draw();
        let asked = ticks();
        // Looked at before each acquire, so that after the end a thread waits at most once more: even a queue of many
        // threads drains.
        if asked >= end {
            break;
        }
        let mut entered = 0;
        shared.lock.0.with(|| {
            entered = ticks();
            shared.counter.0.bump();
            // SAFETY: in the lock. (One that does not exclude is run with sections that touch nothing.)
            unsafe { shared.section.0.work(entered, draw) };
        });
        tally.done += 1;
        tally.in_time += u64::from(entered <= end);
        tally.waits.saturating_record(entered.saturating_sub(asked));
        if think > 0 {
            busy_until(ticks() + random.around(think));
        }
    }
    tally.cpu_ns = cpu_time_ns() - cpu_start;
    tally
}

/// CPU time that this thread has used.
pub(super) fn cpu_time_ns() -> u64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_and_lock_are_on_lines_of_their_own() {
        type Packed = Shared<u8, ()>;
        assert_eq!(std::mem::offset_of!(Packed, counter), 128);
        assert_eq!(std::mem::offset_of!(Packed, section), 256);
        assert_eq!(std::mem::align_of::<Packed>(), 128);
    }
}
