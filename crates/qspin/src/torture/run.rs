//! What all threads of a run share: the locks, a record for each worker, and how one lock is taken and watched.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::section::{FirstOverlap, Guarded, Who};
use crate::locks::Contender;

/// Locks that threads take.
pub(super) const THREAD_LOCKS: usize = 4;
/// Signals, each with a handler that may interrupt those before it. Two more than the four contexts that have queue
/// nodes: a waiter that comes through the pending lane uses none, and the nodes shall run out all the same.
pub(super) const SIGNALS: usize = 6;
/// Thread locks first, then one for each signal.
pub(super) const LOCKS: usize = THREAD_LOCKS + SIGNALS;

/// The lock that the handler of a signal takes. Threads take it only with the signals blocked, as a kernel takes a
/// lock that its interrupt handlers use: an owner that is interrupted would wait for itself.
pub(super) const fn lock_of_signal(level: u32) -> usize {
    THREAD_LOCKS + level as usize - 1
}

/// How a report calls a lock.
pub(super) fn lock_label(lock: usize) -> String {
    if lock < THREAD_LOCKS { format!("lock {lock}") } else { format!("the lock of signal {}", lock - THREAD_LOCKS + 1) }
}

/// What to do to the lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recipe {
    pub(super) threads: usize,
    pub(super) seed: u64,
    pub(super) signals: bool,
    pub(super) handlers_wait: bool,
    pub(super) churn: bool,
    pub(super) nesting: bool,
    pub(super) trylock: bool,
    pub(super) long_hold_ns: u64,
}

/// A run. Lives as long as the process, since stuck threads cannot be asked to let go of it.
pub(super) struct Run<L> {
    pub(super) recipe: Recipe,
    pub(super) start: Instant,
    pub(super) locks: [Guarded<L>; LOCKS],
    /// One for each worker, which the threads that follow one another there share; the last is the pest's.
    pub(super) places: Vec<Place>,
    pub(super) overlap: FirstOverlap,
    pub(super) stop: AtomicBool,
    /// Handlers go for their lock, all of them.
    pub(super) storm: AtomicBool,
    pub(super) threads_created: AtomicU32,
}

impl<L: Contender> Run<L> {
    pub(super) fn new(recipe: Recipe) -> Self {
        Self {
            recipe,
            start: Instant::now(),
            locks: std::array::from_fn(|_| Guarded::new()),
            places: (0..=recipe.threads as u64).map(|i| Place::new(recipe.seed, i)).collect(),
            overlap: FirstOverlap::default(),
            stop: AtomicBool::new(false),
            storm: AtomicBool::new(false),
            threads_created: AtomicU32::new(0),
        }
    }

    pub(super) fn workers(&self) -> &[Place] {
        &self.places[..self.recipe.threads]
    }

    pub(super) fn pest(&self) -> &Place {
        &self.places[self.recipe.threads]
    }

