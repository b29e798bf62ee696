//! The sites: inline assembly in every lock and unlock, and the section where they are recorded.

#![allow(unsafe_code, reason = "inline assembly: code that is rewritten, and a section of the image")]

use core::arch::asm;

use super::{Record, entry};
use crate::atomic::AtomicCell;
use crate::machine::GlobalMachine;
use crate::slowpath::{Native, Numa, Paravirt, Parking, TestAndSet};
use crate::word::LockWord;

/// The section. Its name is that of a version: an image may hold several copies of the library, each with its own
/// choice and its own idea of what a record is.
macro_rules! section {
    () => {
        concat!(
            "qspinlock_sites_",
            env!("CARGO_PKG_VERSION_MAJOR"),
            "_",
            env!("CARGO_PKG_VERSION_MINOR"),
            "_",
            env!("CARGO_PKG_VERSION_PATCH")
        )
    };
}

/// A name for the place where that stands. `.set`, since the flag `o` takes no numbers, and a label would be defined anew
/// by each copy of the site that the compiler makes. It has the name of a block of the function in it: records that are
/// linked to one name are one section, which is kept or dropped with the first function that has it.
macro_rules! here {
    ($block:literal) => {
        concat!(".set .Lqspinlock_", $block, ", .")
    };
}

/// Where the section is, linked to the section of the code that stands [here](here!).
macro_rules! record {
    ($block:literal) => {
        concat!(".pushsection ", section!(), ",\"ao\",@progbits,.Lqspinlock_", $block)
    };
}

/// Waits for the lock.
#[inline(always)]
pub(crate) fn acquire<M: GlobalMachine<Cell = AtomicCell>>(word: &LockWord<AtomicCell>) {
    // SAFETY: a call of a function of the C ABI that takes a pointer, whichever of them is called: they differ in
    // nothing that the caller can see. The word is alive, and owned when the call returns.
    unsafe {
        asm!(
            here!("{end}"),
            "29:",
            "call {look_up}",
            record!("{end}"),
            ".p2align 2",
            ".long 29b - .",
            ".long 1",
            ".long {look_up}@PLT - .",
            ".long {native}@PLT - .",
            ".long {numa}@PLT - .",
            ".long {paravirt}@PLT - .",
            ".long {parking}@PLT - .",
            ".long {test_and_set}@PLT - .",
            ".popsection",
            in("rdi") core::ptr::from_ref(word),
            look_up = sym entry::look_up::<M>,
            native = sym entry::enter::<M, Native>,
            numa = sym entry::enter::<M, Numa>,
            paravirt = sym entry::enter::<M, Paravirt>,
            parking = sym entry::enter::<M, Parking>,
            test_and_set = sym entry::enter::<M, TestAndSet>,
            // Nothing goes there: for its name.
            end = label {},
            clobber_abi("C"),
        );
    }
}

/// Releases the lock.
#[inline(always)]
pub(crate) fn release<M: GlobalMachine<Cell = AtomicCell>>(word: &LockWord<AtomicCell>) {
    // SAFETY: every form releases the lock, which the caller holds, or goes to the block that does; and changes no
    // register but the flags. Not `nomem`: what came before must not move after it.
    unsafe {
        asm!(
            here!("{cold}"),
            "29:",
            // `jmp`, and always the long one.
            ".byte 0xe9",
            ".long {cold} - . - 4",
            ".byte 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0",
            record!("{cold}"),
            ".p2align 2",
            ".long 29b - .",
            ".long 2",
            ".long {cold} - .",
            ".long 0, 0, 0, 0, 0",
            ".popsection",
            in("rdi") core::ptr::from_ref(word),
            cold = label { entry::release::<M>(word) },
        );
    }
}

/// What the sites of this image recorded; nothing, if two copies of this version did. Out of line, so that each copy has
/// one record that is no site.
#[inline(never)]
pub(super) fn records() -> &'static [Record] {
    let (start, stop): (*const Record, *const Record);
    // SAFETY: the linker defines both symbols, the ends of a section that is not empty, since it holds a record that is
    // written here. Hidden: they are of this image, and not of another one that has a copy of the library.
    unsafe {
        asm!(
            concat!(".hidden __start_", section!()),
            concat!(".hidden __stop_", section!()),
            here!("records"),
            record!("records"),
            ".p2align 2",
            ".long 0, 0, 0, 0, 0, 0, 0, 0",
            ".popsection",
            concat!("lea {start}, [rip + __start_", section!(), "]"),
            concat!("lea {stop}, [rip + __stop_", section!(), "]"),
            start = lateout(reg) start,
            stop = lateout(reg) stop,
            options(nomem, nostack, preserves_flags, pure),
        );
    }
    let bytes = stop.addr() - start.addr();
    // SAFETY: between the two there are records of this version and nothing else; they are never written.
    let records = unsafe { core::slice::from_raw_parts(start, bytes / size_of::<Record>()) };
    let copies = records.iter().filter(|record| record.kind().is_none()).count();
    if copies == 1 { records } else { &[] }
}
