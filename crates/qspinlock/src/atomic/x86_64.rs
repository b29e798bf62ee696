//! x86-64: instructions on the low byte of a lock word.
//!
//! Alone on one hot line, a lock and unlock cost about 6.6 cycles with these and 13 to 17 with 32-bit atomics (Zen 4):
//! a 32-bit load cannot take from the store buffer the byte that the last unlock stored, and waits for it to drain.
//!
//! # Why they mean the same
//! x86-64 is TSO: stores become visible in program order, one total order for all CPUs; a locked instruction drains
//! the store buffer and locks the whole line, so locked instructions of different widths on one word are atomic with
//! respect to each other. Hence:
//! * a byte store of `v` takes effect at one moment, at which it changes the low byte and keeps the rest: the same
//!   as an atomic update of the word at that moment. It is a release, as every store is, and what is read from a
//!   word changed by it is ordered after all earlier stores of its CPU;
//! * a locked byte compare-and-swap is a 32-bit one whose other bits are whatever they are at that moment; so is a locked
//!   decrement of a byte that is not 0;
//! * a load of bits 8-15 may be satisfied before an earlier byte store of this CPU is visible, which the contract of
//!   `load_byte1` allows.

#![allow(unsafe_code, reason = "inline assembly: byte accesses to a word that others access as 32 bits")]

use core::arch::asm;
use core::sync::atomic::AtomicU32;

/// Bits 8-15, without touching byte 0.
#[inline(always)]
pub(super) fn load_byte1(word: &AtomicU32) -> u32 {
    let byte: u32;
    // SAFETY: reads byte 1 of a live word; the load of a byte is atomic.
    unsafe {
        asm!(
            "movzx {byte:e}, byte ptr [{p} + 1]",
            p = in(reg) word.as_ptr(),
            byte = lateout(reg) byte,
            options(nostack, preserves_flags, readonly),
        );
    }
    // So that the compiler knows how small it is.
    u32::from(byte as u8) << 8
}

/// Byte 0 from `old` to `new`, if it holds `old`. Locked, so sequentially consistent.
#[inline(always)]
pub(super) fn cas_low8(word: &AtomicU32, old: u8, new: u8) -> bool {
    let found: u8;
    // SAFETY: writes byte 0 of a live word. No `nomem`: what follows must not move before it.
    unsafe {
        asm!(
            "lock cmpxchg byte ptr [{p}], {new}",
            p = in(reg) word.as_ptr(),
            new = in(reg_byte) new,
            inout("al") old => found,
            options(nostack),
        );
    }
    found == old
}

/// Byte 0 becomes `value`. A plain store, so a release.
#[inline(always)]
pub(super) fn store_low8(word: &AtomicU32, value: u8) {
    // SAFETY: writes byte 0 of a live word. No `nomem`: what came before must not move after it.
    unsafe {
        asm!(
            "mov byte ptr [{p}], {value}",
            p = in(reg) word.as_ptr(),
            value = in(reg_byte) value,
            options(nostack, preserves_flags),
        );
    }
}

/// Takes 1 from byte 0, which is not 0. True if it is 0 now. Locked, so sequentially consistent.
#[inline(always)]
pub(super) fn count_down_low8(word: &AtomicU32) -> bool {
    // SAFETY: writes byte 0 of a live word. No `nomem`: what came before must not move after it.
    unsafe {
        asm!(
            "lock dec byte ptr [{p}]",
            "jnz {left}",
            p = in(reg) word.as_ptr(),
            left = label { return false },
            options(nostack),
        );
    }
    true
}

/// Adds 1. One instruction, so that an interrupt of this CPU comes before it or after it; not locked, so not one step to others.
#[inline(always)]
pub(super) fn count_up_own(word: &AtomicU32) {
    // SAFETY: reads and writes a live word that no other CPU writes. No `nomem`: what came before must not move after it.
    unsafe {
        asm!("inc dword ptr [{p}]", p = in(reg) word.as_ptr(), options(nostack));
    }
}

/// Asks for the line of a word, to write to it. A hint: no access, no order; without the feature a no-op.
#[inline(always)]
pub(super) fn fetch_for_writing(word: &AtomicU32) {
    // SAFETY: a prefetch of a live word changes nothing that a program can see.
    unsafe {
        asm!("prefetchw byte ptr [{p}]", p = in(reg) word.as_ptr(), options(nostack, preserves_flags, readonly));
    }
}
