//! Real cells: an `AtomicU32`, and what an instruction set does better on its low byte.
//!
//! The four low-byte operations have 32-bit forms, the defaults of [`Cell`]. Where an instruction does exactly what
//! one of those does, as seen by every other CPU, a file per instruction set may use it. Mixing atomics of several
//! widths on one location is undefined behaviour in Rust, so those files are inline assembly, which the compiler
//! treats as opaque; why the machine gives the right order is said at each.
//!
//! Feature `portable` leaves them out, and so does Miri. A thread sanitiser sees no synchronisation in assembly and
//! reports races that are none: give it `portable`.

use core::panic::Location;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, compiler_fence, fence};

use crate::machine::{Access, Budget, Cell, ConstCell};
use crate::resilient::{ENTRIES, Entry, NameCell, PlaceCell, Record};
use reports::AtomicPlace;

#[cfg(all(target_arch = "x86_64", not(feature = "portable"), not(miri)))]
mod x86_64;

pub mod reports;

/// The form of the low-byte operations in this build, for reports.
pub const LOW_BYTE: &str = if cfg!(all(target_arch = "x86_64", not(feature = "portable"), not(miri))) {
    "x86-64 byte instructions"
} else {
    "portable 32-bit atomics"
};

/// A cell on a real CPU.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct AtomicCell(AtomicU32);

impl AtomicCell {
    /// The atomic, for what a machine does with it that no algorithm does: sleep on it.
    #[must_use]
    pub const fn as_atomic(&self) -> &AtomicU32 {
        &self.0
    }
}

impl ConstCell for AtomicCell {
    const ZERO: Self = Self(AtomicU32::new(0));
}

// SAFETY: every method is one operation of `AtomicU32` with the access's ordering, or an instruction with the same
// effect (see `x86_64`).
#[allow(unsafe_code, reason = "promises atomicity")]
unsafe impl Cell for AtomicCell {
    #[inline(always)]
    fn load(&self, access: Access) -> u32 {
        self.0.load(access.order)
    }

    #[inline(always)]
    fn store(&self, value: u32, access: Access) {
        self.0.store(value, access.order);
    }

    #[inline(always)]
    fn cas(&self, old: u32, new: u32, access: Access) -> Result<u32, u32> {
        self.0.compare_exchange(old, new, access.order, Ordering::Relaxed)
    }

    #[inline(always)]
    fn update(&self, access: Access, f: impl Fn(u32) -> Option<u32>) -> Result<u32, u32> {
        let mut seen = self.0.load(Ordering::Relaxed);
        while let Some(new) = f(seen) {
            match self.0.compare_exchange_weak(seen, new, access.order, Ordering::Relaxed) {
                Ok(old) => return Ok(old),
                Err(now) => seen = now,
            }
        }
        Err(seen)
    }

    #[cfg(all(target_arch = "x86_64", not(feature = "portable"), not(miri)))]
    #[inline(always)]
    fn load_byte1(&self, _access: Access) -> u32 {
        x86_64::load_byte1(&self.0)
    }

    #[cfg(all(target_arch = "x86_64", not(feature = "portable"), not(miri)))]
    #[inline(always)]
    fn cas_low8(&self, old: u8, new: u8, _access: Access) -> bool {
        x86_64::cas_low8(&self.0, old, new)
    }

    #[cfg(all(target_arch = "x86_64", not(feature = "portable"), not(miri)))]
    #[inline(always)]
    fn store_low8(&self, value: u8, _access: Access) {
        x86_64::store_low8(&self.0, value);
    }

    #[cfg(all(target_arch = "x86_64", not(feature = "portable"), not(miri)))]
    #[inline(always)]
    fn count_down_low8(&self, _access: Access) -> bool {
        x86_64::count_down_low8(&self.0)
    }

    #[cfg(all(target_arch = "x86_64", not(feature = "portable"), not(miri)))]
    #[inline(always)]
    fn count_up_own(&self, _access: Access) {
        x86_64::count_up_own(&self.0);
    }

    #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"), not(miri))))]
    #[inline(always)]
    fn count_up_own(&self, access: Access) {
        self.0.fetch_add(1, access.order);
    }

    #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"), not(miri))))]
    #[inline(always)]
    fn count_down_low8(&self, access: Access) -> bool {
        self.0.fetch_sub(1, access.order) as u8 == 1
    }

    #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"), not(miri))))]
    #[inline(always)]
    fn store_low8(&self, value: u8, access: Access) {
        if value == 0 {
            // The unlock. One instruction where there is one: waiters must not be able to hold it up, as they could a
            // compare-and-swap loop.
            self.0.fetch_and(!0xff, access.order);
        } else {
            let _ = self.update(access, |v| Some((v & !0xff) | u32::from(value)));
        }
    }
}

/// The name of a lock, on a real CPU.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct AtomicName(AtomicUsize);

