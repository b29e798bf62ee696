//! The figures that sum a run up, each with the goal it is held against: what the README quotes.

mod choice;
mod native;
mod numa;
mod parking;
mod resilient;

use std::fmt;
use std::mem::size_of;

use qspinlock::atomic::AtomicCell;
use qspinlock::queue::Slot;

use super::deadlock::Deadlocks;
use super::memory::slots_of;
use super::plan::{Cell, Scenario};
use super::row::{Placement, Row};
use super::start::Start;
use super::verdict::{Group, groups, median, ratios};
use crate::locks::{LockName, size_of_lock};
use crate::ui::{Tone, digits};

/// A block of figures about one thing.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) title: &'static str,
    pub(super) figures: Vec<Figure>,
}

#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) what: String,
    pub(super) value: String,
    pub(super) goal: Option<Goal>,
}

/// What a ratio is held against: a bound that it must keep, and one that we would like it to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    AimReached,
    BoundKept,
    BoundBroken,
}

impl Goal {
    fn of(ratio: f64, holds: impl Fn(f64, f64) -> bool, must: f64, aim: f64) -> Self {
        match (holds(ratio, must), holds(ratio, aim)) {
            (_, true) => Self::AimReached,
            (true, false) => Self::BoundKept,
            (false, false) => Self::BoundBroken,
        }
    }

    pub(super) fn tone(self) -> Tone {
        match self {
            Self::AimReached => Tone::Good,
            Self::BoundKept => Tone::Plain,
            Self::BoundBroken => Tone::Bad,
        }
    }
}

impl Figure {
    fn plain(what: impl Into<String>, value: impl Into<String>) -> Self {
        Self { what: what.into(), value: value.into(), goal: None }
    }

    fn at_most(self, ratio: f64, must: f64, aim: f64) -> Self {
        Self { goal: Some(Goal::of(ratio, |ratio, most| ratio <= most, must, aim)), ..self }
    }

    fn at_least(self, ratio: f64, must: f64, aim: f64) -> Self {
        Self { goal: Some(Goal::of(ratio, |ratio, least| ratio >= least, must, aim)), ..self }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AimReached => "aim reached",
            Self::BoundKept => "kept, aim missed",
            Self::BoundBroken => "BOUND BROKEN",
        })
    }
}

/// All blocks that this run has figures for: what is held against goals first.
pub(super) fn figures(rows: &[Row], start: Option<Start>, deadlocks: &[Deadlocks]) -> Vec<Block> {
    let settings = settings(rows);
    let locks = parking::blocks(&settings).into_iter().chain(native::blocks(&settings)).chain(numa::blocks(&settings));
    let choice = choice::blocks(&settings, start);
    let blocks = locks.chain(choice).chain(resilient::blocks(&settings, deadlocks)).chain([memory()]);
    blocks.filter(|block| !block.figures.is_empty()).collect()
}

/// The rows of one cell under one placement of the CPUs.
struct Setting<'a> {
    cell: Cell,
    place: &'static str,
    rows: Vec<&'a Row>,
}

fn settings(rows: &[Row]) -> Vec<Setting<'_>> {
    let of_group = |group: &Group| Setting {
        cell: group.cell,
        place: group.placement.map_or("-", Placement::name),
        rows: rows.iter().filter(|r| r.cell() == group.cell && r.placement == group.placement).collect(),
    };
    groups(rows).iter().map(of_group).collect()
}

/// Of a lock and others, in one setting.
impl Setting<'_> {
    /// Those of `locks` that were measured at all here.
    fn measured(&self, locks: &[LockName]) -> Vec<LockName> {
        locks.iter().copied().filter(|&lock| self.rows.iter().any(|row| row.lock == lock)).collect()
    }

    fn median(&self, lock: LockName, figure: fn(&Row) -> Option<f64>) -> Option<f64> {
        median(self.rows.iter().filter(|r| r.lock == lock).filter_map(|r| figure(r)).collect())
    }

    /// The median ratio of `lock` to the fastest of `peers`, and of how many rounds.
    fn ratio(&self, lock: LockName, peers: &[LockName], figure: fn(&Row) -> Option<f64>) -> Option<(f64, usize)> {
        let found = ratios(&self.rows, lock, peers, figure);
        let rounds = found.len();
        Some((median(found)?, rounds))
    }

    /// `section 50, think 0, near`.
    fn times(&self) -> String {
        let (section, think) = (self.cell.section_ns.unwrap_or(0), self.cell.think_ns.unwrap_or(0));
        format!("section {section}, think {think}, {}", self.place)
    }
}

fn throughput(row: &Row) -> Option<f64> {
    Some(row.ops_per_s)
}

fn cycles(row: &Row) -> Option<f64> {
    row.cycles_per_pair
}

fn p999(row: &Row) -> Option<f64> {
    row.wait_ns.map(|wait| wait.p999)
}

/// A goal of a ratio: against whom, what it must be, what it should be.
type Against = (LockName, f64, f64);

/// The cycles of a lock and unlock that nobody disturbs, `lock` to each peer.
fn alone(settings: &[Setting<'_>], title: &'static str, lock: LockName, peers: &[Against]) -> Block {
    let hot = settings.iter().find(|s| s.cell.scenario == Scenario::AloneHot);
    let against = |&(peer, must, aim): &Against| {
        let hot = hot?;
        let (ratio, _) = hot.ratio(lock, &[peer], cycles)?;
        let (own, theirs) = (hot.median(lock, cycles)?, hot.median(peer, cycles)?);
        let value = format!("{} ({} / {} cycles)", digits(ratio), digits(own), digits(theirs));
        Some(Figure::plain(format!("{lock} / {peer}"), value).at_most(ratio, must, aim))
    };
    Block { title, figures: peers.iter().filter_map(against).collect() }
}

/// What two pinned threads were measured with.
fn two_threads<'a, 'b>(settings: &'b [Setting<'a>]) -> impl Iterator<Item = &'b Setting<'a>> {
    settings.iter().filter(|s| s.cell.scenario == Scenario::Contended && s.cell.threads == 2)
}

fn memory() -> Block {
    let sizes: Vec<_> = LockName::working().map(|lock| format!("{lock} {}", size_of_lock(lock))).collect();
    let mut figures = vec![Figure::plain("bytes of a lock without data", sizes.join(", "))];
    if let Some(slots) = slots_of(64) {
        let slot = size_of::<Slot<AtomicCell>>();
        let value = format!("{} bytes ({slots} slots in use x {slot})", slots * slot);
        figures.push(Figure::plain("queue nodes when 64 threads have waited, for all locks", value));
    }
    Block { title: "Memory", figures }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_called_a_loss() {
        let plain = || Figure::plain("", "");
        assert_eq!(plain().at_least(0.9, 0.95, 1.1).goal, Some(Goal::BoundBroken));
        assert_eq!(plain().at_least(0.95, 0.95, 1.1).goal, Some(Goal::BoundKept));
        assert_eq!(plain().at_most(1.01, 1.0, 0.1).goal, Some(Goal::BoundBroken));
        assert_eq!(plain().at_most(0.1, 1.0, 0.1).goal, Some(Goal::AimReached));
    }
}
