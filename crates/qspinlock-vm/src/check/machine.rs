//! The machine that the lock code sees: cells that are only numbers, and CPUs that stand still at every access.

use std::cell::Cell as StdCell;
use std::panic::Location;
use std::str::FromStr;

use qspinlock::machine::{Access, Budget, Cell, Event, Machine};
use qspinlock::queue::{Cpu, NODES, Node, Slot};
use qspinlock::slowpath::{Locality, Patience};

use super::automaton;
use super::op::{Answer, CellId, Decide, Kind, NO_CELL, Op, result};
use super::recorder::{self, CheckRecord};

/// A cell of a [`World`]: its number. What it holds is in the state that is being explored.
#[derive(Debug)]
pub struct CheckCell(CellId);

impl CheckCell {
    /// Its number in its world.
    #[must_use]
    pub fn id(&self) -> CellId {
        self.0
    }

    /// The cell by another name.
    pub(super) fn same(&self) -> Self {
        Self(self.0)
    }
}

#[inline(always)]
fn ask(kind: Kind, cell: CellId, access: Access, site: &'static Location<'static>) -> Answer {
    automaton::ask(Op { kind, cell, access, site })
}

/// Forgets how long a function lives. It is called only while the frame that holds it stands at the operation.
fn erase(decide: &dyn Fn(u32) -> Option<u32>) -> Decide {
    let decide: *const (dyn Fn(u32) -> Option<u32> + '_) = decide;
    // SAFETY: only the lifetime bound of the trait object changes; see above for its use.
    unsafe { std::mem::transmute::<*const (dyn Fn(u32) -> Option<u32> + '_), Decide>(decide) }
}

// SAFETY: the explorer makes each operation one step, with at least the ordering it was given (or, in an audit, with
// less, on purpose: nothing but the audit's verdict depends on it).
unsafe impl Cell for CheckCell {
    #[track_caller]
    fn load(&self, access: Access) -> u32 {
        ask(Kind::Load, self.0, access, Location::caller()) as u32
    }

    #[track_caller]
    fn store(&self, value: u32, access: Access) {
        ask(Kind::Store(value), self.0, access, Location::caller());
    }

    #[track_caller]
    fn cas(&self, old: u32, new: u32, access: Access) -> Result<u32, u32> {
        result(ask(Kind::Cas { old, new }, self.0, access, Location::caller()))
    }

    #[track_caller]
    fn update(&self, access: Access, f: impl Fn(u32) -> Option<u32>) -> Result<u32, u32> {
        result(ask(Kind::Update(erase(&f)), self.0, access, Location::caller()))
    }
}

/// What a cell is for: how it is called in a trace, and who may touch it.
#[derive(Clone, Debug)]
pub(crate) struct CellInfo {
    pub(crate) name: String,
    /// Touched by this CPU alone, and so never a reason to look at what others do. Checked.
    pub(crate) private_to: Option<usize>,
    /// In this queue node: of which CPU, at which level.
    pub(crate) node: Option<(usize, usize)>,
    /// Plain data: not atomic, checked for races.
    pub(crate) plain: bool,
}

/// Where a lock's waiters sleep: what they do before they sleep. All of it makes many states, and the ways mix little, so
/// more CPUs are explored with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// They spin, one of them in the lane, and watch the lock after they have lain down.
    All,
    /// One spins in the lane, the others sleep.
    Lane,
    /// They sleep.
    Sleepers,
    /// Where nobody sleeps: they queue, and nobody takes the lane.
    Queue,
}

impl Waiting {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::All, Self::Lane, Self::Sleepers, Self::Queue];

    /// Its name, as the user writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Lane => "lane",
            Self::Sleepers => "sleepers",
            Self::Queue => "queue",
        }
    }

    /// How long does not matter, only that it may be too long. No yields, which change nothing here; one turn in vain,
    /// so that there is a next.
    fn patience(self) -> Patience {
        let all = Patience { yields: 0, turns: 1, nap: u32::MAX, nap_behind: u32::MAX, ..Patience::DEFAULT };
        match self {
            Self::All | Self::Queue => all,
            Self::Lane => Patience { spin: 0, poll: 0, ..all },
            Self::Sleepers => Patience { spin: 0, poll: 0, lane: 0, ..all },
        }
    }
}

impl Waiting {
    /// The same of virtual CPUs: they look once before they sleep, and nobody is in a lane.
    pub(super) fn patience_of_halting(self) -> Patience {
        match self {
            Self::All => Patience { lane: 1, ..self.patience() },
            Self::Lane | Self::Sleepers | Self::Queue => Self::Sleepers.patience(),
        }
    }
}

impl FromStr for Waiting {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|waiting| waiting.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            format!("unknown way to wait '{name}'; known are {}", names.join(", "))
        })
    }
}

/// Where a lock stays in one domain for a while: what a head does about waiters of other domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sorting {
    /// It sets them aside, and they have never waited for long enough.
    Always,
    /// It does so or not, and they have waited for long enough or not.
    Whim,
}

impl Sorting {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Always, Self::Whim];

    /// Its name, as the user writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Whim => "whim",
        }
    }
}

