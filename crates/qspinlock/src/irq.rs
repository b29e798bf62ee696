//! Locks that interrupt handlers take as well: interrupts are off from before the wait until after the unlock.
//!
//! Not by a flag in each guard, which is right only if the last guard taken is the first one dropped:
//!
//! ```text
//!   let a = A.lock();    // a remembers "on"
//!   let b = B.lock();    // b remembers "off"
//!   drop(a);             // on! and B, which handlers take, is held
//! ```
//!
//! but by a count for each CPU. The first wish that they be off remembers whether they were on, the last one that ends
//! puts them back. So guards nest, and end in any order.
//!
//! A kernel implements [`Interrupts`], two functions and a place for the count. Then [`Masked`] is a guard that keeps
//! interrupts off, beside whatever else (a [resilient](crate::resilient) lock's guard); and [`IrqSafe`] makes a lock
//! of `lock_api` one that handlers may take:
//!
//! ```
//! # #[cfg(all(feature = "std", feature = "lock_api"))] {
//! # use std::cell::Cell;
//! use qspinlock::irq::{Count, Interrupts, IrqSafe};
//! use qspinlock::lock_api;
//! # use qspinlock::RawMutex as RawLock;
//!
//! static COUNT: Count = Count::NONE;              // one for each CPU
//! # std::thread_local!(static ON: Cell<bool> = const { Cell::new(true) });
//!
//! #[derive(Debug)]
//! struct ThisComputer;
//!
//! unsafe impl Interrupts for ThisComputer {
//!     fn off() -> bool { ON.replace(false) }      // read the flag; cli
//!     unsafe fn on() { ON.set(true) }             // sti
//!     fn count() -> &'static Count { &COUNT }     // of this CPU's own data
//! }
//!
//! type IrqMutex<T> = lock_api::Mutex<IrqSafe<RawLock, ThisComputer>, T>;
//!
//! static A: IrqMutex<u32> = IrqMutex::new(0);
//! static B: IrqMutex<u32> = IrqMutex::new(0);
//! let a = A.lock();
//! let b = B.lock();
//! drop(a);
//! assert!(!ON.get());
//! drop(b);
//! assert!(ON.get());
//! # }
//! ```
//!
//! A guard that is forgotten leaves interrupts off. A context keeps its CPU as long as it has a guard, which with
//! interrupts off nobody changes but itself: it must not switch to another task.
//!
//! # NMIs
//! An NMI handler comes also between the steps here, and may make and end such guards itself: it leaves the count as
//! it was, and interrupts are off for it, so it never turns them on. Count and state are *one* number, so there is no
//! moment at which one of them is new and the other old.

#![allow(unsafe_code, reason = "promises of who turns interrupts on, and lock_api's traits")]

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU32, Ordering};

/// The interrupts of the CPU that asks.
///
/// # Safety
/// When [`off`](Self::off) has returned, no interrupt comes on this CPU, other than NMIs, until somebody calls
/// [`on`](Self::on); and so the context stays on this CPU. Nothing that the compiler sees after `off` happens before it
/// and nothing before `on` after it, as far as this CPU can tell: a block of assembly without `nomem` sees to it.
/// [`count`](Self::count) is this CPU's own, and with interrupts off it is the same each time.
pub unsafe trait Interrupts {
    /// Turns interrupts off. Whether they were on: false in an NMI, and in a handler where they were off.
    fn off() -> bool;

    /// Turns interrupts on.
    ///
    /// # Safety
    /// They were on when the first of those who wanted them off began, and the last has ended.
    unsafe fn on();

    /// This CPU's count. Only called with interrupts off.
    fn count() -> &'static Count;
}

/// Interrupts were on before the first wish.
const WERE_ON: u32 = 1;
/// One wish.
const ONE: u32 = 2;

/// How many on a CPU want interrupts to be off, and whether they were on before. Among the CPU's own data; 4 bytes.
#[derive(Debug)]
#[repr(transparent)]
pub struct Count(
    // Read and written by its own CPU alone, never both at once: no read-modify-write.
    AtomicU32,
);

impl Count {
    /// Nobody does.
    #[allow(clippy::declare_interior_mutable_const, reason = "an initialiser: every use is a new count")]
    pub const NONE: Self = Self(AtomicU32::new(0));

