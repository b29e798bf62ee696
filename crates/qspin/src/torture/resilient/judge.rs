//! What was found wrong first. Recorded by signal handlers too: no lock, no allocation.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};

use qspinlock::LockError;

use super::super::section::Who;

/// What is wrong, beside two in one section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A deadlock was reported where none can be.
    FalseDeadlock,
    /// A deadlock was reported before its circle was closed.
    Early,
    /// The report names another lock, another thread, or another circle.
    WrongReport,
    /// A time-out, where the limit is far away.
    TimedOut,
    /// A time-out, where a deadlock is to be reported.
    ByTime,
    /// A lock was had that its taker holds already, or that is held for ever.
    LetIn,
    /// All threads of a circle have gone on, and none was told.
    NotTold,
    /// A lock is taken, though all have released it.
    Left,
    /// Not as many locks were left behind by threads that ended as have been.
    Orphans,
    /// A thread's slot is taken, though the thread has ended.
    Slots,
    /// The data of the locks count fewer sections than there were.
    Lost,
}

impl What {
    fn words(self) -> &'static str {
        match self {
            Self::FalseDeadlock => "was told of a deadlock where none can be",
            Self::Early => "was told of a deadlock before its circle was closed",
            Self::WrongReport => "was given a report that is not of what it asked for",
            Self::TimedOut => "was told that its time is over, long before it was",
            Self::ByTime => "was told that its time is over, where it should have been told of a deadlock",
            Self::LetIn => "was let in, though the lock was held",
            Self::NotTold => "closed a circle, and nobody was told",
            Self::Left => "found the lock taken, though all had released it",
            Self::Orphans => "counted other locks left behind by threads than there were",
            Self::Slots => "found slots taken by threads that had ended",
            Self::Lost => "found an update lost: two were in one section",
        }
    }
}

/// Something wrong.
#[derive(Clone, Copy)]
pub(super) struct Fault {
    pub(super) what: What,
    pub(super) who: Who,
    pub(super) lock: Option<usize>,
    pub(super) error: Option<LockError>,
}

impl Fault {
    pub(super) fn message(&self) -> String {
        let lock = self.lock.map_or(String::new(), |lock| format!(" (lock {lock})"));
        let report = match self.error.and_then(LockError::report) {
            Some(report) => format!("\n{report}"),
            None => String::new(),
        };
        format!("{} {}{lock}{report}", self.who, self.what.words())
    }
}

/// The first fault.
#[derive(Default)]
pub(super) struct Judge {
    claimed: AtomicBool,
    ready: AtomicBool,
    first: UnsafeCell<Option<Fault>>,
}

// SAFETY: written once, by who has claimed it, and read only when that is done.
unsafe impl Sync for Judge {}

impl Judge {
    #[cold]
    pub(super) fn record(&self, fault: Fault) {
        if !self.claimed.swap(true, Ordering::Relaxed) {
            // SAFETY: nobody else comes here, and nobody reads yet.
            unsafe { *self.first.get() = Some(fault) };
            self.ready.store(true, Ordering::Release);
        }
    }

    pub(super) fn has_any(&self) -> bool {
        self.claimed.load(Ordering::Relaxed)
    }

    pub(super) fn first(&self) -> Option<Fault> {
        // SAFETY: it is not written any more.
        self.ready.load(Ordering::Acquire).then(|| unsafe { *self.first.get() }).flatten()
    }
}
