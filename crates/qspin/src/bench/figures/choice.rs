//! The figures of the choice at start-up: what it costs to have chosen, and what is chosen for virtual CPUs.

use super::{Block, Figure, Setting, alone, throughput, two_threads};
use crate::bench::plan::Scenario;
use crate::bench::start::Start;
use crate::locks::LockName;
use crate::ui::digits;

/// What threads are given, and the same without a choice.
const PLAIN: LockName = LockName::Parking;
const LOCK: LockName = LockName::Chosen;
const BY_LOAD: LockName = LockName::ChosenByLoad;
const VIRTUAL: LockName = LockName::Paravirt;

/// Longest that a start should take.
const START_US: f64 = 200.0;

pub(super) fn blocks(settings: &[Setting<'_>], start: Option<Start>) -> Vec<Block> {
    let chosen =
        "chosen, alone, hot: cycles of a lock and unlock (by load: at most 1.02, aim 0.95; parking: 1.1, aim 1)";
    let by_load = "chosen by load, alone, hot: cycles of a lock and unlock (parking: at most 1.25, aim 1.1)";
    let option =
        "paravirt, alone, hot: cycles of a lock and unlock (native: at most 1.1; its unlock is an atomic step)";
    vec![
        alone(settings, chosen, LOCK, &[(BY_LOAD, 1.02, 0.95), (PLAIN, 1.1, 1.0)]),
        alone(settings, by_load, BY_LOAD, &[(PLAIN, 1.25, 1.1)]),
        contended(settings),
        alone(settings, option, VIRTUAL, &[(LockName::Native, 1.1, 1.0), (LockName::ParkingLot, 1.0, 0.8)]),
        crowds(settings),
        started(start),
    ]
}

fn ratio(setting: &Setting<'_>, lock: LockName, peer: LockName, must: f64, aim: f64) -> Option<Figure> {
    let (ratio, rounds) = setting.ratio(lock, &[peer], throughput)?;
    let what = match setting.cell.scenario {
        Scenario::Contended => format!("{}: {lock} / {peer}", setting.times()),
        _ => format!("{} threads, {}: {lock} / {peer}", setting.cell.threads, setting.times()),
    };
    Some(Figure::plain(what, format!("{} (n = {rounds})", digits(ratio))).at_least(ratio, must, aim))
}

fn oversubscribed<'a, 'b>(settings: &'b [Setting<'a>]) -> impl Iterator<Item = &'b Setting<'a>> {
    settings.iter().filter(|s| s.cell.scenario == Scenario::Oversubscribed)
}

fn contended(settings: &[Setting<'_>]) -> Block {
    let both = two_threads(settings).chain(oversubscribed(settings));
    let figures = |setting| [LOCK, BY_LOAD].into_iter().filter_map(move |lock| ratio(setting, lock, PLAIN, 0.95, 1.0));
    Block {
        title: "chosen, contended: throughput to the same lock's without a choice (at least 0.95, aim 1)",
        figures: both.flat_map(figures).collect(),
    }
}

fn crowds(settings: &[Setting<'_>]) -> Block {
    let figure = |setting| ratio(setting, VIRTUAL, LockName::ParkingLot, 0.5, 1.0);
    Block {
        title: "paravirt, more threads than CPUs: throughput (at least 0.5, aim 1)",
        figures: oversubscribed(settings).filter_map(figure).collect(),
    }
}

fn started(start: Option<Start>) -> Block {
    let figure = |Start { median, p90, starts }: Start| {
        let value = format!("{} us (a tenth took more than {} us; n = {starts})", digits(median), digits(p90));
        Figure::plain("all constructors of this program", value).at_most(median, START_US, START_US)
    };
    Block {
        title: "chosen when the program starts: time before main (at most 200 us)",
        figures: start.map(figure).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Goal, settings};
    use super::*;
    use crate::bench::row::{Placement, Row};
    use crate::bench::verdict::tests::row;

    fn said(block: &Block) -> Vec<(&str, Option<Goal>)> {
        block.figures.iter().map(|f| (f.value.split(' ').next().unwrap_or_default(), f.goal)).collect()
    }

    fn at(scenario: Scenario, lock: LockName, ops: f64) -> Row {
        Row { scenario, think_ns: Some(0), ..row(lock, 0, Placement::Near, ops) }
    }

    #[test]
    fn virtual_cpus_are_held_against_a_crowd_s_lock() {
        use Scenario::{Contended, Oversubscribed};
        let rows = [
            at(Oversubscribed, VIRTUAL, 49.0),
            at(Oversubscribed, LockName::ParkingLot, 100.0),
            at(Contended, VIRTUAL, 10.0),
            at(Contended, LockName::ParkingLot, 100.0),
        ];
        assert_eq!(said(&crowds(&settings(&rows))), [("0.49", Some(Goal::BoundBroken))]);
    }

    #[test]
    fn the_price_of_the_choice_shows_in_both_forms() {
        use Scenario::{Contended, Oversubscribed};
        let rows = [
            at(Contended, LOCK, 96.0),
            at(Contended, BY_LOAD, 90.0),
            at(Contended, PLAIN, 100.0),
            at(Oversubscribed, LOCK, 101.0),
            at(Oversubscribed, PLAIN, 100.0),
        ];
        let expected =
            [("0.96", Some(Goal::BoundKept)), ("0.90", Some(Goal::BoundBroken)), ("1.01", Some(Goal::AimReached))];
        assert_eq!(said(&contended(&settings(&rows))), expected);

        let cycles = |lock, cycles| Row {
            scenario: Scenario::AloneHot,
            threads: 1,
            cycles_per_pair: Some(cycles),
            placement: None,
            ..row(lock, 0, Placement::Near, 1.0)
        };
        let rows = [
            cycles(LOCK, 6.0),
            cycles(BY_LOAD, 6.0),
            cycles(PLAIN, 6.0),
            cycles(VIRTUAL, 12.0),
            cycles(LockName::Native, 6.0),
        ];
        let goals: Vec<_> = blocks(&settings(&rows), None).iter().flat_map(said).map(|(_, goal)| goal).collect();
        let [kept, reached, broken] = [Goal::BoundKept, Goal::AimReached, Goal::BoundBroken].map(Some);
        assert_eq!(goals, [kept, reached, reached, broken]);
    }

    #[test]
    fn a_start_that_takes_long_is_said_to() {
        let start = |median| started(Some(Start { median, p90: 300.0, starts: 31 }));
        assert_eq!(said(&start(199.0)), [("199", Some(Goal::AimReached))]);
        assert_eq!(said(&start(201.0)), [("201", Some(Goal::BoundBroken))]);
        assert!(started(None).figures.is_empty());
    }
}
