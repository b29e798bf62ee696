//! Bugs that earlier queued spinlocks shipped which report deadlocks and time-outs, and where it is checked that this
//! one has not got them. (Those of all queued spinlocks: `traps.rs`, `traps_paravirt.rs`.)
//!
//! | # | the bug | here |
//! |---|---|---|
//! | 5, 7 | a node was linked before it was initialised, or before it was taken | `trap_05_07` |
//! | 6 | an unbounded wait | `trap_06` |
//! | 8 | the pending bit set and the tail read in the wrong order | the lane is that of plain locks: `traps.rs` |
//! | 9 | a nested wait consumed the wake-up of the wait beneath | each sleep ends at the next look; `schedules_resilient.rs` |
//! | 10 | a fifth nesting level wrote past the nodes | `trap_10` |
//! | 17 | an interrupt queued behind what it had interrupted | `trap_17` |
//! | 18 | the table of held locks lagged behind the lock | `trap_18`; at each instruction: `every_instruction_resilient.rs` |
//! | 19 | an early exit did not undo a step | `trap_19` |
//! | 20 | a lock that may fail waited for its time-out | `trap_20` |
//! | 21 | a head without a successor waited for one when it gave up | `trap_21` |
//! | 22 | two parts of the code recorded the same lock | `trap_22` |
//! | 23 | preemption on before interrupts were restored | the caller's: no interrupt state is kept here |
//! | 24 | a failed acquire was ignored, and the lock released | `compile.rs`; by the raw API: `trap_24` |
//! | 25 | instrumentation in a place that never runs | the tallies of `schedules_resilient.rs` |
//! | 26 | a wait that only an event ends missed its deadline | `trap_26` |

#[path = "support/monitors.rs"]
#[allow(dead_code, reason = "each test file uses a part")]
mod monitors;
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
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use qspinlock::machine::Event;
use qspinlock::queue::{LEVELS, NODES, Tail};
use qspinlock::resilient::{ENTRIES, LockErrorKind};
use qspinlock::slowpath::{Fallible, Native, Numa, Paravirt, Parking, ParkingExact, TestAndSet};
use resilient_world::{LONG, Resilient, run};
use truth::Came;
use vm::{Context, Failure, PATIENT, Role, SLEEPY, Setup, Spread, Step, Vm};
use watchdog::Watchdog;

const DEADLOCK: Result<(), LockErrorKind> = Err(LockErrorKind::Deadlock);
const TIMED_OUT: Result<(), LockErrorKind> = Err(LockErrorKind::TimedOut);

fn setup<S: Fallible<Vm>>(seed: u64) -> Setup {
    Setup {
        seed,
        cpus: 4,
        locks: 7,
        word: 0,
        interrupts: 0,
        nesting: 6,
        sabotage: None,
        patience: if seed.is_multiple_of(2) { PATIENT } else { SLEEPY },
        stubborn: false,
        hints: S::NAME == "paravirt",
        spread: Spread::NONE,
    }
}

/// Runs what is said with all slow paths.
macro_rules! for_all {
    ($case:ident) => {{
        let _watchdog = Watchdog::arm(stringify!($case), Duration::from_secs(120));
        $case::<Native>();
        $case::<Numa>();
        $case::<Parking>();
        $case::<ParkingExact>();
        $case::<Paravirt>();
        $case::<TestAndSet>();
    }};
}

type Steps = Rc<std::cell::RefCell<Vec<Step>>>;

/// A run of which all steps are kept.
fn steps<S: Fallible<Vm> + 'static>(
    setup: &Setup,
    task: impl Fn(&Resilient<S>, usize, &Steps) + 'static,
    handler: impl Fn(&Resilient<S>, Context) + 'static,
) -> (Came, Vec<Step>) {
    let (steps, collector) = monitors::collect(|_| true);
    let seen = steps.clone();
    let task = move |world: &Resilient<S>, cpu: usize| {
        task(world, cpu, &seen);
        Vec::new()
    };
    let came = run::<S>(setup, vec![collector], task, handler).unwrap_or_else(|failure: Failure| panic!("{failure:?}"));
    let steps = steps.take();
    (came, steps)
}

