//! Planted bugs of a lock that stays in one domain for a while: each is found in its smallest scenario, and in none that
//! is smaller.

#[path = "planted/numa.rs"]
mod numa;
#[path = "oracle/watchdog.rs"]
mod watchdog;

use std::rc::Rc;
use std::time::Duration;

use numa::{Bug, Shared};
use qspinlock_vm::check::{
    CheckMachine, Model, Near, Outcome, Program, Promises, Search, Sorting, Verdict, World, explore, replay,
};
use watchdog::Watchdog;

/// CPUs, spread over two domains; acquisitions of each; and how many CPUs, the last ones, are urgent.
type Size = (usize, usize, usize);

fn world(sorting: Sorting, (cpus, _, urgent): Size) -> World {
    World::new(cpus, 2).with_sorting(sorting, urgent)
}

fn model<'w>(world: &'w World, bug: Bug, (cpus, acquires, urgent): Size) -> Model<'w> {
    let shared = Rc::new(Shared::new(world, cpus));
    let programs = (0..cpus).map(|cpu| {
        let shared = shared.clone();
        let section = move |_| {
            shared.acquire(&CheckMachine::new(world, cpu), bug);
            shared.data.touch();
            shared.release();
        };
        Program { sections: acquires, section: Box::new(section), interrupt: None }
    });
    let near = Near { domains: 2, urgent_from: (cpus - urgent) as u8 };
    Model {
        world,
        programs: programs.collect(),
        symmetric: false,
        interrupts: 0,
        words: vec![shared.word.id()],
        promises: Promises { near: Some(near), bypass: Some(1), ..Promises::default() },
        ends_clean: true,
    }
}

/// Two preemptions show each of these mistakes; all of them take minutes.
fn limited() -> Search {
    Search { time: Duration::from_secs(600), preemptions: Some(2), ..Search::default() }
}

fn outcome_of(bug: Bug, sorting: Sorting, size: Size) -> Outcome {
    let outcome = explore(model(&world(sorting, size), bug, size), &limited());
    println!("{bug:?} {size:?}: {} states, {:.1?}: {}", outcome.states, outcome.time, property(&outcome));
    outcome
}

/// The first word of what broke; `holds` if nothing did.
fn property(outcome: &Outcome) -> &str {
    match &outcome.verdict {
        Verdict::Holds => "holds",
        Verdict::Broken(broken) => broken.what.split(':').next().unwrap_or_default(),
        Verdict::Unfinished(why) => panic!("not explored: {why}"),
    }
}

/// Each mistake; whether heads sort and bring back at a whim; the smallest size that shows it; and what is then said.
const PLANTED: &[(Bug, Sorting, Size, &str)] = &[
    (Bug::LastIsSetAside, Sorting::Always, (3, 1, 0), "hang"),
    (Bug::UrgentIsSetAside, Sorting::Always, (4, 1, 1), "urgent"),
    (Bug::CircleIsNotRestored, Sorting::Always, (3, 2, 0), "panic"),
    (Bug::ForgetsThoseAside, Sorting::Always, (4, 1, 0), "order"),
    (Bug::ForgetsTheRest, Sorting::Always, (4, 1, 0), "promotion"),
    (Bug::NeverBringsBack, Sorting::Whim, (3, 2, 0), "due"),
    (Bug::NextIsNotReadAgain, Sorting::Always, (4, 1, 0), "promotion"),
    (Bug::GrantIsRelaxed, Sorting::Always, (4, 1, 0), "promotion"),
    (Bug::GrantedIsRelaxed, Sorting::Always, (4, 1, 0), "promotion"),
];

/// One CPU, one acquisition or one urgent CPU less.
fn smaller((cpus, acquires, urgent): Size) -> impl Iterator<Item = Size> {
    let less = [(cpus - 1, acquires, urgent), (cpus, acquires - 1, urgent), (cpus, acquires, urgent.wrapping_sub(1))];
    less.into_iter().filter(|&(cpus, acquires, urgent)| acquires > 0 && urgent <= cpus)
}

#[test]
fn a_mistake_with_domains_is_found() {
    let _watchdog = Watchdog::after(Duration::from_secs(900), "mistakes with domains");
    assert_eq!(property(&outcome_of(Bug::None, Sorting::Whim, (3, 1, 0))), "holds");
    let sizes = PLANTED.iter().map(|&(_, sorting, size, _)| (sorting, size));
    for (sorting, size) in
        sizes.clone().enumerate().filter(|&(n, of)| !sizes.clone().take(n).any(|it| it == of)).map(|(_, of)| of)
    {
        assert_eq!(property(&outcome_of(Bug::None, sorting, size)), "holds");
    }
    for &(bug, sorting, size, expected) in PLANTED {
        let outcome = outcome_of(bug, sorting, size);
        assert_eq!(property(&outcome), expected, "{bug:?} {size:?}: {:?}", outcome.verdict);
        let Verdict::Broken(broken) = &outcome.verdict else { unreachable!("it has a property") };
        let again = replay(model(&world(sorting, size), bug, size), &limited(), &broken.trace.choices);
        assert_eq!(again.expect("a trace of this code").0.as_deref(), Some(broken.what.as_str()), "{bug:?}");
        for size in smaller(size) {
            assert_eq!(property(&outcome_of(bug, sorting, size)), "holds", "{bug:?} shows in {size:?} already");
        }
    }
}
