//! Bugs that earlier locks for virtual CPUs shipped, and that this one has not got them. The table of all is in `traps.rs`.

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
use std::rc::Rc;
use std::time::Duration;

use qspinlock::machine::Event;
use qspinlock::slowpath::{Paravirt, Patience};
use vm::{Context, Failure, PATIENT, SLEEPY, Setup, Spread, Step, World};
use watchdog::Watchdog;

/// What a node says.
const ASLEEP: u32 = 1;
const ASLEEP_EARLY: u32 = 2;
const HEAD: u32 = 3;
const HEAD_ASLEEP: u32 = 4;
const HEAD_ASLEEP_EARLY: u32 = 5;
const WAITING: u32 = 6;

fn setup(seed: u64, patience: Patience) -> Setup {
    Setup {
        seed,
        cpus: 5,
        locks: 7,
        word: 0,
        interrupts: 60,
        nesting: 6,
        sabotage: None,
        patience,
        stubborn: false,
        hints: true,
        spread: Spread::NONE,
    }
}

/// One schedule, its steps and events. Handlers six deep take a lock of their own.
fn one(setup: &Setup) -> Result<(Vec<Step>, Vec<Event>), Failure> {
    let (steps, collector) = monitors::collect(|_| true);
    let monitors = halting::monitors().into_iter().chain([collector]).collect();
    let task = |world: &World<Paravirt>, _| (0..3).for_each(|_| world.section(0));
    let handler = |world: &World<Paravirt>, who: Context| world.section(who.depth);
    let events = vm::run(setup, monitors, task, handler)?;
    Ok((steps.take(), events))
}

/// Runs schedules until `found` says yes to one's steps. All are right by all monitors.
fn search(test: &'static str, patience: Patience, mut found: impl FnMut(&[Step], &[Event]) -> bool) {
    let _watchdog = Watchdog::arm(test, Duration::from_secs(120));
    for seed in 0..3000 {
        let (steps, events) = one(&setup(seed, patience)).unwrap_or_else(|failure| panic!("{failure:?}"));
        if found(&steps, &events) {
            return;
        }
    }
    panic!("no schedule showed what {test} is about");
}

fn wrote(step: &Step, access: &str) -> bool {
    step.access == access && step.new.is_some()
}

/// One kick for each slow unlock, and none for who is made the head in its sleep.
#[test]
fn trap_01_who_is_made_the_head_asleep_is_woken_once() {
    let mut promoted_asleep = 0;
    search("trap_01", SLEEPY, |steps, _| {
        let count = |access| steps.iter().filter(|step| wrote(step, access)).count();
        let is_free = |step: &&Step| wrote(step, "word.release-slow") && step.new.is_some_and(|new| new & 0xff == 0);
        assert_eq!(steps.iter().filter(is_free).count(), count("kick"));
        let asleep = |step: &&Step| wrote(step, "turn.promote") && matches!(step.old, ASLEEP | ASLEEP_EARLY);
        promoted_asleep += steps.iter().filter(asleep).count();
        promoted_asleep > 1000
    });
}

/// A lock with an owner, or with a head that is about to take it, is taken, also while the head sleeps.
#[test]
fn trap_02_taken_means_owned_or_waited_for() {
    let _watchdog = Watchdog::arm("trap_02", Duration::from_secs(120));
    let seen_between_owners = Rc::new(StdCell::new(false));
    for seed in 0..300 {
        let seen = seen_between_owners.clone();
        let (looks, collector) = monitors::collect(|step| step.access == "word.peek" && step.who.cpu == 0);
        let monitors = halting::monitors().into_iter().chain([collector]).collect();
        let task = move |world: &World<Paravirt>, cpu: usize| match cpu {
            0 => (0..40).for_each(|_| {
                let taken = world.locks[0].is_taken();
                assert!(taken || world.who_is_inside(0).is_none(), "an owner was missed");
                let word = looks.borrow().last().map_or(0, |step| step.old);
                assert_eq!(taken, word != 0);
                seen.set(seen.get() || word & 0xff == 0 && word != 0);
            }),
            _ => (0..3).for_each(|_| world.section(0)),
        };
        let setup = Setup { interrupts: 0, ..setup(seed, SLEEPY) };
        vm::run(&setup, monitors, task, |_, _| ()).unwrap_or_else(|failure| panic!("{failure:?}"));
    }
    assert!(seen_between_owners.get(), "no look fell between an owner and the head after it");
}

