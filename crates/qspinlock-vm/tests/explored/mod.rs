//! A scenario that must hold.

use std::time::Duration;

use qspinlock_vm::check::{Outcome, Scenario, Search, Verdict};

pub(crate) fn holds(scenario: Scenario) -> Outcome {
    holds_within(scenario, None)
}

/// With so many preemptions at most.
pub(crate) fn holds_within(scenario: Scenario, preemptions: Option<u8>) -> Outcome {
    let outcome = scenario.explore(&Search { time: Duration::from_secs(600), preemptions, ..Search::default() });
    println!("{scenario}: {} states, {:.1?}", outcome.states, outcome.time);
    match &outcome.verdict {
        Verdict::Holds => outcome,
        Verdict::Broken(broken) => panic!("{scenario}: {}\n{}", broken.what, broken.trace),
        Verdict::Unfinished(why) => panic!("{scenario}: {why}"),
    }
}
