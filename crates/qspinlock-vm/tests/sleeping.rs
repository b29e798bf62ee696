//! Sleeping and waking: who waits announces itself, looks once more, and sleeps; who comes sets the flag, looks whether
//! somebody sleeps, and kicks. Each of these left out is a lost wake-up, which the checker must call a hang.

#[path = "oracle/watchdog.rs"]
mod watchdog;

use std::time::Duration;

use qspinlock::machine::{Access, Cell, Machine, Ordering};
use qspinlock::queue::Cpu;
use qspinlock_vm::check::{
    CheckCell, CheckMachine, Keep, Model, Outcome, Program, Promises, Search, Verdict, World, explore,
};
use watchdog::Watchdog;

const STEP: Access = Access::relaxed("step", "");
const FENCE: Access = Access { name: "fence", order: Ordering::SeqCst, pairs: "the other fence" };

type Step<'a> = &'a dyn Fn(&CheckMachine<'_>);

/// Explores programs that begin at the same time, one for each CPU: with and without reductions.
fn explored<'a>(world: &'a World, programs: &[Step<'a>]) -> Outcome {
    let _watchdog = Watchdog::after(Duration::from_secs(240), "sleepers");
    let program = |(cpu, &steps): (usize, &Step<'a>)| -> Program<'a> {
        let machine = CheckMachine::new(world, cpu);
        Program { sections: 1, section: Box::new(move |_| steps(&machine)), interrupt: None }
    };
    let model = || Model {
        world,
        programs: programs.iter().enumerate().map(program).collect(),
        symmetric: false,
        interrupts: 0,
        words: Vec::new(),
        promises: Promises::default(),
        ends_clean: false,
    };
    let search = Search { time: Duration::from_secs(60), ..Search::default() };
    let plain = Search { blocks: false, collect: false, oldest: false, keep: Keep::Log, ..search.clone() };
    let (outcome, without) = (explore(model(), &search), explore(model(), &plain));
    assert_eq!(hangs(&outcome), hangs(&without));
    assert!(hangs(&outcome) || outcome.finals == without.finals);
    outcome
}

fn hangs(outcome: &Outcome) -> bool {
    match &outcome.verdict {
        Verdict::Holds => false,
        Verdict::Broken(broken) if broken.what.starts_with("hang:") => true,
        other => panic!("neither well nor a hang: {other:?}"),
    }
}

fn kick(m: &CheckMachine<'_>, cpu: u32) {
    m.kick(Cpu::new(cpu).expect("few CPUs"));
}

fn sleep_until_set(m: &CheckMachine<'_>, flag: &CheckCell) {
    while flag.load(STEP) == 0 {
        m.wait(flag, 0, STEP, None);
    }
}

#[test]
fn a_kick_ends_a_sleep_before_or_after() {
    let world = World::new(2, 1);
    let cell = world.cell("x");
    assert!(!hangs(&explored(&world, &[&|m| m.wait(&cell, 0, STEP, None), &|m| kick(m, 0)])));
    assert!(!hangs(&explored(&world, &[&|m| (kick(m, 0), m.wait(&cell, 0, STEP, None)).1])), "it is sticky");
    assert!(hangs(&explored(&world, &[&|m| m.wait(&cell, 0, STEP, None), &|m| kick(m, 1)])), "it is somebody else's");
    let twice: Step<'_> = &|m| (0..2).for_each(|_| m.wait(&cell, 0, STEP, None));
    assert!(hangs(&explored(&world, &[twice, &|m| kick(m, 0)])), "it ends one sleep");
    assert!(hangs(&explored(&world, &[twice, &|m| (kick(m, 0), kick(m, 0)).1])), "two before one sleep are one");
}

#[test]
fn a_sleep_ends_for_no_reason() {
    let world = World::new(2, 1);
    let (x, y, seen) = (world.cell("x"), world.cell("y"), world.register(1, "seen"));
    let outcome = explored(
        &world,
        &[
            &|m| {
                m.wait(&x, 0, STEP, None);
                y.store(1, STEP);
            },
            &|m| {
                seen.store(y.load(STEP), STEP);
                kick(m, 0);
            },
        ],
    );
    assert!(!hangs(&outcome));
    let values: Vec<u32> = outcome.finals.iter().flatten().filter(|(n, _)| n == "seen").map(|(_, v)| *v).collect();
    assert!(values.contains(&1) && values.contains(&0), "before the kick, and after it: {values:?}");
}

#[test]
fn a_store_does_not_end_a_sleep() {
    let world = World::new(2, 1);
    let flag = world.cell("flag");
    let sleeper: Step<'_> = &|m| sleep_until_set(m, &flag);
    assert!(hangs(&explored(&world, &[sleeper, &|_| flag.store(1, STEP)])), "nobody kicks");
    assert!(hangs(&explored(&world, &[sleeper, &|m| (kick(m, 0), flag.store(1, STEP)).1])), "a kick too early");
    // No fence: a kick passes on what the kicker knows.
    assert!(!hangs(&explored(&world, &[sleeper, &|m| (flag.store(1, STEP), kick(m, 0)).1])));
}

/// How the sleeper's and the waker's halves of the handshake are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Fence,
    Swap,
    Nothing,
}

fn order(m: &CheckMachine<'_>, spare: &CheckCell, by: By) {
    match by {
        By::Fence => m.fence(FENCE),
        By::Swap => drop(spare.update(Access::acq_rel("swap", ""), |v| Some(v + 1))),
        By::Nothing => {}
    }
}

/// The handshake; the sleeper looks again after it has announced itself, or does not.
fn handshake(sleeper: By, waker: By, looks_again: bool) -> bool {
    let world = World::new(2, 1);
    let (flag, asleep) = (world.cell("flag"), world.cell("asleep"));
    let (mine, other) = (world.cell("mine"), world.cell("unrelated"));
    hangs(&explored(
        &world,
        &[
            &|m| {
                asleep.store(1, STEP);
                order(m, &mine, sleeper);
                m.wait(if looks_again { &flag } else { &other }, 0, STEP, None);
            },
            &|m| {
                flag.store(1, STEP);
                order(m, &mine, waker);
                if asleep.load(STEP) == 1 {
                    kick(m, 0);
                }
            },
        ],
    ))
}

#[test]
fn a_handshake_needs_a_fence_on_both_sides() {
    for sleeper in [By::Fence, By::Swap, By::Nothing] {
        for waker in [By::Fence, By::Swap, By::Nothing] {
            // Swaps of the same cell by both sides order them too: whichever comes second sees what the first did.
            let is_enough = sleeper == waker && sleeper != By::Nothing;
            assert_eq!(handshake(sleeper, waker, true), !is_enough, "{sleeper:?}, {waker:?}");
            assert!(handshake(sleeper, waker, false), "{sleeper:?}, {waker:?}, without a second look");
        }
    }
}
