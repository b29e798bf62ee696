//! Bugs that earlier queued spinlocks shipped, and where it is checked that this one has not got them. (1 to 4, 9 and 12 of
//! virtual CPUs: `traps_paravirt.rs`.)
//!
//! | # | the bug | here |
//! |---|---|---|
//! | 1 | a sleeper was woken twice, once as next and once at unlock | `trap_01` |
//! | 2 | an observer of "is it locked" missed an owner | `trap_02` |
//! | 3 | a grant was not ordered before the look whether the waiter sleeps | no such look: `trap_03`; as a weak ordering: `qspin check --weaken` |
//! | 4 | waiters halted early, one after the other, when their predecessor was preempted | nobody asks: `Vm::preempted` panics |
//! | 5 | a node was linked before it was initialised | `trap_05`; as a weak ordering: `loom.rs`, `tail.exchange` |
//! | 6 | an unbounded wait for a hand-over to the pending waiter | `trap_06` |
//! | 7 | an interrupt used a node whose level was not yet taken | `trap_07`; on a real CPU: `every_instruction.rs` |
//! | 8 | the pending bit set and the tail read by two instructions in the wrong order | one swap: `trap_08` |
//! | 9 | a nested wait consumed the wake-up of the wait beneath | `trap_09` |
//! | 10 | a fifth nesting level wrote past the nodes | `trap_10`; with signals: `threads.rs` |
//! | 11 | the memory node was packed into the nesting counter | `trap_11` in `traps_numa.rs` |
//! | 12 | halting with interrupts on confused what was saved | a wait saves nothing, and ends with a handler: `trap_09` |
//! | 13 | the hand-off stored to a line of its own | the link and the grant are in one line: `queue::Slot`; of several domains: `trap_13` in `traps_numa.rs` |
//! | 14 | bare metal ran the fall-back since that was the default | the rows of `select` |
//! | 15 | a user's wish was overruled by a missing feature | the rows of `select` |
//! | 16 | accesses of several widths to one word | `trap_16` |
//! | 17 | a waiter queued behind the context that it had interrupted | `trap_17` |
//! | 18 | the table of held locks lagged behind the lock | no such table yet |
//! | 19 | an early exit did not undo a step | `trap_19` |
//! | 20 | a lock that may fail waited for its time-out | only trying may fail, and never waits: `trap_20` |
//! | 21 | a head, the sole waiter, waited for a successor that never comes | `loom.rs`, `sole_head_is_tail` |
//! | 22 | two parts of the code recorded the same lock | no such record yet |
//! | 23 | preemption on before interrupts were restored | the caller's: no interrupt state is kept here |
//! | 24 | a failed acquire was ignored, and the lock released | `compile.rs` |
//! | 25 | instrumentation in a place that never runs | `trap_25` |
//! | 26 | a wait that only an event ends missed its deadline | the budget of a wait: `trap_06`; who is set aside until a time: `trap_26` in `traps_numa.rs` |
//!
//! Of the traps met by earlier locks whose waiters sleep:
//!
//! | the trap | here |
//! |---|---|
//! | naps that end by themselves hide lost wake-ups | `trap_naps`; a lock without naps in every test of sleepers |
//! | the cold unlock did not look again before it released | `trap_a_cold_release`; left out: `planted.rs` of the checker |
//! | a node was used again before the waker had written it | `trap_a_node` |
//! | a request for a grant was left behind by who went to sleep | `trap_a_request` |
//! | accesses of several widths cost time | `trap_16` |
//! | stopping a process stops all of its threads | `qspin torture` holds up single threads by a signal |
//!
//! And one of the rules learnt from them: nobody writes the link of a possible tail (`rule_05`).

#[path = "support/monitors.rs"]
mod monitors;
#[path = "support/vm.rs"]
#[allow(dead_code, reason = "each test file uses a part")]
mod vm;
#[path = "support/watchdog.rs"]
mod watchdog;

