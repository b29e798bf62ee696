//! Records of what virtual CPUs hold and want, for resilient locks.

use std::cell::Cell as StdCell;
use std::panic::Location;

use qspinlock::machine::{Access, Cell};
use qspinlock::queue::Cpu;
use qspinlock::resilient::{ENTRIES, Entry, NameCell, PlaceCell, Record, RecordOf, Recorder, Report, Ticket};
use qspinlock::word::LockWord;

use super::cell::{LINE, SimCell};
use super::machine::Virtual;

/// A cell for the name of a lock: as long as an address, of which a world needs half.
#[derive(Debug, Default)]
#[repr(C, align(8))]
pub struct SimName(SimCell);

// SAFETY: it is a cell, and names fit.
unsafe impl NameCell for SimName {
    fn load(&self, access: Access) -> usize {
        self.0.load(access) as usize
    }

    fn store(&self, name: usize, access: Access) {
        self.0.store(name as u32, access);
    }
}

/// A place in the source, beside the name in the same line: free.
#[derive(Debug, Default)]
pub struct SimPlace(StdCell<Option<&'static Location<'static>>>);

impl PlaceCell for SimPlace {
    fn get(&self) -> Option<&'static Location<'static>> {
        self.0.get()
    }

    fn set(&self, place: &'static Location<'static>) {
        self.0.set(Some(place));
    }
}

/// The record of a virtual CPU.
pub(super) type SimRecord = Record<SimCell, SimName, SimPlace>;

pub(super) fn record() -> SimRecord {
    Record::new(std::array::from_fn::<_, ENTRIES, _>(|_| Entry::from_cells(SimName::default(), SimPlace::default())))
}

// SAFETY: each CPU has its record; no two words are at the same place in memory, which is less than 4 GiB.
unsafe impl Recorder for Virtual {
    type Name = SimName;
    type Place = SimPlace;

    fn record(&self, cpu: Cpu) -> &RecordOf<Self> {
        self.world().records[cpu.index()]
    }

    fn recorded(&self) -> u32 {
        self.world().records.len() as u32
    }

    /// Not its address, which differs from run to run.
    fn name(&self, word: &LockWord<SimCell>) -> usize {
        self.world().arena.offset(word) + LINE
    }

    /// For ever: a run that waits for so long has another problem.
    fn limit(&self) -> u64 {
        u64::MAX
    }

    fn keep(&self, _: &Report) -> Ticket {
        None
    }
}
