//! The figures of `parking`, the lock that threads get: it has to hold its own against those that programs use today.

use super::{Block, Figure, Setting, alone, p999, throughput, two_threads};
use crate::bench::plan::{SHORTEST_FOR_FAIRNESS_S, Scenario};
use crate::bench::row::Row;
use crate::bench::verdict::{median, pairs};
use crate::locks::LockName;
use crate::ui::{digits, nanos};

const LOCK: LockName = LockName::Parking;
/// What it is to replace.
const PEERS: [LockName; 2] = [LockName::Std, LockName::ParkingLot];

pub(super) fn blocks(settings: &[Setting<'_>]) -> Vec<Block> {
    let title =
        "parking, alone, hot: cycles of a lock and unlock (std: at most 0.6, aim 0.5; parking_lot: 0.55, aim 0.43)";
    let peers = [(LockName::Std, 0.6, 0.5), (LockName::ParkingLot, 0.55, 0.43)];
    vec![
        alone(settings, title, LOCK, &peers),
        crowd_throughput(settings),
        crowd_fairness(settings),
        crowd_cpu(settings),
        hottest_pair(settings),
        other_pairs(settings),
        map(settings),
        programs(settings),
    ]
}

fn crowds<'a, 'b>(settings: &'b [Setting<'a>]) -> impl Iterator<Item = &'b Setting<'a>> {
    settings.iter().filter(|s| s.cell.is_crowd())
}

/// `64 threads, near: / std`.
fn name(setting: &Setting<'_>, to: &str) -> String {
    let threads = setting.cell.threads;
    format!("{threads} thread{}, {}: / {to}", if threads == 1 { "" } else { "s" }, setting.place)
}