    /// How many do. For its own CPU.
    #[must_use]
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed) / ONE
    }
}

/// One wish more.
#[inline]
fn mask<I: Interrupts>() {
    let were_on = I::off();
    let Count(count) = I::count();
    // An NMI in between leaves it as it was.
    let before = count.load(Ordering::Relaxed);
    let after = if before == 0 { ONE | u32::from(were_on) } else { before + ONE };
    count.store(after, Ordering::Relaxed);
}

/// One less.
///
/// # Safety
/// One of those that there are is the caller's, and ends.
#[inline]
unsafe fn unmask<I: Interrupts>() {
    let Count(count) = I::count();
    let before = count.load(Ordering::Relaxed);
    if before & !WERE_ON != ONE {
        count.store(before - ONE, Ordering::Relaxed);
        return;
    }
    // First: the handler of an interrupt that is pending begins with none.
    count.store(0, Ordering::Relaxed);
    if before & WERE_ON != 0 {
        // SAFETY: as they were before the first wish; this was the last.
        unsafe { I::on() };
    }
}

/// Interrupts are off on this CPU as long as this lives. Stays there.
#[derive(Debug)]
#[must_use = "interrupts are off only as long as it lives"]
pub struct Masked<I: Interrupts>(PhantomData<(I, *mut ())>);

impl<I: Interrupts> Masked<I> {
    /// Turns them off, if they are not.
    #[inline]
    pub fn new() -> Self {
        mask::<I>();
        Self(PhantomData)
    }
}

impl<I: Interrupts> Default for Masked<I> {
    fn default() -> Self {
        Self::new()
    }
}

impl<I: Interrupts> Drop for Masked<I> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `new`'s, which ends here.
        unsafe { unmask::<I>() };
    }
}

#[cfg(feature = "lock_api")]
pub use safe::IrqSafe;

#[cfg(feature = "lock_api")]
mod safe {
    use core::marker::PhantomData;

    use lock_api::{GuardNoSend, RawMutex, RawMutexFair};

    use super::{Interrupts, Masked, unmask};

    /// A raw lock that is taken with interrupts off: the lock within, which has guards that stay on their CPU.
    #[derive(Debug)]
    #[repr(transparent)]
    pub struct IrqSafe<L, I> {
        lock: L,
        interrupts: PhantomData<fn() -> I>,
    }

    // SAFETY: exclusion is the lock's within. Guards are not sent, so what is undone is their own CPU's.
    unsafe impl<L: RawMutex<Guard = GuardNoSend>, I: Interrupts> RawMutex for IrqSafe<L, I> {
        #[allow(clippy::declare_interior_mutable_const, reason = "an initialiser: every use is a new lock")]
        const INIT: Self = Self { lock: L::INIT, interrupts: PhantomData };

        type Guard = GuardNoSend;

        #[inline]
        fn lock(&self) -> GuardNoSend {
            // If it panics they come back.
            let masked = Masked::<I>::new();
            let guard = self.lock.lock();
            core::mem::forget(masked);
            guard
        }

        #[inline]
        fn try_lock(&self) -> Option<GuardNoSend> {
            let masked = Masked::<I>::new();
            let guard = self.lock.try_lock()?;
            core::mem::forget(masked);
            Some(guard)
        }

        #[inline]
        unsafe fn unlock(&self, guard: GuardNoSend) {
            // SAFETY: the caller's; and the wish was made when the lock was taken.
            unsafe {
                self.lock.unlock(guard);
                unmask::<I>();
            }
        }

        #[inline]
        fn is_locked(&self) -> bool {
            self.lock.is_locked()
        }
    }

    // SAFETY: as above. Interrupts stay off while somebody else has the lock: who bumps still waits for it.
    unsafe impl<L: RawMutexFair<Guard = GuardNoSend>, I: Interrupts> RawMutexFair for IrqSafe<L, I> {
        #[inline]
        unsafe fn unlock_fair(&self, guard: GuardNoSend) {
            // SAFETY: as for `unlock`.
            unsafe {
                self.lock.unlock_fair(guard);
                unmask::<I>();
            }
        }

        #[inline]
        unsafe fn bump(&self, guard: &mut GuardNoSend) {
            // SAFETY: the caller's.
            unsafe { self.lock.bump(guard) }
        }
    }
}
