//! What users name.

use std::time::{Duration, Instant};

use lock_api::{GuardNoSend, RawMutex as _, RawMutexTimed};

use crate::Machine;
use crate::raw::RawSpinLock;
use crate::resilient;
use crate::sendable::Sendable;
use crate::slowpath::{Chosen, Sleeping};
use crate::threads::Threads;

/// The raw lock of [`Mutex`]: 4 bytes, for the threads of a process.
pub type RawMutex = RawSpinLock<Threads, Chosen>;

/// A mutual exclusion lock for the threads of a process: 4 bytes beside the data. Waiters spin a little, yield, and
/// sleep; unless the program or its user has [chosen](crate::configure) another slow path for all of them.
///
/// A `lock_api` mutex, with its whole interface: `lock`, `try_lock`, `try_lock_for`, `is_locked`, mapped guards, fair
/// unlocks. It has no poisoning: a panic under the guard unlocks. [`Condvar`](crate::Condvar) goes with it.
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
/// # Order
/// A running thread may pass those that wait, but not for ever: [`slowpath::parking`](crate::slowpath::parking) states
/// the bound. `MutexGuard::unlock_fair` leaves the lock to somebody who waits. How long a waiter tries what can be
/// [set](crate::configure).
///
/// # Deadlock
/// Not recursive: a thread that locks it again waits for ever. So does a signal handler that locks it while its own
/// thread holds it *or waits for it*, since the lock may be handed to the thread that it interrupted. Block the signal
/// before locking what its handler locks; `try_lock` is always safe there. Nor may a handler wait for a lock whose
/// owner waits for the one that the interrupted thread waits for: that thread may be the one that was woken.
///
/// # `fork`
/// In the child, locks that other threads held stay locked. A lock that the forking thread held can be unlocked there
/// and used: those who waited in the parent are passed over. If one of them was about to be granted it, the first
/// `lock` takes the grant; until then `try_lock` fails.
pub type Mutex<T> = lock_api::Mutex<RawMutex, T>;

/// Unlocks a [`Mutex`] when dropped. Not `Send` (see [`SendMutex`]); `Sync` if the data is.
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawMutex, T>;

/// A guard of a part of what a [`Mutex`] holds.
pub type MappedMutexGuard<'a, T> = lock_api::MappedMutexGuard<'a, RawMutex, T>;

/// A [`Mutex`] whose guards may be sent to another thread, and dropped there. It has no condition variable.
///
/// ```
/// use qspinlock::SendMutex;
/// static LOG: SendMutex<Vec<u32>> = SendMutex::new(Vec::new());
///
/// let mut log = LOG.lock();
/// log.push(1);
/// std::thread::spawn(move || log.push(2)).join().unwrap();
/// assert_eq!(*LOG.lock(), [1, 2]);
/// ```
pub type SendMutex<T> = lock_api::Mutex<Sendable<RawMutex>, T>;

/// A mutual exclusion lock that is served in the order of arrival and whose waiters spin: for a program that owns its
/// CPUs, with no more threads than those. With more it collapses, as every fair spinning lock does: see
/// [`slowpath::Native`](crate::slowpath::Native).
///
/// ```
/// static COUNT: qspinlock::SpinMutex<u32> = qspinlock::SpinMutex::new(0);
/// *COUNT.lock() += 1;
/// ```
pub type SpinMutex<T> = lock_api::Mutex<RawSpinLock<Threads>, T>;

/// A mutual exclusion lock whose `lock` fails instead of waiting for ever, for the threads of a process.
///
/// It has no poisoning: a panic under the guard unlocks. A wrapper around `lock` is best `#[track_caller]`, so that
/// reports show where it was called.
///
/// ```
/// use qspinlock::ResilientMutex;
/// static A: ResilientMutex<u32> = ResilientMutex::new(0);
///
/// let a = A.lock()?;
/// let error = A.lock().unwrap_err();
/// assert!(error.is_deadlock());
/// if let Some(report) = error.report() {
///     println!("{report}");
/// }
/// # Ok::<(), qspinlock::LockError>(())
/// ```
pub type ResilientMutex<T> = resilient::Mutex<Threads, Chosen, T>;

/// Unlocks a [`ResilientMutex`] when dropped.
pub type ResilientMutexGuard<'a, T> = resilient::MutexGuard<'a, Threads, Chosen, T>;

// SAFETY: a guard is made only when the lock was acquired.
#[allow(unsafe_code, reason = "lock_api's traits promise exclusion")]
unsafe impl<S: Sleeping<Threads>> RawMutexTimed for RawSpinLock<Threads, S> {
    type Duration = Duration;
    type Instant = Instant;

    #[inline]
    fn try_lock_for(&self, timeout: Duration) -> Option<Self::Guard> {
        try_lock_until(self, || after(timeout))
    }

    #[inline]
    fn try_lock_until(&self, deadline: Instant) -> Option<Self::Guard> {
        try_lock_until(self, || at(deadline))
    }
}

/// Asks for the time only if the lock is not to be had at once.
#[inline]
fn try_lock_until<S: Sleeping<Threads>>(
    lock: &RawSpinLock<Threads, S>,
    deadline: impl FnOnce() -> u64,
) -> Option<GuardNoSend> {
    lock.try_lock().or_else(|| lock.acquire_until_slow(&Threads, deadline()).then(GuardNoSend::new))
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
