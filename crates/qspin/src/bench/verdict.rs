//! Who wins, and by what ratio.
//!
//! The host moves the CPUs while we measure, and other guests come and go. So figures are compared only between slices
//! of one round, which follow each other closely, and only if the CPUs were as far apart in both; and what is reported
//! is the median of such ratios.

use std::collections::BTreeSet;

use super::plan::Cell;
use super::row::{Placement, Row, Wait};
use crate::locks::LockName;

/// Whom all others are compared with.
pub(super) const OURS: LockName = LockName::Parking;

/// The middle value; the mean of the two in the middle.
pub(super) fn median(values: Vec<f64>) -> Option<f64> {
    quantile(values, 0.5)
}

/// The value below which `q` of them are, interpolated.
pub(super) fn quantile(mut values: Vec<f64>, q: f64) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let place = (values.len().checked_sub(1)?) as f64 * q;
    let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

/// A cell under one placement of the CPUs.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) cell: Cell,
    pub(super) placement: Option<Placement>,
    pub(super) locks: Vec<Summary>,
}

/// A lock in a group, over all rounds.
#[derive(Clone, Debug)]
pub(super) struct Summary {
    pub(super) lock: LockName,
    pub(super) rounds: usize,
    pub(super) ops_per_s: f64,
    /// Interquartile range of the rounds' throughput, in per cent of the median.
    pub(super) spread_pct: Option<f64>,
    pub(super) cycles_per_pair: Option<f64>,
    pub(super) fairness: Option<f64>,
    pub(super) jain: Option<f64>,
    pub(super) wait_ns: Option<Wait>,
    pub(super) cpu_ns_per_op: Option<f64>,
    /// Our throughput to this lock's: the median over rounds that have both.
    pub(super) ours_to_it: Option<f64>,
}

/// The figures of `rows`, by cell and placement, in the order of the plan. Mixed rows are left out.
pub(super) fn groups(rows: &[Row]) -> Vec<Group> {
    let mut cells: Vec<Cell> = Vec::new();
    for row in rows {
        if !cells.contains(&row.cell()) {
            cells.push(row.cell());
        }
    }
    let mut groups = Vec::new();
    for cell in cells {
        let of_cell: Vec<&Row> = rows.iter().filter(|row| row.cell() == cell).collect();
        let placements: BTreeSet<_> = of_cell.iter().map(|row| row.placement).collect();
        for placement in placements.into_iter().filter(|&p| p != Some(Placement::Mixed)) {
            let of_group: Vec<&Row> = of_cell.iter().copied().filter(|row| row.placement == placement).collect();
            let locks = LockName::ALL.iter().filter_map(|&lock| summary(lock, &of_group)).collect();
            groups.push(Group { cell, placement, locks });
        }
    }
    groups
}

fn summary(lock: LockName, group: &[&Row]) -> Option<Summary> {
    let rows: Vec<&Row> = group.iter().copied().filter(|row| row.lock == lock).collect();
    let each = |figure: &dyn Fn(&Row) -> Option<f64>| rows.iter().filter_map(|row| figure(row)).collect::<Vec<_>>();
    let middle = |figure: &dyn Fn(&Row) -> Option<f64>| median(each(figure));
    let ops = |q| quantile(each(&|r| Some(r.ops_per_s)), q);
    let wait = |figure: &dyn Fn(&Wait) -> f64| middle(&|r| r.wait_ns.as_ref().map(figure));
    let wait_ns = match (wait(&|w| w.p50), wait(&|w| w.p99), wait(&|w| w.p999)) {
        (Some(p50), Some(p99), Some(p999)) => {
            // The worst that happened, in whichever round.
            let max = each(&|r| r.wait_ns.map(|w| w.max)).into_iter().fold(0.0, f64::max);
            Some(Wait { p50, p99, p999, max })
        }
        _ => None,
    };
    let ops_per_s = ops(0.5)?;
    let spread = ops(0.75).zip(ops(0.25)).map(|(high, low)| (high - low) / ops_per_s * 100.0);
    Some(Summary {
        lock,
        rounds: rows.len(),
        ops_per_s,
        spread_pct: spread.filter(|_| rows.len() > 2 && ops_per_s > 0.0),
        cycles_per_pair: middle(&|r| r.cycles_per_pair),
        fairness: middle(&|r| r.fairness),
        jain: middle(&|r| r.jain),
        wait_ns,
        cpu_ns_per_op: middle(&|r| r.cpu_ns_per_op),
        ours_to_it: median(ratios(group, OURS, &[lock], |r| Some(r.ops_per_s))),
    })
}

/// A slice of `lock` and the best of `peers` in the same round, round by round; the best has the highest `score`. A
/// round that lacks one of them does not count: without the best, `lock` would look better than it is.
pub(super) fn pairs<'a>(
    group: &[&'a Row],
    lock: LockName,
    peers: &[LockName],
    score: impl Fn(&Row) -> f64,
) -> Vec<(&'a Row, &'a Row)> {
    let pair = |&own: &&'a Row| {
        let rivals = || group.iter().copied().filter(|row| row.round == own.round && peers.contains(&row.lock));
        if rivals().count() < peers.len() {
            return None;
        }
        Some((own, rivals().max_by(|a, b| score(a).total_cmp(&score(b)))?))
    };
    group.iter().filter(|row| row.lock == lock).filter_map(pair).collect()
}

