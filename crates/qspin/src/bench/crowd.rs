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
pub(super) struct Tally {
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
    let shared = Shared { lock: Line(L::new()), counter: Line(Counter::default()), section: Line(section) };
    let tallies = play(order, |player| {
        loop {
            let draw = player.random.draw();
            let Some(asked) = player.ask() else { break };
            let mut entered = 0;
            shared.lock.0.with(|| {
                entered = ticks();
                shared.counter.0.bump();
                // SAFETY: in the lock. (One that does not exclude is run with sections that touch nothing.)
                unsafe { shared.section.0.work(entered, draw) };
            });
            player.had(asked, entered);
            player.think();
        }
    });
    let done: u64 = tallies.iter().map(|t| t.done).sum();
    found(order, &tallies, shared.counter.0.0.load(Ordering::Relaxed) == done)
}

/// Runs the cell's threads, each at its `work` until time is up.
pub(super) fn play(order: &Order, work: impl Fn(&mut Player) + Sync) -> Vec<Tally> {
    let threads = order.cell.threads;
    let gates = Gates { ready: Barrier::new(threads), go: Barrier::new(threads), start: AtomicU64::new(0) };
    std::thread::scope(|scope| {
        let spawn = |index| {
            let (gates, work) = (&gates, &work);
            scope.spawn(move || run_thread(order, gates, index, work))
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread does not panic")).collect()
    })
}

/// What all threads have to tell together.
pub(super) fn found(order: &Order, tallies: &[Tally], excluded_ok: bool) -> Found {
    let mut waits = histogram();
    for tally in tallies {
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
        excluded_ok: Some(excluded_ok),
    }
}

/// Where the threads meet: when all are in place, and when the time is known.
struct Gates {
    ready: Barrier,
    go: Barrier,
    start: AtomicU64,
}

/// One of the threads, at work.
pub(super) struct Player {
    pub(super) index: usize,
    pub(super) random: Random,
    think: u64,
    end: u64,
    tally: Tally,
}

impl Player {
    /// The time at which it asks; `None` when time is up. To be called before each acquire, so that after the end a
    /// thread waits at most once more: even a queue of many threads drains.
    #[inline]
    pub(super) fn ask(&self) -> Option<u64> {
        let now = ticks();
        (now < self.end).then_some(now)
    }

    /// It got at `entered` what it had asked for at `asked`.
    #[inline]
    pub(super) fn had(&mut self, asked: u64, entered: u64) {
        self.tally.done += 1;
        self.tally.in_time += u64::from(entered <= self.end);
        self.tally.waits.saturating_record(entered.saturating_sub(asked));
    }

    /// Does something else for a while.
    #[inline]
    pub(super) fn think(&mut self) {
        if self.think > 0 {
            busy_until(ticks() + self.random.around(self.think));
        }
    }
}

fn run_thread(order: &Order, gates: &Gates, index: usize, work: &impl Fn(&mut Player)) -> Tally {
    let cell = &order.cell;
    let pinned = cell.is_pinned(order.cpus.len());
    if pinned {
        pin(order.cpus[index]);
    }
    let mut player = Player {
        index,
        random: Random::new(order.seed, index as u64),
        think: order.clock.ticks(Duration::from_nanos(cell.think_ns.unwrap_or(0).into())),
        end: 0,
        tally: Tally { done: 0, in_time: 0, waits: histogram(), cpu_ns: 0 },
    };
    if gates.ready.wait().is_leader() {
        // A little later, so that those on CPUs of their own start at the same moment.
        gates.start.store(ticks() + order.clock.ticks(Duration::from_micros(200)), Ordering::Relaxed);
    }
    gates.go.wait();
    let start = gates.start.load(Ordering::Relaxed);
    player.end = start + order.slice_ticks();
    if pinned {
        busy_until(start);
    }
    let cpu_start = cpu_time_ns();
    work(&mut player);
    player.tally.cpu_ns = cpu_time_ns() - cpu_start;
    player.tally
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
