//! Random schedules of three to eight CPUs with resilient locks: with circles that were planted, without any, and with
//! whatever comes. `support/truth.rs` judges each error.
//!
//! A failing schedule prints its seed; `QSPINLOCK_SEED=<seed>` runs it alone. `QSPINLOCK_SCHEDULES=<n>` runs so many of
//! each kind and slow path, of which there are eighteen.

#[path = "support/resilient_world.rs"]
#[allow(dead_code, reason = "each test file uses a part")]
mod resilient_world;
#[path = "support/truth.rs"]
#[allow(dead_code, reason = "each test file uses a part")]
mod truth;
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
use qspinlock::resilient::LockErrorKind;
use qspinlock::slowpath::{Fallible, Locality, Native, Numa, Paravirt, Parking, ParkingExact, TestAndSet};
use resilient_world::{LONG, Resilient, run};
use truth::Came;
use vm::{Context, Failure, PATIENT, SLEEPY, Sabotage, Setup, Spread, Step, Vm};
use watchdog::Watchdog;

/// Handlers nest so deep.
const NESTING: usize = 3;
/// Where handlers have locks of their own, they come after so many others.
const ORDERED: usize = 4;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: '{text}'")))
}

/// Two domains. Those set aside come first again at once, after some steps, or when nobody else waits.
fn spread(seed: u64) -> Spread {
    let threshold = [0, 1 << 10, u32::MAX][(seed % 3) as usize];
    Spread { domains: 2, locality: Locality { threshold, one_in: 2 }, step_shift: 0 }
}

fn setup<S: Fallible<Vm>>(seed: u64, cpus: usize, locks: usize, interrupts: usize) -> Setup {
    Setup {
        seed,
        cpus,
        locks,
        word: 0,
        interrupts,
        nesting: NESTING,
        sabotage: None,
        patience: if seed.is_multiple_of(2) { PATIENT } else { SLEEPY },
        stubborn: false,
        hints: S::NAME == "paravirt",
        spread: spread(seed),
    }
}

/// A time that is short for some, and long enough for everybody for others. Handlers are mostly in a hurry: two that
/// wait for each other's CPU, each of which was interrupted while it took a lock, find out only when their time is
/// over.
fn limit<S: Fallible<Vm>>(world: &Resilient<S>) -> u64 {
    let patient = if world.me().depth == 0 { 4 } else { 1 };
    match world.random(8) {
        n if n < patient => LONG,
        7 => world.random(2) as u64,
        _ => world.random(300) as u64,
    }
}

/// Takes all of them, if it can. What it holds.
fn take_all<S: Fallible<Vm>>(world: &Resilient<S>, locks: &[usize], limit: u64) -> Vec<usize> {
    let mut held = Vec::new();
    for &lock in locks {
        let is_ours = if world.random(8) == 0 { world.try_acquire(lock) } else { world.acquire(lock, limit).is_ok() };
        if !is_ours {
            break;
        }
        held.push(lock);
        // Not the newest first, and not the last.
        if held.len() > 1 && world.random(6) == 0 {
            world.release(held.swap_remove(world.random(held.len() - 1)));
        }
    }
    held
}

/// A kind of program.
type Kind = fn(Setup) -> Result<Came, Failure>;

/// CPUs 0 to n take a lock each, and when all have theirs, that of the next one. The others want locks of the circle,
/// too, and so do handlers.
fn planted<S: Fallible<Vm> + 'static>(given: Setup) -> Result<Came, Failure> {
    let cpus = given.cpus;
    let length = 1 + given.seed as usize / 7 % cpus;
    // Those of the circle, one of each CPU, and some more.
    let locks = length + cpus + 2;
    let setup = Setup { locks, ..given };
    let (ready, told, is_off) = <(Rc<StdCell<usize>>, Rc<StdCell<usize>>, Rc<StdCell<bool>>)>::default();
    let (ready_too, told_too, is_off_too) = (ready.clone(), told.clone(), is_off.clone());
    // Not for long while those that are ready, and hold what is wanted, wait for the others.
    let limit_of = move |world: &Resilient<S>, ready: &StdCell<usize>| match ready.get() == length {
        true => limit(world),
        false => world.random(100) as u64,
    };
    let task = move |world: &Resilient<S>, cpu: usize| {
        if cpu >= length {
            for _ in 0..1 + world.random(2) {
                let locks = [length + cpu, world.random(length)];
                let held = take_all(world, &locks[world.random(2)..], limit_of(world, &ready));
                world.release_all(held);
            }
            return Vec::new();
        }
        let own = length + cpu;
        let mut held = Vec::new();
        for lock in [own, cpu] {
            match world.acquire(lock, LONG) {
                Ok(()) => held.push(lock),
                // Behind somebody whom nobody can see.
                Err(_) => is_off.set(true),
            }
        }
        if world.random(2) == 0 && held.contains(&own) {
            held.retain(|&lock| lock != own);
            world.release(own);
        }
        ready.set(ready.get() + 1);
        while ready.get() < length && !is_off.get() {
            world.yield_now();
        }
        if !is_off.get() {
            match world.acquire((cpu + 1) % length, LONG) {
                Ok(()) => held.push((cpu + 1) % length),
                Err(LockErrorKind::Deadlock) => told.set(told.get() + 1),
                Err(_) => {}
            }
        }
        world.release_all(held);
        Vec::new()
    };
    let handler = move |world: &Resilient<S>, _| {
        let held = take_all(world, &[world.random(locks)], limit_of(world, &ready_too));
        world.release_all(held);
    };
    let came = run::<S>(&setup, Vec::new(), task, handler)?;
    if told_too.get() > 0 || is_off_too.get() || came.is_unseen {
        Ok(came)
    } else {
        Err(Failure::of("missed: nobody was told", &setup))
    }
}

