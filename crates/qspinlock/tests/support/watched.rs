//! The threads of a process as a machine of which a test can see what happens, and set how patient it is.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use qspinlock::Machine;
use qspinlock::atomic::AtomicCell;
use qspinlock::machine::{Access, Budget, Event};
use qspinlock::queue::{Cpu, Slot};
use qspinlock::slowpath::Patience;
use qspinlock::threads::Threads;

/// Waits only where it lies down.
#[allow(dead_code, reason = "not every test needs it")]
pub(crate) const SLEEPS_AT_ONCE: Patience = Patience { spin: 0, yields: 0, lane: 0, ..Patience::DEFAULT };

pub(crate) struct Watched {
    patience: Patience,
    /// Sleeps end at once, for no reason, and do not count.
    pub(crate) restless: AtomicBool,
    /// How often somebody lay down.
    pub(crate) queued: AtomicU32,
    /// Sleeps that began; those among them that nothing but a kick ends; and those that are over.
    pub(crate) sleeps: AtomicU32,
    pub(crate) endless: AtomicU32,
    pub(crate) over: AtomicU32,
    /// Kicks that are done.
    pub(crate) kicks: AtomicU32,
    /// Locks handed to a sleeper; sleepers that found a free lock that nobody had told them of.
    pub(crate) handed_over: AtomicU32,
    pub(crate) missed: AtomicU32,
}

impl Watched {
    pub(crate) fn new(patience: Patience) -> Self {
        let none = || AtomicU32::new(0);
        Self {
            patience,
            restless: AtomicBool::new(false),
            queued: none(),
            sleeps: none(),
            endless: none(),
            over: none(),
            kicks: none(),
            handed_over: none(),
            missed: none(),
        }
    }
}

// SAFETY: each method is that of `Threads`.
unsafe impl Machine for Watched {
    type Cell = AtomicCell;

    fn here(&self) -> Option<Cpu> {
        Threads.here()
    }

    fn slot(&self, cpu: Cpu) -> &Slot<AtomicCell> {
        Threads.slot(cpu)
    }

    fn until(&self, cell: &AtomicCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        Threads.until(cell, access, done)
    }

    fn until_mine(&self, cell: &AtomicCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        Threads.until_mine(cell, access, done)
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

    fn wait(&self, cell: &AtomicCell, value: u32, access: Access, until: Option<u64>) {
        if self.restless.load(Ordering::SeqCst) {
            return std::thread::yield_now();
        }
        self.endless.fetch_add(u32::from(until.is_none()), Ordering::SeqCst);
        self.sleeps.fetch_add(1, Ordering::SeqCst);
        Threads.wait(cell, value, access, until);
        self.over.fetch_add(1, Ordering::SeqCst);
    }

    fn kick(&self, cpu: Cpu) {
        Threads.kick(cpu);
        self.kicks.fetch_add(1, Ordering::SeqCst);
    }

    fn yield_cpu(&self) {
        Threads.yield_cpu();
    }

    fn patience(&self) -> Patience {
        self.patience
    }

    fn count(&self, event: Event) {
        match event {
            Event::Queued => &self.queued,
            Event::HandedOver => &self.handed_over,
            Event::Rescued => &self.missed,
            _ => return,
        }
        .fetch_add(1, Ordering::SeqCst);
    }
}
