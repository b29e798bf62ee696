//! What one slice measured: the line that goes into the JSON file.

use serde::{Deserialize, Serialize};

use super::plan::{Cell, Scenario};
use super::stats::Events;
use crate::locks::LockName;

/// Where the host had put the two CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Placement {
    Near,
    Far,
    /// It differed before and after the slice: of no use in a comparison.
    Mixed,
}

impl Placement {
    /// Lines that cost less than this to move are near: a shared cache. What lies between is a gap twice as wide on
    /// the machines seen so far (44 to 60 ns on one side, 120 ns and more on the other).
    const FAR_FROM_NS: f64 = 85.0;

    pub(super) fn of(before_ns: f64, after_ns: f64) -> Self {
        match (before_ns < Self::FAR_FROM_NS, after_ns < Self::FAR_FROM_NS) {
            (true, true) => Self::Near,
            (false, false) => Self::Far,
            _ => Self::Mixed,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
            Self::Mixed => "mixed",
        }
    }
}

/// Time from asking for the lock to having it, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Wait {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// One lock in one cell in one round. `None` where a figure does not apply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) lock: LockName,
    pub(super) scenario: Scenario,
    pub(super) threads: usize,
    pub(super) section_ns: Option<u32>,
    pub(super) think_ns: Option<u32>,
    pub(super) placement: Option<Placement>,
    pub(super) transfer_cycles: Option<f64>,
    /// Alone: as many as would fit a second, one after another.
    pub(super) ops_per_s: f64,
    pub(super) cycles_per_pair: Option<f64>,
    pub(super) jain: Option<f64>,
    pub(super) fairness: Option<f64>,
    pub(super) wait_ns: Option<Wait>,
    pub(super) cpu_ns_per_op: Option<f64>,
    pub(super) excluded_ok: Option<bool>,
    pub(super) round: u32,
    pub(super) seed: u64,
    /// How long it was measured, in seconds.
    pub(super) slice_s: f64,
    /// How the lock was set by the environment, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) setting: Option<String>,
    /// What the lock counted of itself, where it was asked to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) events: Option<Events>,
    /// Other processes took much of the CPUs meanwhile. Known to the parent only.
    #[serde(skip)]
    pub(super) disturbed: bool,
}

impl Row {
    pub(super) fn cell(&self) -> Cell {
        Cell { scenario: self.scenario, threads: self.threads, section_ns: self.section_ns, think_ns: self.think_ns }
    }
}

/// The share of the busier half of the threads in all acquisitions: 0.5 fair, 1 starving. The middle one of an odd
/// number of threads belongs half to either half.
pub(super) fn fairness(counts: &[u64]) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if counts.len() < 2 || total == 0 {
        return None;
    }
    let mut sorted = counts.to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let half = sorted.len() / 2;
    let mut busier = sorted[..half].iter().sum::<u64>() as f64;
    if sorted.len() % 2 == 1 {
        busier += sorted[half] as f64 / 2.0;
    }
    Some(busier / total as f64)
}

/// Jain's index: 1 when all threads got the same, 1/n when one got everything.
pub(super) fn jain(counts: &[u64]) -> Option<f64> {
    let sum: f64 = counts.iter().map(|&c| c as f64).sum();
    let squares: f64 = counts.iter().map(|&c| (c as f64).powi(2)).sum();
    (counts.len() > 1 && sum > 0.0).then(|| sum.powi(2) / (counts.len() as f64 * squares))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fairness_of_known_shares() {
        assert_eq!(fairness(&[5, 5, 5, 5]), Some(0.5));
        assert_eq!(fairness(&[0, 10, 0, 0]), Some(1.0));
        assert_eq!(fairness(&[30, 10]), Some(0.75));
        assert_eq!(fairness(&[4, 4, 4]), Some(0.5));
        assert_eq!(fairness(&[7]), None);
        assert_eq!(fairness(&[0, 0]), None);
    }

    #[test]
    fn jain_of_known_shares() {
        assert_eq!(jain(&[5, 5, 5, 5]), Some(1.0));
        assert_eq!(jain(&[8, 0, 0, 0]), Some(0.25));
        assert_eq!(jain(&[3]), None);
    }

    #[test]
    fn placements() {
        assert_eq!(Placement::of(50.0, 60.0), Placement::Near);
        assert_eq!(Placement::of(120.0, 130.0), Placement::Far);
        assert_eq!(Placement::of(50.0, 130.0), Placement::Mixed);
    }
}
