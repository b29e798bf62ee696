//! What must hold of every step that any CPU takes, whatever the schedule. Restated from the lock's contract, not from
//! its code: each monitor knows the word's layout and the names of accesses, nothing else.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

use qspinlock::queue::Tail;

use crate::vm::{Context, Monitor, Role, Step};

const LOCKED: u32 = 0xff;
const PENDING: u32 = 1 << 8;
const TAIL_SHIFT: u32 = 10;

fn tail(word: u32) -> Option<Tail> {
    Tail::from_code(word >> TAIL_SHIFT)
}

/// All of them.
pub(crate) fn all() -> Vec<Monitor> {
    vec![word_transitions(), arrival_order(), hand_offs(), possible_tails(), slips(), levels()]
}

fn check(holds: bool, what: &str, step: &Step) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{what}: {step:x?}")) }
}

/// Each access makes only the transitions that the word's truth table allows, and leaves no stray bit.
pub(crate) fn word_transitions() -> Monitor {
    Box::new(|step| {
        let (Role::Word(_), Some(new)) = (step.role, step.new) else { return Ok(()) };
        let old = step.old;
        let allowed = match step.access {
            "word.try" => old & LOCKED == 0 && new == old | 1,
            "word.claim-head" => old & LOCKED == 0 && tail(old).is_some() && new == old | 1,
            "word.barge" => old & LOCKED == 0 && new == old | 1,
            "word.pend" => old & !LOCKED == 0 && new == old | PENDING,
            "word.claim-pending" => old & (LOCKED | PENDING) == PENDING && new == old & !PENDING | 1,
            "word.claim-sole" => old & (LOCKED | PENDING) == 0 && tail(old).is_some() && new == 1,
            "tail.exchange" => {
                let low = (1 << TAIL_SHIFT) - 1;
                old & low == new & low && tail(new).is_some() && tail(new) != tail(old)
            }
            "word.release" => old & LOCKED == 1 && new == old & !LOCKED,
            _ => false,
        };
        check(allowed, "a transition that the word does not have", step)
    })
}

/// Those who queue get the lock in the order in which they exchanged the tail.
pub(crate) fn arrival_order() -> Monitor {
    let mut queues: BTreeMap<usize, VecDeque<Context>> = BTreeMap::new();
    Box::new(move |step| {
        let (Role::Word(lock), Some(_)) = (step.role, step.new) else { return Ok(()) };
        let queue = queues.entry(lock).or_default();
        match step.access {
            "tail.exchange" => queue.push_back(step.who),
            "word.claim-sole" | "word.claim-head" => {
                let next = queue.pop_front();
                check(next == Some(step.who), &format!("out of turn, {next:?} was next"), step)?;
                check((step.access == "word.claim-sole") == queue.is_empty(), "a queue was lost or kept", step)?;
            }
            _ => {}
        }
        Ok(())
    })
}

/// Whoever claims the lock and leaves a queue promotes the next waiter: once, and nobody else is ever promoted.
pub(crate) fn hand_offs() -> Monitor {
    let mut owing: BTreeSet<Context> = BTreeSet::new();
    Box::new(move |step| match (step.access, step.new) {
        ("word.claim-head", Some(_)) => check(owing.insert(step.who), "two claims, no promotion", step),
        ("node.grant", Some(_)) => {
            check(step.old == 0, "a waiter was promoted twice", step)?;
            check(owing.remove(&step.who), "a promotion by who owes none", step)
        }
        ("word.release", _) => check(!owing.contains(&step.who), "the lock was released, nobody promoted", step),
        _ => Ok(()),
    })
}

/// Nobody writes the link of a node that a word names as its tail: its owner may be about to leave.
pub(crate) fn possible_tails() -> Monitor {
    let mut tails: BTreeMap<usize, Option<Tail>> = BTreeMap::new();
    Box::new(move |step| {
        let Some(new) = step.new else { return Ok(()) };
        match step.role {
            Role::Word(lock) => drop(tails.insert(lock, tail(new))),
            Role::Next(node) => {
                check(
                    !tails.values().any(|&tail| tail == Some(node)),
                    "the link of a possible tail was written",
                    step,
                )?;
            }
            _ => {}
        }
        Ok(())
    })
}

/// A newcomer may slip in past a waiter, by a look from before the waiter was visible: once at most, for each pair.
pub(crate) fn slips() -> Monitor {
    let mut waiting: BTreeMap<(usize, Context), BTreeSet<Context>> = BTreeMap::new();
    Box::new(move |step| {
        let (Role::Word(lock), Some(_)) = (step.role, step.new) else { return Ok(()) };
        match step.access {
            "tail.exchange" | "word.pend" => drop(waiting.insert((lock, step.who), BTreeSet::new())),
            "word.claim-sole" | "word.claim-head" | "word.claim-pending" => drop(waiting.remove(&(lock, step.who))),
            "word.try" => {
                let others = waiting.iter_mut().filter(|((of, who), _)| *of == lock && *who != step.who);
                for ((_, who), slipped_past) in others {
                    check(slipped_past.insert(step.who), &format!("slipped past {who:?} twice"), step)?;
                }
            }
            _ => {}
        }
        Ok(())
    })
}

/// A level is taken before its node is touched by its owner, and given back after.
pub(crate) fn levels() -> Monitor {
    let mut depths: BTreeMap<usize, u32> = BTreeMap::new();
    let mut queued: HashMap<Tail, Context> = HashMap::new();
    Box::new(move |step| {
        let Some(new) = step.new else { return Ok(()) };
        match (step.role, step.access) {
            (Role::Depth(cpu), _) => {
                check(step.old.abs_diff(new) == 1 && new <= 4, "a level was skipped", step)?;
                check(
                    !queued.keys().any(|node| node.cpu().index() == cpu && node.level() >= new as usize),
                    "a level was given back in use",
                    step,
                )?;
                depths.insert(cpu, new);
            }
            (Role::Next(node), "node.init-next") | (Role::Grant(node), "node.init-grant") => {
                let taken = depths.get(&node.cpu().index()).copied().unwrap_or(0);
                check(taken as usize == node.level() + 1, "a node was initialised before its level was taken", step)?;
                check(!queued.contains_key(&node), "a node was initialised while it was queued", step)?;
            }
            (Role::Word(_), "tail.exchange") => drop(queued.insert(tail(new).expect("checked above"), step.who)),
            (Role::Word(_), "word.claim-sole" | "word.claim-head") => queued.retain(|_, who| *who != step.who),
            _ => {}
        }
        Ok(())
    })
}

/// Keeps steps that `wanted` picks, for tests that ask whether something happened.
pub(crate) fn collect(wanted: fn(&Step) -> bool) -> (Rc<RefCell<Vec<Step>>>, Monitor) {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let into = seen.clone();
    let monitor = move |step: &Step| {
        if wanted(step) {
            into.borrow_mut().push(*step);
        }
        Ok(())
    };
    (seen, Box::new(monitor))
}
