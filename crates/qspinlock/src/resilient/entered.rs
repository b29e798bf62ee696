//! Where a lock that is wanted or held is recorded: small enough for a guard to carry it.

use core::panic::Location;

use super::record::At;
use super::recorder::{EntryOf, Recorder};
use crate::queue::Cpu;

/// A CPU and an entry in its record. Or, without a CPU number, neither.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entered {
    /// [`NOBODY`](Self::NOBODY): no CPU.
    cpu: u32,
    at: At,
}

impl Entered {
    const NOBODY: u32 = u32::MAX;

    /// No CPU, and so no room.
    const NOWHERE: Self = Self { cpu: Self::NOBODY, at: At::BEYOND };

    #[inline]
    pub(super) fn new(cpu: Cpu, at: At) -> Self {
        Self { cpu: cpu.index() as u32, at }
    }

    /// The CPU, and where in its record. `None` without a CPU.
    #[inline]
    pub(super) fn get(self) -> Option<(Cpu, At)> {
        Cpu::new(self.cpu).map(|cpu| (cpu, self.at))
    }

    /// The entry, if there is one.
    #[inline]
    pub(super) fn entry<M: Recorder>(self, m: &M) -> Option<&EntryOf<M>> {
        self.at.index().map(|at| m.record(Cpu::known(self.cpu)).entry(at))
    }

    /// Enters a lock that is about to be tried.
    #[inline]
    pub(super) fn enter<M: Recorder>(m: &M, name: usize, place: &'static Location<'static>) -> Self {
        match m.mine() {
            Some((cpu, record)) => Self::new(cpu, record.push(m, name, place)),
            None => {
                m.enter_unnumbered();
                Self::NOWHERE
            }
        }
    }

    /// Where the caller's CPU has recorded that it holds a lock; or may hold it, since there was no room, or it had no
    /// number when it took the lock. `None` if it does not.
    #[inline]
    pub(super) fn find<M: Recorder>(m: &M, name: usize) -> Option<Self> {
        let recorded = m.mine().and_then(|(cpu, record)| record.find(name).map(|at| Self::new(cpu, at)));
        recorded.or_else(|| m.is_unnumbered().then_some(Self::NOWHERE))
    }

    /// It is held now.
    #[inline]
    pub(super) fn hold<M: Recorder>(self, m: &M, name: usize) {
        if let Some(entry) = self.entry(m) {
            entry.hold(name);
        }
    }

    /// It has been released, or was not to be had.
    #[inline]
    pub(super) fn remove<M: Recorder>(self, m: &M) {
        match self.entry(m) {
            Some(entry) => entry.remove(),
            None => self.forget(m),
        }
    }

    /// It has been released, and was in no record; or not in that of its CPU, whose number is another's by now.
    #[cold]
    pub(super) fn forget<M: Recorder>(self, m: &M) {
        match self.get() {
            Some((_, at)) if at.index().is_some() => m.leave_orphaned(),
            Some((cpu, _)) => m.record(cpu).forget_beyond(),
            None => m.leave_unnumbered(),
        }
    }
}
