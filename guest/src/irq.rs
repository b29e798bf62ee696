//! Locks that interrupt handlers take as well: interrupts are off from before the wait until after the unlock.
//!
//! Not by a flag in each guard, which is right only if the last guard taken is the first one dropped: by a count for
//! each CPU. The first wish turns interrupts off and remembers whether they were on; the last one that ends puts them
//! back. So guards nest, and may be dropped in any order.

use core::sync::atomic::{Ordering, compiler_fence};

use qspinlock::lock_api::{GuardNoSend, RawMutex};

use crate::{cpu, percpu};

/// One wish more that interrupts be off.
#[inline]
pub(crate) fn mask() {
    let were_on = cpu::interrupts_off();
    let this = percpu::mine();
    // The count first: an NMI here, which masks and unmasks as well, must not take its own state for the first.
    let masks = this.masks.get();
    this.masks.set(masks + 1);
    compiler_fence(Ordering::SeqCst);
    if masks == 0 {
        this.were_on.set(were_on);
    }
}

/// One less.
#[inline]
pub(crate) fn unmask() {
    let this = percpu::mine();
    let masks = this.masks.get() - 1;
    // Read before the count: see above.
    let were_on = this.were_on.get();
    compiler_fence(Ordering::SeqCst);
    this.masks.set(masks);
    if masks == 0 && were_on {
        // SAFETY: as they were before the first wish.
        unsafe { cpu::interrupts_on() };
    }
}

/// A lock that is taken with interrupts off.
#[repr(transparent)]
pub(crate) struct RawIrq<R> {
    lock: R,
}

// SAFETY: exclusion is the lock's within. Guards are not sent, so what is undone is their own CPU's.
unsafe impl<R: RawMutex<Guard = GuardNoSend>> RawMutex for RawIrq<R> {
    #[allow(clippy::declare_interior_mutable_const, reason = "an initialiser")]
    const INIT: Self = Self { lock: R::INIT };

    type Guard = GuardNoSend;

    #[inline]
    fn lock(&self) -> GuardNoSend {
        mask();
        self.lock.lock()
    }

    #[inline]
    fn try_lock(&self) -> Option<GuardNoSend> {
        mask();
        let taken = self.lock.try_lock();
        if taken.is_none() {
            unmask();
        }
        taken
    }

    #[inline]
    unsafe fn unlock(&self, guard: GuardNoSend) {
        // SAFETY: the caller's.
        unsafe { self.lock.unlock(guard) };
        unmask();
    }

    fn is_locked(&self) -> bool {
        self.lock.is_locked()
    }
}
