//! The virtual CPUs' records of the resilient locks that they hold and want.

use std::cell::{Cell as StdCell, RefCell};
use std::collections::BTreeMap;
use std::panic::Location;
use std::rc::Rc;

use qspinlock::machine::{Access, Cell, Ordering};
use qspinlock::queue::Cpu;
use qspinlock::resilient::{ENTRIES, Entry, Looks, NameCell, PlaceCell, Record, RecordOf, Recorder, Report, Ticket};
use qspinlock::word::LockWord;

use super::{Context, Role, Shared, Step, Vm, VmCell};

/// Soon, in steps of all CPUs: most waits have a few looks.
const LOOKS: Looks = Looks { first: 20, next: 60 };

pub(crate) struct VmName(VmCell, Rc<StdCell<bool>>);

// SAFETY: as for its cell.
unsafe impl NameCell for VmName {
    /// If so wanted, now and then who looks at others is away for so long that these have gone on, and wait for something else.
    fn load(&self, access: Access) -> usize {
        let s = &self.0.shared;
        if self.1.get() && access.name == "record.see" && s.random(32) == 0 {
            (0..s.random(400)).for_each(|_| s.yield_now());
        }
        self.0.load(access) as usize
    }

    fn store(&self, name: usize, access: Access) {
        self.0.store(name as u32, access);
    }
}

#[derive(Default)]
pub(crate) struct VmPlace(StdCell<Option<&'static Location<'static>>>);

impl PlaceCell for VmPlace {
    fn get(&self) -> Option<&'static Location<'static>> {
        self.0.get()
    }

    fn set(&self, place: &'static Location<'static>) {
        self.0.set(Some(place));
    }
}

/// The records, what locks are called in them, and what was reported last.
pub(crate) struct Recorded {
    records: Vec<RecordOf<Vm>>,
    first: StdCell<usize>,
    is_held_up: Rc<StdCell<bool>>,
    reports: RefCell<BTreeMap<Context, Report>>,
}

impl Recorded {
    pub(super) fn new(shared: &Rc<Shared>, cpus: usize) -> Self {
        let is_held_up = Rc::<StdCell<bool>>::default();
        let record = |cpu| {
            let entry = |n| {
                Entry::from_cells(
                    VmName(VmCell::new(shared, Role::Name(cpu, n)), is_held_up.clone()),
                    VmPlace::default(),
                )
            };
            let [top, beyond, pushes] = [(); 3].map(|()| VmCell::new(shared, Role::Count(cpu)));
            let entries = std::array::from_fn::<_, ENTRIES, _>(entry);
            Record::from_cells(VmCell::new(shared, Role::Wait(cpu)), top, beyond, pushes, entries)
        };
        let records = (0..cpus).map(record).collect();
        Self { records, first: StdCell::new(0), is_held_up, reports: RefCell::default() }
    }
}

impl Vm {
    /// What lock `n` is called in records.
    pub(crate) const fn name_of(n: usize) -> usize {
        4 * (n + 1)
    }

    /// Where the locks are, which must be known before any of them is used.
    pub(crate) fn locks_are_at<L>(&self, locks: &[L]) {
        assert_eq!(size_of::<L>(), size_of::<LockWord<VmCell>>());
        self.recorder.first.set(locks.as_ptr().addr());
    }

    /// From now on, now and then, who looks at the records of others is away for long.
    pub(crate) fn hold_up_who_looks(&self) {
        self.recorder.is_held_up.set(true);
    }

    /// The last report of a context.
    pub(crate) fn report_of(&self, who: Context) -> Option<Report> {
        self.recorder.reports.borrow().get(&who).copied()
    }
}

// SAFETY: a record for each CPU, which never ends; a number for each lock.
unsafe impl Recorder for Vm {
    type Name = VmName;
    type Place = VmPlace;

    fn record(&self, cpu: Cpu) -> &RecordOf<Self> {
        &self.recorder.records[cpu.index()]
    }

    fn recorded(&self) -> u32 {
        self.recorder.records.len() as u32
    }

    fn name(&self, word: &LockWord<VmCell>) -> usize {
        let at = std::ptr::from_ref(word).addr() - self.recorder.first.get();
        Self::name_of(at / size_of::<LockWord<VmCell>>())
    }

    fn looks(&self) -> Looks {
        LOOKS
    }

    fn keep(&self, report: &Report) -> Ticket {
        let who = self.shared.who();
        let (role, order) = (Role::Fence(who.cpu), Ordering::Relaxed);
        self.shared.record(Step { who, access: "keep", order, role, old: 0, new: None, time: 0 });
        self.recorder.reports.borrow_mut().insert(who, *report);
        None
    }
}
