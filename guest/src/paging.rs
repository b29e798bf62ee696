//! Which memory may be what: code is executed and never written, data is written and never executed.
//!
//! The start-up code maps the first 4 GiB by pages of 2 MiB, at their own addresses. Here those under the kernel's
//! image become pages of 4 KiB with the rights that their section needs; all others lose the right to be executed.
//! Code is written through a second mapping of its page, a [window](write_code) elsewhere that is there only
//! meanwhile: so no page is ever writable and executable at once, at one address.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::cpu::{self, Shared};
use crate::mem;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

const PAGE: usize = 4096;
const LARGE_PAGE: usize = 2 << 20;
/// Large pages that the image may lie in.
const IMAGE_PARTS: usize = 16;
/// Where the window is: the second entry of the topmost table.
const WINDOW: usize = 1 << 39;

/// Where other CPUs start.
pub(crate) const TRAMPOLINE: usize = 0x8000;

type Entry = AtomicU64;

#[repr(C, align(4096))]
struct Table([Entry; 512]);

impl Table {
    #[allow(clippy::declare_interior_mutable_const, reason = "an initialiser")]
    const EMPTY: Self = Self([const { Entry::new(0) }; 512]);

    fn address(&self) -> u64 {
        core::ptr::from_ref(self).addr() as u64
    }
}

static IMAGE: [Table; IMAGE_PARTS] = [const { Table::EMPTY }; IMAGE_PARTS];
static WINDOW_PDPT: Table = Table::EMPTY;
static WINDOW_PD: Table = Table::EMPTY;
static WINDOW_PT: Table = Table::EMPTY;

unsafe extern "C" {
    static page_pml4: Table;
    static page_pds: [Table; 4];
    // The linker script's: only their addresses mean anything.
    static image_start: Shared<u8>;
    static text_end: Shared<u8>;
    static rodata_end: Shared<u8>;
    static image_end: Shared<u8>;
}

/// What the image takes: from, and to where.
pub(crate) fn image() -> (usize, usize) {
    ((&raw const image_start).addr(), (&raw const image_end).addr())
}

/// Gives each page its rights.
///
/// # Panics
/// If the image is larger than the tables for it.
pub(crate) fn protect() {
    let (start, end) = image();
    // SAFETY: symbols of the linker script and of the start-up code.
    let (text_past, rodata_past, pml4, pds) =
        unsafe { ((&raw const text_end).addr(), (&raw const rodata_end).addr(), &page_pml4, &page_pds) };
    assert!(end.div_ceil(LARGE_PAGE) - start / LARGE_PAGE <= IMAGE_PARTS, "the image is larger than expected");
    for (number, entry) in pds.iter().flat_map(|table| &table.0).enumerate() {
        let address = number * LARGE_PAGE;
        if address + LARGE_PAGE <= start || address >= end {
            entry.store(address as u64 | PRESENT | WRITABLE | LARGE | NO_EXECUTE, Ordering::Relaxed);
            continue;
        }
        let table = &IMAGE[number - start / LARGE_PAGE];
        for (n, entry) in table.0.iter().enumerate() {
            let page = address + n * PAGE;
            let rights = match page {
                _ if page < start || page >= rodata_past => WRITABLE | NO_EXECUTE,
                _ if page < text_past => 0,
                _ => NO_EXECUTE,
            };
            entry.store(page as u64 | PRESENT | rights, Ordering::Relaxed);
        }
        entry.store(table.address() | PRESENT | WRITABLE, Ordering::Relaxed);
    }
    // The trampoline is executed with paging off. What nobody should touch: the page that null pointers are in is
    // left as it is, since the firmware's data area begins there.
    WINDOW_PD.0[0].store(WINDOW_PT.address() | PRESENT | WRITABLE, Ordering::Relaxed);
    WINDOW_PDPT.0[0].store(WINDOW_PD.address() | PRESENT | WRITABLE, Ordering::Relaxed);
    pml4.0[1].store(WINDOW_PDPT.address() | PRESENT | WRITABLE, Ordering::Relaxed);
    cpu::forget_pages();
}

/// Writes code of the kernel.
///
/// # Safety
/// It is code that is to be changed, and of it nobody executes anything meanwhile. One at a time.
///
/// # Panics
/// If it is not the kernel's text.
pub(crate) unsafe fn write_code(address: usize, code: &[u8]) {
    let (start, _) = image();
    let past = (&raw const text_end).addr();
    let is_text = address >= start && address.checked_add(code.len()).is_some_and(|end| end <= past);
    assert!(is_text, "{address:#x} is no code of this kernel");
    // It may lie on two pages.
    let page = address & !(PAGE - 1);
    for n in 0..2 {
        let entry = (page + n * PAGE) as u64 | PRESENT | WRITABLE | NO_EXECUTE;
        WINDOW_PT.0[n].store(entry, Ordering::Relaxed);
        cpu::forget_page(WINDOW + n * PAGE);
    }
    // SAFETY: the window is those two pages, and the code is within; the caller's, for what is written.
    unsafe { mem::write_bytes(core::ptr::with_exposed_provenance_mut(WINDOW + (address - page)), code) };
    for n in 0..2 {
        WINDOW_PT.0[n].store(0, Ordering::Relaxed);
        cpu::forget_page(WINDOW + n * PAGE);
    }
    cpu::serialise();
}