/// All take locks in order, and handlers such as nobody takes beneath. So there is no circle; but there are waits that
/// are too short, and guards that were forgotten.
fn ordered<S: Fallible<Vm> + 'static>(given: Setup) -> Result<Came, Failure> {
    let setup = Setup { locks: ORDERED + NESTING, ..given };
    let forgets = setup.seed.is_multiple_of(3);
    let limit = move |world: &Resilient<S>| if forgets { world.random(600) as u64 } else { limit(world) };
    let task = move |world: &Resilient<S>, _| {
        let mut forgotten = Vec::new();
        for _ in 0..3 {
            let locks: Vec<_> = (0..ORDERED).filter(|lock| world.random(2) == 0 && !forgotten.contains(lock)).collect();
            let mut held = take_all(world, &locks, limit(world));
            // Nothing that it takes after it is below it.
            if forgets && world.random(6) == 0 {
                forgotten.extend(held.pop());
            }
            world.release_all(held);
        }
        forgotten
    };
    let handler = move |world: &Resilient<S>, who: Context| {
        let held = take_all(world, &[ORDERED + who.depth - 1], limit(world));
        world.release_all(held);
    };
    let came = run::<S>(&setup, Vec::new(), task, handler)?;
    if forgets || came.deadlocks == 0 { Ok(came) } else { Err(Failure::of("invented: there is an order", &setup)) }
}

/// Everybody takes anything in any order.
fn wild<S: Fallible<Vm> + 'static>(given: Setup) -> Result<Came, Failure> {
    wild_and::<S>(given, |_| ())
}

/// The same, where who looks is held up, so that a long time is not always long enough.
fn wild_held_up<S: Fallible<Vm> + 'static>(given: Setup) -> Result<Came, Failure> {
    wild_and::<S>(given, Vm::hold_up_who_looks)
}

fn wild_and<S: Fallible<Vm> + 'static>(given: Setup, and: fn(&Vm)) -> Result<Came, Failure> {
    let setup = Setup { locks: 2 + given.seed as usize % 5, ..given };
    let locks = setup.locks;
    let some = move |world: &Resilient<S>, most: usize| {
        let locks: Vec<_> = (0..1 + world.random(most)).map(|_| world.random(locks)).collect();
        let held = take_all(world, &locks, limit(world));
        world.release_all(held);
    };
    let task = move |world: &Resilient<S>, _: usize| {
        and(&world.vm);
        (0..3).for_each(|_| some(world, 3));
        Vec::new()
    };
    run::<S>(&setup, Vec::new(), task, move |world, _| some(world, 2))
}

/// Three CPUs take two of three locks each, again and again, and wait now for this one and now for that one.
fn in_turns<S: Fallible<Vm> + 'static>(given: Setup) -> Result<Came, Failure> {
    let setup = Setup { cpus: 3, locks: 3, interrupts: 0, ..given };
    let task = |world: &Resilient<S>, _| {
        world.vm.hold_up_who_looks();
        for _ in 0..20 {
            let first = world.random(3);
            let held = take_all(world, &[first, (first + 1 + world.random(2)) % 3], 1 + world.random(300) as u64);
            world.release_all(held);
        }
        Vec::new()
    };
    run::<S>(&setup, Vec::new(), task, |_, _| ())
}

#[derive(Debug, Default)]
struct Tally {
    schedules: u64,
    deadlocks: usize,
    longest: usize,
    late: usize,
    /// Schedules in which somebody waited for whom nobody can see.
    unseen: u64,
    events: BTreeMap<Event, u64>,
}

