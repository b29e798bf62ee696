//! The figures of the locks that fail instead of hanging: what that costs while nothing fails, and how soon they say
//! so.

use super::{Block, Figure, Setting, alone, throughput, two_threads};
use crate::bench::deadlock::Deadlocks;
use crate::bench::plan::Scenario;
use crate::locks::LockName;
use crate::ui::{digits, nanos};

/// Each, and the plain lock of the same slow path.
const PAIRS: [(LockName, LockName); 5] = [
    (LockName::Resilient, LockName::Chosen),
    (LockName::ResilientNative, LockName::Native),
    (LockName::ResilientNuma, LockName::Numa),
    (LockName::ResilientParavirt, LockName::Paravirt),
    (LockName::ResilientTestAndSet, LockName::TestAndSetOurs),
];

pub(super) fn blocks(settings: &[Setting<'_>], deadlocks: &[Deadlocks]) -> Vec<Block> {
    let title = "resilient, alone, hot: cycles of a lock and unlock (std: at most 1, aim 0.7)";
    let mut blocks = vec![
        alone(settings, title, LockName::Resilient, &[(LockName::Std, 1.0, 0.7)]),
        contended(settings),
        latencies(deadlocks),
    ];
    blocks.push(Block {
        title: "deadlocks that others have: throughput of a lock that has no part in them (at least 0.95)",
        figures: deadlocks.iter().filter_map(bystanders).collect(),
    });
    blocks
}

fn contended(settings: &[Setting<'_>]) -> Block {
    let crowds = settings.iter().filter(|s| s.cell.scenario == Scenario::Oversubscribed);
    let figure = |setting: &Setting<'_>, (lock, plain): (LockName, LockName)| {
        let (ratio, rounds) = setting.ratio(lock, &[plain], throughput)?;
        let what = format!("{} threads, {}: {lock} / {plain}", setting.cell.threads, setting.times());
        Some(Figure::plain(what, format!("{} (n = {rounds})", digits(ratio))).at_least(ratio, 0.9, 0.97))
    };
    let all = two_threads(settings).chain(crowds);
    Block {
        title: "resilient, contended: throughput to the plain lock's of the same slow path (at least 0.9, aim 0.97)",
        figures: all.flat_map(|setting| PAIRS.into_iter().filter_map(move |pair| figure(setting, pair))).collect(),
    }
}

fn latencies(deadlocks: &[Deadlocks]) -> Block {
    let mut figures = Vec::new();
    for found in deadlocks {
        let lock = found.lock;
        let goals = [
            (format!("{lock}: the same lock again, to the error"), found.again, 2_000.0, 300.0),
            (format!("{lock}: a circle of 2 threads closed, to the error"), found.pair, 200_000.0, 20_000.0),
            (format!("{lock}: a circle of 8 threads closed, to the error"), found.ring, 1_000_000.0, 100_000.0),
        ];
        for (what, times, must, aim) in goals {
            let value = format!("{} (p99 {}, n = {})", nanos(times.median), nanos(times.p99), times.count);
            figures.push(Figure::plain(what, value).at_most(times.median, must, aim));
        }
        let late = found.overshoot;
        let value = format!("{} (p99 {}, longest {})", nanos(late.median), nanos(late.p99), nanos(late.longest));
        figures.push(Figure::plain(format!("{lock}: later than a limit of 1 ms, with an owner that is gone"), value));
    }
    Block { title: "deadlocks: median time to the error (at most 2 us, 200 us, 1 ms; aim 0.3, 20, 100 us)", figures }
}

fn bystanders(found: &Deadlocks) -> Option<Figure> {
    let (ratio, rounds) = found.bystander?;
    let value = format!("{} (n = {rounds})", digits(ratio));
    Some(Figure::plain(found.lock.name(), value).at_least(ratio, 0.95, 1.0))
}

#[cfg(test)]
mod tests {
    use super::super::{Goal, settings};
    use super::*;
    use crate::bench::deadlock::Times;
    use crate::bench::row::Placement;
    use crate::bench::verdict::tests::row;

    #[test]
    fn each_is_held_against_the_plain_lock_of_its_slow_path() {
        let near = Placement::Near;
        let rows = [
            row(LockName::Resilient, 0, near, 89.0),
            row(LockName::Chosen, 0, near, 100.0),
            row(LockName::ResilientNative, 0, near, 99.0),
            row(LockName::Native, 0, near, 100.0),
            row(LockName::ResilientNuma, 0, near, 93.0),
            row(LockName::Numa, 0, near, 100.0),
        ];
        let goals: Vec<_> = contended(&settings(&rows)).figures.iter().map(|figure| figure.goal).collect();
        assert_eq!(goals, [Some(Goal::BoundBroken), Some(Goal::AimReached), Some(Goal::BoundKept)]);
    }

    #[test]
    fn an_error_that_comes_late_is_said_to() {
        let times = |median| Times { median, p99: median, longest: median, count: 1 };
        let lock = LockName::Resilient;
        let found = Deadlocks {
            lock,
            again: times(100.0),
            pair: times(50_000.0),
            ring: times(2e6),
            overshoot: times(1.0),
            bystander: Some((0.9, 3)),
        };
        let goals: Vec<_> = latencies(&[found]).figures.iter().map(|figure| figure.goal).collect();
        assert_eq!(goals, [Some(Goal::AimReached), Some(Goal::BoundKept), Some(Goal::BoundBroken), None]);
        assert_eq!(bystanders(&found).and_then(|figure| figure.goal), Some(Goal::BoundBroken));
    }
}
