//! Planted bugs: what the checker is for is found. The library's own lock with one ordering taken away, and a small
//! queued lock, a small lock whose waiters sleep and one whose virtual CPUs halt, written here, with one mistake at a time.

#[path = "planted/halting.rs"]
mod halting;
#[path = "planted/lock.rs"]
mod lock;
#[path = "planted/sleepers.rs"]
mod sleepers;
#[path = "oracle/watchdog.rs"]
mod watchdog;

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use lock::{Bug, Shared};
use qspinlock::machine::Ordering::{self, Acquire, Relaxed, Release};
use qspinlock_vm::check::{
    CheckMachine, Halting, Lock, Model, Outcome, Program, Promises, Scenario, Search, Sleeping, Verdict, World,
    explore, replay,
};
use watchdog::Watchdog;

fn limited() -> Search {
    Search { time: Duration::from_secs(120), ..Search::default() }
}

/// The first word of what broke; `holds` if nothing did.
fn property(outcome: &Outcome) -> &str {
    match &outcome.verdict {
        Verdict::Holds => "holds",
        Verdict::Broken(broken) => broken.what.split(':').next().unwrap_or_default(),
        Verdict::Unfinished(why) => panic!("not explored: {why}"),
    }
}

#[test]
fn a_missing_order_is_found() {
    let _watchdog = Watchdog::after(Duration::from_secs(300), "missing orders");
    let planted: &[(&'static str, Ordering, &str)] = &[
        ("word.try", Relaxed, "race"),
        ("word.release", Relaxed, "race"),
        ("word.claim-pending", Relaxed, "race"),
        ("word.claim-sole", Relaxed, "race"),
        ("word.claim-head", Relaxed, "race"),
        ("tail.exchange", Relaxed, "hang"),
        ("tail.exchange", Acquire, "hang"),
        ("tail.exchange", Release, "hang"),
    ];
    let scenario = Scenario::new(Lock::Native, 2, 2);
    assert_eq!(property(&scenario.explore(&limited())), "holds");
    for &(name, order, expected) in planted {
        let search = Search { orders: HashMap::from([(name, order)]), ..limited() };
        let outcome = scenario.explore(&search);
        println!("{name} {order:?}: {} states, {:.1?}", outcome.states, outcome.time);
        assert_eq!(property(&outcome), expected, "{name} {order:?}");
        let Verdict::Broken(broken) = &outcome.verdict else { unreachable!("it has a property") };
        // A trace is worth something only if it leads there again.
        let (again, trace) = scenario.replay(&search, &broken.trace.choices).expect("a trace of this code");
        assert_eq!(again.as_deref(), Some(broken.what.as_str()), "{name} {order:?}");
        assert_eq!(trace.choices, broken.trace.choices, "{name} {order:?}");
    }
}

fn model<'w>(world: &'w World, bug: Bug, cpus: usize, acquires: usize) -> Model<'w> {
    let shared = Rc::new(Shared::new(world, cpus));
    let programs = (0..cpus).map(|cpu| {
        let shared = shared.clone();
        let section = move |_| {
            let m = CheckMachine::new(world, cpu);
            shared.acquire(&m, bug);
            shared.data.touch();
            shared.release(bug);
        };
        Program { sections: acquires, section: Box::new(section), interrupt: None }
    });
    Model {
        world,
        programs: programs.collect(),
        symmetric: true,
        interrupts: 0,
        words: vec![shared.word.id()],
        promises: Promises { fifo: true, bypass: Some(1), ..Promises::default() },
        ends_clean: true,
    }
}

/// Each mistake; the smallest scenario that shows it, CPUs and acquisitions; and what is then said.
const PLANTED: &[(Bug, (usize, usize), &str)] = &[
    (Bug::ClaimByStore, (2, 1), "race"),
    (Bug::HeadDoesNotLook, (2, 1), "race"),
    (Bug::HeadClaimsByStore, (3, 1), "promotion"),
    (Bug::GrantIsNotReset, (2, 3), "fifo"),
    (Bug::NextIsNotReset, (3, 2), "promotion"),
    (Bug::GrantTwice, (3, 1), "promotion"),
    (Bug::GrantNobody, (3, 1), "hang"),
    (Bug::GrantTheLast, (4, 1), "promotion"),
    (Bug::GrantBeforeTheClaim, (3, 1), "promotion"),
    (Bug::SoleHeadWaitsForSuccessor, (2, 1), "hang"),
    (Bug::TailStays, (2, 1), "trace"),
    (Bug::UnlockStoresTheWord, (2, 1), "hang"),
    (Bug::UnlockIsRelaxed, (2, 1), "race"),
    (Bug::NewcomersPass, (2, 3), "bypass"),
    (Bug::PendingIsNotUndone, (4, 1), "hang"),
];

/// Smaller than a scenario: one CPU or one acquisition less.
fn smaller((cpus, acquires): (usize, usize)) -> impl Iterator<Item = (usize, usize)> {
    [(cpus - 1, acquires), (cpus, acquires - 1)].into_iter().filter(|&(cpus, acquires)| cpus > 0 && acquires > 0)
}