/// The `figure` of `lock` to that of the fastest of `peers`, round by round.
pub(super) fn ratios(
    group: &[&Row],
    lock: LockName,
    peers: &[LockName],
    figure: impl Fn(&Row) -> Option<f64>,
) -> Vec<f64> {
    let ratio = |(own, best): (&Row, &Row)| {
        let (own, theirs) = (figure(own)?, figure(best)?);
        (theirs > 0.0).then(|| own / theirs)
    };
    pairs(group, lock, peers, |row| row.ops_per_s).into_iter().filter_map(ratio).collect()
}

impl Group {
    /// `contended 2 threads, section 50, think 0; near`.
    pub(super) fn title(&self) -> String {
        match self.placement {
            Some(placement) => format!("{}; {}", self.cell, placement.name()),
            None => self.cell.to_string(),
        }
    }

    /// The locks, fastest first: by their ratio to ours. Without ours, by their medians; and so those at the end that
    /// have no round in common with it.
    pub(super) fn ranked(&self) -> Vec<&Summary> {
        let pace = |s: &Summary| (s.ours_to_it.is_some(), s.ours_to_it.map_or(s.ops_per_s, |ratio| 1.0 / ratio));
        let mut locks: Vec<&Summary> = self.locks.iter().collect();
        locks.sort_by(|a, b| {
            let (a, b) = (pace(a), pace(b));
            b.0.cmp(&a.0).then(b.1.total_cmp(&a.1))
        });
        locks
    }

    pub(super) fn winner(&self) -> Option<&Summary> {
        self.ranked().first().copied()
    }

    /// Our throughput to `peer`'s.
    pub(super) fn ours_to(&self, peer: LockName) -> Option<f64> {
        self.locks.iter().find(|s| s.lock == peer)?.ours_to_it
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::plan::Scenario;

    pub(in crate::bench) fn row(lock: LockName, round: u32, placement: Placement, ops_per_s: f64) -> Row {
        Row {
            lock,
            scenario: Scenario::Contended,
            threads: 2,
            section_ns: Some(50),
            think_ns: Some(0),
            placement: Some(placement),
            transfer_cycles: Some(130.0),
            ops_per_s,
            cycles_per_pair: None,
            jain: Some(1.0),
            fairness: Some(0.5),
            wait_ns: Some(Wait { p50: 100.0, p99: 200.0, p999: 300.0, max: 400.0 + f64::from(round) }),
            cpu_ns_per_op: Some(10.0),
            excluded_ok: Some(true),
            round,
            seed: 1,
            slice_s: 2.0,
            setting: None,
            events: None,
            disturbed: false,
        }
    }

    #[test]
    fn quantiles_of_known_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![1.0, 2.0]), Some(1.5));
        assert_eq!(quantile(vec![0.0, 10.0, 20.0, 30.0, 40.0], 0.25), Some(10.0));
        assert_eq!(median(vec![]), None);
    }

    /// The raw medians say that ours is slower; only a comparison within round and placement sees that it is faster.
    #[test]
    fn compares_within_a_round_and_a_placement() {
        use Placement::{Far, Mixed, Near};
        let rows = [
            row(OURS, 0, Near, 20.0),
            row(LockName::Std, 0, Near, 10.0),
            row(OURS, 1, Far, 4.0),
            row(LockName::Std, 1, Near, 12.0),
            row(OURS, 2, Far, 6.0),
            row(LockName::Std, 2, Far, 2.0),
            row(OURS, 3, Mixed, 1.0),
            row(LockName::Std, 3, Far, 12.0),
        ];
        let groups = groups(&rows);
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].placement, Some(Near));
        assert_eq!(groups[0].ours_to(LockName::Std), Some(2.0));
        assert_eq!(groups[1].ours_to(LockName::Std), Some(3.0));
        assert_eq!(groups[1].winner().map(|s| s.lock), Some(OURS));
    }

    #[test]
    fn the_worst_wait_of_any_round_is_kept() {
        let rows = [row(OURS, 0, Placement::Near, 1.0), row(OURS, 9, Placement::Near, 1.0)];
        assert_eq!(groups(&rows)[0].locks[0].wait_ns.map(|w| w.max), Some(409.0));
    }

    #[test]
    fn the_best_of_several_peers_is_chosen_anew_each_round() {
        let near = Placement::Near;
        let rows = [
            row(OURS, 0, near, 12.0),
            row(LockName::Mcs, 0, near, 3.0),
            row(LockName::SpinTicket, 0, near, 6.0),
            row(OURS, 1, near, 12.0),
            row(LockName::Mcs, 1, near, 4.0),
            row(LockName::SpinTicket, 1, near, 2.0),
        ];
        let group: Vec<&Row> = rows.iter().collect();
        let found = ratios(&group, OURS, &[LockName::Mcs, LockName::SpinTicket], |r| Some(r.ops_per_s));
        assert_eq!(found, [2.0, 3.0]);
        // Without the better peer of a round ours would look better than it is.
        let without_best: Vec<&Row> = rows.iter().filter(|r| (r.lock, r.round) != (LockName::Mcs, 1)).collect();
        let found = ratios(&without_best, OURS, &[LockName::Mcs, LockName::SpinTicket], |r| Some(r.ops_per_s));
        assert_eq!(found, [2.0]);
    }
}