use std::cell::Cell as StdCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use qspinlock::atomic::{AtomicCell, spin_until_for};
use qspinlock::machine::{Access, Budget, ConstCell, Event, Ordering};
use qspinlock::queue::{LEVELS, Tail};
use qspinlock::slowpath::{Native, Parking, ParkingExact, Patience, SlowPath};
use vm::{Context, Failure, PATIENT, QueueOnly, Role, SLEEPY, Sabotage, Setup, Spread, Step, Vm, World};
use watchdog::Watchdog;

fn setup(seed: u64) -> Setup {
    Setup {
        seed,
        cpus: 4,
        locks: 7,
        word: 0,
        interrupts: 60,
        nesting: 6,
        sabotage: None,
        patience: PATIENT,
        stubborn: false,
        hints: false,
        spread: Spread::NONE,
    }
}

/// Runs schedules with handlers six deep, each with a lock of its own, until `found` says yes to one's steps and
/// events. Every one of them must be right by all monitors as well.
fn search<S: SlowPath<Vm, Error = Infallible> + 'static>(
    test: &'static str,
    mut found: impl FnMut(&[Step], &[Event]) -> bool,
) {
    let _watchdog = Watchdog::arm(test, Duration::from_secs(120));
    for seed in 0..2000 {
        let setup = setup(seed);
        let (steps, collector) = monitors::collect(|_| true);
        let monitors = monitors::all().into_iter().chain([collector]).collect();
        let task = |world: &World<S>, _| (0..3).for_each(|_| world.section(0));
        let handler = |world: &World<S>, who: Context| world.section(who.depth);
        let events = vm::run::<S>(&setup, monitors, task, handler).unwrap_or_else(|failure| panic!("{failure:?}"));
        if found(&steps.borrow(), &events) {
            return;
        }
    }
    panic!("no schedule showed what {test} is about");
}

fn wrote(step: &Step, access: &str) -> bool {
    step.access == access && step.new.is_some()
}

#[test]
fn trap_02_taken_means_owned_or_waited_for() {
    let _watchdog = Watchdog::arm("trap_02", Duration::from_secs(120));
    let seen_between_owners = Rc::new(StdCell::new(false));
    for seed in 0..300 {
        let setup = setup(seed);
        let seen = seen_between_owners.clone();
        let (looks, collector) = monitors::collect(|step| step.access == "word.peek" && step.who.cpu == 0);
        let monitors = monitors::all().into_iter().chain([collector]).collect();
        let task = move |world: &World<Native>, cpu: usize| match cpu {
            // Between its look and the check nobody runs.
            0 => (0..40).for_each(|_| {
                let taken = world.locks[0].is_taken();
                assert!(taken || world.who_is_inside(0).is_none(), "an owner was missed");
                let word = looks.borrow().last().map_or(0, |step| step.old);
                assert_eq!(taken, word != 0);
                if word & 0xff == 0 && word != 0 {
                    seen.set(true);
                }
            }),
            _ => (0..3).for_each(|_| world.section(0)),
        };
        // Handlers would look as well.
        let setup = Setup { interrupts: 0, ..setup };
        vm::run::<Native>(&setup, monitors, task, |_, _| ()).unwrap_or_else(|failure| panic!("{failure:?}"));
    }
    assert!(seen_between_owners.get(), "no look fell between an owner and the waiter after it");
}

#[test]
fn trap_05_init_is_published_on_both_links() {
    search::<QueueOnly>("trap_05", |steps, _| {
        let mut initialised: BTreeMap<Context, usize> = BTreeMap::new();
        let mut linked = false;
        for step in steps {
            match step.access {
                "node.init-next" | "node.init-grant" => *initialised.entry(step.who).or_default() += 1,
                "tail.exchange" => {
                    // One release for both ways to the node: the link to the predecessor comes after it, and who
                    // follows that link has acquired the word before.
                    assert_eq!(initialised.remove(&step.who), Some(2), "queued half initialised: {step:?}");
                    assert_eq!(step.order, Ordering::AcqRel);
                }
                "node.link" => linked = true,
                "word.try" if step.new.is_some() => drop(initialised.remove(&step.who)),
                _ => {}
            }
        }
        linked
    });
}

