//! Bugs that earlier locks for several memory nodes shipped, and that this one has not got them. The table of all is in
//! `traps.rs`.

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

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use qspinlock::atomic::AtomicCell;
use qspinlock::machine::Event;
use qspinlock::queue::{LEVELS, Slot, Tail};
use qspinlock::slowpath::{Locality, Numa};
use vm::{Context, PATIENT, Role, Setup, Spread, Step, World};
use watchdog::Watchdog;

/// What is granted if nobody is set aside.
const ALONE: u32 = 1 << Tail::BITS;
const NESTING: usize = 6;

/// Runs schedules of eight CPUs, with handlers that nest deeper than there are levels, until `found` says yes to one's
/// steps and events. All are right by all monitors.
fn search(test: &'static str, domains: u32, threshold: u32, mut found: impl FnMut(&[Step], &[Event]) -> bool) {
    let _watchdog = Watchdog::arm(test, Duration::from_secs(120));
    let spread = Spread { domains, locality: Locality { threshold, one_in: 1 }, step_shift: 10 };
    for seed in 0..1000 {
        let setup = Setup {
            seed,
            cpus: 8,
            locks: NESTING + 1,
            word: 0,
            interrupts: 100,
            nesting: NESTING,
            sabotage: None,
            patience: PATIENT,
            stubborn: false,
            hints: false,
            spread,
        };
        let (mut monitors, _) = near::monitors(spread, near::Masked::default());
        let (steps, collector) = monitors::collect(|_| true);
        monitors.push(collector);
        let task = |world: &World<Numa>, _| (0..4).for_each(|_| world.section(0));
        let handler = |world: &World<Numa>, who: Context| world.section(who.depth);
        let events = vm::run::<Numa>(&setup, monitors, task, handler).unwrap_or_else(|failure| panic!("{failure:?}"));
        if found(&steps.borrow(), &events) {
            return;
        }
    }
    panic!("no schedule showed what {test} is about");
}

fn wrote(step: &Step, access: &str) -> bool {
    step.access == access && step.new.is_some()
}

/// The domain is a cell of the node. The level, which is counted to find the node, holds nothing else, so that a context
/// without a level left is told so in every domain.
#[test]
fn trap_11_the_level_is_kept_apart_from_the_domain() {
    let (mut full, mut used) = (BTreeSet::new(), BTreeSet::new());
    search("trap_11", 8, 40 << 10, |steps, events| {
        let mut depths: BTreeMap<usize, u32> = BTreeMap::new();
        for step in steps {
            match (step.role, step.new) {
                (Role::Depth(cpu), Some(new)) => {
                    assert!(new as usize <= LEVELS, "no domain, and no fifth level: {step:?}");
                    depths.insert(cpu, new);
                    if new as usize == LEVELS && events.contains(&Event::NoNode) {
                        full.insert(cpu);
                    }
                }
                (Role::Word(_), Some(new)) if step.access == "tail.exchange" => {
                    let tail = Tail::from_code(new >> 10).expect("a node");
                    assert_eq!(tail.cpu().index(), step.who.cpu);
                    assert_eq!(Some(tail.level() as u32 + 1), depths.get(&step.who.cpu).copied());
                    used.insert(tail.level());
                }
                _ => {}
            }
        }
        full.len() == 8 && used.len() >= 3
    });
}

/// What a hand-off writes, it writes into the line that it has to write anyway, to grant. Only who brings others back, once
/// in a while, writes one more: the link of the last of them.
#[test]
fn trap_13_a_hand_over_stores_into_lines_that_it_owns() {
    let mut handed_over = 0;
    search("trap_13", 2, 1000 << 10, |steps, _| {
        // What a context has written since it claimed.
        let mut written: BTreeMap<Context, Vec<Tail>> = BTreeMap::new();
        for step in steps.iter().filter(|step| step.new.is_some()) {
            match step.role {
                Role::Word(_) if matches!(step.access, "word.claim-head" | "word.claim-bringing-back") => {
                    written.insert(step.who, Vec::new());
                }
                Role::Grant(to) if step.access == "numa.grant" => {
                    let others = written.remove(&step.who).expect("it has claimed");
                    let me = step.who.cpu;
                    let far = others.iter().filter(|&&node| node != to && node.cpu().index() != me).count();
                    assert_eq!(far, usize::from(far == 1 && step.new == Some(ALONE)), "{step:?} after {others:?}");
                    handed_over += usize::from(step.new != Some(ALONE) && !others.is_empty());
                }
                Role::Next(node) | Role::Sleeper(node) | Role::Grant(node) => {
                    if let Some(written) = written.get_mut(&step.who) {
                        written.push(node);
                    }
                }
                _ => {}
            }
        }
        handed_over > 200
    });
    // And what is in one node is in one line: of tasks and interrupts. (An NMI's may lie across two.)
    let slot = Slot::<AtomicCell>::new();
    for level in 0..LEVELS - 1 {
        let node = slot.node(level);
        let (start, length) = (std::ptr::from_ref(node).addr() - (&raw const slot).addr(), size_of_val(node));
        assert_eq!(start / 64, (start + length - 1) / 64, "the node of level {level} lies across two lines");
    }
}

/// A clock that nobody looks at ends no wait. Here no wait lasts until a time: each head looks at the clock when it becomes
/// the head, so that those whose time is over come first with the next hand-off but one, however long a section lasted.
#[test]
fn trap_26_every_head_looks_at_the_clock() {
    // A hand-off that passes somebody is followed by one that does not.
    let mut pairs = 0;
    search("trap_26", 2, 0, |steps, _| {
        let mut last: BTreeMap<usize, bool> = BTreeMap::new();
        let mut owner: BTreeMap<Context, usize> = BTreeMap::new();
        for step in steps {
            match step.role {
                Role::Word(lock) if step.new.is_some() && step.access.starts_with("word.claim-") => {
                    owner.insert(step.who, lock);
                }
                Role::Grant(_) if wrote(step, "numa.grant") => {
                    let lock = owner.remove(&step.who).expect("it has claimed");
                    let is_past = step.new != Some(ALONE);
                    let before = last.insert(lock, is_past).unwrap_or(false);
                    assert!(!(before && is_past), "passed twice: {step:?}");
                    pairs += usize::from(before);
                }
                _ => {}
            }
        }
        pairs > 100
    });
}