// SAFETY: every method is one operation of `AtomicUsize` with the access's ordering.
#[allow(unsafe_code, reason = "promises atomicity")]
unsafe impl NameCell for AtomicName {
    #[inline(always)]
    fn load(&self, access: Access) -> usize {
        self.0.load(access.order)
    }

    #[inline(always)]
    fn store(&self, name: usize, access: Access) {
        self.0.store(name, access.order);
    }
}

impl PlaceCell for AtomicPlace {
    #[inline(always)]
    fn get(&self) -> Option<&'static Location<'static>> {
        self.load()
    }

    #[inline(always)]
    fn set(&self, place: &'static Location<'static>) {
        self.store(Some(place));
    }
}

/// What a CPU of a machine of real CPUs has entered, for a `static`.
pub type AtomicRecord = Record<AtomicCell, AtomicName, AtomicPlace>;

impl AtomicRecord {
    /// Nothing held, nothing wanted.
    #[allow(clippy::declare_interior_mutable_const, reason = "an initialiser: every use is a new record")]
    pub const EMPTY: Self =
        Self::new([const { Entry::from_cells(AtomicName(AtomicUsize::new(0)), AtomicPlace::new()) }; ENTRIES]);
}

/// [`Machine::until`](crate::Machine::until) for a machine of real CPUs: spins with the CPU's pause hint.
#[inline]
pub fn spin_until(cell: &AtomicCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
    loop {
        let seen = cell.load(access);
        if done(seen) {
            return seen;
        }
        core::hint::spin_loop();
    }
}

/// [`Machine::until_mine`](crate::Machine::until_mine) for a machine of real CPUs: spins, and asks for the line
/// exclusively each time.
///
/// A hand-over takes the line from the owner, which has just stored to it. Fetched by a load it comes shared, and
/// the claim would need a second round trip to have it alone.
#[inline]
pub fn spin_until_mine(cell: &AtomicCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
    loop {
        let seen = load_mine(cell, access);
        if done(seen) {
            return seen;
        }
        core::hint::spin_loop();
    }
}

/// Pauses after the first look of a wait that has a deadline; after each later one [`GROWTH`] times as many, up to
/// [`FARTHEST`]. A second look at once, for who comes as the owner leaves; then few, since each takes the line from an
/// owner that may be about to lock again. Between two far CPUs, with sections of 50 ns and no think time, looks that
/// are twice as many cost a tenth of the throughput.
const NEAREST: u32 = 1;
const GROWTH: u32 = 8;
const FARTHEST: u32 = 32;

/// [`Machine::until_for`](crate::Machine::until_for) for a machine of real CPUs, whose clock is `now`.
///
/// # Errors
/// The last value seen, when the budget is spent.
#[inline]
pub fn spin_until_for(
    cell: &AtomicCell,
    access: Access,
    budget: Budget,
    now: impl Fn() -> u64,
    done: impl Fn(u32) -> bool,
) -> Result<u32, u32> {
    spin_for(|| cell.load(access), budget, now, done)
}

/// [`Machine::until_mine_for`](crate::Machine::until_mine_for) for a machine of real CPUs.
///
/// # Errors
/// The same.
#[inline]
pub fn spin_until_mine_for(
    cell: &AtomicCell,
    access: Access,
    budget: Budget,
    now: impl Fn() -> u64,
    done: impl Fn(u32) -> bool,
) -> Result<u32, u32> {
    spin_for(|| load_mine(cell, access), budget, now, done)
}

/// Loads, by a CPU that wants the line for writing.
#[inline]
fn load_mine(cell: &AtomicCell, access: Access) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(feature = "portable"), not(miri)))]
    x86_64::fetch_for_writing(&cell.0);
    cell.load(access)
}

#[inline]
fn spin_for(
    look: impl Fn() -> u32,
    budget: Budget,
    now: impl Fn() -> u64,
    done: impl Fn(u32) -> bool,
) -> Result<u32, u32> {
    let (mut looks, mut gap) = (0_u32, NEAREST);
    loop {
        let seen = look();
        if done(seen) {
            return Ok(seen);
        }
        looks = looks.wrapping_add(1);
        let (is_spent, pauses) = match budget {
            Budget::Looks { most, apart } => (looks >= most, apart),
            Budget::Until(deadline) => (now() >= deadline, gap),
        };
        if is_spent {
            return Err(seen);
        }
        (0..pauses).for_each(|_| core::hint::spin_loop());
        gap = (gap * GROWTH).min(FARTHEST);
    }
}

/// [`Machine::fence`](crate::Machine::fence) for a machine of real CPUs.
#[inline(always)]
pub fn full_fence(access: Access) {
    fence(access.order);
}

/// [`Machine::signal_fence`](crate::Machine::signal_fence) for a machine of real CPUs.
#[inline(always)]
pub fn signal_fence() {
    compiler_fence(Ordering::SeqCst);
}
