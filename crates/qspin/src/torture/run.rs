//! What all threads of a run share: the locks, a record for each worker, and how one lock is taken and watched.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::freed::Arena;
use super::naps::{Doing, Planned};
use super::random::Random;
use super::section::{FirstOverlap, Guarded, Who};
use super::sent::Post;
use crate::locks::Contender;

/// Locks that threads take.
pub(super) const THREAD_LOCKS: usize = 4;
/// Signals, each with a handler that may interrupt those before it. Two more than the four contexts that have queue
/// nodes: a waiter that comes through the pending lane uses none, and the nodes shall run out all the same.
pub(super) const SIGNALS: usize = 6;
/// Thread locks first, then one for each signal.
pub(super) const LOCKS: usize = THREAD_LOCKS + SIGNALS;
/// What counts for all the locks that are freed after use.
pub(super) const FREED: usize = LOCKS;

/// The lock that the handler of a signal takes. Threads take it only with the signals blocked, as a kernel takes a
/// lock that its interrupt handlers use: an owner that is interrupted would wait for itself.
pub(super) const fn lock_of_signal(level: u32) -> usize {
    THREAD_LOCKS + level as usize - 1
}

/// How a report calls a lock.
pub(super) fn lock_label(lock: usize) -> String {
    match lock {
        FREED => "a lock that is freed after use".to_owned(),
        _ if lock < THREAD_LOCKS => format!("lock {lock}"),
        _ => format!("the lock of signal {}", lock - THREAD_LOCKS + 1),
    }
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
    pub(super) timed: bool,
    pub(super) naps: bool,
    pub(super) lulls: bool,
    pub(super) freed: bool,
    pub(super) sending: bool,
    pub(super) long_hold_ns: u64,
}

/// A run. Lives as long as the process, since stuck threads cannot be asked to let go of it.
pub(super) struct Run<L> {
    pub(super) recipe: Recipe,
    pub(super) start: Instant,
    pub(super) locks: [Guarded<L>; LOCKS],
    /// One for each worker, which the threads that follow one another there share; then the pest's and the courier's.
    pub(super) places: Vec<Place>,
    pub(super) arena: Arena<L>,
    pub(super) post: Post,
    pub(super) overlap: FirstOverlap,
    /// When a thread may put itself to sleep again.
    pub(super) next_planned: AtomicU64,
    pub(super) stop: AtomicBool,
    /// Handlers go for their lock, all of them.
    pub(super) storm: AtomicBool,
    pub(super) threads_created: AtomicU32,
    /// Workers take no more locks, so that nobody comes by who would find what was lost.
    pub(super) lull: AtomicBool,
}

impl<L: Contender> Run<L> {
    pub(super) fn new(recipe: Recipe) -> Self {
        Self {
            recipe,
            start: Instant::now(),
            locks: std::array::from_fn(|_| Guarded::new()),
            places: (0..recipe.threads as u64 + 2).map(|i| Place::new(recipe.seed, i)).collect(),
            arena: Arena::new(),
            post: Post::default(),
            overlap: FirstOverlap::default(),
            next_planned: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            storm: AtomicBool::new(false),
            threads_created: AtomicU32::new(0),
            lull: AtomicBool::new(false),
        }
    }

    pub(super) fn workers(&self) -> &[Place] {
        &self.places[..self.recipe.threads]
    }

    pub(super) fn pest(&self) -> &Place {
        &self.places[self.recipe.threads]
    }

    pub(super) fn courier(&self) -> &Place {
        &self.places[self.recipe.threads + 1]
    }

