//! The lock with data, and its guard.

use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::time::Duration;

use super::entered::Entered;
use super::error::LockError;
use super::raw::RawResilientLock;
use super::recorder::Recorder;
use crate::machine::GlobalMachine;
use crate::slowpath::Fallible;

/// A mutual exclusion lock whose `lock` fails instead of waiting for ever, on machine `M`, whose waiters follow slow
/// path `S`. See the [module](super). For the threads of a process it is called
/// [`ResilientMutex`](crate::ResilientMutex).
pub struct Mutex<M: GlobalMachine + Recorder, S: Fallible<M>, T: ?Sized> {
    raw: Owned<M, S>,
    data: UnsafeCell<T>,
}

// SAFETY: as with any mutex: one at a time has the data, whoever that is.
#[allow(unsafe_code, reason = "the lock sees to it")]
unsafe impl<M: GlobalMachine + Recorder, S: Fallible<M>, T: ?Sized + Send> Send for Mutex<M, S, T> {}
// SAFETY: the same.
#[allow(unsafe_code, reason = "the lock sees to it")]
unsafe impl<M: GlobalMachine + Recorder, S: Fallible<M>, T: ?Sized + Send> Sync for Mutex<M, S, T> {}

impl<M: GlobalMachine + Recorder, S: Fallible<M>, T> Mutex<M, S, T> {
    /// An unlocked mutex.
    pub const fn new(data: T) -> Self {
        Self { raw: Owned(RawResilientLock::new()), data: UnsafeCell::new(data) }
    }

    /// What it protects.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

/// A lock that is taken out of the records when it goes.
struct Owned<M: GlobalMachine + Recorder, S: Fallible<M>>(RawResilientLock<M, S>);

impl<M: GlobalMachine + Recorder, S: Fallible<M>> Drop for Owned<M, S> {
    #[inline]
    fn drop(&mut self) {
        self.0.forget_on(&M::MACHINE);
    }
}

// The fast path always in line: with a result that goes through memory it takes three times as long.
impl<M: GlobalMachine + Recorder, S: Fallible<M>, T: ?Sized> Mutex<M, S, T> {
    /// What it protects. There is nobody else to lock it.
    pub fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    /// Waits for the lock and takes it; no longer than the machine's [limit](Recorder::limit).
    ///
    /// # Errors
    /// If it would be a deadlock, at once. If the time is over.
    ///
    /// # Panics
    /// Instead of an error, if the machine is [strict](Recorder::is_strict).
    #[inline(always)]
    #[track_caller]
    pub fn lock(&self) -> Result<MutexGuard<'_, M, S, T>, LockError> {
        self.raw.0.enter(&M::MACHINE, M::limit).map(|entered| self.guard(entered))
    }

    /// The same, with a limit of its own. With zero it tries once, and says whether it was a deadlock; what does not
    /// fit into 64 bits of nanoseconds (584 years) is as good as no limit.
    ///
    /// # Errors
    /// The same.
    ///
    /// # Panics
    /// The same.
    #[inline(always)]
    #[track_caller]
    pub fn lock_within(&self, limit: Duration) -> Result<MutexGuard<'_, M, S, T>, LockError> {
        let limit = move |_: &M| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        self.raw.0.enter(&M::MACHINE, limit).map(|entered| self.guard(entered))
    }

    /// Takes the lock if that can be done at once.
    #[inline(always)]
    #[track_caller]
    #[must_use = "the lock is held only as long as the guard lives"]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, M, S, T>> {
        self.raw.0.try_enter(&M::MACHINE).map(|entered| self.guard(entered))
    }

    /// Whether anybody holds the lock.
    #[inline]
    pub fn is_locked(&self) -> bool {
        self.raw.0.is_taken()
    }

    #[inline]
    fn guard(&self, entered: Entered) -> MutexGuard<'_, M, S, T> {
        MutexGuard { mutex: self, entered, not_send: PhantomData }
    }
}

impl<M: GlobalMachine + Recorder, S: Fallible<M>, T: Default> Default for Mutex<M, S, T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<M: GlobalMachine + Recorder, S: Fallible<M>, T> From<T> for Mutex<M, S, T> {
    fn from(data: T) -> Self {
        Self::new(data)
    }
}

impl<M: GlobalMachine + Recorder, S: Fallible<M>, T: ?Sized + fmt::Debug> fmt::Debug for Mutex<M, S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ResilientMutex");
        match self.try_lock() {
            Some(guard) => out.field("data", &&*guard),
            None => out.field("data", &format_args!("<locked>")),
        };
        out.finish()
    }
}

/// Unlocks a [`Mutex`] when dropped. It stays on its thread, which has recorded that it holds the lock. Guards may be
/// dropped in any order; one that is forgotten leaves the lock held, and recorded as held.
#[must_use = "the lock is held only as long as the guard lives"]
pub struct MutexGuard<'a, M: GlobalMachine + Recorder, S: Fallible<M>, T: ?Sized> {
    mutex: &'a Mutex<M, S, T>,
    entered: Entered,
    not_send: PhantomData<*mut ()>,
}

// SAFETY: what it shows to others is `&T`.
#[allow(unsafe_code, reason = "a reference to the data")]
unsafe impl<M: GlobalMachine + Recorder, S: Fallible<M>, T: ?Sized + Sync> Sync for MutexGuard<'_, M, S, T> {}

impl<M: GlobalMachine + Recorder, S: Fallible<M>, T: ?Sized> Deref for MutexGuard<'_, M, S, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard says that this thread holds the lock.
        #[allow(unsafe_code, reason = "the lock protects the data")]
        unsafe {
            &*self.mutex.data.get()
        }
    }
}

impl<M: GlobalMachine + Recorder, S: Fallible<M>, T: ?Sized> DerefMut for MutexGuard<'_, M, S, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed exclusively.
        #[allow(unsafe_code, reason = "the lock protects the data")]
        unsafe {
            &mut *self.mutex.data.get()
        }
    }
}

impl<M: GlobalMachine + Recorder, S: Fallible<M>, T: ?Sized> Drop for MutexGuard<'_, M, S, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.raw.0.exit(&M::MACHINE, self.entered);
    }
}

impl<M: GlobalMachine + Recorder, S: Fallible<M>, T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, M, S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<M: GlobalMachine + Recorder, S: Fallible<M>, T: ?Sized + fmt::Display> fmt::Display for MutexGuard<'_, M, S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