fn wait_until<S: Fallible<Vm>>(world: &Resilient<S>, condition: impl Fn() -> bool) {
    while !condition() {
        world.yield_now();
    }
}

#[test]
fn trap_05_07_a_node_is_reserved_and_ready_before_it_is_published() {
    let _watchdog = Watchdog::arm("trap_05_07", Duration::from_secs(120));
    let (mut queued, mut nested) = (0, false);
    for seed in 0..300 {
        let task = |world: &Resilient<Native>, _, _: &Steps| {
            for _ in 0..2 {
                if world.acquire(0, LONG).is_ok() {
                    world.release(0);
                }
            }
        };
        let handler = |world: &Resilient<Native>, who: Context| {
            if world.acquire(who.depth, 500).is_ok() {
                world.release(who.depth);
            }
        };
        let (_, steps) = steps(&Setup { interrupts: 60, ..setup::<Native>(seed) }, task, handler);
        let mut reserved: Vec<(Tail, Context)> = Vec::new();
        let (mut stands, mut lies): (BTreeSet<u32>, BTreeSet<u32>) = Default::default();
        for step in steps {
            match (step.role, step.access, step.new) {
                (Role::Grant(node), "node.reserve", Some(_)) => {
                    assert!(!lies.contains(&node.code()), "taken while it was in a queue: {step:?}");
                    nested |= reserved.iter().any(|&(_, who)| who.cpu == step.who.cpu && who.depth < step.who.depth);
                    reserved.push((node, step.who));
                }
                (Role::Grant(node), "leaving.prepare", _) => {
                    assert!(reserved.contains(&(node, step.who)), "prepared by who has not taken it: {step:?}");
                    stands.insert(node.code());
                }
                (Role::Word(_), "tail.exchange", Some(new)) => {
                    assert!(stands.remove(&(new >> 10)), "published before it was ready: {step:?}");
                    lies.insert(new >> 10);
                    queued += 1;
                }
                (Role::Grant(node), "node.give-back" | "leaving.vacate", _) => {
                    reserved.retain(|&(of, _)| of != node);
                    stands.remove(&node.code());
                    lies.remove(&node.code());
                }
                _ => {}
            }
        }
    }
    assert!(queued > 100 && nested, "{queued} were queued");
}

fn no_wait_is_without_an_end<S: Fallible<Vm> + 'static>() {
    for seed in 0..20 {
        let is_over = Rc::new(StdCell::new(0));
        // CPU 0 stalls, for as long as anybody waits.
        let task = move |world: &Resilient<S>, cpu: usize, _: &Steps| {
            if cpu == 0 {
                assert_eq!(world.acquire(0, LONG), Ok(()));
                wait_until(world, || is_over.get() == 3);
                return world.release(0);
            }
            wait_until(world, || world.locks[0].is_taken());
            let result = world.acquire(0, 300);
            is_over.set(is_over.get() + 1);
            match result {
                // It came before the first.
                Ok(()) => world.release(0),
                result => assert_eq!(result, TIMED_OUT),
            }
        };
        // That everybody ends, and that nothing is left, `run` has seen.
        steps(&setup::<S>(seed), task, |_, _| ());
    }
}

#[test]
fn trap_06_no_wait_is_without_an_end() {
    for_all!(no_wait_is_without_an_end);
}

#[test]
fn trap_10_contexts_beyond_the_nodes_wait_without_one() {
    let _watchdog = Watchdog::arm("trap_10", Duration::from_secs(120));
    let found = (0..2000).any(|seed| {
        let task = |world: &Resilient<Native>, cpu: usize, _: &Steps| {
            // CPU 0 is interrupted wherever it waits; the others see to it that it does.
            for lock in 0..NODES - LEVELS + 1 {
                if world.acquire(if cpu == 0 { 0 } else { lock }, 2000).is_ok() {
                    (0..40).for_each(|_| world.yield_now());
                    world.release(if cpu == 0 { 0 } else { lock });
                }
            }
        };
        let handler = |world: &Resilient<Native>, who: Context| {
            if world.acquire(who.depth, 2000).is_ok() {
                world.release(who.depth);
            }
        };
        let (came, steps) = steps(&Setup { interrupts: 200, ..setup::<Native>(seed) }, task, handler);
        let highest = steps.iter().filter(|step| step.access == "node.reserve" && step.new.is_some());
        let highest = highest.filter_map(|step| match step.role {
            Role::Grant(node) => Some(node.level()),
            _ => None,
        });
        came.events.contains(&Event::NoNode) && highest.max() == Some(NODES - 1)
    });
    assert!(found, "no schedule took all nodes and one more");
}