#[test]
fn trap_06_heuristic_spins_are_bounded() {
    let cell = AtomicCell::ZERO;
    let any = Access::relaxed("test.any", "one thread");
    for (most, looks) in [(0, 1), (1, 1), (64, 64)] {
        let taken = StdCell::new(0);
        let count = |_| {
            taken.set(taken.get() + 1);
            false
        };
        assert_eq!(spin_until_for(&cell, any, Budget::Looks { most, apart: 2 }, || 0, count), Err(0));
        assert_eq!(taken.get(), looks);
    }
    assert_eq!(spin_until_for(&cell, any, Budget::Until(5), || 5, |_| false), Err(0), "a deadline that is past");
    let clock = StdCell::new(0);
    let now = || clock.replace(clock.get() + 1);
    assert_eq!(spin_until_for(&cell, any, Budget::Until(50), now, |_| false), Err(0), "one that comes");

    // A hand-over that is in flight for ever: newcomers look, and then queue rather than wait for it.
    let setup = Setup { word: 0x100, interrupts: 0, ..setup(1) };
    let (queued, collector) = monitors::collect(|step| step.access == "tail.exchange");
    let task = |world: &World<Native>, _| world.section(0);
    let failure = vm::run::<Native>(&setup, vec![collector], task, |_, _| ()).expect_err("the waiter never comes");
    assert!(failure.what.starts_with("hang"), "{failure:?}");
    assert_eq!(queued.borrow().len(), setup.cpus, "somebody waits for a hand-over outside the queue");
}

#[test]
fn trap_07_an_interrupt_during_initialisation_has_another_node() {
    search::<QueueOnly>("trap_07", |steps, _| {
        // Who has taken a level, and not yet initialised its node.
        let mut between: Vec<Context> = Vec::new();
        steps.iter().any(|step| {
            match step.access {
                "level.depth" if step.new > Some(step.old) => between.push(step.who),
                "node.init-grant" => between.retain(|who| *who != step.who),
                // `monitors::levels` has seen to it that this is another node.
                "tail.exchange" => {
                    return between.iter().any(|who| who.cpu == step.who.cpu && who.depth < step.who.depth);
                }
                _ => {}
            }
            false
        })
    });
}

#[test]
fn trap_08_pending_is_set_by_one_step_that_sees_the_tail() {
    search::<Native>("trap_08", |steps, _| {
        // `monitors::word_transitions` checks those that wrote. This one found a waiter, and wrote nothing.
        steps.iter().any(|step| step.access == "word.pend" && step.old > 0xff && step.new.is_none())
    });
}

#[test]
fn trap_10_more_than_four_levels_wait_without_a_node() {
    search::<QueueOnly>("trap_10", |steps, events| {
        let deepest = steps.iter().filter(|step| wrote(step, "level.depth")).filter_map(|step| step.new).max();
        assert!(deepest <= Some(LEVELS as u32));
        deepest == Some(LEVELS as u32) && events.contains(&Event::NoNode)
    });
}

#[test]
fn trap_16_the_word_has_one_width() {
    fn check(path: &Path) -> usize {
        if path.is_dir() {
            return path.read_dir().expect("readable").map(|entry| check(&entry.expect("readable").path())).sum();
        }
        let text = std::fs::read_to_string(path).expect("readable");
        for other in ["AtomicU8", "AtomicU16", "AtomicU64", "AtomicBool", "AtomicUsize", "AtomicPtr", "*const", "*mut"]
        {
            assert!(!text.contains(other), "{} names {other}", path.display());
        }
        1
    }
    let src = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    // The algorithms. They know cells, whose only real form is this.
    let files: usize =
        ["word.rs", "queue.rs", "machine.rs", "raw.rs", "slowpath"].map(|room| check(&src.join(room))).iter().sum();
    assert!(files >= 7, "only {files} files were found");
    assert_eq!((size_of::<AtomicCell>(), align_of::<AtomicCell>()), (4, 4));
}

