//! The record of a thread: written by it and by handlers on top of it, read by the watchdog.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::super::random::Random;
use super::super::section::Who;

/// Signals, each with a handler that may interrupt those before it.
pub(super) const LEVELS: usize = 4;

/// Locks whose bit there is room for.
const TRACKED: usize = 64;

/// What a context does with a lock.
#[derive(Default)]
pub(super) struct Step {
    /// Counts up when it begins and when it is over: odd in between.
    count: AtomicU64,
    lock: AtomicU32,
    limit_ns: AtomicU64,
}

/// A step that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Doing {
    pub(super) count: u64,
    pub(super) lock: usize,
    pub(super) limit: Duration,
}

#[repr(align(128))]
pub(super) struct Seat {
    index: u32,
    /// 0: none, or no signals any more.
    pub(super) tid: AtomicI32,
    /// The innermost handler's; 0, the thread itself.
    level: AtomicU32,
    steps: [Step; LEVELS + 1],
    /// For each level a bit for each lock that it may hold: set before it asks, cleared after it has released.
    maybe: [AtomicU64; LEVELS + 1],
    /// Locks that the thread itself holds for certain.
    pub(super) sure: AtomicU64,
    /// What its handlers ask for.
    pub(super) aim: AtomicU32,
    pub(super) acquired: AtomicU64,
    pub(super) tries_failed: AtomicU64,
    pub(super) deadlocks: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) longest_wait: AtomicU64,
    pub(super) handlers_sent: AtomicU64,
    pub(super) handlers_run: AtomicU64,
    pub(super) deepest: AtomicU32,
    depth: AtomicU32,
    pub(super) random: Random,
}

impl Seat {
    pub(super) fn new(seed: u64, index: usize) -> Self {
        let of_its_own = (index as u64 + 1).wrapping_mul(0xd1b5_4a32_d192_ed03);
        Self {
            index: index as u32,
            tid: AtomicI32::new(0),
            level: AtomicU32::new(0),
            steps: Default::default(),
            maybe: Default::default(),
            sure: AtomicU64::new(0),
            aim: AtomicU32::new(0),
            acquired: AtomicU64::new(0),
            tries_failed: AtomicU64::new(0),
            deadlocks: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            longest_wait: AtomicU64::new(0),
            handlers_sent: AtomicU64::new(0),
            handlers_run: AtomicU64::new(0),
            deepest: AtomicU32::new(0),
            depth: AtomicU32::new(0),
            random: Random::new(seed.wrapping_add(of_its_own)),
        }
    }

    pub(super) fn who(&self) -> Who {
        Who { thread: self.index + 1, level: self.level.load(Relaxed) }
    }

    /// A number below `n`.
    pub(super) fn below(&self, n: u64) -> u64 {
        self.random.below(n)
    }

    /// True once in `n`.
    pub(super) fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// From nothing to `most`, short ones as often as long ones.
    pub(super) fn up_to(&self, most: Duration) -> Duration {
        let bits = 1 + most.as_nanos().max(1).ilog2();
        Duration::from_nanos(self.below(1 << self.below(bits.into())))
    }

    pub(super) fn begin(&self, level: usize, lock: usize, limit: Duration) {
        let step = &self.steps[level];
        step.lock.store(lock as u32, Relaxed);
        step.limit_ns.store(limit.as_nanos() as u64, Relaxed);
        step.count.store(step.count.load(Relaxed) + 1, Relaxed);
    }

    pub(super) fn end(&self, level: usize) {
        let count = &self.steps[level].count;
        count.store(count.load(Relaxed) + 1, Relaxed);
    }

    /// What each of its contexts does with a lock just now.
    pub(super) fn doing(&self) -> [Option<Doing>; LEVELS + 1] {
        std::array::from_fn(|level| {
            let step = &self.steps[level];
            let count = step.count.load(Relaxed);
            (count % 2 == 1).then(|| Doing {
                count,
                lock: step.lock.load(Relaxed) as usize,
                limit: Duration::from_nanos(step.limit_ns.load(Relaxed)),
            })
        })
    }

    /// How many steps the thread itself has begun and ended.
    pub(super) fn steps(&self) -> u64 {
        self.steps[0].count.load(Relaxed)
    }

    /// Whether a context of this thread may hold a lock.
    pub(super) fn may_hold(&self, lock: usize) -> bool {
        lock >= TRACKED || self.maybe.iter().any(|level| level.load(Relaxed) >> lock & 1 != 0)
    }

    /// A level may hold a lock from now on. False if that was known.
    pub(super) fn note(&self, level: usize, lock: usize) -> bool {
        lock < TRACKED && self.maybe[level].fetch_or(1 << lock, Relaxed) >> lock & 1 == 0
    }

    /// It does not any more.
    pub(super) fn clear(&self, level: usize, lock: usize) {
        if lock < TRACKED {
            self.maybe[level].fetch_and(!(1 << lock), Relaxed);
        }
    }

    /// Runs a handler.
    pub(super) fn interrupted(&self, level: u32, handler: impl FnOnce()) {
        let interrupted = self.level.swap(level, Relaxed);
        let depth = self.depth.fetch_add(1, Relaxed) + 1;
        self.deepest.fetch_max(depth, Relaxed);
        handler();
        self.depth.fetch_sub(1, Relaxed);
        self.level.store(interrupted, Relaxed);
        self.handlers_run.fetch_add(1, Relaxed);
    }
}
