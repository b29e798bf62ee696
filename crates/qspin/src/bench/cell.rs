//! What a child process does: one lock, in one cell, once.

use serde::{Deserialize, Serialize};

use super::clock::{Clock, TICKS_ARE_CYCLES};
use super::machine::transfer_ticks;
use super::plan::{Cell, Scenario};
use super::row::{Placement, Row, Wait, fairness, jain};
use super::session::SETTING;
use super::stats::Tally;
use super::{alone, crowd, map, programs};
use crate::locks::{Contender, LockJob, LockName};

/// What the parent asks a child for; JSON on its command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) lock: LockName,
    pub(super) cell: Cell,
    pub(super) round: u32,
    pub(super) seed: u64,
    pub(super) slice_s: f64,
    pub(super) clock: Clock,
    /// Where threads go, in this order.
    pub(super) cpus: Vec<usize>,
    /// Count what the lock does.
    pub(super) stats: bool,
    /// Hang instead, to see that the parent copes.
    pub(super) hang: bool,
}

impl Order {
    pub(super) fn slice_ticks(&self) -> u64 {
        self.clock.ticks(std::time::Duration::from_secs_f64(self.slice_s))
    }

    fn pair(&self) -> Option<(usize, usize)> {
        let [first, second, ..] = self.cpus[..] else { return None };
        self.cell.scenario.has_placement().then_some((first, second))
    }
}

/// What a scenario found out about a lock.
#[derive(Default)]
pub(super) struct Found {
    /// Acquisitions in all, also those after time was up.
    pub(super) acquisitions: u64,
    pub(super) ops_per_s: f64,
    pub(super) ticks_per_pair: Option<f64>,
    /// Acquisitions by thread.
    pub(super) counts: Vec<u64>,
    pub(super) wait: Option<Wait>,
    pub(super) cpu_ns_per_op: Option<f64>,
    pub(super) excluded_ok: Option<bool>,
}

struct Measure<'a>(&'a Order);

impl LockJob for Measure<'_> {
    type Output = Found;

    fn run<L: Contender>(self) -> Found {
        match self.0.cell.scenario {
            Scenario::AloneHot => alone::hot::<L>(self.0),
            Scenario::AloneCold => alone::cold::<L>(self.0),
            Scenario::Contended | Scenario::Oversubscribed => {
                let section_ns = self.0.cell.section_ns.unwrap_or(0);
                crowd::race::<L, _>(self.0, crowd::Busy::new(self.0.clock, section_ns))
            }
            Scenario::Map => crowd::race::<L, _>(self.0, map::SharedMap::new()),
            // It takes the lock as another kind of type.
            Scenario::Allocator | Scenario::Channel => programs::run(self.0),
        }
    }
}

/// What the environment says about this lock, if it listens.
fn setting_of(lock: LockName) -> Option<String> {
    lock.is_patient().then(|| std::env::var(SETTING).ok()).flatten()
}

/// Measures, with a look at the distance of the two CPUs right before and right after.
pub(super) fn measure(order: &Order) -> Row {
    if order.hang {
        loop {
            // May return at any time.
            std::thread::park();
        }
    }
    let before = order.pair().map(transfer_ticks);
    let tally = if order.stats { Tally::begin() } else { None };
    let found = order.lock.with_type(Measure(order));
    let events = tally.and_then(|tally| tally.end(found.acquisitions));
    let after = order.pair().map(transfer_ticks);
    let cycles = |ticks: f64| TICKS_ARE_CYCLES.then_some(ticks);
    Row {
        lock: order.lock,
        scenario: order.cell.scenario,
        threads: order.cell.threads,
        section_ns: order.cell.section_ns,
        think_ns: order.cell.think_ns,
        placement: before.zip(after).map(|(b, a)| Placement::of(order.clock.ns(b), order.clock.ns(a))),
        transfer_cycles: before.zip(after).and_then(|(b, a)| cycles((b + a) / 2.0)),
        ops_per_s: found.ops_per_s,
        cycles_per_pair: found.ticks_per_pair.and_then(cycles),
        jain: jain(&found.counts),
        fairness: fairness(&found.counts),
        wait_ns: found.wait,
        cpu_ns_per_op: found.cpu_ns_per_op,
        excluded_ok: found.excluded_ok,
        round: order.round,
        seed: order.seed,
        slice_s: order.slice_s,
        setting: setting_of(order.lock),
        events,
        disturbed: false,
    }
}
