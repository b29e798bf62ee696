//! The figures that sum a run up, each with the goal it is held against: what the README quotes.

use std::fmt;
use std::mem::size_of;

use qspinlock::atomic::AtomicCell;
use qspinlock::queue::Slot;

use super::memory::slots_of;
use super::plan::Scenario;
use super::row::{Placement, Row};
use super::verdict::{OURS, groups, median, ratios};
use crate::locks::{LockName, size_of_lock};
use crate::ui::{Tone, digits, nanos};

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

/// All blocks that this run has figures for.
pub(super) fn figures(rows: &[Row]) -> Vec<Block> {
    let blocks = [alone(rows), fair_peers(rows), tails(rows), memory()];
    blocks.into_iter().filter(|block| !block.figures.is_empty()).collect()
}

/// Peers with the same promise as ours: arrival order.
fn fair_peers_of_ours() -> Vec<LockName> {
    LockName::working().filter(|lock| lock.is_fair() && *lock != OURS).collect()
}

fn alone(rows: &[Row]) -> Block {
    let hot: Vec<&Row> = rows.iter().filter(|row| row.scenario == Scenario::AloneHot).collect();
    let cycles = |lock| median(hot.iter().filter(|r| r.lock == lock).filter_map(|r| r.cycles_per_pair).collect());
    let against = |(peer, must, aim): (LockName, f64, f64)| {
        let ratio = median(ratios(&hot, |row| row.cycles_per_pair, &[peer]))?;
        let value = format!("{} ({} / {} cycles)", digits(ratio), digits(cycles(OURS)?), digits(cycles(peer)?));
        Some(Figure::plain(format!("{OURS} / {peer}"), value).at_most(ratio, must, aim))
    };
    let peers = [(LockName::Spin, 1.2, 1.05), (LockName::Std, 0.65, 0.5), (LockName::ParkingLot, 0.65, 0.5)];
    let title = "Alone, hot: cycles of a lock and unlock (spin: at most 1.2, aim 1.05; others: 0.65, aim 0.5)";
    Block { title, figures: peers.into_iter().filter_map(against).collect() }
}

fn fair_peers(rows: &[Row]) -> Block {
    let measured = |lock: &LockName| rows.iter().any(|row| row.lock == *lock);
    let peers: Vec<LockName> = fair_peers_of_ours().into_iter().filter(measured).collect();
    let mut figures = Vec::new();
    for group in groups(rows).iter().filter(|g| g.cell.scenario == Scenario::Contended && g.cell.threads == 2) {
        let of_group: Vec<&Row> =
            rows.iter().filter(|r| r.cell() == group.cell && r.placement == group.placement).collect();
        let found = ratios(&of_group, |row| Some(row.ops_per_s), &peers);
        let pairs = found.len();
        if let Some(ratio) = median(found) {
            let times = (group.cell.section_ns, group.cell.think_ns);
            let aim = if times == (Some(50), Some(0)) { 1.5 } else { 1.1 };
            let what = format!(
                "section {}, think {}, {}",
                times.0.unwrap_or(0),
                times.1.unwrap_or(0),
                group.placement.map_or("-", Placement::name)
            );
            figures.push(Figure::plain(what, format!("{} (n = {pairs})", digits(ratio))).at_least(ratio, 0.95, aim));
        }
    }
    Block {
        title: "Two pinned threads: throughput, native / best fair peer (at least 0.95; aim 1.1, and 1.5 at 50/0)",
        figures,
    }
}

fn tails(rows: &[Row]) -> Block {
    let p999 = |row: &Row| row.wait_ns.map(|wait| wait.p999);
    let mut figures = Vec::new();
    for group in groups(rows).iter().filter(|g| g.cell.scenario == Scenario::Contended && g.cell.threads == 2) {
        if group.cell.think_ns != Some(0) || group.cell.section_ns > Some(50) {
            continue;
        }
        let of_group: Vec<&Row> =
            rows.iter().filter(|r| r.cell() == group.cell && r.placement == group.placement).collect();
        let own = |lock| group.locks.iter().find(|s| s.lock == lock)?.wait_ns.map(|wait| wait.p999);
        for peer in [LockName::Std, LockName::ParkingLot] {
            let (Some(ratio), Some(ours), Some(theirs)) =
                (median(ratios(&of_group, p999, &[peer])), own(OURS), own(peer))
            else {
                continue;
            };
            let place = group.placement.map_or("-", Placement::name);
            let what = format!("section {}, {place}: {OURS} / {peer}", group.cell.section_ns.unwrap_or(0));
            let value = format!("{} ({} / {})", digits(ratio), nanos(ours), nanos(theirs));
            figures.push(Figure::plain(what, value).at_most(ratio, 1.0, 0.1));
        }
    }
    Block { title: "Two pinned threads, no think time: p99.9 of the wait (below 1, aim 0.1)", figures }
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
    use super::super::verdict::tests::row;
    use super::*;

    #[test]
    fn a_loss_is_called_a_loss() {
        let near = Placement::Near;
        let rows =
            [row(OURS, 0, near, 14.0), row(LockName::Mcs, 0, near, 10.0), row(LockName::SpinTicket, 0, near, 5.0)];
        let block = fair_peers(&rows);
        assert_eq!(block.figures.len(), 1);
        assert!(block.figures[0].value.starts_with("1.40"), "{}", block.figures[0].value);
        assert_eq!(block.figures[0].goal, Some(Goal::BoundKept));
        assert_eq!(Figure::plain("", "").at_least(0.9, 0.95, 1.1).goal, Some(Goal::BoundBroken));
        assert_eq!(Figure::plain("", "").at_most(0.1, 1.0, 0.1).goal, Some(Goal::AimReached));
    }
}