/// CPU 0 is the head of lock 0's queue; handlers on top of it use up its levels, and a fifth takes lock 0 as well.
/// CPU 1 holds everything, and gives back lock 0 alone: whoever waits behind CPU 0 now waits for ever.
#[test]
fn trap_17_a_fifth_level_passes_the_head_that_it_interrupted() {
    let _watchdog = Watchdog::arm("trap_17", Duration::from_secs(120));
    for seed in 0..20 {
        let setup = Setup { seed, cpus: 2, interrupts: 5000, nesting: LEVELS, ..setup(seed) };
        let (ready, waiting, done) = <(Rc<StdCell<bool>>, Rc<StdCell<bool>>, Rc<StdCell<bool>>)>::default();
        let (waiting_too, done_too) = (waiting.clone(), done.clone());
        let task = move |world: &World<QueueOnly>, cpu: usize| {
            let wait_for = |flag: &StdCell<bool>| {
                while !flag.get() {
                    world.shared().yield_now();
                }
            };
            if cpu == 0 {
                wait_for(&ready);
                world.section(0);
            } else {
                let held = 0..LEVELS;
                held.clone().for_each(|lock| assert!(world.locks[lock].try_acquire_on(&world.vm)));
                ready.set(true);
                wait_for(&waiting);
                // SAFETY: acquired above.
                unsafe { world.locks[0].release_on(&world.vm) };
                wait_for(&done);
                // SAFETY: acquired above.
                held.skip(1).for_each(|lock| unsafe { world.locks[lock].release_on(&world.vm) });
            }
        };
        let handler = move |world: &World<QueueOnly>, who: Context| {
            // On top of one that waits in a queue, or not at all.
            if who.cpu != 0 || done_too.get() || !world.locks[who.depth - 1].is_contended() {
                return;
            }
            if who.depth < LEVELS {
                world.section(who.depth);
            } else {
                waiting_too.set(true);
                world.section(0);
                done_too.set(true);
            }
        };
        let (barged, collector) = monitors::collect(|step| wrote(step, "word.barge"));
        let events = vm::run::<QueueOnly>(&setup, vec![collector], task, handler)
            .unwrap_or_else(|failure| panic!("{failure:?}"));
        assert!(events.contains(&Event::NoNode));
        let past_the_head = barged.borrow().iter().any(|step| step.role == Role::Word(0) && step.old > 0xff);
        assert!(past_the_head, "nobody was passed");
    }
}

#[test]
fn trap_19_an_early_exit_gives_its_level_back() {
    search::<QueueOnly>("trap_19", |steps, _| {
        // The lock was free when the node was ready. That no level is left in use, every run checks at its end.
        let mut ready: Vec<Context> = Vec::new();
        steps.iter().any(|step| {
            match step.access {
                "node.init-grant" => ready.push(step.who),
                "tail.exchange" => ready.retain(|who| *who != step.who),
                "word.try" if step.new.is_some() => return ready.contains(&step.who),
                _ => {}
            }
            false
        })
    });
}

#[test]
fn trap_20_trying_takes_two_steps_at_most() {
    let _watchdog = Watchdog::arm("trap_20", Duration::from_secs(120));
    for word in [0, 1, 0x100, 0x101, 0x2000, 0x2001, 0x2100] {
        let setup = Setup { cpus: 1, locks: 1, word, interrupts: 0, ..setup(1) };
        let (steps, collector) = monitors::collect(|_| true);
        let task = move |world: &World<Native>, _| {
            assert_eq!(world.locks[0].try_acquire_on(&world.vm), word == 0);
            assert!(steps.borrow().len() <= 2, "{steps:?}");
            assert!(steps.borrow().iter().all(|step| step.new.is_none() || word == 0), "a failed try wrote: {steps:?}");
        };
        // The lock is left as it was found.
        let failure = vm::run::<Native>(&setup, vec![collector], task, |_, _| ()).expect_err("nobody releases it");
        assert!(failure.what.starts_with("a trace is left"), "{failure:?}");
    }
}

