//! Resilient locks of each kind, for who does not care of which.

use core::time::Duration;

use qspinlock::LockError;
use qspinlock::slowpath::{Chosen, Fallible, Native, Numa, Paravirt, Parking, TestAndSet};

use crate::locks::ResilientMutex;
use crate::machine::Kernel;

/// A lock that may fail.
pub(crate) trait Failing: Sync {
    /// Does something with the lock, and counts that under it. Waits so many nanoseconds.
    fn section(&self, limit: u64, during: &mut dyn FnMut()) -> Result<(), LockError>;

    /// How often that was done, in the whole.
    fn sections(&self) -> Option<u64>;
}

impl<S: Fallible<Kernel>> Failing for ResilientMutex<u64, S> {
    fn section(&self, limit: u64, during: &mut dyn FnMut()) -> Result<(), LockError> {
        let mut guard = self.lock_within(Duration::from_nanos(limit))?;
        let count = &raw mut *guard;
        // SAFETY: the guard's. Volatile, so that it is read before and written after what is done meanwhile: two owners
        // at once lose one.
        unsafe {
            let before = count.read_volatile();
            during();
            count.write_volatile(before + 1);
        }
        drop(guard);
        Ok(())
    }

    fn sections(&self) -> Option<u64> {
        self.try_lock().map(|guard| *guard)
    }
}

/// Locks that may wait for one another, and what they are called.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) locks: [&'static dyn Failing; 3],
}

macro_rules! kinds {
    ($($name:literal $slow_path:ident,)*) => {
        &[$(Kind { name: $name, locks: {
            static LOCKS: [ResilientMutex<u64, $slow_path>; 3] = [const { ResilientMutex::new(0) }; 3];
            [&LOCKS[0], &LOCKS[1], &LOCKS[2]]
        } }),*]
    };
}

/// Over each slow path.
pub(crate) static KINDS: &[Kind] = kinds! {
    "resilient native" Native,
    "resilient numa" Numa,
    "resilient paravirt" Paravirt,
    "resilient parking" Parking,
    "resilient test-and-set" TestAndSet,
    "resilient chosen" Chosen,
};