/// A handler never lies in the queue of a lock with which the context that it has interrupted has to do: not behind it,
/// and not before it, where it would be waited for. It goes beside.
fn nobody_queues_behind_what_it_interrupted<S: Fallible<Vm> + 'static>() {
    let (mut beside, mut told) = (0, 0);
    for seed in 0..400 {
        let interrupted = Rc::new(StdCell::new((0, 0)));
        let count = interrupted.clone();
        let task = |world: &Resilient<S>, _, _: &Steps| {
            for _ in 0..2 {
                if world.acquire(0, LONG).is_ok() {
                    world.release(0);
                }
            }
        };
        let handler = move |world: &Resilient<S>, _| {
            let (taken, told) = count.get();
            count.set(match world.acquire(0, 1000) {
                Ok(()) => {
                    world.release(0);
                    (taken + 1, told)
                }
                Err(LockErrorKind::Deadlock) => (taken, told + 1),
                // Its CPU's own context is about to have the lock, or another CPU waits for it as well.
                Err(_) => (taken, told),
            });
        };
        let (_, steps) = steps(&Setup { interrupts: 12, nesting: 1, ..setup::<S>(seed) }, task, handler);
        // Who is in the queue of the one lock that there is: a context, at its push and until it is out.
        let mut entered: Vec<Context> = Vec::new();
        for step in steps {
            match step.access {
                "record.push" => entered.push(step.who),
                "record.remove" => drop(entered.pop_if_last(step.who)),
                "tail.exchange" | "sleepers.push" | "word.pend" | "sleepers.join" if step.new.is_some() => {
                    let beneath = entered.iter().any(|who| who.cpu == step.who.cpu && who.depth < step.who.depth);
                    assert!(!beneath, "queued above a context that has to do with the lock: {step:?}");
                }
                _ => {}
            }
        }
        beside += interrupted.get().0;
        told += interrupted.get().1;
    }
    assert!(beside > 0 && told > 0, "{}: {beside} taken, {told} told", S::NAME);
}

trait PopIfLast {
    fn pop_if_last(&mut self, who: Context) -> Option<Context>;
}

impl PopIfLast for Vec<Context> {
    /// Removes the last one of a context.
    fn pop_if_last(&mut self, who: Context) -> Option<Context> {
        self.iter().rposition(|&of| of == who).map(|at| self.remove(at))
    }
}

#[test]
fn trap_17_nobody_queues_behind_what_it_interrupted() {
    for_all!(nobody_queues_behind_what_it_interrupted);
}

/// A CPU alone, interrupted once, at whichever step, by a handler that wants the same lock: it gets it, or is told at
/// once. Never does its time run out.
fn the_record_brackets_the_lock<S: Fallible<Vm> + 'static>() {
    let (mut taken, mut told) = (0, 0);
    for seed in 0..300 {
        let results = Rc::new(StdCell::new((0, 0)));
        let count = results.clone();
        let task = |world: &Resilient<S>, _, _: &Steps| {
            for lock in [0, 1, 0] {
                assert_eq!(world.acquire(lock, LONG), Ok(()));
                world.release(lock);
            }
        };
        let handler = move |world: &Resilient<S>, _| {
            let (taken, told) = count.get();
            match world.acquire(0, LONG) {
                Ok(()) => {
                    world.release(0);
                    count.set((taken + 1, told));
                }
                result => {
                    assert_eq!(result, DEADLOCK);
                    count.set((taken, told + 1));
                }
            }
        };
        steps(&Setup { cpus: 1, interrupts: 8, nesting: 3, ..setup::<S>(seed) }, task, handler);
        taken += results.get().0;
        told += results.get().1;
    }
    assert!(taken > 20 && told > 20, "{}: {taken} taken, {told} told", S::NAME);
}