#[test]
fn trap_25_every_event_is_counted_where_it_happens() {
    let mut schedules = 0;
    let mut same = |steps: &[Step], events: &[Event]| {
        let took = |access| steps.iter().filter(|step| wrote(step, access)).count();
        let counted = |event| events.iter().filter(|e| **e == event).count();
        assert_eq!(counted(Event::Pending), took("word.claim-pending"));
        assert_eq!(counted(Event::Queued), took("tail.exchange"));
        assert_eq!(counted(Event::SoleHead), took("word.claim-sole"));
        assert_eq!(counted(Event::HandOff), took("node.grant"));
        assert_eq!(counted(Event::NoNode), took("word.barge"));
        schedules += 1;
        schedules % 100 == 0
    };
    search::<Native>("trap_25", &mut same);
    search::<QueueOnly>("trap_25", &mut same);
}

#[test]
fn rule_05_nobody_writes_the_link_of_a_possible_tail() {
    // `monitors::possible_tails` checks it at every step; here it has had something to check.
    search::<QueueOnly>("rule_05", |steps, _| steps.iter().filter(|step| wrote(step, "node.link")).count() > 10);
}

/// Runs schedules of a lock whose waiters sleep, until `found` says yes to one's steps. All are right by all monitors.
fn search_sleepers<S: SlowPath<Vm, Error = Infallible> + 'static>(
    test: &'static str,
    patience: Patience,
    mut found: impl FnMut(&[Step], &[Event]) -> bool,
) {
    let _watchdog = Watchdog::arm(test, Duration::from_secs(120));
    for seed in 0..2000 {
        let (steps, events) = sleepers::<S>(Setup { patience, ..setup(seed) }).unwrap_or_else(|f| panic!("{f:?}"));
        if found(&steps, &events) {
            return;
        }
    }
    panic!("no schedule showed what {test} is about");
}

/// One schedule, its steps and events.
fn sleepers<S: SlowPath<Vm, Error = Infallible> + 'static>(setup: Setup) -> Result<(Vec<Step>, Vec<Event>), Failure> {
    let (steps, collector) = monitors::collect(|_| true);
    let holes = u32::from(S::NAME == "parking");
    let monitors = monitors::of_sleepers(holes).into_iter().chain([collector]).collect();
    let task = |world: &World<S>, _| (0..3).for_each(|_| world.section(0));
    let handler = |world: &World<S>, who: Context| world.section(who.depth);
    let events = vm::run::<S>(&setup, monitors, task, handler)?;
    Ok((steps.take(), events))
}

/// Whoever takes out a sleeper tells it once and kicks it once, and nobody else kicks. That it is told once, and by the
/// owner, `monitors::sleepers_order` checks.
#[test]
fn trap_01_a_sleeper_is_woken_once() {
    let mut schedules = 0;
    let mut same = |steps: &[Step], _: &[Event]| {
        let told = steps.iter().filter(|step| wrote(step, "node.tell"));
        let others = told.filter(|step| !matches!(step.role, Role::Grant(node) if node.cpu().index() == step.who.cpu));
        let kicks = steps.iter().filter(|step| step.access == "kick");
        let kicks = kicks.filter(|step| !matches!(step.role, Role::Token(cpu) if cpu == step.who.cpu));
        assert_eq!(others.count(), kicks.count());
        schedules += 1;
        schedules % 100 == 0
    };
    search_sleepers::<ParkingExact>("trap_01", PATIENT, &mut same);
    search_sleepers::<Parking>("trap_01", SLEEPY, &mut same);
}

/// No look whether the waiter sleeps, so none that could be too early: a kick follows what it is about, always.
#[test]
fn trap_03_a_kick_follows_what_is_told() {
    let mut kicks = 0;
    search_sleepers::<ParkingExact>("trap_03", SLEEPY, |steps, _| {
        let mut told: BTreeMap<(Context, usize), usize> = BTreeMap::new();
        for step in steps {
            match step.role {
                Role::Grant(node) if wrote(step, "node.tell") => {
                    *told.entry((step.who, node.cpu().index())).or_default() += 1;
                }
                Role::Token(cpu) => {
                    let left = told.get_mut(&(step.who, cpu)).filter(|left| **left > 0);
                    *left.unwrap_or_else(|| panic!("a kick of who was told nothing: {step:?}")) -= 1;
                    kicks += 1;
                }
                _ => {}
            }
        }
        kicks > 100
    });
}

