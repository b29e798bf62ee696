//! Instructions that Rust has no name for, and no more than that.

use core::arch::{asm, global_asm};

/// Interrupts are on.
const FLAG_INTERRUPTS: u64 = 1 << 9;

pub(crate) const MSR_GS_BASE: u32 = 0xc000_0101;

/// Writes a byte to a port.
///
/// # Safety
/// What the device does is in order.
pub(crate) unsafe fn out8(port: u16, value: u8) {
    // SAFETY: the caller's.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Writes four bytes to a port.
///
/// # Safety
/// What the device does is in order.
pub(crate) unsafe fn out32(port: u16, value: u32) {
    // SAFETY: the caller's.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads a byte from a port.
///
/// # Safety
/// What the device does is in order.
pub(crate) unsafe fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: the caller's.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads a model-specific register.
///
/// # Safety
/// The register is there.
pub(crate) unsafe fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's.
    unsafe {
        asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(low) | u64::from(high) << 32
}

/// Writes a model-specific register.
///
/// # Safety
/// The register is there, and what it changes is in order.
pub(crate) unsafe fn write_msr(register: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: the caller's.
    unsafe { asm!("wrmsr", in("ecx") register, in("eax") low, in("edx") high, options(nostack, preserves_flags)) };
}

/// The address whose access has failed.
pub(crate) fn fault_address() -> u64 {
    let address;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}

/// Forgets what it knows of a page.
pub(crate) fn forget_page(address: usize) {
    // SAFETY: nothing is changed but what the CPU remembers.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
}

/// Forgets all pages.
pub(crate) fn forget_pages() {
    // SAFETY: the same tables as before.
    unsafe { asm!("mov {t}, cr3", "mov cr3, {t}", t = out(reg) _, options(nostack, preserves_flags)) };
}

/// Waits until all that came before is done, also the fetching of code.
pub(crate) fn serialise() {
    // SAFETY: leaf 0 is on every CPU. RBX is the compiler's. May touch memory, for all that the compiler knows.
    unsafe {
        asm!("mov {b}, rbx", "cpuid", "mov rbx, {b}", b = out(reg) _, inout("eax") 0 => _, out("ecx") _, out("edx") _,
            options(nostack));
    }
}

/// Ticks since the start.
pub(crate) fn ticks() -> u64 {
    // SAFETY: reads a counter. The fence: not before what comes before.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
    }
}

/// Whether interrupts are on.
#[inline]
pub(crate) fn interrupts_are_on() -> bool {
    let flags: u64;
    // SAFETY: reads the flags by way of the stack. Not `nomem`: nothing moves across.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) };
    flags & FLAG_INTERRUPTS != 0
}

/// Turns interrupts off. Whether they were on.
#[inline]
pub(crate) fn interrupts_off() -> bool {
    let were_on = interrupts_are_on();
    // SAFETY: fewer things happen.
    unsafe { asm!("cli", options(nostack)) };
    were_on
}

/// Turns interrupts on.
///
/// # Safety
/// The CPU has its interrupt table, and nothing is under way that a handler must not see.
#[inline]
pub(crate) unsafe fn interrupts_on() {
    // SAFETY: the caller's.
    unsafe { asm!("sti", options(nostack)) };
}

global_asm!(
    ".section .text.halt, \"ax\", @progbits",
    ".global sti_halt, halt_place",
    "sti_halt: sti",
    "halt_place: hlt",
    "    ret",
);

unsafe extern "C" {
    fn sti_halt();
    static halt_place: Shared<u8>;
}

/// Turns interrupts on and halts until one comes; one that is pending already ends it. They are on when it returns. It
/// may return early: see [`halt_address`].
///
/// # Safety
/// As for [`interrupts_on`].
#[inline]
pub(crate) unsafe fn interrupts_on_and_halt() {
    // SAFETY: the caller's. The instruction after `sti` still runs without interrupts, so none can come between the
    // two.
    unsafe { sti_halt() };
}

/// Where [`interrupts_on_and_halt`] halts. An NMI can come just before it, and when *that* returns the protection of
/// `sti` is gone: an interrupt that was pending would be taken before the halt, and not end it. So the handler of an NMI
/// that finds this CPU here goes on [behind](HALT_LEN) it.
pub(crate) fn halt_address() -> u64 {
    (&raw const halt_place).addr() as u64
}

/// Bytes of a `hlt`.
pub(crate) const HALT_LEN: u64 = 1;

/// Halts for ever.
pub(crate) fn stop() -> ! {
    loop {
        // SAFETY: nothing goes on from here.
        unsafe { asm!("cli", "hlt", options(nostack)) };
    }
}

/// A static that is set up by hand, and then read.
#[repr(transparent)]
pub(crate) struct Shared<T>(core::cell::UnsafeCell<T>);

// SAFETY: who gets at it says why nobody else does at the same time.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// Where it is.
    pub(crate) const fn get(&self) -> *mut T {
        self.0.get()
    }
}

/// Holds back interrupts of this class of priorities, and of those below. Returns the one before.
#[inline]
pub(crate) fn set_priority(class: u8) -> u8 {
    let before: u64;
    // SAFETY: some interrupts come later.
    unsafe {
        asm!("mov {b}, cr8", "mov cr8, {c}", b = out(reg) before, c = in(reg) u64::from(class), options(nostack))
    };
    before as u8
}

/// Runs something instruction by instruction: after each comes a debug exception, until its handler says otherwise.
pub(crate) fn stepped<R>(what: impl FnOnce() -> R) -> R {
    // SAFETY: the handler is there.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    let result = what();
    // SAFETY: as above.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
    result
}

/// Waits a little.
#[inline]
pub(crate) fn relax() {
    core::hint::spin_loop();
}
