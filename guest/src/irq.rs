//! This computer's interrupts, as the library's [`irq`](qspinlock::irq) asks for them: two functions and a count.

use qspinlock::irq::{Count, Interrupts, IrqSafe};

use crate::{cpu, percpu};

/// Interrupts of the CPU that asks.
#[derive(Debug)]
pub(crate) struct Irqs;

// SAFETY: `cli` and `sti`, in assembly that may touch memory; the count is the CPU's own, and nothing moves.
unsafe impl Interrupts for Irqs {
    #[inline]
    fn off() -> bool {
        cpu::interrupts_off()
    }

    #[inline]
    unsafe fn on() {
        // SAFETY: the caller's; they were on, so gates and stacks are there.
        unsafe { cpu::interrupts_on() };
    }

    #[inline]
    fn count() -> &'static Count {
        &percpu::mine().masks
    }
}

/// A lock that is taken with interrupts off.
pub(crate) type RawIrq<R> = IrqSafe<R, Irqs>;