#[test]
fn a_mistake_is_found() {
    let _watchdog = Watchdog::after(Duration::from_secs(500), "mistakes");
    let outcome_of = |bug, (cpus, acquires)| explore(model(&World::new(cpus, 1), bug, cpus, acquires), &limited());
    for scenario in [(2, 1), (3, 1), (2, 2), (2, 3), (4, 1)] {
        for correct in [Bug::None, Bug::NoneWithPendingLane] {
            let outcome = outcome_of(correct, scenario);
            println!("{correct:?} {scenario:?}: {} states, {:.1?}", outcome.states, outcome.time);
            assert_eq!(property(&outcome), "holds", "{correct:?} {scenario:?}: {:?}", outcome.verdict);
        }
    }
    for &(bug, scenario, expected) in PLANTED {
        let outcome = outcome_of(bug, scenario);
        println!("{bug:?} {scenario:?}: {} states, {:.1?}", outcome.states, outcome.time);
        assert_eq!(property(&outcome), expected, "{bug:?} {scenario:?}: {:?}", outcome.verdict);
        let Verdict::Broken(broken) = &outcome.verdict else { unreachable!("it has a property") };
        let (cpus, acquires) = scenario;
        let again = replay(model(&World::new(cpus, 1), bug, cpus, acquires), &limited(), &broken.trace.choices);
        assert_eq!(again.expect("a trace of this code").0.as_deref(), Some(broken.what.as_str()), "{bug:?}");
        // A smaller scenario does not show it: what a check of few CPUs or few acquisitions is blind to.
        for scenario in smaller(scenario) {
            assert_eq!(property(&outcome_of(bug, scenario)), "holds", "{bug:?} shows in {scenario:?} already");
        }
    }
}

fn model_of_sleepers<'w>(world: &'w World, bug: sleepers::Bug, cpus: usize, acquires: usize) -> Model<'w> {
    use sleepers::{Bug, Shared};
    let shared = Rc::new(Shared::new(world, cpus));
    let programs = (0..cpus).map(|cpu| {
        let shared = shared.clone();
        let section = move |_| {
            let m = CheckMachine::new(world, cpu);
            // One gives up, which it does once: its node is not its own then.
            let gives_up = matches!(bug, Bug::NoneGivesUp | Bug::AbandonedIsWoken) && cpu + 1 == cpus;
            if shared.acquire(&m, bug, gives_up) {
                shared.data.touch();
                shared.release(&m, bug);
            }
        };
        Program { sections: acquires, section: Box::new(section), interrupt: None }
    });
    let holes = u8::from(matches!(bug, Bug::NoneHot | Bug::NapsDoNotEnd));
    Model {
        world,
        programs: programs.collect(),
        symmetric: !matches!(bug, Bug::NoneGivesUp | Bug::AbandonedIsWoken),
        interrupts: 0,
        words: vec![shared.word.id()],
        promises: Promises { sleeping: Some(Sleeping { holes, turns: 1 }), ..Promises::default() },
        ends_clean: true,
    }
}

#[test]
fn a_mistake_with_sleepers_is_found() {
    use sleepers::Bug;
    let planted: &[(Bug, (usize, usize), &str)] = &[
        (Bug::ReleaseDoesNotLookAgain, (2, 1), "bypass"),
        (Bug::UnlockDoesNotTell, (2, 1), "bypass"),
        (Bug::TellsTheNewest, (3, 1), "sleepers"),
        (Bug::TellsTwice, (2, 1), "sleepers"),
        (Bug::ToldAfterRelease, (2, 1), "sleepers"),
        (Bug::LiesDownAtAFreeLock, (2, 1), "sleepers"),
        (Bug::LeavesTheLaneWithARequest, (2, 1), "trace"),
        (Bug::NapsDoNotEnd, (2, 1), "hang"),
        (Bug::KickBeforeTell, (2, 1), "hang"),
        (Bug::NoKick, (2, 1), "hang"),
        (Bug::StrangerTakesOut, (2, 1), "sleepers"),
        (Bug::HandsOverAndReleases, (2, 1), "owner"),
        (Bug::HandsOverToAnybody, (2, 1), "hand-over"),
        (Bug::WakesTheStarving, (2, 1), "hand-over"),
        (Bug::AbandonedIsWoken, (2, 1), "sleepers"),
        (Bug::GrantIsTakenInPassing, (3, 1), "grant"),
        (Bug::RequestIsNotGranted, (2, 1), "grant"),
    ];
    let _watchdog = Watchdog::after(Duration::from_secs(500), "mistakes with sleepers");
    let outcome_of = |bug, (cpus, acquires)| {
        let world = World::new(cpus, 1);
        explore(model_of_sleepers(&world, bug, cpus, acquires), &limited())
    };
    for scenario in [(2, 1), (2, 2), (3, 1)] {
        for correct in [Bug::None, Bug::NoneHot, Bug::NoneGivesUp] {
            // Who gives up leaves its node behind, and here it has no other.
            if correct == Bug::NoneGivesUp && scenario.1 > 1 {
                continue;
            }
            let outcome = outcome_of(correct, scenario);
            println!("{correct:?} {scenario:?}: {} states, {:.1?}", outcome.states, outcome.time);
            assert_eq!(property(&outcome), "holds", "{correct:?} {scenario:?}: {:?}", outcome.verdict);
        }
    }
    // These break a promise first. That they also lose a wake-up shows where nothing is promised.
    for (bug, cpus) in [(Bug::ReleaseDoesNotLookAgain, 2), (Bug::UnlockDoesNotTell, 2), (Bug::AbandonedIsWoken, 3)] {
        let world = World::new(cpus, 1);
        let model = Model { promises: Promises::default(), ..model_of_sleepers(&world, bug, cpus, 1) };
        assert_eq!(property(&explore(model, &limited())), "hang", "{bug:?}");
    }
    for &(bug, scenario, expected) in planted {
        let outcome = outcome_of(bug, scenario);
        println!("{bug:?} {scenario:?}: {} states, {:.1?}: {}", outcome.states, outcome.time, property(&outcome));
        assert_eq!(property(&outcome), expected, "{bug:?} {scenario:?}: {:?}", outcome.verdict);
        for scenario in smaller(scenario) {
            assert_eq!(property(&outcome_of(bug, scenario)), "holds", "{bug:?} shows in {scenario:?} already");
        }
    }
}