    pub(super) fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Relaxed) || self.overlap.count() > 0
    }

    /// Keeps the CPU busy for so long. Not a sleep: who holds a spinlock does not sleep.
    pub(super) fn spin(&self, nanos: u64) {
        let until = self.now() + nanos;
        while self.now() < until {
            std::hint::spin_loop();
        }
    }

    /// Takes a lock, checks that nobody else is in, runs `inside`. False if it was only tried and not had.
    pub(super) fn locked(&self, place: &Place, lock: usize, how: How, inside: &mut dyn FnMut()) -> bool {
        let me = place.who();
        let guarded = &self.locks[lock];
        let wanted = &place.wanted[me.level as usize];
        let asked = self.now();
        let mut section = || {
            place.waited(me.level, self.now().saturating_sub(asked));
            place.held.fetch_or(1 << lock, Relaxed);
            wanted.store(0, Relaxed);
            guarded.enter(lock, me, &self.overlap);
            inside();
            guarded.exit(lock, me, &self.overlap);
            place.held.fetch_and(!(1 << lock), Relaxed);
            // Before the lock is free: whoever finds all threads joined finds the sums complete.
            place.acquired[lock].fetch_add(1, Relaxed);
        };
        match how {
            How::Wait => {
                wanted.store(lock as u32 + 1, Relaxed);
                guarded.lock.with(section);
                true
            }
            How::Try => guarded.lock.try_with(&mut section).is_some(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Wait,
    Try,
}

/// The record of a worker. Written by its thread and by handlers on top of it, read by the supervisor: relaxed
/// atomics, no order is concluded from them.
#[repr(align(128))]
pub(super) struct Place {
    /// The number of the thread that is here now; 0, none.
    pub(super) thread: AtomicU32,
    pub(super) tid: AtomicI32,
    pub(super) cpu_clock: AtomicI32,
    /// Locks taken by the thread itself, its handlers apart: what progress and fairness are judged by.
    pub(super) turns: AtomicU64,
    pub(super) tries_failed: AtomicU64,
    pub(super) longest_wait: AtomicU64,
    pub(super) longest_handler_wait: AtomicU64,
    pub(super) handlers_sent: AtomicU64,
    pub(super) handlers_run: AtomicU64,
    /// Handlers one within the other now, and at most.
    pub(super) depth: AtomicU32,
    pub(super) deepest: AtomicU32,
    /// The level of the innermost handler.
    pub(super) level: AtomicU32,
    /// A bit for each lock.
    pub(super) held: AtomicU32,
    /// For each level the lock it waits for, + 1.
    pub(super) wanted: [AtomicU32; SIGNALS + 1],
    pub(super) acquired: [AtomicU64; LOCKS],
    random: AtomicU64,
}

impl Place {
    fn new(seed: u64, index: u64) -> Self {
        Self {
            thread: AtomicU32::new(0),
            tid: AtomicI32::new(0),
            cpu_clock: AtomicI32::new(0),
            turns: AtomicU64::new(0),
            tries_failed: AtomicU64::new(0),
            longest_wait: AtomicU64::new(0),
            longest_handler_wait: AtomicU64::new(0),
            handlers_sent: AtomicU64::new(0),
            handlers_run: AtomicU64::new(0),
            depth: AtomicU32::new(0),
            deepest: AtomicU32::new(0),
            level: AtomicU32::new(0),
            held: AtomicU32::new(0),
            wanted: [const { AtomicU32::new(0) }; SIGNALS + 1],
            acquired: [const { AtomicU64::new(0) }; LOCKS],
            random: AtomicU64::new(seed.wrapping_add(index.wrapping_mul(0xd1b5_4a32_d192_ed03))),
        }
    }

    pub(super) fn who(&self) -> Who {
        Who { thread: self.thread.load(Relaxed), level: self.level.load(Relaxed) }
    }

    fn waited(&self, level: u32, nanos: u64) {
        let longest = if level == 0 { &self.longest_wait } else { &self.longest_handler_wait };
        longest.fetch_max(nanos, Relaxed);
    }

    /// A number below `n`. SplitMix64 on a counter in the record, so that handlers may draw as well.
    pub(super) fn below(&self, n: u64) -> u64 {
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(z ^ (z >> 31)) * u128::from(n)) >> 64) as u64
    }

    /// True once in `n`.
    pub(super) fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// What the thread holds and waits for, in words.
    pub(super) fn state(&self) -> String {
        let mut said = Vec::new();
        let held = self.held.load(Relaxed);
        let holds: Vec<_> = (0..LOCKS).filter(|lock| held & 1 << lock != 0).map(lock_label).collect();
        if !holds.is_empty() {
            said.push(format!("holds {}", holds.join(", ")));
        }
        for (level, wanted) in self.wanted.iter().enumerate() {
            if let Some(lock) = (wanted.load(Relaxed) as usize).checked_sub(1) {
                let inside = if level == 0 { String::new() } else { format!(" in the handler of signal {level}") };
                said.push(format!("waits for {}{inside}", lock_label(lock)));
            }
        }
        if said.is_empty() { "neither holds nor waits".into() } else { said.join("; ") }
    }
}