impl FromStr for Sorting {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|sorting| sorting.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            format!("unknown way to sort '{name}'; known are {}", names.join(", "))
        })
    }
}

/// The cells of a program, and its CPUs' queue nodes. It holds names, not values.
pub struct World {
    cells: StdCell<Vec<CellInfo>>,
    slots: Vec<Slot<CheckCell>>,
    depths: Vec<CellId>,
    domains: u32,
    sorting: Sorting,
    urgent: usize,
    events: StdCell<u64>,
    nodeless: usize,
    patience: Patience,
    records: Vec<CheckRecord>,
}

impl World {
    /// A world of so many CPUs, spread over so many memory domains in turn.
    #[must_use]
    pub fn new(cpus: usize, domains: u32) -> Self {
        let mut world = Self {
            cells: StdCell::default(),
            slots: Vec::new(),
            depths: Vec::new(),
            domains,
            sorting: Sorting::Always,
            urgent: 0,
            events: StdCell::new(0),
            nodeless: 0,
            patience: Waiting::All.patience(),
            records: Vec::new(),
        };
        let mut depths = Vec::new();
        world.slots = (0..cpus)
            .map(|cpu| {
                let depth = world.named(format!("cpu{cpu}.depth"), Some(cpu), false);
                depths.push(depth.id());
                let nodes: [_; NODES] = std::array::from_fn(|level| {
                    let of = if level == 0 { format!("node{cpu}") } else { format!("node{cpu}/{level}") };
                    let cell = |what| world.of_node(format!("{of}.{what}"), (cpu, level));
                    Node::from_cells(cell("next"), cell("grant"), cell("prev"), cell("first"))
                });
                Slot::from_cells(depth, world.named(format!("cpu{cpu}.token"), Some(cpu), false), nodes)
            })
            .collect();
        world.depths = depths;
        world
    }

    /// The same, in which the last so many CPUs have no queue node.
    #[must_use]
    pub fn with_nodeless(self, nodeless: usize) -> Self {
        Self { nodeless, ..self }
    }

    /// The same, in which heads treat waiters of other domains so, and those of the last so many CPUs are urgent.
    #[must_use]
    pub fn with_sorting(self, sorting: Sorting, urgent: usize) -> Self {
        Self { sorting, urgent, ..self }
    }

    /// The same, in which who waits for a lock whose waiters sleep does so in these ways.
    #[must_use]
    pub fn with_waiting(self, waiting: Waiting) -> Self {
        Self { patience: waiting.patience(), ..self }
    }

    /// The same, in which waiters have this patience.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The same, whose CPUs have records of so many locks that they hold or want.
    #[must_use]
    pub fn with_records(mut self, room: usize) -> Self {
        self.records = (0..self.slots.len()).map(|cpu| recorder::record(&self, cpu, room)).collect();
        self
    }

    pub(super) fn records(&self) -> &[CheckRecord] {
        &self.records
    }

    fn named(&self, name: String, private_to: Option<usize>, plain: bool) -> CheckCell {
        let mut cells = self.cells.take();
        cells.push(CellInfo { name, private_to, node: None, plain });
        let id = CellId::try_from(cells.len() - 1).expect("a world has few cells");
        self.cells.set(cells);
        CheckCell(id)
    }

    fn of_node(&self, name: String, node: (usize, usize)) -> CheckCell {
        let cell = self.named(name, None, false);
        let mut cells = self.cells.take();
        cells[usize::from(cell.0)].node = Some(node);
        self.cells.set(cells);
        cell
    }

    /// A shared cell that holds 0.
    pub fn cell(&self, name: impl Into<String>) -> CheckCell {
        self.named(name.into(), None, false)
    }

    /// A cell of one CPU's own, such as a register whose last value a test looks at.
    pub fn register(&self, cpu: usize, name: impl Into<String>) -> CheckCell {
        self.named(name.into(), Some(cpu), false)
    }

    /// Data that is not atomic.
    pub fn plain(&self, name: impl Into<String>) -> Plain {
        Plain(self.named(name.into(), None, true).0)
    }

    pub(crate) fn infos(&self) -> Vec<CellInfo> {
        let cells = self.cells.take();
        self.cells.set(cells.clone());
        cells
    }

    /// The cell that holds how many levels are in use on a CPU.
    pub(crate) fn depth_of(&self, cpu: usize) -> CellId {
        self.depths[cpu]
    }

    /// The events that some execution has counted so far.
    pub(crate) fn events(&self) -> u64 {
        self.events.get()
    }
}

const PLAIN: Access = Access::relaxed("plain", "not atomic");

/// Data that a lock protects. A touch that does not come after every earlier one, in the order that the memory model
/// calls happens-before, is a race.
#[derive(Debug)]
pub struct Plain(CellId);

impl Plain {
    /// Reads and writes it.
    #[track_caller]
    pub fn touch(&self) {
        ask(Kind::Touch, self.0, PLAIN, Location::caller());
    }
}

const FREE: Access = Access::relaxed("free", "no access");

