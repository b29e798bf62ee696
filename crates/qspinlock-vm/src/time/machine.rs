//! A virtual CPU, as lock code sees it.

use std::ptr::NonNull;

use qspinlock::machine::{Access, Budget, Event, Machine};
use qspinlock::queue::{Cpu, Slot};
use qspinlock::slowpath::{Locality, Patience};

use super::cell::SimCell;
use super::line::Want;
use super::world::World;

/// A virtual CPU of a [`World`], lent to the work that it does.
///
/// It has no lifetime, so that the types of locks have none.
pub struct Virtual {
    world: NonNull<World<'static>>,
    cpu: u32,
}

impl Virtual {
    /// # Safety
    /// The world outlives it.
    pub(super) unsafe fn new(world: &World<'_>, cpu: u32) -> Self {
        Self { world: NonNull::from(world).cast(), cpu }
    }

    pub(super) fn world(&self) -> &World<'_> {
        // SAFETY: by `new`; and who borrows from it here cannot borrow for longer than it lives.
        unsafe { self.world.cast().as_ref() }
    }

    /// Its number.
    #[must_use]
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// Its clock, in cycles.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.world().now()
    }

    /// Works for so many cycles.
    pub fn work(&self, cycles: u64) {
        self.world().spend(cycles);
    }
}

// SAFETY: each is used by the coroutine whose number it has, which runs to the end of an access before another one
// does; slots are the world's, one for each; awaits return what they read last, for which the predicate was true.
unsafe impl Machine for Virtual {
    type Cell = SimCell;

    fn here(&self) -> Option<Cpu> {
        Cpu::new(self.cpu)
    }

    fn slot(&self, cpu: Cpu) -> &Slot<SimCell> {
        self.world().slots[cpu.index()]
    }

    fn until(&self, cell: &SimCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        self.world().until(cell, access.name, Want::Load, None, &done).unwrap_or_else(|v| v)
    }

    fn until_mine(&self, cell: &SimCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        self.world().until(cell, access.name, Want::LoadMine, None, &done).unwrap_or_else(|v| v)
    }

    fn until_for(
        &self,
        cell: &SimCell,
        access: Access,
        budget: Budget,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, u32> {
        self.world().until(cell, access.name, Want::Load, Some(budget), &done)
    }

    fn until_mine_for(
        &self,
        cell: &SimCell,
        access: Access,
        budget: Budget,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, u32> {
        self.world().until(cell, access.name, Want::LoadMine, Some(budget), &done)
    }

    fn fence(&self, _: Access) {
        self.world().fence();
    }

    /// Nothing: a virtual CPU has no interrupts, and sees its own accesses in program order.
    fn signal_fence(&self) {}

    fn now(&self) -> u64 {
        self.world().nanos(self.world().now())
    }

    fn domain(&self) -> u32 {
        self.world().domain(self.cpu as usize)
    }

    fn locality(&self) -> Locality {
        self.world().locality
    }

    fn wait(&self, cell: &SimCell, value: u32, _: Access, until: Option<u64>) {
        self.world().wait(cell, value, until);
    }

    fn kick(&self, cpu: Cpu) {
        self.world().kick(cpu.index());
    }

    fn yield_cpu(&self) {
        self.world().give_way();
    }

    fn patience(&self) -> Patience {
        self.world().patience
    }

    /// Also of one that sleeps: it does not run.
    fn preempted(&self, cpu: Cpu) -> bool {
        !self.world().is_running(cpu.index())
    }

    fn choose(&self, n: u32) -> u32 {
        self.world().below(n.into()) as u32
    }

    fn count(&self, event: Event) {
        self.world().count(event);
    }
}