fn crowd_throughput(settings: &[Setting<'_>]) -> Block {
    let mut figures = Vec::new();
    for setting in crowds(settings) {
        for peer in PEERS {
            let Some((ratio, rounds)) = setting.ratio(LOCK, &[peer], throughput) else { continue };
            let value = format!("{} (n = {rounds})", digits(ratio));
            figures.push(Figure::plain(name(setting, peer.name()), value).at_least(ratio, 0.95, 1.1));
        }
    }
    Block {
        title: "parking, more threads than CPUs, section 100, think 1000: throughput (at least 0.95, aim 1.1)",
        figures,
    }
}

fn crowd_fairness(settings: &[Setting<'_>]) -> Block {
    let peer = LockName::ParkingLot;
    let mut figures = Vec::new();
    for setting in crowds(settings) {
        let pairs = pairs(&setting.rows, LOCK, &[peer], |row| row.ops_per_s);
        let each = |figure: fn(&Row, &Row) -> Option<f64>| {
            median(pairs.iter().filter_map(|&(own, theirs)| figure(own, theirs)).collect())
        };
        let longest = |row: &Row| row.wait_ns.map(|wait| wait.max);
        let shortest_s = setting.rows.iter().map(|row| row.slice_s).fold(f64::MAX, f64::min);
        let is_long = shortest_s >= SHORTEST_FOR_FAIRNESS_S;
        let remark = if is_long {
            format!("n = {}", pairs.len())
        } else {
            format!("means nothing: slices of {shortest_s} s, {SHORTEST_FOR_FAIRNESS_S} s needed")
        };
        if let Some(apart) = each(|own, theirs| Some(own.jain? - theirs.jain?)) {
            let figure = Figure::plain(name(setting, peer.name()) + ", Jain", format!("{apart:+.3} ({remark})"));
            figures.push(if is_long { figure.at_least(apart, -0.02, 0.0) } else { figure });
        }
        let ratio = each(|own, theirs| Some(own.wait_ns?.max / theirs.wait_ns?.max));
        if let (Some(ratio), Some(own), Some(theirs)) =
            (ratio, setting.median(LOCK, longest), setting.median(peer, longest))
        {
            let value = format!("{} ({} / {}; {remark})", digits(ratio), nanos(own), nanos(theirs));
            let figure = Figure::plain(name(setting, peer.name()) + ", worst wait", value);
            figures.push(if is_long { figure.at_most(ratio, 2.0, 1.0) } else { figure });
        }
    }
    Block {
        title: "parking, the same: difference of Jain's index (at least -0.02, aim 0), ratio of the worst wait (at most 2, aim 1)",
        figures,
    }
}

fn crowd_cpu(settings: &[Setting<'_>]) -> Block {
    let figure = |setting: &Setting<'_>| {
        let peers = setting.measured(&PEERS);
        // The thriftier is the better one here, whichever was faster.
        let pairs = pairs(&setting.rows, LOCK, &peers, |row| -row.cpu_ns_per_op.unwrap_or(f64::MAX));
        let ratio = |&(own, theirs): &(&Row, &Row)| Some(own.cpu_ns_per_op? / theirs.cpu_ns_per_op?);
        let ratio = median(pairs.iter().filter_map(ratio).collect())?;
        let value = format!("{} (n = {})", digits(ratio), pairs.len());
        Some(Figure::plain(name(setting, &listed(&peers)), value).at_most(ratio, 1.1, 1.0))
    };
    Block {
        title: "parking, the same: CPU time of an operation to the better one's (at most 1.1, aim 1)",
        figures: crowds(settings).filter_map(figure).collect(),
    }
}

/// `better of std, parking_lot`, or who there is.
fn listed(peers: &[LockName]) -> String {
    let names: Vec<_> = peers.iter().map(|peer| peer.name()).collect();
    if names.len() > 1 { format!("better of {}", names.join(", ")) } else { names.concat() }
}

/// The cell in which the unfair ones are at their best: the lock is asked for again at once.
fn is_hottest(setting: &Setting<'_>) -> bool {
    (setting.cell.section_ns, setting.cell.think_ns) == (Some(50), Some(0))
}

fn hottest_pair(settings: &[Setting<'_>]) -> Block {
    let peer = LockName::ParkingLot;
    let mut figures = Vec::new();
    for setting in two_threads(settings).filter(|s| is_hottest(s)) {
        if let Some((ratio, rounds)) = setting.ratio(LOCK, &[peer], throughput) {
            let what = format!("throughput, {}", setting.place);
            figures.push(Figure::plain(what, format!("{} (n = {rounds})", digits(ratio))).at_least(ratio, 0.95, 1.05));
        }
        if let (Some((ratio, _)), Some(own), Some(theirs)) =
            (setting.ratio(LOCK, &[peer], p999), setting.median(LOCK, p999), setting.median(peer, p999))
        {
            let value = format!("{} ({} / {})", digits(ratio), nanos(own), nanos(theirs));
            figures.push(Figure::plain(format!("p99.9, {}", setting.place), value).at_most(ratio, 0.6, 0.5));
        }
    }
    Block {
        title: "parking, two pinned threads, 50/0, to parking_lot: throughput (at least 0.95, aim 1.05), p99.9 (at most 0.6, aim 0.5)",
        figures,
    }
}

fn other_pairs(settings: &[Setting<'_>]) -> Block {
    let figure = |setting: &Setting<'_>| {
        let peers = setting.measured(&PEERS);
        let (ratio, rounds) = setting.ratio(LOCK, &peers, throughput)?;
        let what = format!("{}: / {}", setting.times(), listed(&peers));
        Some(Figure::plain(what, format!("{} (n = {rounds})", digits(ratio))).at_least(ratio, 0.9, 1.0))
    };
    Block {
        title: "parking, two pinned threads, other cells: throughput to the better one's (at least 0.9, aim 1)",
        figures: two_threads(settings).filter(|s| !is_hottest(s)).filter_map(figure).collect(),
    }
}

fn map(settings: &[Setting<'_>]) -> Block {
    let figure = |setting: &Setting<'_>| {
        let (peer, must) = if setting.cell.threads == 1 { (LockName::Std, 0.97) } else { (LockName::ParkingLot, 1.0) };
        let (ratio, rounds) = setting.ratio(LOCK, &[peer], throughput)?;
        let value = format!("{} (n = {rounds})", digits(ratio));
        Some(Figure::plain(name(setting, peer.name()), value).at_least(ratio, must, 1.2))
    };
    Block {
        title: "parking, hash map: throughput (at least 1, alone 0.97; aim 1.2)",
        figures: settings.iter().filter(|s| s.cell.scenario == Scenario::Map).filter_map(figure).collect(),
    }
}

/// What the programs are given besides: parking_lot is futures-intrusive's own choice, a spin lock that of talc's
/// examples.
fn programs(settings: &[Setting<'_>]) -> Block {
    let mut figures = Vec::new();
    for setting in settings.iter().filter(|s| s.cell.scenario.is_program()) {
        for peer in [LockName::Std, LockName::ParkingLot, LockName::Spin] {
            let Some((ratio, rounds)) = setting.ratio(LOCK, &[peer], throughput) else { continue };
            let what = format!("{}, {}", setting.cell.scenario.name(), name(setting, peer.name()));
            figures.push(Figure::plain(what, format!("{} (n = {rounds})", digits(ratio))));
        }
    }
    Block { title: "parking, programs that take a lock_api mutex: throughput", figures }
}

#[cfg(test)]
mod tests {
    use super::super::{Goal, settings};
    use super::*;
    use crate::bench::row::{Placement, Wait};
    use crate::bench::verdict::tests::row;

    fn crowd(lock: LockName, ops_per_s: f64, jain: f64, worst: f64, cpu_ns: f64) -> Row {
        Row {
            scenario: Scenario::Oversubscribed,
            threads: 8,
            section_ns: Some(100),
            think_ns: Some(1000),
            jain: Some(jain),
            wait_ns: Some(Wait { p50: 1.0, p99: 2.0, p999: 3.0, max: worst }),
            cpu_ns_per_op: Some(cpu_ns),
            ..row(lock, 0, Placement::Near, ops_per_s)
        }
    }

    /// What a figure says, and how it stands with its goal.
    fn said(block: &Block) -> Vec<(&str, Option<Goal>)> {
        block.figures.iter().map(|f| (f.value.split(' ').next().unwrap_or_default(), f.goal)).collect()
    }

    #[test]
    fn crowds_are_held_against_their_goals() {
        use Goal::{AimReached, BoundBroken, BoundKept};
        let rows = [
            crowd(LOCK, 100.0, 0.95, 30.0, 21.0),
            crowd(LockName::Std, 125.0, 0.99, 10.0, 40.0),
            crowd(LockName::ParkingLot, 80.0, 0.96, 10.0, 20.0),
        ];
        let of = settings(&rows);
        assert_eq!(said(&crowd_throughput(&of)), [("0.80", Some(BoundBroken)), ("1.25", Some(AimReached))]);
        assert_eq!(said(&crowd_fairness(&of)), [("-0.010", Some(BoundKept)), ("3.00", Some(BoundBroken))]);
        // The thrifty one is to be beaten here, not the fast one.
        assert_eq!(said(&crowd_cpu(&of)), [("1.05", Some(BoundKept))]);
    }

    #[test]
    fn short_slices_judge_nobody_s_fairness() {
        let mut rows = [crowd(LOCK, 1.0, 0.1, 9.0, 1.0), crowd(LockName::ParkingLot, 1.0, 1.0, 1.0, 1.0)];
        rows[0].slice_s = 0.5;
        let block = crowd_fairness(&settings(&rows));
        assert_eq!(block.figures.len(), 2);
        assert!(block.figures.iter().all(|f| f.goal.is_none() && f.value.contains("means nothing")));
    }

    #[test]
    fn a_crowd_that_does_not_think_is_another_cell() {
        let mut rows = [crowd(LOCK, 1.0, 1.0, 1.0, 1.0), crowd(LockName::ParkingLot, 1.0, 1.0, 1.0, 1.0)];
        rows.iter_mut().for_each(|row| row.think_ns = Some(0));
        assert!(crowd_throughput(&settings(&rows)).figures.is_empty());
    }

    #[test]
    fn two_threads_and_the_map_have_bounds_of_their_own() {
        let at = |lock, section, ops| Row { section_ns: Some(section), ..row(lock, 0, Placement::Far, ops) };
        let rows = [
            at(LOCK, 50, 96.0),
            at(LockName::ParkingLot, 50, 100.0),
            at(LOCK, 500, 89.0),
            at(LockName::ParkingLot, 500, 50.0),
            at(LockName::Std, 500, 100.0),
        ];
        let of = settings(&rows);
        assert_eq!(said(&hottest_pair(&of)), [("0.96", Some(Goal::BoundKept)), ("1.00", Some(Goal::BoundBroken))]);
        assert_eq!(said(&other_pairs(&of)), [("0.89", Some(Goal::BoundBroken))]);

        let table = |lock, threads, ops| Row {
            scenario: Scenario::Map,
            threads,
            section_ns: None,
            ..row(lock, 0, Placement::Near, ops)
        };
        let rows = [
            table(LOCK, 1, 98.0),
            table(LockName::Std, 1, 100.0),
            table(LOCK, 8, 98.0),
            table(LockName::ParkingLot, 8, 100.0),
            table(LockName::Std, 8, 50.0),
        ];
        let kept = said(&map(&settings(&rows))).into_iter().map(|(_, goal)| goal).collect::<Vec<_>>();
        assert_eq!(kept, [Some(Goal::BoundKept), Some(Goal::BoundBroken)]);
    }
}
