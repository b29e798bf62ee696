//! What users name: a condition variable for the mutexes of this library.

use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use std::time::{Duration, Instant};

use lock_api::MutexGuard;

use crate::mutex::{after, at};
use crate::raw::RawSpinLock;
use crate::slowpath::{Parking, RawCondvar, Sleeping, Waited};
use crate::threads::Threads;

/// The guard of a mutex whose waiters sleep.
type Guard<'a, S, T> = MutexGuard<'a, RawSpinLock<Threads, S>, T>;

/// A condition variable: threads wait on it, with a mutex released meanwhile, until another thread notifies them.
///
/// It goes with [`Mutex`](crate::Mutex), and with every `lock_api` mutex of a [`RawSpinLock`] whose waiters sleep.
///
/// # Examples
/// A gate that opens once:
/// ```
/// use qspinlock::{Condvar, Mutex};
///
/// static IS_OPEN: Mutex<bool> = Mutex::new(false);
/// static OPENED: Condvar = Condvar::new();
///
/// std::thread::scope(|s| {
///     s.spawn(|| {
///         let mut is_open = IS_OPEN.lock();
///         OPENED.wait_while(&mut is_open, |is_open| !*is_open);
///     });
///     *IS_OPEN.lock() = true;
///     OPENED.notify_all();
/// });
/// ```
///
/// A queue of jobs, whose workers give up when there is nothing to do for a while:
/// ```
/// # use qspinlock::{Condvar, Mutex};
/// use std::collections::VecDeque;
/// use std::time::Duration;
///
/// #[derive(Default)]
/// struct Jobs {
///     waiting: Mutex<VecDeque<u32>>,
///     arrived: Condvar,
/// }
///
/// impl Jobs {
///     fn add(&self, job: u32) {
///         self.waiting.lock().push_back(job);
///         self.arrived.notify_one();
///     }
///
///     fn next(&self, patience: Duration) -> Option<u32> {
///         let mut waiting = self.waiting.lock();
///         self.arrived.wait_while_for(&mut waiting, |jobs| jobs.is_empty(), patience);
///         waiting.pop_front()
///     }
/// }
///
/// let jobs = Jobs::default();
/// jobs.add(7);
/// assert_eq!(jobs.next(Duration::from_secs(1)), Some(7));
/// assert_eq!(jobs.next(Duration::from_millis(1)), None);
/// ```
///
/// # Which mutex
/// All threads that wait at the same time must wait with the same mutex; [`wait`](Self::wait) panics otherwise. When
/// nobody waits any more the next may come with another one.
///
/// A spinning lock has no sleepers to move to its queue, so this does not compile:
/// ```compile_fail,E0277
/// # use qspinlock::{Condvar, RawSpinLock};
/// # use qspinlock::slowpath::Native;
/// # use qspinlock::threads::Threads;
/// let spinning = lock_api::Mutex::<RawSpinLock<Threads, Native>, _>::new(0);
/// Condvar::new().wait(&mut spinning.lock());
/// ```
///
/// # What may be relied on
/// * **No notification is lost.** A thread that has locked the mutex, changed what is waited for, and then notifies (with
///   the mutex still locked or not) finds every thread that waits for the change.
/// * **One outcome.** A notification is never spent on a thread whose [`wait_for`](Self::wait_for) reports a time-out.
/// * **Order.** [`notify_one`](Self::notify_one) notifies who has waited the longest.
/// * **No herd.** Notified threads are moved to the queue of the mutex, and woken one by one as it is unlocked.
/// * **Freed at once.** For who shares them by raw pointers: the last thread to return from a wait may free condition
///   variable and mutex, even though the call that notified it has yet to return.
///
/// A wait may also end without a notification, rarely: if more than [`CAPACITY`](crate::threads::CAPACITY) threads wait,
/// or more than four contexts of one thread. So look again what you waited for, or use [`wait_while`](Self::wait_while).
///
/// # Signal handlers and `fork`
/// Not to be used in signal handlers: a handler may interrupt its own thread where that one has the list of waiters
/// locked. In a child after `fork` none of the threads exists that waited in the parent, so a condition variable on
/// which somebody waited must not be used there.
#[derive(Default)]
#[doc(alias = "pthread_cond_t")]
pub struct Condvar {
    raw: RawCondvar<Threads>,
    /// The lock that all have come with who wait now; one more, [`OWN_WAY`], if its waiters do not line up. Written and read
    /// with the list of waiters locked.
    lock: AtomicPtr<RawSpinLock<Threads, Parking>>,
}

/// Added to the address of a lock whose waiters do not line up. Locks are aligned to more.
const OWN_WAY: usize = 1;
const _: () = assert!(align_of::<RawSpinLock<Threads, Parking>>() > OWN_WAY);

/// Whether a wait ended because its time was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the time may have been over"]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the time was over, and nobody has notified this thread.
    #[must_use]
    pub const fn timed_out(self) -> bool {
        self.0
    }
}

