//! The lock itself: a word, a machine and a slow path put together; and the bridge to `lock_api`.

use core::fmt;
use core::marker::PhantomData;

use crate::machine::{GlobalMachine, Machine};
use crate::slowpath::{Native, Sleeping, SlowPath};
use crate::word::LockWord;

/// A queued spinlock without data: 4 bytes, on machine `M`, whose waiters follow slow path `S`.
///
/// With `lock_api` (the default) this is a `lock_api::RawMutex`, so `lock_api::Mutex<RawSpinLock<MyMachine>, T>` is a
/// complete mutex with guards. On a machine that is a value rather than the only one of its kind, call
/// [`acquire_on`](Self::acquire_on) and its siblings.
///
/// Release and acquire synchronise: what an owner did before unlocking is visible to the next owner.
///
/// Not recursive: an owner that locks again waits for ever.
#[doc(alias = "qspinlock")]
#[doc(alias = "arch_spinlock_t")]
#[repr(transparent)]
pub struct RawSpinLock<M: Machine, S = Native> {
    word: LockWord<M::Cell>,
    slow_path: PhantomData<fn() -> S>,
}

impl<M: GlobalMachine, S> RawSpinLock<M, S> {
    /// An unlocked lock.
    #[must_use]
    pub const fn new() -> Self {
        Self { word: LockWord::new(), slow_path: PhantomData }
    }
}

impl<M: GlobalMachine, S> Default for RawSpinLock<M, S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine, S: SlowPath<M>> RawSpinLock<M, S> {
    /// An unlocked lock in a cell that holds 0, for machines that make their own cells.
    pub const fn from_cell(cell: M::Cell) -> Self {
        Self { word: LockWord::from_cell(cell), slow_path: PhantomData }
    }

    /// Waits for the lock and takes it.
    ///
    /// # Errors
    /// The slow path's; never with one whose error is [`Infallible`](core::convert::Infallible).
    #[inline]
    #[doc(alias = "queued_spin_lock")]
    pub fn acquire_on(&self, m: &M) -> Result<(), S::Error> {
        if S::try_acquire(&self.word) { Ok(()) } else { S::acquire_cold(m, &self.word) }
    }

    /// Takes the lock if that can be done at once: if nobody holds it, nor waits for it. Past waiters that sleep, since
    /// there who runs may pass; but not if the lock has just been granted to one of them.
    #[inline]
    #[must_use = "the lock is held only if this is true"]
    #[doc(alias = "queued_spin_trylock")]
    pub fn try_acquire_on(&self, _m: &M) -> bool {
        S::try_acquire(&self.word) || S::try_past(&self.word)
    }

    /// Releases the lock.
    ///
    /// # Safety
    /// The caller holds the lock: it has acquired it and not released it since, or was passed it by who did.
    #[inline]
    #[doc(alias = "queued_spin_unlock")]
    #[allow(unsafe_code, reason = "an obligation on callers")]
    pub unsafe fn release_on(&self, m: &M) {
        S::release(m, &self.word);
    }

    /// Whether anybody holds the lock *or waits for it*. A waiter without an owner is a lock about to be taken, and
    /// an observer that called it free would miss that owner.
    #[inline]
    #[doc(alias = "queued_spin_is_locked")]
    pub fn is_taken(&self) -> bool {
        S::is_taken(self.word.peek())
    }

    /// Whether anybody waits for the lock.
    #[inline]
    #[doc(alias = "queued_spin_is_contended")]
    pub fn is_contended(&self) -> bool {
        self.word.peek().is_contended()
    }
}

impl<M: Machine, S> RawSpinLock<M, S> {
    pub(crate) fn word(&self) -> &LockWord<M::Cell> {
        &self.word
    }
}

impl<M: Machine, S: Sleeping<M>> RawSpinLock<M, S> {
    /// Waits for the lock and takes it, unless [`Machine::now`] reaches `deadline` first. One try, if it has already.
    ///
    /// Gives up no earlier than then, and later only by the time that it takes to be scheduled. A waiter that gives up
    /// leaves its node in the queue, until its turn comes. Its CPU has three for this; a waiter that finds all of them
    /// left behind in queues looks at the lock now and then instead of sleeping until it is woken, which is counted
    /// ([`Event::NoNode`](crate::machine::Event::NoNode)).
    #[inline]
    #[must_use = "the lock is held only if this is true"]
    pub fn try_acquire_until_on(&self, m: &M, deadline: u64) -> bool {
        S::try_acquire(&self.word) || self.acquire_until_slow(m, deadline)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn acquire_until_slow(&self, m: &M, deadline: u64) -> bool {
        S::try_past(&self.word) || S::acquire_until(m, &self.word, deadline)
    }
}

impl<M: Machine, S: SlowPath<M>> fmt::Debug for RawSpinLock<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.word.peek();
        f.debug_struct("RawSpinLock")
            .field("slow_path", &S::NAME)
            .field("locked", &seen.is_locked())
            .field("pending", &seen.is_pending())
            .field("tail", &seen.tail())
            .finish()
    }
}

#[cfg(feature = "lock_api")]
#[allow(unsafe_code, reason = "lock_api's traits promise exclusion")]
mod bridge {
    use core::convert::Infallible;

    use lock_api::{GuardNoSend, RawMutex, RawMutexFair};

    use super::{GlobalMachine, RawSpinLock, SlowPath};
    use crate::slowpath::HandsOver;

    // SAFETY: the low byte is 1 while somebody holds the lock. Every claim is a read-modify-write that finds it other than
    // 1, and only the holder changes it to something else; or it tells another waiter that it is the holder now.
    unsafe impl<M: GlobalMachine, S: SlowPath<M, Error = Infallible>> RawMutex for RawSpinLock<M, S> {
        #[allow(clippy::declare_interior_mutable_const, reason = "an initialiser: every use is a new lock")]
        const INIT: Self = Self::new();

        // The queue node is given back before `lock` returns, so another thread could unlock. As with std's mutex
        // a guard stays on its thread all the same: a kernel's preemption and interrupt state would not move.
        type Guard = GuardNoSend;

        #[inline]
        fn lock(&self) -> GuardNoSend {
            let Ok(()) = self.acquire_on(&M::MACHINE);
            GuardNoSend::new()
        }

        #[inline]
        fn try_lock(&self) -> Option<GuardNoSend> {
            self.try_acquire_on(&M::MACHINE).then_some(GuardNoSend::new())
        }

        #[inline]
        unsafe fn unlock(&self, _: GuardNoSend) {
            // SAFETY: the guard says that the caller holds the lock.
            unsafe { self.release_on(&M::MACHINE) }
        }

        #[inline]
        fn is_locked(&self) -> bool {
            self.is_taken()
        }
    }

    // SAFETY: as above.
    unsafe impl<M, S> RawMutexFair for RawSpinLock<M, S>
    where
        M: GlobalMachine,
        S: HandsOver<M> + SlowPath<M, Error = Infallible>,
    {
        #[inline]
        unsafe fn unlock_fair(&self, _: GuardNoSend) {
            S::release_fair(&M::MACHINE, &self.word);
        }

        #[inline]
        unsafe fn bump(&self, _: &mut GuardNoSend) {
            if self.is_contended() {
                S::release_fair(&M::MACHINE, &self.word);
                let Ok(()) = self.acquire_on(&M::MACHINE);
            }
        }
    }
}