#[test]
fn trap_18_the_record_brackets_the_lock() {
    for_all!(the_record_brackets_the_lock);
}

/// After a failure of each kind the record is empty: as many locks as there is room for can be taken, and each of them
/// is known to be held.
fn every_exit_undoes_every_step<S: Fallible<Vm> + 'static>() {
    const FIRST: usize = 3;
    for seed in 0..6 {
        let turn = Rc::new(StdCell::new(0));
        let setup = Setup { cpus: 2, locks: FIRST + ENTRIES, ..setup::<S>(seed) };
        let task = move |world: &Resilient<S>, cpu: usize, _: &Steps| {
            if cpu == 1 {
                // Stalls with lock 1; and then wants lock 2, with it.
                assert_eq!(world.acquire(1, LONG), Ok(()));
                turn.set(1);
                wait_until(world, || turn.get() == 2);
                let has = world.acquire(2, 4000);
                world.release(1);
                if has.is_ok() {
                    world.release(2);
                }
                turn.set(3);
                return;
            }
            let probe = || {
                let all = FIRST..FIRST + ENTRIES;
                all.clone().for_each(|lock| assert_eq!(world.acquire(lock, LONG), Ok(())));
                all.clone().for_each(|lock| assert_eq!(world.acquire(lock, 0), DEADLOCK, "it was not recorded"));
                world.release_all(all.collect());
            };
            probe();
            // The same lock again.
            assert_eq!(world.acquire(0, LONG), Ok(()));
            assert_eq!(world.acquire(0, LONG), DEADLOCK);
            world.release(0);
            probe();
            wait_until(world, || turn.get() == 1);
            for limit in [0, 1, 200] {
                assert_eq!(world.acquire(1, limit), TIMED_OUT);
                probe();
            }
            assert!(!world.try_acquire(1));
            probe();
            // A circle.
            assert_eq!(world.acquire(2, LONG), Ok(()));
            turn.set(2);
            let result = world.acquire(1, LONG);
            world.release(2);
            if result.is_ok() {
                // The other one was told.
                world.release(1);
            }
            probe();
            wait_until(world, || turn.get() == 3);
            assert_eq!(world.acquire(1, LONG), Ok(()));
            world.release(1);
        };
        let (came, _) = steps(&setup, task, |_, _| ());
        assert!(came.deadlocks > 1);
    }
}

#[test]
fn trap_19_every_exit_undoes_every_step() {
    for_all!(every_exit_undoes_every_step);
}

fn with_no_time_one_fails_fast<S: Fallible<Vm> + 'static>() {
    for seed in 0..20 {
        let is_over = Rc::new(StdCell::new(false));
        let task = move |world: &Resilient<S>, cpu: usize, steps: &Steps| {
            if cpu == 0 {
                assert_eq!(world.acquire(0, LONG), Ok(()));
                wait_until(world, || is_over.get());
                return world.release(0);
            }
            wait_until(world, || world.locks[0].is_taken());
            let before = steps.borrow().len();
            assert_eq!(world.acquire(0, 0), TIMED_OUT);
            assert!(!world.try_acquire(0));
            let mine = steps.borrow()[before..].iter().filter(|step| step.who.cpu == cpu).count();
            // Most of them look at records, for the report.
            assert!(mine < 60, "{}: {mine} steps", S::NAME);
            is_over.set(true);
        };
        steps(&Setup { cpus: 2, ..setup::<S>(seed) }, task, |_, _| ());
    }
}

#[test]
fn trap_20_with_no_time_one_fails_fast() {
    for_all!(with_no_time_one_fails_fast);
}

