//! Records of what virtual CPUs hold and want, for resilient locks.

use std::panic::Location;

use qspinlock::machine::{Access, Cell};
use qspinlock::queue::Cpu;
use qspinlock::resilient::{ENTRIES, Entry, Looks, NameCell, PlaceCell, Record, RecordOf, Recorder, Report, Ticket};
use qspinlock::word::LockWord;

use super::machine::{CheckCell, CheckMachine, World};

/// A cell for the name of a lock; or, in entries that no scenario comes to, none, which is always empty.
#[derive(Debug)]
pub struct CheckName(Option<CheckCell>);

// SAFETY: the one is a cell, the other never changes.
unsafe impl NameCell for CheckName {
    #[track_caller]
    fn load(&self, access: Access) -> usize {
        self.0.as_ref().map_or(0, |cell| cell.load(access) as usize)
    }

    #[track_caller]
    fn store(&self, name: usize, access: Access) {
        self.0.as_ref().expect("a world has entries enough").store(name as u32, access);
    }
}

/// Nowhere: places are not explored.
#[derive(Debug)]
pub struct CheckPlace;

impl PlaceCell for CheckPlace {
    fn get(&self) -> Option<&'static Location<'static>> {
        None
    }

    fn set(&self, _: &'static Location<'static>) {}
}

/// The record of a virtual CPU.
pub(super) type CheckRecord = Record<CheckCell, CheckName, CheckPlace>;

/// A record with room for so many locks.
pub(super) fn record(world: &World, cpu: usize, room: usize) -> CheckRecord {
    let cell = |what: &str| world.cell(format!("cpu{cpu}.{what}"));
    let entry = |n| Entry::from_cells(CheckName((n < room).then(|| cell(&format!("lock{n}")))), CheckPlace);
    let entries: [_; ENTRIES] = std::array::from_fn(entry);
    Record::from_cells(cell("wait"), cell("top"), cell("beyond"), cell("pushes"), entries)
}

// SAFETY: each CPU has its record; cells have distinct numbers.
unsafe impl Recorder for CheckMachine<'_> {
    type Name = CheckName;
    type Place = CheckPlace;

    fn record(&self, cpu: Cpu) -> &RecordOf<Self> {
        &self.world().records()[cpu.index()]
    }

    fn recorded(&self) -> u32 {
        self.world().records().len() as u32
    }

    fn name(&self, word: &LockWord<CheckCell>) -> usize {
        // SAFETY: a word is a cell, and nothing else.
        let cell = unsafe { &*std::ptr::from_ref(word).cast::<CheckCell>() };
        (usize::from(cell.id()) + 1) * 4
    }

    /// Time ends no wait.
    fn limit(&self) -> u64 {
        u64::MAX
    }

    /// Always.
    fn looks(&self) -> Looks {
        Looks { first: 0, next: 0 }
    }

    fn keep(&self, _: &Report) -> Ticket {
        None
    }
}