impl Condvar {
    /// A condition variable on which nobody waits.
    #[must_use]
    pub const fn new() -> Self {
        Self { raw: RawCondvar::new(), lock: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Unlocks the mutex, waits for a notification, and locks the mutex again.
    ///
    /// # Panics
    /// If other threads wait with another mutex now. This one's is still locked then, until the guard is dropped.
    #[doc(alias = "pthread_cond_wait")]
    #[track_caller]
    pub fn wait<S: Sleeping<Threads>, T: ?Sized>(&self, guard: &mut Guard<'_, S, T>) {
        let _ = self.wait_with(guard, None);
    }

    /// Waits while the condition holds, which is looked at with the mutex locked, before each wait.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_while<S: Sleeping<Threads>, T: ?Sized>(
        &self,
        guard: &mut Guard<'_, S, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) {
        while condition(&mut *guard) {
            self.wait(guard);
        }
    }

    /// Waits for a notification, for so long at most. No time at all is a time-out, with the mutex unlocked for a moment;
    /// more than centuries is for ever.
    ///
    /// Time is that of the monotonic clock, which does not jump when the date is set.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    #[doc(alias = "pthread_cond_timedwait")]
    #[track_caller]
    pub fn wait_for<S: Sleeping<Threads>, T: ?Sized>(
        &self,
        guard: &mut Guard<'_, S, T>,
        timeout: Duration,
    ) -> WaitTimeoutResult {
        self.wait_with(guard, Some(after(timeout)))
    }

    /// Waits for a notification, until `deadline` at the latest.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_until<S: Sleeping<Threads>, T: ?Sized>(
        &self,
        guard: &mut Guard<'_, S, T>,
        deadline: Instant,
    ) -> WaitTimeoutResult {
        self.wait_with(guard, Some(at(deadline)))
    }

    /// Waits while the condition holds, for so long at most. The result is a time-out only if the condition still holds.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_while_for<S: Sleeping<Threads>, T: ?Sized>(
        &self,
        guard: &mut Guard<'_, S, T>,
        condition: impl FnMut(&mut T) -> bool,
        timeout: Duration,
    ) -> WaitTimeoutResult {
        self.wait_while_with(guard, condition, after(timeout))
    }

    /// Waits while the condition holds, until `deadline` at the latest. The result is a time-out only if the condition
    /// still holds.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_while_until<S: Sleeping<Threads>, T: ?Sized>(
        &self,
        guard: &mut Guard<'_, S, T>,
        condition: impl FnMut(&mut T) -> bool,
        deadline: Instant,
    ) -> WaitTimeoutResult {
        self.wait_while_with(guard, condition, at(deadline))
    }

    /// Notifies the thread that has waited the longest. False if none waits.
    #[doc(alias = "pthread_cond_signal")]
    pub fn notify_one(&self) -> bool {
        self.raw.notify_one_on(&Threads, || self.lock())
    }

    /// Notifies all threads that wait. Returns how many there were.
    #[doc(alias = "pthread_cond_broadcast")]
    pub fn notify_all(&self) -> usize {
        self.raw.notify_all_on(&Threads, || self.lock())
    }

    /// The lock of those who wait, if they line up. Called while somebody waits.
    fn lock<'l>(&self) -> Option<&'l RawSpinLock<Threads, Parking>> {
        let lock = self.lock.load(Ordering::Relaxed);
        // SAFETY: a waiter that is in the list, or was taken out of it by us and not told so yet, borrows its lock until
        // it returns. The list is locked, so that pointer is of such a waiter.
        #[allow(unsafe_code, reason = "the waiter's borrow keeps it alive")]
        (lock.addr() & OWN_WAY == 0).then(|| unsafe { &*lock })
    }

    #[track_caller]
    fn wait_while_with<S: Sleeping<Threads>, T: ?Sized>(
        &self,
        guard: &mut Guard<'_, S, T>,
        mut condition: impl FnMut(&mut T) -> bool,
        deadline: u64,
    ) -> WaitTimeoutResult {
        while condition(&mut *guard) {
            if self.wait_with(guard, Some(deadline)).timed_out() {
                return WaitTimeoutResult(condition(&mut *guard));
            }
        }
        WaitTimeoutResult(false)
    }

    #[track_caller]
    fn wait_with<S: Sleeping<Threads>, T: ?Sized>(
        &self,
        guard: &mut Guard<'_, S, T>,
        deadline: Option<u64>,
    ) -> WaitTimeoutResult {
        // SAFETY: the lock is released only within the wait below, which takes it again.
        #[allow(unsafe_code, reason = "the guard lends its lock to the wait")]
        let lock = unsafe { MutexGuard::mutex(guard).raw() };
        // All kinds of sleeping lock are one word and one queue, and who notifies moves waiters there.
        let way = if S::lines_up() { 0 } else { OWN_WAY };
        let this = ptr::from_ref(lock).cast::<RawSpinLock<Threads, Parking>>().cast_mut().map_addr(|lock| lock | way);
        let admit = |is_empty| {
            if is_empty {
                self.lock.store(this, Ordering::Relaxed);
            }
            self.lock.load(Ordering::Relaxed) == this
        };
        // SAFETY: the guard says that the caller holds the lock.
        #[allow(unsafe_code, reason = "the guard is the proof")]
        let waited = unsafe { self.raw.wait_on(&Threads, lock, deadline, admit) };
        assert_ne!(waited, Waited::Refused, "threads wait on a condition variable with two mutexes at a time");
        WaitTimeoutResult(waited == Waited::TimedOut)
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.raw, f)
    }
}
