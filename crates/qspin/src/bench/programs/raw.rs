//! `lock_api` 0.4, which the programs are written against, on locks that speak 0.5, and on std's.
//!
//! The two versions differ in what passes from lock to unlock: 0.5 hands a guard's state over, 0.4 nothing. So a lock
//! whose guards carry no state can be used by either.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard};

use lock_api::{GuardNoSend, GuardSend, RawMutex};

/// State of a guard that says nothing, so that it may be made up again.
pub(super) trait Stateless {
    fn again() -> Self;
}

impl Stateless for GuardSend {
    fn again() -> Self {
        Self::new()
    }
}

impl Stateless for GuardNoSend {
    fn again() -> Self {
        Self::new()
    }
}

/// A lock of version 0.5 as one of version 0.4.
pub(super) struct Bridge<R>(R);

// SAFETY: each method does what the same one of `R` does, which promises to exclude. The guard's state that `unlock`
// makes up is all the state that there is.
unsafe impl<R: RawMutex<Guard: Stateless>> lock_api_04::RawMutex for Bridge<R> {
    #[allow(clippy::declare_interior_mutable_const, reason = "an initialiser: every use is a new lock")]
    const INIT: Self = Self(R::INIT);

    type GuardMarker = lock_api_04::GuardNoSend;

    #[inline]
    fn lock(&self) {
        let _ = self.0.lock();
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.0.try_lock().is_some()
    }

    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: the caller has the lock.
        unsafe { self.0.unlock(R::Guard::again()) }
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.0.is_locked()
    }
}

/// std's mutex. It can be unlocked by its guard only, so that is kept while the lock is held: two stores and two loads
/// more than std alone, on a line that the owner has.
pub(super) struct StdRaw {
    mutex: Mutex<()>,
    guard: Cell<Option<MutexGuard<'static, ()>>>,
}

// SAFETY: who has the lock is the only one to touch the guard; it is used and dropped by the thread that locked, since
// the marker below forbids to send it.
unsafe impl Sync for StdRaw {}
// SAFETY: between owners the cell is empty, and a mutex may be sent.
unsafe impl Send for StdRaw {}

// SAFETY: `mutex` excludes. The guard borrows it for ever: it is gone when the lock is free, and the programs here
// neither move nor drop a lock that is held.
unsafe impl lock_api_04::RawMutex for StdRaw {
    #[allow(clippy::declare_interior_mutable_const, reason = "an initialiser: every use is a new lock")]
    const INIT: Self = Self { mutex: Mutex::new(()), guard: Cell::new(None) };

    type GuardMarker = lock_api_04::GuardNoSend;

    #[inline]
    fn lock(&self) {
        self.keep(self.mutex.lock().expect("nobody panics under it"));
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.mutex.try_lock().map(|guard| self.keep(guard)).is_ok()
    }

    #[inline]
    unsafe fn unlock(&self) {
        drop(self.guard.take());
    }
}

impl StdRaw {
    #[inline]
    fn keep<'a>(&'a self, guard: MutexGuard<'a, ()>) {
        // SAFETY: only its lifetime changes; see above for why `mutex` outlives it.
        let guard = unsafe { std::mem::transmute::<MutexGuard<'a, ()>, MutexGuard<'static, ()>>(guard) };
        self.guard.set(Some(guard));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Held means held: nobody else gets it, and after the unlock one does.
    fn excludes<R: lock_api_04::RawMutex + Sync>() {
        let lock = R::INIT;
        let others_try = || {
            std::thread::scope(|scope| {
                let other = scope.spawn(|| {
                    let got = lock.try_lock();
                    if got {
                        // SAFETY: just locked.
                        unsafe { lock.unlock() };
                    }
                    got
                });
                other.join().expect("it does not panic")
            })
        };
        assert!(others_try());
        lock.lock();
        assert!(lock.is_locked() && !others_try());
        // SAFETY: locked above.
        unsafe { lock.unlock() };
        assert!(!lock.is_locked() && others_try());
        assert!(lock.try_lock());
        assert!(!others_try());
        // SAFETY: locked above.
        unsafe { lock.unlock() };
    }

    #[test]
    fn the_adapters_exclude() {
        excludes::<StdRaw>();
        excludes::<Bridge<parking_lot::RawMutex>>();
        excludes::<Bridge<qspinlock::RawMutex>>();
    }
}
