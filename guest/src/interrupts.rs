//! What each interrupt does.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use crate::console::{Exit, exit, println};
use crate::cpu;
use crate::tables::vector;
use crate::{apic, percpu};

/// What was interrupted, as `stubs.s` pushes it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Frame {
    registers: [u64; 15],
    vector: u64,
    error: u64,
    pub(crate) address: u64,
    segment: u64,
    flags: u64,
    stack: u64,
    stack_segment: u64,
}

/// The programmable interrupt controllers of old: out of the way of exceptions, and silent.
pub(crate) fn mask_old_controllers() {
    // SAFETY: the registers of two 8259s: start, vectors 0x20 and 0x28, wiring, mode, all masked.
    unsafe {
        for (port, value) in [(0x20, 0x11), (0xa0, 0x11), (0x21, 0x20), (0xa1, 0x28), (0x21, 4), (0xa1, 2)] {
            cpu::out8(port, value);
        }
        for (port, value) in [(0x21, 1), (0xa1, 1), (0x21, 0xff), (0xa1, 0xff)] {
            cpu::out8(port, value);
        }
    }
}

/// What else is done when an interrupt comes: nothing, until somebody says so.
pub(crate) struct Hook(AtomicPtr<()>);

impl Hook {
    #[allow(clippy::declare_interior_mutable_const, reason = "an initialiser")]
    const NOTHING: Self = Self(AtomicPtr::new(core::ptr::null_mut()));

    /// Says what is done from now on.
    pub(crate) fn set(&self, what: Option<fn()>) {
        self.0.store(what.map_or(core::ptr::null_mut(), |what| what as *mut ()), Ordering::Release);
    }

    fn is_set(&self) -> bool {
        !self.0.load(Ordering::Relaxed).is_null()
    }

    fn call(&self) {
        let what = self.0.load(Ordering::Acquire);
        if !what.is_null() {
            // SAFETY: it was made of such a function.
            let what = unsafe { core::mem::transmute::<*mut (), fn()>(what) };
            what();
        }
    }
}

pub(crate) static ON_TIMER: Hook = Hook::NOTHING;
pub(crate) static ON_CALL: Hook = Hook::NOTHING;
pub(crate) static ON_NMI: Hook = Hook::NOTHING;
/// After each instruction of what is [stepped](cpu::stepped).
pub(crate) static ON_STEP: Hook = Hook::NOTHING;

/// Steps no further: the CPU goes on at full speed when the handler returns.
static STEP_NO_MORE: AtomicBool = AtomicBool::new(false);

static BEFORE_HALT: AtomicBool = AtomicBool::new(false);

/// For what [`ON_NMI`] does: whether the next instruction was the `hlt` of a wait.
pub(crate) fn is_about_to_halt() -> bool {
    BEFORE_HALT.load(Ordering::Relaxed)
}

static STEPPED_TO: AtomicUsize = AtomicUsize::new(0);

/// For what [`ON_STEP`] does: where the next instruction is.
pub(crate) fn stepped_to() -> usize {
    STEPPED_TO.load(Ordering::Relaxed)
}

/// To be called by what [`ON_STEP`] does.
pub(crate) fn step_no_more() {
    STEP_NO_MORE.store(true, Ordering::Relaxed);
}

/// The CPU runs instruction by instruction.
const FLAG_STEP: u64 = 1 << 8;

/// NMIs say where they came.
static REPORT: AtomicBool = AtomicBool::new(false);

/// Has every other CPU say where it is: for a hang, after which nothing goes on.
pub(crate) fn report() {
    ON_NMI.set(None);
    REPORT.store(true, Ordering::Relaxed);
    for number in crate::smp::all().skip(1) {
        apic::send_nmi(percpu::of(number).apic_id().load(Ordering::Relaxed));
        crate::clock::pause_for(100_000_000);
    }
}

