//! What is explored, how, and what came of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use qspinlock::machine::{Access, Ordering};

use super::automaton::{Keep, Program};
use super::ghost::Promises;
use super::machine::World;
use super::op::CellId;
use super::trace::Trace;

/// CPUs that one exploration may have.
pub const MAX_CPUS: usize = 8;

/// Lock words whose waiters one exploration may judge.
pub(crate) const MAX_WORDS: usize = 4;

/// What is explored: programs on the CPUs of a world, and what is promised.
pub struct Model<'w> {
    /// The cells.
    pub world: &'w World,
    /// A program for each CPU.
    pub programs: Vec<Program<'w>>,
    /// All programs do the same, so that CPUs are interchangeable until they start.
    pub symmetric: bool,
    /// Interrupts that may arrive on each CPU.
    pub interrupts: u8,
    /// Words whose waiters are judged by [`Promises`], as numbers of cells.
    pub words: Vec<CellId>,
    /// What their slow path promises.
    pub promises: Promises,
    /// Whether every cell must hold 0 at the end.
    pub ends_clean: bool,
}

/// How the search goes about it. The default is the fastest that is complete.
#[derive(Clone, Debug)]
pub struct Search {
    /// Give up after this time.
    pub time: Duration,
    /// Give up when the process takes so many bytes of memory. Where the system does not tell, there is no limit.
    pub memory: usize,
    /// Told how many states are known, now and then.
    pub gauge: Option<Arc<AtomicUsize>>,
    /// Explore only executions in which a CPU that could go on is interrupted by another at most so often.
    pub preemptions: Option<u8>,
    /// Take loads, one read-modify-write and stores as one step. See `search.rs` on this and the next five.
    pub blocks: bool,
    /// Have CPUs with the same program start in the order of their numbers.
    pub start_order: bool,
    /// Forget writes that nobody can read any more.
    pub collect: bool,
    /// Presume that whoever touches a cell knows its last write, until somebody does not. Only with `collect`.
    pub informed: bool,
    /// Presume that nobody reads what is in a queue node that is out of use, until somebody does. Only with `informed`.
    pub bury: bool,
    /// Follow the oldest of relaxed reads that go on alike.
    pub oldest: bool,
    /// How local states are told apart.
    pub keep: Keep,
    /// Accesses that have another ordering than the code gives them.
    pub orders: HashMap<&'static str, Ordering>,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(600),
            memory: 8 << 30,
            gauge: None,
            preemptions: None,
            blocks: true,
            start_order: true,
            collect: true,
            informed: true,
            bury: true,
            oldest: true,
            keep: Keep::BEST,
            orders: HashMap::new(),
        }
    }
}

/// How it ended.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Every execution within the bounds was explored, and every property holds.
    Holds,
    /// A property is broken.
    Broken(Broken),
    /// A limit was reached first. Nothing is known but that no failure was found so far.
    Unfinished(&'static str),
}

/// A property that is broken, and an execution that shows it.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which, and how. The first word names the property.
    pub what: String,
    /// The execution.
    pub trace: Trace,
}

/// Distinct final memories: the name of each cell that was touched, and its last value in modification order.
pub type Finals = HashSet<Vec<(String, u32)>>;

/// What a search found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// States that differ.
    pub states: usize,
    /// Steps from one to another.
    pub steps: u64,
    /// How long it took.
    pub time: Duration,
    /// Every access that some execution made, as the code has it, in the order of their first use.
    pub accesses: Vec<Access>,
    /// Bits of the events that some execution counted, by [`qspinlock::machine::Event`].
    pub events: u64,
    /// How executions end.
    pub finals: Finals,
}
