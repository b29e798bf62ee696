//! Guards that may be sent to another thread: an opt-in, by type.

use lock_api::{GuardNoSend, GuardSend, RawMutex, RawMutexFair, RawMutexTimed};

use crate::machine::GlobalMachine;
use crate::raw::RawSpinLock;
use crate::slowpath::SlowPath;

/// A raw lock whose guards are `Send`.
///
/// The locks of this library do not care who unlocks: a waiter's queue node is given back before `lock` returns. Their
/// guards stay on their thread all the same unless one asks for this, since in a kernel a guard stands for preemption or
/// interrupts that are off, which do not move.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Sendable<L>(L);

// SAFETY: every method is that of the lock within. It is a `RawSpinLock`, whose unlock is nobody's in particular.
#[allow(unsafe_code, reason = "lock_api's traits promise exclusion")]
unsafe impl<M: GlobalMachine, S: SlowPath<M>> RawMutex for Sendable<RawSpinLock<M, S>>
where
    RawSpinLock<M, S>: RawMutex<Guard = GuardNoSend>,
{
    #[allow(clippy::declare_interior_mutable_const, reason = "an initialiser: every use is a new lock")]
    const INIT: Self = Self(RawMutex::INIT);

    type Guard = GuardSend;

    #[inline]
    fn lock(&self) -> GuardSend {
        self.0.lock();
        GuardSend::new()
    }

    #[inline]
    fn try_lock(&self) -> Option<GuardSend> {
        self.0.try_lock().map(|_| GuardSend::new())
    }

    #[inline]
    unsafe fn unlock(&self, _: GuardSend) {
        // SAFETY: the guard says that the lock is held.
        unsafe { self.0.unlock(GuardNoSend::new()) }
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.0.is_locked()
    }
}

// SAFETY: as above.
#[allow(unsafe_code, reason = "lock_api's traits promise exclusion")]
unsafe impl<M: GlobalMachine, S: SlowPath<M>> RawMutexFair for Sendable<RawSpinLock<M, S>>
where
    RawSpinLock<M, S>: RawMutexFair<Guard = GuardNoSend>,
{
    #[inline]
    unsafe fn unlock_fair(&self, _: GuardSend) {
        // SAFETY: the guard says that the lock is held.
        unsafe { self.0.unlock_fair(GuardNoSend::new()) }
    }

    #[inline]
    unsafe fn bump(&self, _: &mut GuardSend) {
        // SAFETY: the guard says that the lock is held.
        unsafe { self.0.bump(&mut GuardNoSend::new()) }
    }
}

// SAFETY: as above.
#[allow(unsafe_code, reason = "lock_api's traits promise exclusion")]
unsafe impl<M: GlobalMachine, S: SlowPath<M>> RawMutexTimed for Sendable<RawSpinLock<M, S>>
where
    RawSpinLock<M, S>: RawMutexTimed<Guard = GuardNoSend>,
{
    type Duration = <RawSpinLock<M, S> as RawMutexTimed>::Duration;
    type Instant = <RawSpinLock<M, S> as RawMutexTimed>::Instant;

    #[inline]
    fn try_lock_for(&self, timeout: Self::Duration) -> Option<GuardSend> {
        self.0.try_lock_for(timeout).map(|_| GuardSend::new())
    }

    #[inline]
    fn try_lock_until(&self, timeout: Self::Instant) -> Option<GuardSend> {
        self.0.try_lock_until(timeout).map(|_| GuardSend::new())
    }
}
