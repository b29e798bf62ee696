//! Random schedules of three to eight CPUs, with interrupts.
//!
//! A failing schedule prints its seed; `QSPINLOCK_SEED=<seed>` runs it alone. `QSPINLOCK_SCHEDULES=<n>` runs more.

#[path = "support/halting.rs"]
mod halting;
#[path = "support/monitors.rs"]
#[allow(dead_code, reason = "each test file uses a part")]
mod monitors;
#[path = "support/vm.rs"]
#[allow(dead_code, reason = "each test file uses a part")]
mod vm;
#[path = "support/watchdog.rs"]
mod watchdog;

use std::cell::Cell as StdCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use qspinlock::machine::Event;
use qspinlock::slowpath::{Native, Paravirt, Parking, ParkingExact, SlowPath, TestAndSet};
use vm::{Context, Failure, PATIENT, QueueOnly, SLEEPY, Sabotage, Setup, Spread, Step, Vm, World};
use watchdog::Watchdog;

const NESTING: usize = 6;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: '{text}'")))
}

/// One schedule. CPUs take lock 0 several times. A handler that is n deep takes lock n, as a kernel's lock order wants:
/// what a handler takes is never taken beneath it. Now and then anybody just tries lock 0, which is always allowed.
fn one<S: SlowPath<Vm, Error = Infallible> + 'static>(
    seed: u64,
    interrupts: usize,
    sabotage: Option<Sabotage>,
) -> Result<Vec<Event>, Failure> {
    let (cpus, locks) = (3 + seed as usize % 6, NESTING + 1);
    let patience = if seed.is_multiple_of(2) { PATIENT } else { SLEEPY };
    let setup = Setup {
        seed,
        cpus,
        locks,
        word: 0,
        interrupts,
        nesting: NESTING,
        sabotage,
        patience,
        stubborn: false,
        hints: S::NAME == "paravirt",
        spread: Spread::NONE,
    };
    let monitors = match S::NAME {
        "parking" => monitors::of_sleepers(1),
        "parking-exact" => monitors::of_sleepers(0),
        "paravirt" => halting::monitors(),
        _ => monitors::all(),
    };

    let task = |world: &World<S>, _| {
        for _ in 0..3 {
            if world.shared().random(4) == 0 {
                world.try_section(0);
            } else {
                world.section(0);
            }
        }
    };
    let handler = |world: &World<S>, who: Context| {
        if world.shared().random(8) == 0 {
            world.try_section(0);
        } else {
            world.section(who.depth);
        }
    };
    vm::run::<S>(&setup, monitors, task, handler)
}

/// Many schedules; gives how often each event was counted.
fn explore<S: SlowPath<Vm, Error = Infallible> + 'static>(
    test: &'static str,
    interrupts: usize,
) -> BTreeMap<Event, u64> {
    let _watchdog = Watchdog::arm(test, Duration::from_secs(300));
    let mut tally = BTreeMap::new();
    let seeds = match number("QSPINLOCK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("QSPINLOCK_SCHEDULES").unwrap_or(2000),
    };
    for seed in seeds {
        let events = one::<S>(seed, interrupts, None).unwrap_or_else(|failure| panic!("{failure:?}"));
        events.into_iter().for_each(|event| *tally.entry(event).or_default() += 1);
    }
    println!("{test}: {tally:?}");
    tally
}

fn assert_reached(tally: &BTreeMap<Event, u64>, paths: &[Event]) {
    // One seed alone need not go everywhere.
    if number("QSPINLOCK_SEED").is_none() {
        for path in paths {
            assert!(tally.contains_key(path), "no schedule reached {path:?}");
        }
    }
}

#[test]
fn native() {
    let tally = explore::<Native>("native", 0);
    assert_reached(&tally, &[Event::Pending, Event::Queued, Event::SoleHead, Event::HandOff, Event::Bypassed]);
    assert!(!tally.contains_key(&Event::NoNode), "nothing nests here");
}

#[test]
fn native_interrupted() {
    let tally = explore::<Native>("native_interrupted", 60);
    assert_reached(&tally, &[Event::Pending, Event::Queued, Event::SoleHead, Event::HandOff, Event::Bypassed]);
}