    pub(super) fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Relaxed) || self.is_caught()
    }

    /// The lock has failed.
    pub(super) fn is_caught(&self) -> bool {
        self.overlap.count() > 0 || super::freed::touches().0 > 0
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
        self.locked_at(place, &self.locks[lock], lock, how, inside)
    }

    /// The same, of any lock that counts as `lock`.
    pub(super) fn locked_at(
        &self,
        place: &Place,
        guarded: &Guarded<L>,
        lock: usize,
        how: How,
        inside: &mut dyn FnMut(),
    ) -> bool {
        let me = place.who();
        let wanted = &place.wanted[me.level as usize];
        let asked = self.now();
        let nap = Planned::choose(self, place, lock, asked);
        let mut section = || {
            nap.end_acquire();
            self.enter(place, guarded, lock, me, asked);
            nap.in_section(place);
            inside();
            guarded.exit(lock, me, &self.overlap);
            place.held.fetch_and(!(1 << lock), Relaxed);
            place.leaving.fetch_or(1 << me.level, Relaxed);
            nap.begin_unlock(place);
        };
        if how != How::Try {
            wanted.store(lock as u32 + 1, Relaxed);
        }
        nap.begin_acquire(place);
        let taken = match how {
            How::Wait => {
                guarded.lock.with(section);
                true
            }
            How::Try => guarded.lock.try_with(&mut section).is_some(),
            How::WaitFor(most) => guarded.lock.with_for(most, &mut section).is_some(),
        };
        if taken {
            nap.end_unlock(self);
            place.leaving.fetch_and(!(1 << me.level), Relaxed);
        } else {
            nap.end_acquire();
            wanted.store(0, Relaxed);
        }
        taken
    }

    /// Takes a lock, runs `inside`, and leaves it to the courier to release. False if this lock has to be released by
    /// who took it.
    pub(super) fn send(&self, place: &Place, lock: usize, inside: &mut dyn FnMut()) -> bool {
        let guarded = &self.locks[lock];
        let Some(hand) = guarded.lock.by_hand() else { return false };
        let me = place.who();
        let asked = self.now();
        place.wanted[me.level as usize].store(lock as u32 + 1, Relaxed);
        hand.lock();
        self.enter(place, guarded, lock, me, asked);
        inside();
        place.held.fetch_and(!(1 << lock), Relaxed);
        self.post.send(lock, me);
        true
    }

    fn enter(&self, place: &Place, guarded: &Guarded<L>, lock: usize, me: Who, asked: u64) {
        place.waited(me.level, self.now().saturating_sub(asked));
        place.held.fetch_or(1 << lock, Relaxed);
        place.wanted[me.level as usize].store(0, Relaxed);
        guarded.enter(lock, me, &self.overlap);
        // Before the lock is free: whoever finds all threads joined finds the sums complete.
        place.acquired[lock].fetch_add(1, Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Wait,
    Try,
    /// Only of a lock that is timed.
    WaitFor(Duration),
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
    /// A bit for each level that is between the end of a section and the end of the unlock.
    pub(super) leaving: AtomicU32,
    pub(super) acquired: [AtomicU64; LOCKS + 1],
    /// By [`Doing`].
    pub(super) naps: [AtomicU64; 4],
    pub(super) sent_to_sleeper: AtomicU64,
    /// Unlocks with a sleep after each instruction.
    pub(super) crawls: AtomicU64,
    pub(super) timed_out: AtomicU64,
    /// In a lull, and not in a lock.
    pub(super) resting: AtomicBool,
    pub(super) random: Random,
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
            leaving: AtomicU32::new(0),
            acquired: [const { AtomicU64::new(0) }; LOCKS + 1],
            naps: [const { AtomicU64::new(0) }; 4],
            sent_to_sleeper: AtomicU64::new(0),
            crawls: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            resting: AtomicBool::new(false),
            random: Random::new(seed.wrapping_add(index.wrapping_mul(0xd1b5_4a32_d192_ed03))),
        }
    }

    pub(super) fn who(&self) -> Who {
        Who { thread: self.thread.load(Relaxed), level: self.level.load(Relaxed) }
    }

    fn waited(&self, level: u32, nanos: u64) {
        let longest = if level == 0 { &self.longest_wait } else { &self.longest_handler_wait };
        longest.fetch_max(nanos, Relaxed);
    }

    /// A number below `n`.
    pub(super) fn below(&self, n: u64) -> u64 {
        self.random.below(n)
    }

    /// True once in `n`.
    pub(super) fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// What its innermost context does, as far as this record says.
    pub(super) fn doing(&self) -> Doing {
        let level = self.level.load(Relaxed);
        if self.leaving.load(Relaxed) & 1 << level != 0 {
            Doing::Unlocking
        } else if self.wanted[level as usize].load(Relaxed) != 0 {
            Doing::Waiting
        } else if self.held.load(Relaxed) != 0 {
            Doing::Holding
        } else {
            Doing::Else
        }
    }

    /// Whether the scheduler has it asleep. `None` if it has no thread, or not any more.
    pub(super) fn is_asleep(&self) -> Option<bool> {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", self.tid.load(Relaxed))).ok()?;
        // The state follows the name, which is in parentheses and may hold some.
        stat.rsplit_once(") ").map(|(_, rest)| !rest.starts_with('R'))
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
