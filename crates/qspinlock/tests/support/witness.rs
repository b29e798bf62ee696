//! The threads of this process as a machine that also counts who is set aside and who comes back.

use std::sync::atomic::{AtomicU32, Ordering};

use qspinlock::atomic::AtomicCell;
use qspinlock::machine::{Access, Budget, Event};
use qspinlock::queue::{Cpu, Slot};
use qspinlock::slowpath::Locality;
use qspinlock::threads::Threads;
use qspinlock::{GlobalMachine, Machine};

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Witness;

pub(crate) static QUEUED: AtomicU32 = AtomicU32::new(0);
pub(crate) static SET_ASIDE: AtomicU32 = AtomicU32::new(0);
pub(crate) static BROUGHT_BACK: AtomicU32 = AtomicU32::new(0);

// SAFETY: those are the threads.
unsafe impl Machine for Witness {
    type Cell = AtomicCell;

    fn count(&self, event: Event) {
        let counter = match event {
            Event::Queued => &QUEUED,
            Event::SetAside => &SET_ASIDE,
            Event::BroughtBack => &BROUGHT_BACK,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn here(&self) -> Option<Cpu> {
        Threads.here()
    }

    fn slot(&self, cpu: Cpu) -> &Slot<AtomicCell> {
        // Of a static: it lasts as long as any machine.
        Machine::slot(const { &Threads }, cpu)
    }

    fn until(&self, cell: &AtomicCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        Threads.until(cell, access, done)
    }

    fn until_for(
        &self,
        cell: &AtomicCell,
        access: Access,
        budget: Budget,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, u32> {
        Threads.until_for(cell, access, budget, done)
    }

    fn fence(&self, access: Access) {
        Threads.fence(access);
    }

    fn signal_fence(&self) {
        Threads.signal_fence();
    }

    fn now(&self) -> u64 {
        Threads.now()
    }

    fn domain(&self) -> u32 {
        Threads.domain()
    }

    fn is_urgent(&self) -> bool {
        Threads.is_urgent()
    }

    fn locality(&self) -> Locality {
        Threads.locality()
    }

    fn choose(&self, n: u32) -> u32 {
        Threads.choose(n)
    }
}

impl GlobalMachine for Witness {
    const MACHINE: Self = Self;
}