#[test]
fn queue_only_interrupted() {
    let tally = explore::<QueueOnly>("queue_only_interrupted", 80);
    assert_reached(&tally, &[Event::SoleHead, Event::HandOff, Event::Bypassed, Event::NoNode]);
    assert!(!tally.contains_key(&Event::Pending));
}

#[test]
fn test_and_set_interrupted() {
    let tally = explore::<TestAndSet>("test_and_set_interrupted", 40);
    assert!(!tally.contains_key(&Event::Queued));
}

const SLEEPING: [Event; 8] = [
    Event::Pending,
    Event::Queued,
    Event::Granted,
    Event::HandedOver,
    Event::KickUnlock,
    Event::WaitHead,
    Event::WaitNode,
    Event::KickWake,
];

#[test]
fn parking_exact() {
    let tally = explore::<ParkingExact>("parking_exact", 0);
    assert_reached(&tally, &SLEEPING);
    assert!(!tally.contains_key(&Event::Rescued), "no sleep ends by itself");
}

#[test]
fn parking_exact_interrupted() {
    let tally = explore::<ParkingExact>("parking_exact_interrupted", 60);
    assert_reached(&tally, &SLEEPING);
    assert_reached(&tally, &[Event::Spurious, Event::NoNode]);
}

#[test]
fn parking_interrupted() {
    let tally = explore::<Parking>("parking_interrupted", 60);
    assert_reached(&tally, &SLEEPING);
    assert_reached(&tally, &[Event::Spurious, Event::NoNode, Event::Rescued]);
}

const HALTING: [Event; 8] = [
    Event::Queued,
    Event::SoleHead,
    Event::HandOff,
    Event::KickUnlock,
    Event::WaitHead,
    Event::WaitNode,
    Event::KickWake,
    Event::Bypassed,
];

#[test]
fn paravirt() {
    let tally = explore::<Paravirt>("paravirt", 0);
    assert_reached(&tally, &HALTING);
    assert_reached(&tally, &[Event::WaitEarly, Event::Step]);
}

#[test]
fn paravirt_interrupted() {
    let tally = explore::<Paravirt>("paravirt_interrupted", 60);
    assert_reached(&tally, &HALTING);
    assert_reached(&tally, &[Event::Spurious, Event::NoNode]);
}

/// CPU 0 takes no lock. The others leave their locks to it, one by one; some release them themselves.
#[test]
fn paravirt_guards_are_moved() {
    let _watchdog = Watchdog::arm("paravirt_guards_are_moved", Duration::from_secs(300));
    let mut tally: BTreeMap<Event, u64> = BTreeMap::new();
    for seed in 0..500_u64 {
        let cpus = 3 + seed as usize % 6;
        let patience = if seed.is_multiple_of(2) { PATIENT } else { SLEEPY };
        let setup = Setup {
            seed,
            cpus,
            locks: 1,
            word: 0,
            interrupts: 0,
            nesting: 0,
            sabotage: None,
            patience,
            stubborn: false,
            hints: true,
            spread: Spread::NONE,
        };
        let sent = Rc::new(StdCell::new(0));
        let task = move |world: &World<Paravirt>, cpu: usize| {
            let all = 3 * (cpus - 1);
            for _ in 0..if cpu == 0 { all } else { 3 } {
                if cpu > 0 {
                    let Ok(()) = world.locks[0].acquire_on(&world.vm);
                    sent.set(sent.get() + 1);
                } else {
                    while sent.get() == 0 {
                        world.shared().yield_now();
                    }
                    sent.set(sent.get() - 1);
                    assert_eq!(sent.get(), 0, "exclusion: two guards at a time");
                    // SAFETY: its owner has left it to this CPU.
                    unsafe { world.locks[0].release_on(&world.vm) };
                }
            }
        };
        let events = vm::run::<Paravirt>(&setup, halting::monitors(), task, |_, _| ());
        let events = events.unwrap_or_else(|failure| panic!("{failure:?}"));
        events.into_iter().for_each(|event| *tally.entry(event).or_default() += 1);
    }
    assert_reached(&tally, &[Event::KickUnlock, Event::HandOff, Event::WaitHead, Event::WaitNode]);
}

