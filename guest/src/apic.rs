//! The local interrupt controller of each CPU: interrupts to others, and a timer.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::tables::vector;
use crate::{clock, percpu};

const ID: usize = 0x20;
const PRIORITY: usize = 0x80;
const END: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const COMMAND: usize = 0x300;
const TARGET: usize = 0x310;
const TIMER: usize = 0x320;
const LINT0: usize = 0x350;
const LINT1: usize = 0x360;
const ERROR: usize = 0x370;
const INITIAL: usize = 0x380;
const CURRENT: usize = 0x390;
const DIVIDE: usize = 0x3e0;

/// Ids from here on are nobody's, or need another way to send interrupts.
pub(crate) const NOBODY: u32 = 255;

const ENABLED: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const PENDING: u32 = 1 << 12;
const ASSERT: u32 = 1 << 14;
const MODE_NMI: u32 = 4 << 8;
const MODE_INIT: u32 = 5 << 8;
const MODE_START: u32 = 6 << 8;

/// Where the registers are; until the CPU has been asked, where they mostly are.
static BASE: AtomicUsize = AtomicUsize::new(0xfee0_0000);
const MSR_BASE: u32 = 0x1b;
/// In that register: the controller is on, and is spoken to by other means than memory.
const ON: u64 = 1 << 11;
const NOT_IN_MEMORY: u64 = 1 << 10;
/// Of the timer, a millisecond.
static TIMER_TICKS: AtomicU32 = AtomicU32::new(0);

fn read(register: usize) -> u32 {
    let address = BASE.load(Ordering::Relaxed) + register;
    // SAFETY: the registers are mapped.
    unsafe { core::ptr::with_exposed_provenance::<u32>(address).read_volatile() }
}

fn write(register: usize, value: u32) {
    let address = BASE.load(Ordering::Relaxed) + register;
    // SAFETY: the registers are mapped, and what they do is to send interrupts, which have handlers.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>(address).write_volatile(value) };
}

/// Asks the CPU where its controller is, whatever the firmware says of that: a wrong address would be memory, or nothing.
/// `None` if this kernel cannot use it.
pub(crate) fn find() -> Option<u64> {
    // SAFETY: every CPU with long mode has it.
    let base = unsafe { crate::cpu::read_msr(MSR_BASE) };
    let address = base & 0x000f_ffff_ffff_f000;
    let fits = base & (ON | NOT_IN_MEMORY) == ON && (0x1000..0xffff_f000).contains(&address);
    if fits {
        BASE.store(address as usize, Ordering::Relaxed);
    }
    fits.then_some(address)
}

/// Sets this CPU's up: only interrupts between CPUs, and NMIs.
pub(crate) fn start() {
    write(SPURIOUS, ENABLED | u32::from(vector::SPURIOUS));
    write(PRIORITY, 0);
    write(TIMER, MASKED);
    write(LINT0, MASKED);
    write(LINT1, MASKED);
    write(ERROR, MASKED);
    write(DIVIDE, 3);
}

/// Who this CPU is.
pub(crate) fn id() -> u32 {
    read(ID) >> 24
}

/// Says that an interrupt has been seen.
pub(crate) fn end_of_interrupt() {
    write(END, 0);
}

fn command(target: u32, command: u32) {
    // An interrupt in between might send one itself. So might an NMI: it leaves the target as it was.
    let were_on = crate::cpu::interrupts_off();
    let idle = || {
        while read(COMMAND) & PENDING != 0 {
            core::hint::spin_loop();
        }
    };
    idle();
    let before = read(TARGET);
    write(TARGET, target << 24);
    write(COMMAND, command | ASSERT);
    if percpu::mine().in_nmi.get() > 0 {
        idle();
        write(TARGET, before);
    }
    if were_on {
        // SAFETY: as they were.
        unsafe { crate::cpu::interrupts_on() };
    }
}

/// Sends an interrupt to a CPU.
pub(crate) fn send(target: u32, vector: u8) {
    command(target, u32::from(vector));
}

/// Sends an NMI to a CPU.
pub(crate) fn send_nmi(target: u32) {
    command(target, MODE_NMI);
}

/// Resets a CPU.
pub(crate) fn send_init(target: u32) {
    command(target, MODE_INIT);
}

/// Has a CPU that was reset start at a page below 1 MiB.
pub(crate) fn send_start(target: u32, address: usize) {
    command(target, MODE_START | (address >> 12) as u32);
}

/// Measures the timer by the clock.
pub(crate) fn calibrate() {
    write(INITIAL, u32::MAX);
    clock::pause_for(5_000_000);
    let passed = u32::MAX - read(CURRENT);
    write(INITIAL, 0);
    TIMER_TICKS.store((passed / 5).max(1), Ordering::Relaxed);
}

/// Has the timer interrupt this CPU once, in so many nanoseconds.
pub(crate) fn timer_in(nanoseconds: u64) {
    let ticks = u64::from(TIMER_TICKS.load(Ordering::Relaxed)).saturating_mul(nanoseconds) / 1_000_000;
    write(TIMER, u32::from(vector::TIMER));
    write(INITIAL, ticks.clamp(1, u64::from(u32::MAX)) as u32);
}

/// Stops the timer.
pub(crate) fn timer_off() {
    write(INITIAL, 0);
    write(TIMER, MASKED);
}
