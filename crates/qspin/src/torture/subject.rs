//! What can be tortured: every lock that has a name, and some that exist only to see that they are caught.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::planted::{Careless, Deaf};
use super::witness::{Looks, Witnessed};
use crate::locks::{Contender, LockJob, LockName};

/// A lock under torture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Lock(LockName),
    /// Stops being unlocked after a while. Not listed: it is there for the tests of this command.
    Stuck,
    /// Touches itself after its release. Not listed either.
    Late,
    /// Does not always wake who it says it wakes. Nor this one.
    Deaf,
    /// Wakes nobody. Nor this one.
    Careless,
}

impl Subject {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lock(lock) => lock.name(),
            Self::Stuck => "stuck",
            Self::Late => "late",
            Self::Deaf => "deaf",
            Self::Careless => "careless",
        }
    }

    pub(super) fn is_fair(self) -> bool {
        matches!(self, Self::Lock(lock) if lock.is_fair())
    }

    /// Whether a signal handler may wait for it. POSIX does not allow it for its mutex; parking_lot's sleepers share
    /// a table whose own locks the interrupted thread may hold.
    pub(super) fn may_wait_in_handlers(self) -> bool {
        !matches!(self, Self::Lock(LockName::ParkingLot | LockName::PthreadMutex))
    }

    pub(super) fn looks_at_domains(self) -> Looks {
        match self {
            Self::Lock(LockName::Numa) => Looks::Always,
            Self::Lock(LockName::Chosen | LockName::ChosenByLoad) => Looks::AsChosen,
            _ => Looks::Never,
        }
    }

    pub(super) fn with_type<J: LockJob>(self, job: J) -> J::Output {
        match self {
            Self::Lock(LockName::Numa) => job.run::<Witnessed>(),
            Self::Lock(lock) => lock.with_type(job),
            Self::Stuck => job.run::<Stuck>(),
            Self::Late => job.run::<Late>(),
            Self::Deaf => job.run::<Deaf>(),
            Self::Careless => job.run::<Careless>(),
        }
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let hidden = [Self::Stuck, Self::Late, Self::Deaf, Self::Careless];
        match hidden.into_iter().find(|subject| subject.name() == name) {
            Some(subject) => Ok(subject),
            None => name.parse().map(Self::Lock),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A test-and-set lock whose owner, once, forgets to unlock.
pub(super) struct Stuck {
    held: AtomicBool,
    left: AtomicU32,
}

impl Contender for Stuck {
    fn new() -> Self {
        Self { held: AtomicBool::new(false), left: AtomicU32::new(200) }
    }

    fn with<R>(&self, section: impl FnOnce() -> R) -> R {
        while self.held.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        let result = section();
        // Only the owner writes `left`, so load and store do.
        let left = self.left.load(Ordering::Relaxed);
        if left > 0 {
            self.left.store(left - 1, Ordering::Relaxed);
            self.held.store(false, Ordering::Release);
        }
        result
    }

    fn try_with<R>(&self, section: impl FnOnce() -> R) -> Option<R> {
        if self.held.load(Ordering::Relaxed) { None } else { Some(self.with(section)) }
    }
}

/// A test-and-set lock whose owner looks at it after it has unlocked it.
pub(super) struct Late(AtomicBool);

impl Contender for Late {
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    fn with<R>(&self, section: impl FnOnce() -> R) -> R {
        while self.0.swap(true, Ordering::Acquire) {
            std::thread::yield_now();
        }
        let result = section();
        self.0.store(false, Ordering::Release);
        std::hint::black_box((0..1000).filter(|_| self.0.load(Ordering::Relaxed)).count());
        result
    }

    fn try_with<R>(&self, section: impl FnOnce() -> R) -> Option<R> {
        if self.0.load(Ordering::Relaxed) { None } else { Some(self.with(section)) }
    }
}
