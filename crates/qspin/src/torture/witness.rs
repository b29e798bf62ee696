//! The lock that stays in one domain for a while, on threads that are watched: how often a waiter is set aside, and how
//! often those set aside come back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use qspinlock::atomic::AtomicCell;
use qspinlock::machine::{Access, Budget, Event};
use qspinlock::queue::{Cpu, Slot};
use qspinlock::resilient::{RecordOf, Recorder};
use qspinlock::select::SlowPathKind;
use qspinlock::slowpath::{self, Numa};
use qspinlock::threads::{self, Domains, LOCALITY_VARIABLE, Threads};
use qspinlock::{GlobalMachine, Machine, RawSpinLock};
use serde::Serialize;

use crate::failure::Failure;
use crate::locks::{ByHand, Contender};

/// What a lock does with domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    Never,
    /// And is watched.
    Always,
    /// If what is chosen does.
    AsChosen,
}

impl Looks {
    fn at_all(self) -> bool {
        self == Self::Always || self == Self::AsChosen && qspinlock::choice().slow_path == SlowPathKind::Numa
    }
}

/// From here on there are so many domains.
pub(super) fn pretend(lock: &str, looks: Looks, domains: u32) -> Result<(), Failure> {
    let refuse = |why: String| Failure::usage(format!("--domains: {why}"));
    qspinlock::configure(Domains::Pretended(domains)).map_err(|error| refuse(error.to_string()))?;
    if !looks.at_all() {
        return Err(refuse(format!("{lock} does not look at domains; numa does")));
    }
    if std::env::var_os(LOCALITY_VARIABLE).is_none() {
        let always = slowpath::Locality { one_in: 1, ..slowpath::Locality::DEFAULT };
        threads::set_locality(always).map_err(|error| refuse(error.to_string()))?;
    }
    Ok(())
}

/// What came of it that threads are in domains.
#[derive(Serialize)]
pub(super) struct Locality {
    /// What counts as near.
    near: String,
    /// How many there are. `None`: not known, so all CPUs are in one.
    domains: Option<u32>,
    /// How often a waiter was set aside.
    set_aside: u64,
    /// How often those who were set aside came first again.
    brought_back: u64,
}

/// `None`: this lock does not look, or is not watched.
pub(super) fn seen(looks: Looks) -> Option<Locality> {
    if looks != Looks::Always {
        return None;
    }
    let topology = threads::topology();
    Some(Locality {
        near: topology.domains.to_string(),
        domains: topology.found.ok(),
        set_aside: SET_ASIDE.load(Relaxed),
        brought_back: BROUGHT_BACK.load(Relaxed),
    })
}

impl Locality {
    pub(super) fn to_text(&self) -> String {
        let Self { near, domains, set_aside, brought_back } = self;
        let known = domains.map_or("unknown".into(), |n| n.to_string());
        format!("{known} ({near}): {set_aside} waiters set aside, brought back {brought_back} times")
    }
}

static SET_ASIDE: AtomicU64 = AtomicU64::new(0);
static BROUGHT_BACK: AtomicU64 = AtomicU64::new(0);

/// The lock.
pub(super) struct Witnessed(lock_api::Mutex<RawSpinLock<Witness, Numa>, ()>);

impl Contender for Witnessed {
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

    fn by_hand(&self) -> Option<&dyn ByHand> {
        Some(self)
    }
}

impl ByHand for Witnessed {
    fn lock(&self) {
        // SAFETY: it is unlocked once for each time it is locked.
        let Ok(()) = unsafe { self.0.raw() }.acquire_on(&Witness);
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.0.raw().release_on(&Witness) };
    }
}

/// The threads, watched.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Witness;

// SAFETY: those are the threads.
unsafe impl Machine for Witness {
    type Cell = AtomicCell;

    fn count(&self, event: Event) {
        match event {
            Event::SetAside => _ = SET_ASIDE.fetch_add(1, Relaxed),
            Event::BroughtBack => _ = BROUGHT_BACK.fetch_add(1, Relaxed),
            _ => {}
        }
        Threads.count(event);
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

    fn until_mine_for(
        &self,
        cell: &AtomicCell,
        access: Access,
        budget: Budget,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, u32> {
        Threads.until_mine_for(cell, access, budget, done)
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

    fn locality(&self) -> slowpath::Locality {
        Threads.locality()
    }

    fn choose(&self, n: u32) -> u32 {
        Threads.choose(n)
    }
}

impl GlobalMachine for Witness {
    const MACHINE: Self = Self;
}

// SAFETY: those are the threads' records.
unsafe impl Recorder for Witness {
    type Name = <Threads as Recorder>::Name;
    type Place = <Threads as Recorder>::Place;

    fn known(&self) -> Option<(Cpu, &RecordOf<Self>)> {
        Recorder::known(const { &Threads })
    }

    fn record(&self, cpu: Cpu) -> &RecordOf<Self> {
        Recorder::record(const { &Threads }, cpu)
    }

    fn recorded(&self) -> u32 {
        Threads.recorded()
    }

    fn unrecorded(&self) -> Option<u32> {
        Threads.unrecorded()
    }

    fn is_unnumbered(&self) -> bool {
        Threads.is_unnumbered()
    }

    fn enter_unnumbered(&self) {
        Threads.enter_unnumbered();
    }

    fn leave_unnumbered(&self) {
        Threads.leave_unnumbered();
    }

    fn leave_orphaned(&self) {
        Threads.leave_orphaned();
    }

    fn limit(&self) -> u64 {
        Threads.limit()
    }

    fn is_strict(&self) -> bool {
        Threads.is_strict()
    }
}
