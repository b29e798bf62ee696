//! Mistakes planted in the lock for virtual CPUs, to see that they are caught: it is the one whose sleeps end by nothing
//! but a kick, so nothing covers a kick that does not come.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};

use qspinlock::atomic::AtomicCell;
use qspinlock::machine::{Access, Budget, Event};
use qspinlock::queue::{Cpu, Slot};
use qspinlock::slowpath::{Paravirt, Patience, SlowPath};
use qspinlock::threads::Threads;
use qspinlock::word::LockWord;
use qspinlock::{GlobalMachine, Machine, RawSpinLock};

use crate::locks::Contender;

/// On threads, of whom now and then one does not hear that it is kicked.
pub(super) type Deaf = Planted<HardOfHearing, Paravirt>;

/// Its unlock is a store, and does not look whether anybody sleeps.
pub(super) type Careless = Planted<Threads, Store>;

/// A lock with a mistake in it.
pub(super) struct Planted<M, S>(lock_api::Mutex<RawSpinLock<M, S>, ()>)
where
    M: GlobalMachine,
    S: SlowPath<M, Error = Infallible>;

impl<M, S> Contender for Planted<M, S>
where
    M: GlobalMachine<Cell = AtomicCell> + Send + Sync,
    S: SlowPath<M, Error = Infallible> + 'static,
{
    fn new() -> Self {
        Self(lock_api::Mutex::new(()))
    }

    fn with<R>(&self, section: impl FnOnce() -> R) -> R {
        let _guard = self.0.lock();
        section()
    }

    fn try_with<R>(&self, section: impl FnOnce() -> R) -> Option<R> {
        let _guard = self.0.try_lock()?;
        Some(section())
    }
}

/// See [`Careless`].
pub(super) struct Store;

// SAFETY: it takes the lock as `Paravirt` does and gives up no more than that.
unsafe impl<M: Machine> SlowPath<M> for Store {
    type Error = Infallible;
    const NAME: &'static str = "careless";

    fn acquire(m: &M, word: &LockWord<M::Cell>) -> Result<(), Infallible> {
        Paravirt::acquire(m, word)
    }

    // The default `release`: a store.
}

/// See [`Deaf`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HardOfHearing;

/// Of so many kicks one is lost.
const LOST: u32 = 97;

static KICKS: AtomicU32 = AtomicU32::new(0);

// SAFETY: those are the threads. What is lost are wake-ups, on which no exclusion rests.
unsafe impl Machine for HardOfHearing {
    type Cell = AtomicCell;

    fn kick(&self, cpu: Cpu) {
        if KICKS.fetch_add(1, Ordering::Relaxed) % LOST != LOST - 1 {
            Threads.kick(cpu);
        }
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

    fn wait(&self, cell: &AtomicCell, value: u32, access: Access, until: Option<u64>) {
        Threads.wait(cell, value, access, until);
    }

    fn yield_cpu(&self) {
        Threads.yield_cpu();
    }

    fn patience(&self) -> Patience {
        Threads.patience()
    }

    fn count(&self, event: Event) {
        Threads.count(event);
    }
}

impl GlobalMachine for HardOfHearing {
    const MACHINE: Self = Self;
}
