//! A model checker.

mod audit;
mod automaton;
#[cfg(target_arch = "x86_64")]
mod fiber;
mod ghost;
mod halting;
mod judge;
mod leaving;
mod machine;
mod memory;
mod model;
mod near;
mod op;
mod presume;
mod property;
mod queued;
mod recorder;
mod resilient;
mod scenario;
mod search;
mod sleepers;
mod step;
mod store;
mod trace;
mod usage;

pub use audit::{Fate, Finding, audit, weaker};
pub use automaton::{Keep, Program};
pub use ghost::Promises;
pub use halting::Halting;
pub use leaving::{GivesUp, Whim};
pub use machine::{CheckCell, CheckMachine, Plain, Sorting, Waiting, World, free};
pub use model::{Broken, Finals, MAX_CPUS, Model, Outcome, Search, Verdict};
pub use near::Near;
pub use op::CellId;
pub use recorder::{CheckName, CheckPlace};
pub use scenario::{Handler, Lock, Scenario};
pub use search::{explore, replay};
pub use sleepers::Sleeping;
pub use trace::{Micro, Trace};
pub use usage::Usage;
