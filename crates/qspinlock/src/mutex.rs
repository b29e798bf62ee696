//! What users name.

use std::time::{Duration, Instant};

use lock_api::{GuardNoSend, RawMutex as _, RawMutexTimed};

use crate::Machine;
use crate::raw::RawSpinLock;
use crate::slowpath::Sleeping;
use crate::threads::Threads;

/// The raw lock of [`Mutex`]: 4 bytes, for the threads of a process.
pub type RawMutex = RawSpinLock<Threads>;

/// A mutual exclusion lock for the threads of a process: 4 bytes beside the data, served in the order of arrival.
///
/// A `lock_api` mutex, with its whole interface: `lock`, `try_lock`, `is_locked`, mapped guards, fair unlocks.
/// It has no poisoning: a panic under the guard unlocks.
///
/// # Examples
/// ```
/// use qspinlock::Mutex;
/// static COUNT: Mutex<u32> = Mutex::new(0);
///
/// std::thread::scope(|s| {
///     for _ in 0..4 {
///         s.spawn(|| *COUNT.lock() += 1);
///     }
/// });
/// assert_eq!(*COUNT.lock(), 4);
/// assert_eq!(size_of::<qspinlock::RawMutex>(), 4);
/// ```
///
/// # Waiting
/// Waiters spin. With more runnable threads than CPUs that is slow, as it is for every fair spinning lock: see
/// [`slowpath::Native`](crate::slowpath::Native).
///
/// # Deadlock
/// Not recursive: a thread that locks it again waits for ever. So does a signal handler that locks it while its own
/// thread holds it *or waits for it*, since it then stands behind the thread that it interrupted. Block the signal
/// before locking what its handler locks; `try_lock` is always safe there.
pub type Mutex<T> = lock_api::Mutex<RawMutex, T>;

/// Unlocks a [`Mutex`] when dropped. Not `Send`; `Sync` if the data is.
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawMutex, T>;

/// A guard of a part of what a [`Mutex`] holds.
pub type MappedMutexGuard<'a, T> = lock_api::MappedMutexGuard<'a, RawMutex, T>;

// SAFETY: a guard is made only when the lock was acquired.
#[allow(unsafe_code, reason = "lock_api's traits promise exclusion")]
unsafe impl<S: Sleeping<Threads>> RawMutexTimed for RawSpinLock<Threads, S> {
    type Duration = Duration;
    type Instant = Instant;

    #[inline]
    fn try_lock_for(&self, timeout: Duration) -> Option<Self::Guard> {
        match self.try_lock() {
            None => self.try_acquire_until_on(&Threads, after(timeout)).then_some(GuardNoSend::new()),
            guard => guard,
        }
    }

    #[inline]
    fn try_lock_until(&self, deadline: Instant) -> Option<Self::Guard> {
        match self.try_lock() {
            None => self.try_acquire_until_on(&Threads, at(deadline)).then_some(GuardNoSend::new()),
            guard => guard,
        }
    }
}

/// The moment after so much time, on the clock of [`Threads`]. That has room for some centuries; what is later is as
/// good as never.
pub(crate) fn after(time: Duration) -> u64 {
    Threads.now().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// A moment on the clock of [`Threads`].
pub(crate) fn at(moment: Instant) -> u64 {
    // In this order, so that the result is never too early.
    after(moment.saturating_duration_since(Instant::now()))
}