/// On an owner that never comes back: one waiter alone; several, which come one by one, so that one is pending, one the
/// head, and others are behind; each gives up at another time, in another order. Who stays has the lock in the end.
fn waiters_give_up_wherever_they_are<S: Fallible<Vm> + 'static>() {
    for seed in 0..120 {
        let cpus = 2 + seed as usize % 5;
        let (come, gone) = <(Rc<StdCell<usize>>, Rc<StdCell<usize>>)>::default();
        let task = move |world: &Resilient<S>, cpu: usize, _: &Steps| {
            if cpu == 0 {
                assert_eq!(world.acquire(0, LONG), Ok(()));
                come.set(1);
                wait_until(world, || gone.get() == cpus - 1);
                world.release(0);
                come.set(cpus + 1);
                return;
            }
            wait_until(world, || come.get() >= cpu);
            come.set(come.get() + 1);
            let result = world.acquire(0, 50 + world.random(600) as u64);
            assert_eq!(result, TIMED_OUT);
            gone.set(gone.get() + 1);
            wait_until(world, || come.get() > cpus);
            // Nothing of them is in the way of those who come now.
            assert_eq!(world.acquire(0, LONG), Ok(()));
            world.release(0);
        };
        let (came, _) = steps(&Setup { cpus, ..setup::<S>(seed) }, task, |_, _| ());
        assert_eq!(came.late, cpus - 1);
    }
}

#[test]
fn trap_21_waiters_give_up_wherever_they_are() {
    for_all!(waiters_give_up_wherever_they_are);
}

/// Each acquire enters its lock once and removes it once, whichever way it went.
fn a_lock_is_entered_once<S: Fallible<Vm> + 'static>() {
    for seed in 0..60 {
        let task = |world: &Resilient<S>, _, _: &Steps| {
            for limit in [LONG, 30, 0] {
                if world.acquire(0, limit).is_ok() {
                    world.release(0);
                }
            }
        };
        let (_, steps) = steps(&Setup { locks: 1, ..setup::<S>(seed) }, task, |_, _| ());
        let count = |access| steps.iter().filter(|step| step.access == access).count();
        // One more at the end, which `run` takes.
        let all = 4 * 3 + usize::from(S::NAME == "parking");
        assert_eq!((count("record.push"), count("record.remove")), (all, all), "{}", S::NAME);
    }
}

#[test]
fn trap_22_a_lock_is_entered_once() {
    for_all!(a_lock_is_entered_once);
}

fn who_does_not_hold_releases_nothing<S: Fallible<Vm> + 'static>() {
    let done = Rc::new(StdCell::new(0));
    let task = move |world: &Resilient<S>, cpu: usize, steps: &Steps| {
        let release = || {
            // SAFETY: this CPU does not hold it.
            unsafe { world.locks[0].release_on(&world.vm) }
        };
        if cpu == 0 {
            assert!(release().is_err(), "never locked");
            assert_eq!(world.acquire(0, LONG), Ok(()));
            done.set(1);
            wait_until(world, || done.get() == 2);
            world.release(0);
            return assert!(release().is_err(), "released before");
        }
        wait_until(world, || done.get() == 1);
        let before = steps.borrow().len();
        assert!(release().is_err(), "another one's");
        assert_eq!(world.acquire(0, 10), TIMED_OUT);
        assert!(release().is_err(), "it was not taken");
        let steps = steps.borrow();
        let mut mine = steps[before..].iter().filter(|step| step.who.cpu == 1);
        assert!(!mine.any(|step| step.access.starts_with("word.release")), "released all the same");
        done.set(2);
    };
    steps(&Setup { cpus: 2, ..setup::<S>(1) }, task, |_, _| ());
}

#[test]
fn trap_24_who_does_not_hold_releases_nothing() {
    for_all!(who_does_not_hold_releases_nothing);
}

/// The owner does nothing at all, so that nothing happens at the lock, and nobody is kicked. The waiter looks at the
/// clock all the same, in its sleep too.
fn a_deadline_needs_no_event<S: Fallible<Vm> + 'static>() {
    let task = |world: &Resilient<S>, cpu: usize| {
        if cpu == 0 {
            assert_eq!(world.acquire(0, LONG), Ok(()));
            return vec![0];
        }
        wait_until(world, || world.locks[0].is_taken());
        assert_eq!(world.acquire(0, 400), TIMED_OUT);
        Vec::new()
    };
    for seed in 0..10 {
        let setup = Setup { cpus: 2, ..setup::<S>(seed) };
        run::<S>(&setup, Vec::new(), task, |_, _| ()).unwrap_or_else(|failure| panic!("{failure:?}"));
    }
}

#[test]
fn trap_26_a_deadline_needs_no_event() {
    for_all!(a_deadline_needs_no_event);
}
