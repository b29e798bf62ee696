//! What users name.

use crate::raw::RawSpinLock;
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
