//! Why a lock was not taken.

use core::fmt;

use super::report::{Report, Ticket};

/// Why a lock was not taken. Nothing is held, nor waited for, by who was told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct LockError {
    kind: LockErrorKind,
    ticket: Ticket,
}

/// What kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LockErrorKind {
    /// The caller holds the lock already; or its owner waits for another lock, and so on round to one that the caller
    /// holds: a circle of up to [`LONGEST`](super::LONGEST) CPUs. Nobody in it would have gone on before one of them
    /// gives up.
    ///
    /// Each such error is true, but for one thing that a program can do: forget a guard and then *move* the lock that
    /// it was of. Another lock that comes to stand in its place may be taken for it.
    #[doc(alias = "EDEADLK")]
    Deadlock,
    /// The time is over. The owner takes long, has gone without unlocking, or waits for somebody outside of what
    /// resilient locks can see.
    #[doc(alias = "ETIMEDOUT")]
    TimedOut,
}

impl LockError {
    pub(super) const fn new(kind: LockErrorKind, ticket: Ticket) -> Self {
        Self { kind, ticket }
    }

    /// What kind of error it is.
    #[must_use]
    pub const fn kind(self) -> LockErrorKind {
        self.kind
    }

    /// Whether the lock would never have been had.
    #[must_use]
    pub const fn is_deadlock(self) -> bool {
        matches!(self.kind, LockErrorKind::Deadlock)
    }

    /// Whether the time was over.
    #[must_use]
    pub const fn is_timeout(self) -> bool {
        matches!(self.kind, LockErrorKind::TimedOut)
    }

    /// Who holds what and wants what, as it was then. `None` if so many errors have come since, or just then, that it
    /// is not known ([`KEPT`](crate::atomic::reports::KEPT)).
    ///
    /// It tells addresses and places in the source, and follows no pointer to a lock: the locks may be gone.
    #[must_use]
    pub fn report(self) -> Option<Report> {
        crate::atomic::reports::recall(self.ticket)
    }
}

impl fmt::Display for LockErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadlock => "deadlock",
            Self::TimedOut => "timed out",
        })
    }
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            LockErrorKind::Deadlock => f.write_str("the lock was not taken: that would have been a deadlock"),
            LockErrorKind::TimedOut => f.write_str("the lock was not taken: its owner has not released it in time"),
        }
    }
}

impl core::error::Error for LockError {}