/// Going to sleep and being made the head are swaps of one cell, so each finds what the other did. A flag and a state would
/// need a fence between them; here both orders must occur, and nobody sleeps for ever by either.
#[test]
fn trap_03_sleep_and_promotion_race_on_one_cell() {
    let (mut found_promoted, mut found_asleep) = (false, false);
    search("trap_03", SLEEPY, |steps, _| {
        for step in steps {
            if step.access == "turn.doze-off" {
                found_promoted |= step.new.is_none();
                assert!(step.new.is_some() || step.old == HEAD, "not asleep, and not the head: {step:?}");
            }
            found_asleep |= wrote(step, "turn.promote") && step.old != WAITING;
        }
        found_promoted && found_asleep
    });
}

/// A waiter sleeps early behind one that has spent its budget, or behind a head without a CPU; not behind one that sleeps
/// early, be it the head by now.
#[test]
fn trap_04_early_sleep_does_not_run_down_the_queue() {
    let mut behind: BTreeMap<(u32, bool), usize> = BTreeMap::new();
    search("trap_04", PATIENT, |steps, _| {
        let mut peeked: BTreeMap<Context, u32> = BTreeMap::new();
        for step in steps {
            match step.access {
                "turn.peek" => drop(peeked.insert(step.who, step.old)),
                "preempted" => assert_eq!(peeked.get(&step.who), Some(&HEAD), "asked of who is not the head"),
                "turn.doze-off" if step.new.is_some() => {
                    let early = step.new == Some(ASLEEP_EARLY);
                    let before = peeked.remove(&step.who).expect("it looks before it sleeps");
                    let is_reason = matches!(before, ASLEEP | HEAD | HEAD_ASLEEP);
                    assert!(!early || is_reason, "asleep early behind {before}");
                    *behind.entry((before, early)).or_default() += 1;
                }
                _ => {}
            }
        }
        let all = [(ASLEEP, true), (HEAD, true), (HEAD, false), (HEAD_ASLEEP, true), (ASLEEP_EARLY, false)];
        all.iter().chain(&[(HEAD_ASLEEP_EARLY, false)]).all(|what| behind.contains_key(what))
    });
}

/// A handler that sleeps uses up the kick that was meant for whom it interrupted. A wait therefore ends with a handler; on
/// a machine whose waits go on, somebody sleeps for ever.
#[test]
fn trap_09_a_nested_sleep_uses_up_the_kick_of_the_one_beneath() {
    let _watchdog = Watchdog::arm("trap_09", Duration::from_secs(120));
    let run = |seed, stubborn| one(&Setup { interrupts: 200, stubborn, ..setup(seed, SLEEPY) });
    for seed in 0..200 {
        run(seed, false).unwrap_or_else(|failure| panic!("{failure:?}"));
    }
    let failure = (0..200).find_map(|seed| run(seed, true).err()).expect("no handler used up a kick");
    assert!(failure.what.starts_with("hang"), "{failure:?}");
}

/// A halt turns interrupts on for as long as it lasts, and leaves them as they were: an acquire does not change them. On a
/// machine whose halt does not turn them off again, it does.
#[test]
fn trap_12_a_halt_leaves_interrupts_as_they_were() {
    let _watchdog = Watchdog::arm("trap_12", Duration::from_secs(120));
    let run = |seed, stubborn| {
        let task = |world: &World<Paravirt>, cpu: usize| {
            for n in 0..3 {
                let off = (cpu + n).is_multiple_of(2);
                world.shared().mask(off);
                world.section(0);
                assert_eq!(world.shared().mask(false), off, "interrupts are not as they were");
            }
        };
        let handler = |world: &World<Paravirt>, who: Context| {
            let off = world.shared().mask(who.depth > 1);
            assert!(!off, "an interrupt while they are off");
            world.section(who.depth);
            world.shared().mask(false);
        };
        let setup = Setup { nesting: 2, stubborn, ..setup(seed, SLEEPY) };
        vm::run(&setup, halting::monitors(), task, handler)
    };
    for seed in 0..300 {
        run(seed, false).unwrap_or_else(|failure| panic!("{failure:?}"));
    }
    let says = |failure: Failure| failure.what.contains("not as they were");
    assert!((0..300).any(|seed| run(seed, true).is_err_and(says)), "no halt turned interrupts on");
}