/// Gives the memory of a cell back, as the last user of a lock may do: who touches the cell afterwards, touches what may
/// be somebody else's by then.
#[track_caller]
pub fn free(cell: CellId) {
    ask(Kind::Free, cell, FREE, Location::caller());
}

/// A virtual CPU of a [`World`], as lock code sees it.
pub struct CheckMachine<'w> {
    world: &'w World,
    cpu: usize,
    /// A register that says that this CPU has looked for a deadlock, and will not look again.
    looked: Option<CellId>,
}

impl<'w> CheckMachine<'w> {
    /// CPU `cpu` of `world`.
    #[must_use]
    pub fn new(world: &'w World, cpu: usize) -> Self {
        Self { world, cpu, looked: None }
    }

    /// The same, which looks for a deadlock only once while this register is not set to 0 again: from then on no wait
    /// ends before what it waits for has come.
    pub(super) fn looking_once(self, looked: Option<CellId>) -> Self {
        Self { looked, ..self }
    }

    pub(super) fn world(&self) -> &'w World {
        self.world
    }

    fn has_looked(&self) -> bool {
        self.looked.is_some_and(|looked| CheckCell(looked).load(LOOKED) == 1)
    }

    /// The number of this CPU.
    #[must_use]
    pub fn cpu(&self) -> usize {
        self.cpu
    }
}

const LOOKED: Access = Access::relaxed("looked", "its CPU's own");
const DUE: Access = Access::relaxed("locality.due", "no access");
const CHOOSE: Access = Access::relaxed("choose", "no access");
const KICK: Access = Access::relaxed("kick", "no access");
const YIELD: Access = Access::relaxed("yield", "no access");

// SAFETY: each machine is used by the one virtual CPU whose number it has; slots are the world's; awaits return what
// the explorer read for them, and it reads only what satisfies.
unsafe impl Machine for CheckMachine<'_> {
    type Cell = CheckCell;

    fn here(&self) -> Option<Cpu> {
        let has_node = self.cpu + self.world.nodeless < self.world.slots.len();
        has_node.then(|| Cpu::new(self.cpu as u32)).flatten()
    }

    fn slot(&self, cpu: Cpu) -> &Slot<CheckCell> {
        &self.world.slots[cpu.index()]
    }

    #[track_caller]
    fn until(&self, cell: &CheckCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        let decide = |v| done(v).then_some(v);
        ask(Kind::Await(erase(&decide)), cell.0, access, Location::caller()) as u32
    }

    #[track_caller]
    fn until_for(
        &self,
        cell: &CheckCell,
        access: Access,
        budget: Budget,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, u32> {
        let decide = |v| done(v).then_some(v);
        if matches!(budget, Budget::Looks { .. }) && self.has_looked() {
            return Ok(ask(Kind::Await(erase(&decide)), cell.0, access, Location::caller()) as u32);
        }
        result(ask(Kind::AwaitFor(erase(&decide)), cell.0, access, Location::caller()))
    }

    #[track_caller]
    fn fence(&self, access: Access) {
        if let Some(looked) = self.looked.filter(|_| access.name == "detect.fence") {
            CheckCell(looked).store(1, LOOKED);
        }
        ask(Kind::Fence, NO_CELL, access, Location::caller());
    }

    /// Nothing: a virtual CPU performs its accesses in program order, as its own interrupts see them.
    fn signal_fence(&self) {}

    /// Stands still: a bounded wait may end at any time all the same.
    fn now(&self) -> u64 {
        0
    }

    fn domain(&self) -> u32 {
        self.cpu as u32 % self.world.domains
    }

    #[track_caller]
    fn wait(&self, cell: &CheckCell, value: u32, access: Access, until: Option<u64>) {
        let timed = until.is_some() && !self.has_looked();
        ask(Kind::Wait { value, timed }, cell.0, access, Location::caller());
    }

    #[track_caller]
    fn kick(&self, cpu: Cpu) {
        ask(Kind::Kick(cpu.index() as u16), NO_CELL, KICK, Location::caller());
    }

    /// A loop that only looks now and then gives way: an await of its own would have to know what it looks for.
    #[track_caller]
    fn yield_cpu(&self) {
        ask(Kind::Yield, NO_CELL, YIELD, Location::caller());
    }

    fn is_urgent(&self) -> bool {
        self.cpu + self.world.urgent >= self.world.slots.len()
    }

    /// The clock stands still, so the time of those who were set aside is over if it may be nothing.
    #[track_caller]
    fn locality(&self) -> Locality {
        match self.world.sorting {
            Sorting::Always => Locality { one_in: 1, ..Locality::DEFAULT },
            Sorting::Whim => {
                let is_due = ask(Kind::Choose(2), NO_CELL, DUE, Location::caller()) == 1;
                Locality { one_in: 2, threshold: if is_due { 0 } else { u32::MAX } }
            }
        }
    }

    fn patience(&self) -> Patience {
        self.world.patience
    }

    #[track_caller]
    fn choose(&self, n: u32) -> u32 {
        ask(Kind::Choose(n), NO_CELL, CHOOSE, Location::caller()) as u32
    }

    fn count(&self, event: Event) {
        self.world.events.set(self.world.events.get() | 1 << event as u64);
    }
}
