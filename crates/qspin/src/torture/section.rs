//! The critical section, and what tells that two were in it at once.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;

use crate::locks::Contender;

/// A context that can be in a critical section: a thread, or a signal handler on top of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Who {
    /// Threads are numbered from 1 as they are created.
    pub(super) thread: u32,
    /// 0: the thread itself. Else the level of the signal whose handler it is.
    pub(super) level: u32,
}

impl Who {
    /// In one word, which is 0 for nobody.
    fn code(self) -> u64 {
        u64::from(self.thread) << 32 | u64::from(self.level)
    }

    fn from_code(code: u64) -> Option<Self> {
        (code != 0).then_some(Self { thread: (code >> 32) as u32, level: code as u32 })
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.level {
            0 => write!(f, "thread {}", self.thread),
            level => write!(f, "thread {} (handler of signal {level})", self.thread),
        }
    }
}

/// A lock and what it guards.
#[repr(align(128))]
pub(super) struct Guarded<L> {
    pub(super) lock: L,
    owner: UnsafeCell<u64>,
    entries: UnsafeCell<u64>,
    exits: UnsafeCell<u64>,
}

// SAFETY: the plain fields are accessed under the lock alone. A lock that does not exclude makes that a data race,
// which is what this is here to show: the accesses are volatile, so that they are done as written.
unsafe impl<L: Sync> Sync for Guarded<L> {}

impl<L: Contender> Guarded<L> {
    pub(super) fn new() -> Self {
        Self::by(L::new())
    }
}

impl<L> Guarded<L> {
    /// Data that this lock guards.
    pub(super) fn by(lock: L) -> Self {
        Self { lock, owner: 0.into(), entries: 0.into(), exits: 0.into() }
    }

    /// Call with the lock held. What is found wrong goes to `first`.
    pub(super) fn enter(&self, index: usize, me: Who, first: &FirstOverlap) {
        // SAFETY: the lock is held.
        let (owner, entries, exits) = unsafe {
            (self.owner.get().read_volatile(), self.entries.get().read_volatile(), self.exits.get().read_volatile())
        };
        if let Some(other) = Who::from_code(owner) {
            first.record(index, me, Some(other), Kind::EnteredOver);
        } else if entries != exits {
            first.record(index, me, None, Kind::HalfDone);
        }
        // SAFETY: the lock is held.
        unsafe {
            self.owner.get().write_volatile(me.code());
            self.entries.get().write_volatile(entries + 1);
        }
    }

    /// Call with the lock held, after [`Self::enter`].
    pub(super) fn exit(&self, index: usize, me: Who, first: &FirstOverlap) {
        // SAFETY: the lock is held.
        let (owner, exits) = unsafe { (self.owner.get().read_volatile(), self.exits.get().read_volatile()) };
        if owner != me.code() {
            first.record(index, me, Who::from_code(owner), Kind::OwnerReplaced);
        }
        // SAFETY: the lock is held.
        unsafe {
            self.exits.get().write_volatile(exits + 1);
            self.owner.get().write_volatile(0);
        }
    }

    /// Call with the lock held: it is the last section, after so many others. What is found wrong goes to `first`.
    pub(super) fn expect(&self, others: u64, index: usize, me: Who, first: &FirstOverlap) {
        // SAFETY: the lock is held.
        let exits = unsafe { self.exits.get().read_volatile() };
        if exits != others {
            first.record(index, me, None, Kind::HalfDone);
        }
    }

    /// How often the section was entered and left, by the plain counters. Call when all threads are joined.
    pub(super) fn totals(&self) -> (u64, u64) {
        // SAFETY: nobody else is left.
        unsafe { (self.entries.get().read_volatile(), self.exits.get().read_volatile()) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    EnteredOver,
    HalfDone,
    OwnerReplaced,
}

/// Two in one section.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Overlap {
    pub(super) lock: usize,
    pub(super) me: Who,
    pub(super) other: Option<Who>,
    pub(super) kind: Kind,
}

impl Overlap {
    /// `lock` is how the report calls the lock.
    pub(super) fn message(&self, lock: &str) -> String {
        let me = self.me;
        let other = self.other.map_or("another thread".to_owned(), |who| who.to_string());
        match self.kind {
            Kind::EnteredOver => format!("{me} got {lock} while {other} was in its critical section"),
            Kind::HalfDone => format!("{me} got {lock} and found its data half updated"),
            Kind::OwnerReplaced => format!("{other} was in the critical section of {lock} while {me} held it"),
        }
    }
}

/// The first overlap, and how many there were. Written by signal handlers too: no lock, no allocation.
#[derive(Default)]
pub(super) struct FirstOverlap {
    count: AtomicU64,
    ready: AtomicBool,
    place: AtomicU64,
    me: AtomicU64,
    other: AtomicU64,
}

impl FirstOverlap {
    #[cold]
    fn record(&self, lock: usize, me: Who, other: Option<Who>, kind: Kind) {
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            self.place.store((lock as u64) << 8 | kind as u64, Ordering::Relaxed);
            self.me.store(me.code(), Ordering::Relaxed);
            self.other.store(other.map_or(0, Who::code), Ordering::Relaxed);
            self.ready.store(true, Ordering::Release);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn get(&self) -> Option<Overlap> {
        self.ready.load(Ordering::Acquire).then(|| {
            let place = self.place.load(Ordering::Relaxed);
            Overlap {
                lock: (place >> 8) as usize,
                me: Who::from_code(self.me.load(Ordering::Relaxed)).unwrap_or(Who { thread: 0, level: 0 }),
                other: Who::from_code(self.other.load(Ordering::Relaxed)),
                kind: [Kind::EnteredOver, Kind::HalfDone, Kind::OwnerReplaced][(place & 0xff) as usize],
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Who = Who { thread: 1, level: 0 };
    const B: Who = Who { thread: 2, level: 3 };

    fn guarded() -> Guarded<std::sync::Mutex<()>> {
        Guarded::new()
    }

    #[test]
    fn one_after_the_other_is_fine() {
        let (section, first) = (guarded(), FirstOverlap::default());
        for who in [A, B, A] {
            section.enter(0, who, &first);
            section.exit(0, who, &first);
        }
        assert_eq!((section.totals(), first.count()), ((3, 3), 0));
        assert!(first.get().is_none());
    }

    #[test]
    fn two_at_once_are_seen_from_both_sides() {
        let (section, first) = (guarded(), FirstOverlap::default());
        section.enter(7, A, &first);
        section.enter(7, B, &first);
        let seen = first.get().expect("recorded");
        assert_eq!((seen.lock, seen.me, seen.other, seen.kind), (7, B, Some(A), Kind::EnteredOver));
        assert_eq!(
            seen.message("lock 7"),
            "thread 2 (handler of signal 3) got lock 7 while thread 1 was in its critical section"
        );
        section.exit(7, A, &first);
        assert_eq!(first.count(), 2, "the first owner finds itself replaced");
    }

    #[test]
    fn a_lost_update_is_seen() {
        let (section, first) = (guarded(), FirstOverlap::default());
        section.enter(0, A, &first);
        section.enter(0, B, &first);
        section.exit(0, B, &first);
        let after = FirstOverlap::default();
        section.enter(0, A, &after);
        assert_eq!(after.get().map(|o| o.kind), Some(Kind::HalfDone));
    }
}
