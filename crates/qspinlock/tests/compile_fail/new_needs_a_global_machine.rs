//! A lock whose machine is a value gets its cell from that machine.

use qspinlock::machine::{Access, Budget};
use qspinlock::queue::{Cpu, Slot};
use qspinlock::{Machine, RawSpinLock, atomic::AtomicCell};

struct Simulated {
    slots: Vec<Slot<AtomicCell>>,
}

// SAFETY: never runs.
unsafe impl Machine for Simulated {
    type Cell = AtomicCell;

    fn here(&self) -> Option<Cpu> {
        None
    }

    fn slot(&self, cpu: Cpu) -> &Slot<AtomicCell> {
        &self.slots[cpu.index()]
    }

    fn until(&self, _: &AtomicCell, _: Access, _: impl Fn(u32) -> bool) -> u32 {
        unreachable!()
    }

    fn until_for(&self, _: &AtomicCell, _: Access, _: Budget, _: impl Fn(u32) -> bool) -> Result<u32, u32> {
        unreachable!()
    }

    fn fence(&self, _: Access) {}

    fn signal_fence(&self) {}

    fn now(&self) -> u64 {
        0
    }
}

fn main() {
    let _lock: RawSpinLock<Simulated> = RawSpinLock::new();
}
