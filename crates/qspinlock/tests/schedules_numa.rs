//! Random schedules of eight CPUs in domains, with interrupts, and with sections in which interrupts are off.
//!
//! A failing schedule prints its seed; `QSPINLOCK_SEED=<seed>` runs it alone. `QSPINLOCK_SCHEDULES=<n>` runs more.

#[path = "support/monitors.rs"]
#[allow(dead_code, reason = "each test file uses a part")]
mod monitors;
#[path = "support/near.rs"]
mod near;
#[path = "support/vm.rs"]
#[allow(dead_code, reason = "each test file uses a part")]
mod vm;
#[path = "support/watchdog.rs"]
mod watchdog;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use near::{Masked, Seen};
use qspinlock::machine::Event;
use qspinlock::queue::Tail;
use qspinlock::slowpath::{Locality, Native, Numa, SlowPath};
use vm::{Context, Failure, Monitor, PATIENT, Role, Sabotage, Setup, Spread, Step, Vm, World};
use watchdog::Watchdog;

const CPUS: usize = 8;
const NESTING: usize = 3;
/// A step of the machine, in the lock's steps of time: one.
const STEP_SHIFT: u32 = 10;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: '{text}'")))
}

fn spread(domains: u32, threshold_steps: u32, one_in: u32) -> Spread {
    let locality = Locality { threshold: threshold_steps << STEP_SHIFT, one_in };
    Spread { domains, locality, step_shift: STEP_SHIFT }
}

fn setup(seed: u64, spread: Spread, interrupts: usize, sabotage: Option<Sabotage>) -> Setup {
    Setup {
        seed,
        cpus: CPUS,
        locks: NESTING + 1,
        word: 0,
        interrupts,
        nesting: NESTING,
        sabotage,
        patience: PATIENT,
        stubborn: false,
        hints: false,
        spread,
    }
}

/// One schedule. Now and then a task turns interrupts off before it takes the lock, and is urgent then.
fn one(seed: u64, spread: Spread, sabotage: Option<Sabotage>) -> Result<(Vec<Event>, Seen), Failure> {
    let masked = Masked::default();
    let (monitors, seen) = near::monitors(spread, masked.clone());
    let task = move |world: &World<Numa>, cpu: usize| {
        for _ in 0..6 {
            let is_urgent = world.shared().random(6) == 0;
            if is_urgent {
                world.shared().mask(true);
                masked.set(masked.get() | 1 << cpu);
            }
            world.section(0);
            if is_urgent {
                masked.set(masked.get() & !(1 << cpu));
                world.shared().mask(false);
            }
        }
    };
    let handler = |world: &World<Numa>, who: Context| world.section(who.depth);
    let events = vm::run::<Numa>(&setup(seed, spread, 40, sabotage), monitors, task, handler)?;
    Ok((events, *seen.borrow()))
}

/// Many schedules. How often each event was counted, and what was seen, all of them together.
fn explore(test: &'static str, spread: impl Fn(u64) -> Spread) -> (BTreeMap<Event, u64>, Seen) {
    let _watchdog = Watchdog::arm(test, Duration::from_secs(300));
    let (mut tally, mut all) = (BTreeMap::new(), Seen::default());
    let seeds = match number("QSPINLOCK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("QSPINLOCK_SCHEDULES").unwrap_or(400),
    };
    for seed in seeds {
        let (events, seen) = one(seed, spread(seed), None).unwrap_or_else(|failure| panic!("{failure:?}"));
        events.into_iter().for_each(|event| *tally.entry(event).or_default() += 1);
        all.near += seen.near;
        all.inherited += seen.inherited;
        all.passed_on += seen.passed_on;
        all.due += seen.due;
        (all.longest, all.gap) = (all.longest.max(seen.longest), all.gap.max(seen.gap));
    }
    println!("{test}: {tally:?} {all:?}");
    (tally, all)
}

fn assert_reached(tally: &BTreeMap<Event, u64>, paths: &[Event]) {
    // One seed alone need not go everywhere.
    if number("QSPINLOCK_SEED").is_none() {
        for path in paths {
            assert!(tally.contains_key(path), "no schedule reached {path:?}");
        }
    }
}

const SORTING: [Event; 5] = [Event::Queued, Event::HandOff, Event::SoleHead, Event::SetAside, Event::BroughtBack];

/// Thresholds from none to more than a schedule lasts.
fn threshold(seed: u64) -> u32 {
    [0, 40, 200, 1000, 100_000][seed as usize / 2 % 5]
}

#[test]
fn two_domains() {
    let (tally, seen) = explore("two_domains", |seed| spread(2, threshold(seed), 1 + seed as u32 % 2));
    assert_reached(&tally, &SORTING);
    if number("QSPINLOCK_SEED").is_none() {
        assert!(seen.near > 0 && seen.due > 0, "{seen:?}");
        // The preference goes to an urgent waiter from afar, and through it to the next.
        assert!(seen.inherited > 0 && seen.passed_on > 0, "{seen:?}");
    }
}