/// What is wrong, and words of the complaint that it must cause.
fn planted(what: &str, complaint: &str, sabotage: Sabotage) {
    planted_in::<QueueOnly>(what, complaint, sabotage);
}

fn planted_in<S: SlowPath<Vm, Error = Infallible> + 'static>(what: &str, complaint: &str, sabotage: Sabotage) {
    // A mistake may show in several ways; the words are of the one that says best what is wrong.
    let mut noticed = (0..500).filter_map(|seed| one::<S>(seed, 40, Some(sabotage)).err());
    let found = noticed.any(|failure| failure.what.contains(complaint));
    assert!(found, "planted, not noticed as '{complaint}': {what}");
}

fn sometimes(step: Step, access: &str, rng: &mut fastrand::Rng, instead: Option<u32>) -> Option<u32> {
    if step.access == access && rng.u8(..8) == 0 { instead } else { step.new }
}

#[test]
fn planted_bugs_are_noticed() {
    let _watchdog = Watchdog::arm("planted_bugs_are_noticed", Duration::from_secs(300));
    planted("a link is lost", "hang", |step, rng| sometimes(step, "node.link", rng, None));
    planted("a queue is lost", "transition", |step, rng| sometimes(step, "tail.exchange", rng, Some(step.old)));
    planted("an unlock writes the whole word", "transition", |step, rng| sometimes(step, "word.release", rng, Some(0)));
    planted("a waiter finds the grant of its last turn", "turn", |step, rng| {
        sometimes(step, "node.init-grant", rng, None)
    });
    planted("a level is not taken", "level", |step, _| {
        if step.access == "level.depth" && step.new > Some(step.old) { None } else { step.new }
    });
    planted("a grant is lost", "nobody promoted", |step, rng| sometimes(step, "node.grant", rng, None));
}

#[test]
fn planted_bugs_of_sleepers_are_noticed() {
    let _watchdog = Watchdog::arm("planted_bugs_of_sleepers_are_noticed", Duration::from_secs(300));
    planted_in::<ParkingExact>("a kick is lost", "hang", |step, rng| sometimes(step, "kick", rng, None));
    planted_in::<ParkingExact>("a push is lost", "hang", |step, rng| {
        if step.access == "sleepers.push" && rng.u8(..4) == 0 { None } else { step.new }
    });
    planted_in::<ParkingExact>(
        "a node keeps the state of its last turn",
        "prepared while it was in a queue",
        |step, rng| sometimes(step, "node.prepare", rng, None),
    );
    planted_in::<ParkingExact>("a queue is lost", "transition", |step, rng| {
        sometimes(step, "sleepers.emptied", rng, Some(0))
    });
    planted_in::<ParkingExact>("a sleeper is taken out twice", "hang", |step, rng| {
        sometimes(step, "node.tell", rng, Some(step.old))
    });
    planted_in::<Parking>("an unlock writes the whole word", "transition", |step, rng| {
        sometimes(step, "word.release-hot", rng, Some(0))
    });
    planted_in::<Parking>("a grant is not given", "transition", |step, rng| {
        sometimes(step, "word.release-cold", rng, Some(step.old & !0xff))
    });
}

#[test]
fn planted_bugs_of_halting_are_noticed() {
    let _watchdog = Watchdog::arm("planted_bugs_of_halting_are_noticed", Duration::from_secs(300));
    planted_in::<Paravirt>("a kick is lost", "hang", |step, rng| sometimes(step, "kick", rng, None));
    planted_in::<Paravirt>("a wake-up is lost", "asleep", |step, rng| sometimes(step, "turn.wake", rng, None));
    planted_in::<Paravirt>("a mark is lost", "asleep", |step, rng| sometimes(step, "word.mark-slow", rng, None));
    planted_in::<Paravirt>("a promotion is lost", "nobody is the head", |step, rng| {
        sometimes(step, "turn.promote", rng, None)
    });
    planted_in::<Paravirt>("an unlock writes the whole word", "transition", |step, rng| {
        sometimes(step, "word.release-fast", rng, Some(0))
    });
    planted_in::<Paravirt>("a thief passes a head that is awake", "transition", |step, rng| {
        sometimes(step, "word.rise", rng, Some(step.old))
    });
}
