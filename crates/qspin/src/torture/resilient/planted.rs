//! Mistakes planted in a resilient lock, to see that each is caught.

use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::forget;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use qspinlock::atomic::AtomicCell;
use qspinlock::resilient::RawResilientLock;
use qspinlock::slowpath::{Native, SlowPath};
use qspinlock::threads::Threads;
use qspinlock::word::LockWord;
use qspinlock::{LockError, ResilientMutex};

use super::subject::Resilient;

type Raw = RawResilientLock<Threads, Native>;

/// What is wrong with a lock. By default nothing.
pub(super) trait Mistake: Send + Sync + 'static {
    /// Waits for the lock.
    #[track_caller]
    fn lock(raw: &Raw, limit: Duration) -> Result<Taken, LockError> {
        take(raw, limit)
    }

    /// Releases what was taken.
    fn unlock(raw: &Raw) {
        release(raw);
    }
}

/// What a caller that was let in has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// The lock.
    Really,
    /// Nothing.
    NotAtAll,
}

/// A lock with a mistake in it.
pub(super) struct Planted<W> {
    raw: Raw,
    mistake: PhantomData<fn() -> W>,
}

pub(super) struct Guard<'a, W: Mistake> {
    lock: &'a Planted<W>,
    taken: Taken,
}

impl<W: Mistake> Drop for Guard<'_, W> {
    fn drop(&mut self) {
        if self.taken == Taken::Really {
            W::unlock(&self.lock.raw);
        }
    }
}

impl<W: Mistake> Resilient for Planted<W> {
    type Guard<'a> = Guard<'a, W>;

    fn new() -> Self {
        Self { raw: Raw::new(), mistake: PhantomData }
    }

    #[track_caller]
    fn lock_within(&self, limit: Duration) -> Result<Guard<'_, W>, LockError> {
        W::lock(&self.raw, limit).map(|taken| Guard { lock: self, taken })
    }

    #[track_caller]
    fn try_lock(&self) -> Option<Guard<'_, W>> {
        self.raw.try_acquire_on(&Threads).then_some(Guard { lock: self, taken: Taken::Really })
    }

    fn is_locked(&self) -> bool {
        self.raw.is_taken()
    }
}

#[track_caller]
fn take(raw: &Raw, limit: Duration) -> Result<Taken, LockError> {
    raw.acquire_within_on(&Threads, limit.as_nanos() as u64).map(|()| Taken::Really)
}

fn release(raw: &Raw) {
    // SAFETY: called once for each time that it was taken, by the thread that did.
    let released = unsafe { raw.release_on(&Threads) };
    // With some mistakes it is not held any more.
    let _ = released;
}

/// The word of a lock, which is all that there is in one.
fn word(raw: &Raw) -> &LockWord<AtomicCell> {
    const { assert!(size_of::<Raw>() == size_of::<LockWord<AtomicCell>>()) };
    // SAFETY: the lock is a transparent wrapper of its word.
    unsafe { &*ptr::from_ref(raw).cast() }
}

/// True once in so many times.
fn now_and_then(one_in: u32) -> bool {
    static TIMES: AtomicU32 = AtomicU32::new(0);
    TIMES.fetch_add(1, Relaxed) % one_in == one_in - 1
}

/// An error that is true, but of another lock.
#[track_caller]
fn forged_deadlock() -> LockError {
    let other = ResilientMutex::new(());
    let _guard = other.lock();
    other.lock().expect_err("it is held by this thread")
}

#[track_caller]
fn forged_time_out() -> LockError {
    static HELD: ResilientMutex<()> = ResilientMutex::new(());
    static IS_HELD: AtomicBool = AtomicBool::new(false);
    if !IS_HELD.swap(true, Relaxed) {
        // Of a thread that ends here: nobody's wait for it is a deadlock.
        let holder = std::thread::spawn(|| HELD.lock().map(forget).is_ok());
        assert!(holder.join().is_ok_and(|held| held), "nobody else holds it");
    }
    loop {
        if let Err(error) = HELD.lock_within(Duration::ZERO) {
            return error;
        }
    }
}

/// Tells nobody anything: a plain lock.
pub(super) struct Silent;

impl Mistake for Silent {
    fn lock(raw: &Raw, _: Duration) -> Result<Taken, LockError> {
        let Ok(()) = Native::acquire(&Threads, word(raw));
        Ok(Taken::Really)
    }

    fn unlock(raw: &Raw) {
        Native::release(&Threads, word(raw));
    }
}

/// Calls a deadlock a time-out.
pub(super) struct Blurred;

impl Mistake for Blurred {
    fn lock(raw: &Raw, limit: Duration) -> Result<Taken, LockError> {
        take(raw, limit).map_err(|error| if error.is_deadlock() { forged_time_out() } else { error })
    }
}

/// Sees a deadlock where there is none, now and then.
pub(super) struct Alarmist;

impl Mistake for Alarmist {
    fn lock(raw: &Raw, limit: Duration) -> Result<Taken, LockError> {
        if now_and_then(5003) { Err(forged_deadlock()) } else { take(raw, limit) }
    }
}

/// Lets in who has waited in vain, now and then.
pub(super) struct Intruder;

impl Mistake for Intruder {
    fn lock(raw: &Raw, limit: Duration) -> Result<Taken, LockError> {
        match take(raw, limit) {
            Err(error) if error.is_timeout() && now_and_then(7) => Ok(Taken::NotAtAll),
            taken => taken,
        }
    }
}

std::thread_local! {
    static OWES: Cell<bool> = const { Cell::new(false) };
}

/// Who has given up forgets to unlock the next lock.
pub(super) struct Litter;

impl Mistake for Litter {
    fn lock(raw: &Raw, limit: Duration) -> Result<Taken, LockError> {
        take(raw, limit).inspect_err(|error| OWES.set(error.is_timeout()))
    }

    fn unlock(raw: &Raw) {
        if !OWES.take() {
            release(raw);
        }
    }
}

/// What was released stays recorded as held, now and then.
pub(super) struct Clingy;

impl Mistake for Clingy {
    fn unlock(raw: &Raw) {
        if now_and_then(997) {
            Native::release(&Threads, word(raw));
        } else {
            release(raw);
        }
    }
}

/// Unlocks what it has not got.
pub(super) struct Heedless;

impl Mistake for Heedless {
    fn lock(raw: &Raw, limit: Duration) -> Result<Taken, LockError> {
        take(raw, limit).inspect_err(|_| Native::release(&Threads, word(raw)))
    }
}