fn model_of_halting<'w>(world: &'w World, bug: halting::Bug, cpus: usize, acquires: usize) -> Model<'w> {
    let shared = Rc::new(halting::Shared::new(world, cpus));
    let programs = (0..cpus).map(|cpu| {
        let shared = shared.clone();
        let section = move |_| shared.section(&CheckMachine::new(world, cpu), bug, cpus * acquires);
        Program { sections: acquires, section: Box::new(section), interrupt: None }
    });
    Model {
        world,
        programs: programs.collect(),
        symmetric: true,
        interrupts: 0,
        words: vec![shared.word.id()],
        promises: Promises { halting: Some(Halting { turns: 1, slips: 0 }), ..Promises::default() },
        ends_clean: true,
    }
}

#[test]
fn a_mistake_with_halted_cpus_is_found() {
    use halting::Bug;
    let planted: &[(Bug, (usize, usize), &str)] = &[
        (Bug::MarkedAfterRelease, (2, 1), "wake"),
        (Bug::NotMarked, (2, 2), "wake"),
        (Bug::KickBeforeRelease, (2, 1), "kick"),
        (Bug::KickBeforeWake, (2, 1), "kick"),
        (Bug::NoKick, (2, 1), "hang"),
        (Bug::KickAtPromotion, (2, 2), "kick"),
        (Bug::KicksTheNewest, (3, 1), "wake"),
        (Bug::AnnouncesAfterLooking, (2, 2), "hang"),
        (Bug::PromotesByStore, (2, 2), "wake"),
        (Bug::UnlocksByStore, (2, 1), "wake"),
        (Bug::WakesAsWaiting, (2, 2), "hang"),
        (Bug::WakesNobody, (2, 1), "wake"),
        (Bug::TouchesAfterWake, (2, 1), "freed"),
        (Bug::WakesAfterRelease, (2, 1), "wake"),
        (Bug::SleepsThoughTold, (2, 1), "wake"),
        (Bug::RisesInSecret, (2, 2), "bypass"),
        (Bug::HeadSleepsAtAFreeLock, (2, 1), "wake"),
        (Bug::NeverStarves, (2, 2), "bypass"),
    ];
    let _watchdog = Watchdog::after(Duration::from_secs(500), "mistakes with halted CPUs");
    let outcome_of = |bug, (cpus, acquires)| {
        let world = World::new(cpus, 1);
        explore(model_of_halting(&world, bug, cpus, acquires), &limited())
    };
    for scenario in [(2, 1), (2, 2), (3, 1)] {
        for correct in [Bug::None, Bug::NoneFrees] {
            let outcome = outcome_of(correct, scenario);
            println!("{correct:?} {scenario:?}: {} states, {:.1?}", outcome.states, outcome.time);
            assert_eq!(property(&outcome), "holds", "{correct:?} {scenario:?}: {:?}", outcome.verdict);
        }
    }
    // These break a promise first. That they also lose a wake-up shows where nothing is promised.
    for bug in [Bug::NotMarked, Bug::KickBeforeWake, Bug::PromotesByStore, Bug::SleepsThoughTold] {
        let world = World::new(3, 1);
        let model = Model { promises: Promises::default(), ..model_of_halting(&world, bug, 3, 1) };
        assert_eq!(property(&explore(model, &limited())), "hang", "{bug:?}");
    }
    for &(bug, scenario, expected) in planted {
        let outcome = outcome_of(bug, scenario);
        println!("{bug:?} {scenario:?}: {} states, {:.1?}: {}", outcome.states, outcome.time, property(&outcome));
        assert_eq!(property(&outcome), expected, "{bug:?} {scenario:?}: {:?}", outcome.verdict);
        for scenario in smaller(scenario) {
            assert_eq!(property(&outcome_of(bug, scenario)), "holds", "{bug:?} shows in {scenario:?} already");
        }
    }
}
