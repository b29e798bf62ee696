//! The resilient locks that can be tortured, by name; and some with a mistake, to see that they are caught.

use std::str::FromStr;
use std::time::Duration;

use qspinlock::resilient::{Mutex, MutexGuard, Recorder};
use qspinlock::slowpath::{Chosen, Fallible, Native, Numa, Paravirt, Parking, ParkingExact, TestAndSet};
use qspinlock::threads::Threads;
use qspinlock::{GlobalMachine, LockError};

use super::super::witness::{Looks, Witness};
use super::planted::{Alarmist, Blurred, Clingy, Heedless, Intruder, Litter, Planted, Silent};

/// A lock that may fail.
pub(super) trait Resilient: Send + Sync + 'static {
    /// Unlocks when dropped.
    type Guard<'a>;

    fn new() -> Self;

    #[track_caller]
    fn lock_within(&self, limit: Duration) -> Result<Self::Guard<'_>, LockError>;

    #[track_caller]
    fn try_lock(&self) -> Option<Self::Guard<'_>>;

    fn is_locked(&self) -> bool;

    /// What reports call it.
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// Something to do with a lock of any type.
pub(super) trait Job {
    type Output;
    fn run<R: Resilient>(self) -> Self::Output;
}

type Ours<S> = Mutex<Threads, S, ()>;

impl<M: GlobalMachine + Recorder, S: Fallible<M> + 'static> Resilient for Mutex<M, S, ()> {
    type Guard<'a> = MutexGuard<'a, M, S, ()>;

    fn new() -> Self {
        const { assert!(size_of::<Self>() == 4, "its address is that of its word") };
        Mutex::new(())
    }

    #[track_caller]
    fn lock_within(&self, limit: Duration) -> Result<Self::Guard<'_>, LockError> {
        self.lock_within(limit)
    }

    #[track_caller]
    fn try_lock(&self) -> Option<Self::Guard<'_>> {
        self.try_lock()
    }

    fn is_locked(&self) -> bool {
        self.is_locked()
    }
}

macro_rules! subjects {
    ($($variant:ident = $name:literal, $ty:ty, hidden: $hidden:literal;)*) => {
        /// A resilient lock, by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Subject {
            $($variant,)*
        }

        impl Subject {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Not listed: it is there for the tests of this command.
            const fn is_hidden(self) -> bool {
                match self { $(Self::$variant => $hidden,)* }
            }

            pub(super) fn with_type<J: Job>(self, job: J) -> J::Output {
                match self { $(Self::$variant => job.run::<$ty>(),)* }
            }
        }
    };
}

subjects! {
    Native = "native", Ours<Native>, hidden: false;
    Numa = "numa", Mutex<Witness, Numa, ()>, hidden: false;
    Paravirt = "paravirt", Ours<Paravirt>, hidden: false;
    Parking = "parking", Ours<Parking>, hidden: false;
    ParkingExact = "parking-exact", Ours<ParkingExact>, hidden: false;
    Chosen = "chosen", Ours<Chosen>, hidden: false;
    TestAndSet = "test-and-set", Ours<TestAndSet>, hidden: false;
    Silent = "silent", Planted<Silent>, hidden: true;
    Blurred = "blurred", Planted<Blurred>, hidden: true;
    Alarmist = "alarmist", Planted<Alarmist>, hidden: true;
    Intruder = "intruder", Planted<Intruder>, hidden: true;
    Litter = "litter", Planted<Litter>, hidden: true;
    Clingy = "clingy", Planted<Clingy>, hidden: true;
    Heedless = "heedless", Planted<Heedless>, hidden: true;
}

impl Subject {
    pub(super) fn looks_at_domains(self) -> Looks {
        match self {
            Self::Numa => Looks::Always,
            Self::Chosen => Looks::AsChosen,
            _ => Looks::Never,
        }
    }
}

/// Their names.
pub(in super::super) fn names() -> String {
    let listed = Subject::ALL.iter().filter(|subject| !subject.is_hidden());
    listed.map(|subject| subject.name()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().copied().find(|subject| subject.name() == name);
        found.ok_or_else(|| format!("there is no resilient lock '{name}'; known are {}", names()))
    }
}
