//! An execution, as a person can follow it, and the numbers that lead the explorer along it again.

use std::fmt;
use std::panic::Location;

use qspinlock::machine::Ordering;

use super::op::{Kind, Op};

/// One access in an execution.
#[derive(Clone, Debug)]
pub struct Micro {
    /// Which CPU.
    pub cpu: usize,
    /// What it does: load, store, swap, ...
    pub verb: &'static str,
    /// The name of the access.
    pub access: &'static str,
    /// The cell.
    pub cell: String,
    /// The ordering, as explored.
    pub order: Ordering,
    /// Values; and how many newer ones there were, if it read an old one.
    pub how: String,
    /// Where in the source.
    pub site: &'static Location<'static>,
}

impl Micro {
    pub(crate) fn new(cpu: usize, op: &Op, order: Ordering, how: String, cell: String) -> Self {
        let verb = match op.kind {
            Kind::Load => "load",
            Kind::Store(_) => "store",
            Kind::Cas { .. } => "swap",
            Kind::Update(_) => "update",
            Kind::Await(_) => "await",
            Kind::AwaitFor(_) => "await a while",
            Kind::Fence => "fence",
            Kind::Wait { .. } => "sleep",
            Kind::Kick(_) => "kick",
            Kind::Yield => "yield",
            Kind::Choose(_) => "choose",
            Kind::Touch => "touch",
            Kind::Return => "return",
            Kind::Free => "frees",
            Kind::Done | Kind::Panicked => "end",
        };
        Self { cpu, verb, access: op.access.name, cell, order, how, site: op.site }
    }
}

/// An execution: what each step did, and which successor it was.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The steps; no other CPU comes between the accesses of one.
    pub steps: Vec<Vec<Micro>>,
    /// The number of each step among the successors of its state.
    pub choices: Vec<u32>,
}

impl Trace {
    pub(crate) fn push(&mut self, choice: u32, micros: Vec<Micro>) {
        self.choices.push(choice);
        self.steps.push(micros);
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.steps.iter().enumerate() {
            for micro in step {
                let file = micro.site.file().rsplit('/').next().unwrap_or_default();
                writeln!(
                    f,
                    "{n:3}  {:indent$}cpu {}  {:<14} {:<18} {:<12} {:<8} {}  [{file}:{}]",
                    "",
                    micro.cpu,
                    micro.verb,
                    micro.access,
                    micro.cell,
                    format!("{:?}", micro.order),
                    micro.how,
                    micro.site.line(),
                    indent = micro.cpu * 2,
                )?;
            }
        }
        Ok(())
    }
}