#[unsafe(no_mangle)]
extern "C" fn interrupt(frame: &mut Frame) {
    let this = percpu::mine();
    let number = frame.vector as u8;
    if number < 32 {
        // Whoever waits here cannot be kicked: interrupts may have been off.
        this.in_nmi.set(this.in_nmi.get() + 1);
        exception(number, frame);
        this.in_nmi.set(this.in_nmi.get() - 1);
        return;
    }
    match number {
        vector::TIMER => {
            this.timers.fetch_add(1, Ordering::Relaxed);
            apic::end_of_interrupt();
            ON_TIMER.call();
            // After that, or one that waits for long would leave nothing to what it has interrupted.
            if this.tick.get() > 0 {
                apic::timer_in(this.tick.get());
            }
        }
        // That it came is all.
        vector::KICK => {
            this.kicks.fetch_add(1, Ordering::Relaxed);
            apic::end_of_interrupt();
        }
        vector::CALL => {
            apic::end_of_interrupt();
            ON_CALL.call();
        }
        vector::STOP => {
            apic::end_of_interrupt();
            crate::stop::on_stop(frame.address as usize);
        }
        vector::SPURIOUS => {}
        // Masked, but they may have been on their way.
        0x20..0x30 => {}
        _ => unexpected(number, frame),
    }
}

/// Where this CPU goes on when it may not write: see [`is_read_only`].
static RESUME: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

fn exception(number: u8, frame: &mut Frame) {
    let before_halt = matches!(number, vector::NMI | vector::DEBUG) && frame.address == cpu::halt_address();
    BEFORE_HALT.store(before_halt, Ordering::Relaxed);
    if before_halt {
        frame.address += cpu::HALT_LEN;
    }
    match number {
        // The last one comes after the instruction that ends it.
        vector::DEBUG if ON_STEP.is_set() => {
            if frame.flags & FLAG_STEP != 0 {
                STEPPED_TO.store(frame.address as usize, Ordering::Relaxed);
                ON_STEP.call();
            }
            if STEP_NO_MORE.swap(false, Ordering::Relaxed) {
                frame.flags &= !FLAG_STEP;
            }
        }
        vector::NMI => {
            let this = percpu::mine();
            this.nmis.fetch_add(1, Ordering::Relaxed);
            if REPORT.load(Ordering::Relaxed) {
                let on = frame.flags & (1 << 9) != 0;
                println!(
                    "guest: CPU {} is at {:#x}, interrupts {}; {} halts, {} kicks, {} timers",
                    this.number.get(),
                    frame.address,
                    if on { "on" } else { "off" },
                    this.halts.load(Ordering::Relaxed),
                    this.kicks.load(Ordering::Relaxed),
                    this.timers.load(Ordering::Relaxed),
                );
            }
            ON_NMI.call();
        }
        vector::PAGE_FAULT if !RESUME.load(Ordering::Relaxed).is_null() => {
            frame.address = RESUME.swap(core::ptr::null_mut(), Ordering::Relaxed).addr() as u64;
        }
        _ => unexpected(number, frame),
    }
}

/// Tries to write one byte, as it is. True if the CPU refuses. On the first CPU, before there are others.
pub(crate) fn is_read_only(address: usize) -> bool {
    let refused: u64;
    // SAFETY: writes what is there. If that faults, the handler has it go on at the label.
    unsafe {
        core::arch::asm!(
            "lea {scratch}, [rip + 2f]",
            "mov [{resume}], {scratch}",
            "mov {refused:e}, 1",
            "mov {scratch:l}, [{address}]",
            "mov [{address}], {scratch:l}",
            "xor {refused:e}, {refused:e}",
            "2:",
            scratch = out(reg) _,
            refused = out(reg) refused,
            resume = in(reg) RESUME.as_ptr(),
            address = in(reg) address,
            options(nostack),
        );
    }
    RESUME.store(core::ptr::null_mut(), Ordering::Relaxed);
    refused != 0
}

fn unexpected(number: u8, frame: &Frame) -> ! {
    let name = match number {
        0 => "division error",
        1 => "debug",
        3 => "breakpoint",
        6 => "undefined instruction",
        8 => "double fault",
        13 => "general protection",
        14 => "page fault",
        18 => "machine check",
        _ => "unexpected",
    };
    println!(
        "guest: interrupt {number} ({name}) on CPU {}: error {:#x}, at {:#x}, stack {:#x}, address {:#x}",
        percpu::mine().number.get(),
        frame.error,
        frame.address,
        frame.stack,
        cpu::fault_address(),
    );
    println!("guest: registers {:x?}", frame.registers);
    exit(Exit::Broken)
}