/// A handler that sleeps uses up the kick that was meant for whom it interrupted. A wait therefore ends with a handler;
/// on a machine whose waits go on, somebody sleeps for ever.
#[test]
fn trap_09_a_nested_sleep_uses_up_the_kick_of_the_one_beneath() {
    let _watchdog = Watchdog::arm("trap_09", Duration::from_secs(120));
    let run = |seed, stubborn| {
        let setup = Setup { patience: SLEEPY, interrupts: 200, stubborn, ..setup(seed) };
        sleepers::<ParkingExact>(setup)
    };
    for seed in 0..200 {
        run(seed, false).unwrap_or_else(|failure| panic!("{failure:?}"));
    }
    let failure = (0..200).find_map(|seed| run(seed, true).err()).expect("no handler used up a kick");
    assert!(failure.what.starts_with("hang"), "{failure:?}");
}

/// The same lost kick: without naps somebody sleeps for ever, with naps nobody notices.
#[test]
fn trap_naps_hide_lost_wake_ups() {
    let _watchdog = Watchdog::arm("trap_naps", Duration::from_secs(120));
    let lost: Sabotage = |step, _| if step.access == "kick" { None } else { step.new };
    let setup = |seed| Setup { patience: SLEEPY, interrupts: 0, sabotage: Some(lost), ..setup(seed) };
    let failure = (0..100).find_map(|seed| sleepers::<ParkingExact>(setup(seed)).err()).expect("nobody needed a kick");
    assert!(failure.what.starts_with("hang"), "{failure:?}");
    for seed in 0..100 {
        sleepers::<Parking>(setup(seed)).unwrap_or_else(|failure| panic!("{failure:?}"));
    }
}

/// One that was told before the release sees the lock held, and lies down again before it: the release looks again.
#[test]
fn trap_a_cold_release_looks_again() {
    search_sleepers::<ParkingExact>("trap_a_cold_release", SLEEPY, |steps, _| {
        steps.iter().any(|step| step.access == "word.release-cold" && step.new.is_none())
    });
}

/// A sleeper claims the lock by itself, having been taken out meanwhile by the owner before: its node is its own only when
/// that owner has told it. `monitors::sleepers_order` sees to it that no node in a queue is prepared.
#[test]
fn trap_a_node_is_reused_only_after_it_was_told() {
    search_sleepers::<Parking>("trap_a_node", PATIENT, |steps, events| {
        let mut taken: Vec<Tail> = Vec::new();
        let found = steps.iter().any(|step| {
            match (step.role, step.access) {
                (Role::Grant(node), "node.tell") if node.cpu().index() != step.who.cpu => taken.push(node),
                (Role::Grant(node), "node.prepare") => taken.retain(|of| *of != node),
                // Claimed by one that lay down and was told, and has not looked since.
                (Role::Word(_), "word.claim") if step.new.is_some() => {
                    return taken.iter().any(|node| node.cpu().index() == step.who.cpu);
                }
                (Role::Grant(node), "node.told") => taken.retain(|of| *of != node),
                _ => {}
            }
            false
        });
        found && events.contains(&Event::Rescued)
    });
}

/// Who leaves the lane takes its request back in the step that would find the lock granted; so a grant is never left to
/// nobody, which every run checks at its end.
#[test]
fn trap_a_request_is_taken_back_by_who_sleeps() {
    const ASKED: u32 = 1 << 9;
    let (mut taken_back, mut granted) = (false, false);
    search_sleepers::<ParkingExact>("trap_a_request", PATIENT, |steps, _| {
        for step in steps {
            let Some(new) = step.new else { continue };
            taken_back |= step.access == "word.leave-lane" && step.old & ASKED != 0 && step.old & 0xff == 1;
            granted |= step.access == "word.leave-lane" && step.old & 0xff == 2 && new & 0xff == 1;
        }
        taken_back && granted
    });
}