/// Nobody is near anybody: a waiter is let past only if it is urgent, or the same CPU's again.
#[test]
fn eight_domains_of_one_cpu() {
    let (tally, seen) = explore("eight_domains", |seed| spread(8, threshold(seed), 1 + seed as u32 % 2));
    assert_reached(&tally, &SORTING);
    assert!(number("QSPINLOCK_SEED").is_some() || seen.due > 0, "{seen:?}");
}

#[test]
fn one_domain_is_in_order_of_arrival() {
    let _watchdog = Watchdog::arm("one_domain", Duration::from_secs(300));
    for seed in 0..600 {
        let task = |world: &World<Numa>, _| (0..4).for_each(|_| world.section(0));
        let handler = |world: &World<Numa>, who: Context| world.section(who.depth);
        let setup = setup(seed, spread(1, threshold(seed), 1), 40, None);
        let events = vm::run::<Numa>(&setup, monitors::all(), task, handler).unwrap_or_else(|f| panic!("{f:?}"));
        assert!(!events.contains(&Event::SetAside) && !events.contains(&Event::BroughtBack));
    }
}

/// The order in which CPUs that have queued in the order of `arrivals`, behind a lock that is held, have it then.
fn served<S: SlowPath<Vm, Error = Infallible> + 'static>(seed: u64, spread: Spread, arrivals: &[usize]) -> Vec<usize> {
    let (order, queued) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(0)));
    let (into, come, arrivals) = (order.clone(), queued.clone(), arrivals.to_vec());
    // The first of them waits in the lane, and queues nowhere.
    let counts: Monitor = Box::new(move |step: &Step| {
        *come.borrow_mut() += usize::from(matches!(step.access, "tail.exchange" | "word.pend") && step.new.is_some());
        Ok(())
    });
    let task = move |world: &World<S>, cpu: usize| {
        let place = arrivals.iter().position(|&of| of == cpu);
        if place.is_none() {
            assert!(world.locks[0].try_acquire_on(&world.vm));
        }
        let ahead = place.unwrap_or(arrivals.len());
        while *queued.borrow() < ahead || place.is_some() && !world.locks[0].is_taken() {
            world.shared().yield_now();
        }
        if place.is_some() {
            let Ok(()) = world.locks[0].acquire_on(&world.vm);
            into.borrow_mut().push(cpu);
        }
        // So that whoever is the head has time to look who is next.
        (0..40).for_each(|_| world.shared().yield_now());
        // SAFETY: acquired above.
        unsafe { world.locks[0].release_on(&world.vm) };
    };
    let setup = setup(seed, spread, 0, None);
    vm::run::<S>(&setup, vec![counts], task, |_, _| ()).unwrap_or_else(|failure| panic!("{failure:?}"));
    order.take()
}

#[test]
fn one_domain_is_served_as_by_native() {
    let _watchdog = Watchdog::arm("as_by_native", Duration::from_secs(300));
    let mut differs = 0;
    for seed in 0..200 {
        let mut arrivals: Vec<usize> = (1..CPUS).collect();
        fastrand::Rng::with_seed(seed).shuffle(&mut arrivals);
        let native = served::<Native>(seed, spread(1, 100_000, 1), &arrivals);
        assert_eq!(native, arrivals);
        assert_eq!(served::<Numa>(seed, spread(1, 100_000, 1), &arrivals), native, "seed {seed}");
        differs += usize::from(served::<Numa>(seed, spread(2, 100_000, 1), &arrivals) != native);
    }
    assert!(differs > 100, "two domains make a difference: {differs} of 200");
}

/// What is wrong, and words of the complaint that it must cause.
fn planted(what: &str, complaint: &str, sabotage: Sabotage) {
    let mut others = BTreeMap::new();
    let noticed = (0..400).filter_map(|seed| one(seed, spread(2, threshold(seed), 1), Some(sabotage)).err());
    for failure in noticed {
        if failure.what.contains(complaint) {
            return;
        }
        let said = failure.what.split(':').next().unwrap_or_default().to_owned();
        *others.entry(said).or_insert(0) += 1;
    }
    panic!("planted, not noticed as '{complaint}', but as {others:?}: {what}");
}

#[test]
fn planted_bugs_of_domains_are_noticed() {
    let _watchdog = Watchdog::arm("planted_bugs_of_domains", Duration::from_secs(300));
    planted("a grant is lost", "nobody promoted", |step, rng| {
        if step.access == "numa.grant" && rng.u8(..8) == 0 { None } else { step.new }
    });
    planted("who is set aside is forgotten", "the last is not who came last", |step, _| {
        if step.access == "numa.grant" { Some(1 << Tail::BITS) } else { step.new }
    });
    planted("the preference is not passed on", "the domain that the lock is in", |step, _| {
        let is_own = matches!(step.role, Role::Sleeper(node) if node.cpu().index() == step.who.cpu);
        if step.access == "numa.domain" && !is_own { None } else { step.new }
    });
    planted("an urgent waiter is set aside", "urgent", |step, _| {
        let is_urgent = step.access == "numa.domain" && step.new == Some(u32::MAX >> Tail::BITS);
        if is_urgent { Some(step.who.cpu as u32 % 2) } else { step.new }
    });
    planted("with each hand-off the time begins anew", "long enough", |step, _| {
        if step.access == "numa.since" { Some(step.time as u32) } else { step.new }
    });
}
