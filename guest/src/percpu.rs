//! What each CPU has of its own, found by its GS register.

use core::arch::asm;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use qspinlock::irq::Count;

use crate::cpu::{self, MSR_GS_BASE, Shared};

/// CPUs that this kernel supports. More are left alone.
pub(crate) const CPUS: usize = 64;

/// Of one CPU. The cells are its own, for it and its interrupts; the atomics are looked at by others.
#[repr(C, align(128))]
pub(crate) struct PerCpu {
    /// Where this is. First, since it is read through GS.
    this: Cell<*const PerCpu>,
    /// Its number.
    pub(crate) number: Cell<u32>,
    /// Its memory node.
    pub(crate) node: Cell<u32>,
    /// NMIs and exceptions within one another.
    pub(crate) in_nmi: Cell<u32>,
    /// Wishes for interrupts to be off.
    pub(crate) masks: Count,
    /// Random numbers of its own.
    pub(crate) random: Cell<u64>,
    /// Who it is to the interrupt controller.
    pub(crate) apic_id: AtomicU32,
    /// It runs.
    pub(crate) is_up: AtomicBool,
    /// Nanoseconds between two interrupts of its timer. 0: it does not tick.
    pub(crate) tick: Cell<u64>,
    /// Waits without a queue node: too many within one another.
    pub(crate) without_node: AtomicU64,
    /// Halts, and kicks received.
    pub(crate) halts: AtomicU64,
    pub(crate) kicks: AtomicU64,
    /// Timer interrupts, and NMIs.
    pub(crate) timers: AtomicU64,
    pub(crate) nmis: AtomicU64,
}

impl PerCpu {
    #[allow(clippy::declare_interior_mutable_const, reason = "an initialiser")]
    const EMPTY: Self = Self {
        this: Cell::new(core::ptr::null()),
        number: Cell::new(u32::MAX),
        node: Cell::new(0),
        in_nmi: Cell::new(0),
        masks: Count::NONE,
        random: Cell::new(1),
        apic_id: AtomicU32::new(0),
        is_up: AtomicBool::new(false),
        tick: Cell::new(0),
        without_node: AtomicU64::new(0),
        halts: AtomicU64::new(0),
        kicks: AtomicU64::new(0),
        timers: AtomicU64::new(0),
        nmis: AtomicU64::new(0),
    };
}

static ALL: [Shared<PerCpu>; CPUS] = [const { Shared::new(PerCpu::EMPTY) }; CPUS];

/// The CPU with a number, for what others may look at.
///
/// # Panics
/// If there is no room for such a number.
pub(crate) fn of(number: usize) -> Others {
    // SAFETY: never moved, and the fields that `Others` gives are atomics.
    let cpu = unsafe { &*ALL[number].get() };
    Others { cpu }
}

/// What others see of a CPU.
#[derive(Clone, Copy)]
pub(crate) struct Others {
    cpu: &'static PerCpu,
}

impl Others {
    pub(crate) fn apic_id(self) -> &'static AtomicU32 {
        &self.cpu.apic_id
    }

    pub(crate) fn is_up(self) -> &'static AtomicBool {
        &self.cpu.is_up
    }

    pub(crate) fn halts(self) -> &'static AtomicU64 {
        &self.cpu.halts
    }

    pub(crate) fn without_node(self) -> &'static AtomicU64 {
        &self.cpu.without_node
    }

    pub(crate) fn kicks(self) -> &'static AtomicU64 {
        &self.cpu.kicks
    }
}

/// Makes this CPU the one with a number. Once, before it does anything else.
///
/// # Safety
/// No other CPU has the number.
pub(crate) unsafe fn enter(number: usize, node: u32) {
    let this = ALL[number].get();
    // SAFETY: the caller's: nobody else writes these. GS is not used for anything else.
    unsafe {
        (*this).this.set(this);
        (*this).number.set(number as u32);
        (*this).node.set(node);
        (*this).random.set(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1));
        cpu::write_msr(MSR_GS_BASE, this.addr() as u64);
    }
}

/// This CPU's.
#[inline]
pub(crate) fn mine() -> &'static PerCpu {
    let this: *const PerCpu;
    // SAFETY: every CPU enters before it gets here, and stays the same: nothing moves between CPUs in this kernel.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) this, options(nostack, preserves_flags, readonly));
        &*this
    }
}