fn explore<S: Fallible<Vm> + 'static>(test: &'static str, kind: Kind) -> Tally {
    let many = number("QSPINLOCK_SCHEDULES");
    let _watchdog = Watchdog::arm(test, Duration::from_secs(if many.is_some() { 3600 } else { 300 }));
    let seeds = match number("QSPINLOCK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..many.unwrap_or(700),
    };
    let mut tally = Tally::default();
    for seed in seeds {
        // Every other one without interrupts: then nothing is unseen.
        let interrupts = if seed.is_multiple_of(2) { 0 } else { 15 };
        let setup = setup::<S>(seed / 2, 3 + seed as usize % 6, 0, interrupts);
        let came = kind(setup).unwrap_or_else(|failure| panic!("{test}: QSPINLOCK_SEED={seed}: {failure:?}"));
        tally.schedules += 1;
        tally.deadlocks += came.deadlocks;
        tally.longest = tally.longest.max(came.longest);
        tally.late += came.late;
        tally.unseen += u64::from(came.is_unseen);
        assert!(interrupts > 0 || !came.is_unseen, "QSPINLOCK_SEED={seed}: nobody was interrupted");
        came.events.into_iter().for_each(|event| *tally.events.entry(event).or_default() += 1);
    }
    println!("{test}: {tally:?}");
    tally
}

fn explore_all<S: Fallible<Vm> + 'static>(test: &'static str) -> [Tally; 3] {
    let planted = explore::<S>(test, planted::<S>);
    let is_all = number("QSPINLOCK_SEED").is_none();
    if is_all {
        assert!(planted.deadlocks as u64 >= planted.schedules && planted.longest == 8, "{planted:?}");
    }
    let ordered = explore::<S>(test, ordered::<S>);
    assert!(!is_all || ordered.late > 0, "{ordered:?}");
    let wild = explore::<S>(test, wild::<S>);
    assert!(!is_all || (wild.deadlocks > 0 && wild.late > 0 && wild.longest > 2), "{wild:?}");
    [planted, ordered, wild]
}

#[test]
fn resilient_in_turns() {
    let tally = explore::<Native>("resilient_in_turns", in_turns::<Native>);
    assert!(tally.deadlocks > 0 || tally.schedules == 1, "{tally:?}");
}

#[test]
fn resilient_native() {
    explore_all::<Native>("resilient_native");
}

#[test]
fn resilient_numa() {
    let tallies = explore_all::<Numa>("resilient_numa");
    let counts = |event| tallies.iter().filter_map(|tally| tally.events.get(&event)).sum::<u64>();
    if number("QSPINLOCK_SEED").is_none() {
        for event in [Event::SetAside, Event::BroughtBack, Event::Abandoned, Event::Rescued] {
            assert!(counts(event) > 100, "{event:?}: {}", counts(event));
        }
    }
}

#[test]
fn resilient_parking() {
    explore_all::<Parking>("resilient_parking");
}

#[test]
fn resilient_parking_exact() {
    explore_all::<ParkingExact>("resilient_parking_exact");
}

#[test]
fn resilient_paravirt() {
    explore_all::<Paravirt>("resilient_paravirt");
}

#[test]
fn resilient_test_and_set() {
    explore_all::<TestAndSet>("resilient_test_and_set");
}

/// What is wrong, and words of the complaint that it must cause.
fn noticed(what: &str, complaint: &str, sabotage: Sabotage) {
    let mut complaints = (0..4000).filter_map(|seed| {
        let setup = Setup { sabotage: Some(sabotage), ..setup::<Native>(seed, 3 + seed as usize / 4 % 6, 0, 20) };
        let kinds: [Kind; 4] = [planted::<Native>, wild::<Native>, wild_held_up::<Native>, in_turns::<Native>];
        let kind = kinds[seed as usize % 4];
        kind(setup).err()
    });
    let found = complaints.any(|failure| failure.what.contains(complaint));
    assert!(found, "planted, not noticed as '{complaint}': {what}");
}

fn sometimes(step: Step, access: &str, rng: &mut fastrand::Rng, instead: Option<u32>) -> Option<u32> {
    if step.access == access && rng.u8(..8) == 0 { instead } else { step.new }
}

#[test]
fn planted_bugs_of_records_are_noticed() {
    const STANDING: u32 = 3;
    let _watchdog = Watchdog::arm("planted_bugs_of_records_are_noticed", Duration::from_secs(300));
    noticed("what is tried counts as held", "invented", |step, _| match step.access {
        "record.push" => step.new.map(|name| name & !STANDING),
        _ => step.new,
    });
    noticed("a wait is not numbered", "invented", |step, _| match step.access {
        "record.wait" => step.new.map(|wait| wait & 0x3ff),
        _ => step.new,
    });
    noticed("a wait is not made known", "missed", |step, rng| sometimes(step, "record.wait", rng, None));
    noticed("what is held is not recorded", "missed", |step, rng| sometimes(step, "record.hold", rng, None));
    noticed("what was released stays", "", |step, rng| sometimes(step, "record.remove", rng, None));
    noticed("a queue is left by one that stays in it", "", |step, rng| sometimes(step, "leaving.abandon", rng, None));
}
