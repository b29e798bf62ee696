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
            "word.claim-bringing-back" => {
                let is_taken = new & ((1 << TAIL_SHIFT) - 1) == 1 && tail(new).is_some();
                old & (LOCKED | PENDING) == 0 && tail(old).is_some() && is_taken && tail(new) != tail(old)
            }
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
        ("word.claim-head" | "word.claim-bringing-back", Some(_)) => {
            check(owing.insert(step.who), "two claims, no promotion", step)
        }
        ("node.grant" | "numa.grant", Some(_)) => {
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
            "word.claim-sole" | "word.claim-head" | "word.claim-bringing-back" | "word.claim-pending" => {
                drop(waiting.remove(&(lock, step.who)))
            }
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
            (Role::Next(node), "node.init-next") | (Role::Grant(node), "node.init-grant" | "node.prepare") => {
                let taken = depths.get(&node.cpu().index()).copied().unwrap_or(0);
                check(taken as usize == node.level() + 1, "a node was initialised before its level was taken", step)?;
                check(!queued.contains_key(&node), "a node was initialised while it was queued", step)?;
            }
            (Role::Word(_), "tail.exchange") => drop(queued.insert(tail(new).expect("checked above"), step.who)),
            (Role::Word(_), "word.claim-sole" | "word.claim-head" | "word.claim-bringing-back") => {
                queued.retain(|_, who| *who != step.who)
            }
            _ => {}
        }
        Ok(())
    })
}

/// What must hold where waiters sleep. `holes`: an unlock may have looked before a sleeper was visible, so one more may
/// pass it, and one may not grant what was asked for.
pub(crate) fn of_sleepers(holes: u32) -> Vec<Monitor> {
    vec![sleeping_transitions(), sleepers_order(holes), levels()]
}

const LANE: u32 = 1 << 8;
const ASKED: u32 = 1 << 9;

/// Each access makes only the transitions that the word of a sleeping lock has.
pub(crate) fn sleeping_transitions() -> Monitor {
    Box::new(|step| {
        let (Role::Word(_), Some(new)) = (step.role, step.new) else { return Ok(()) };
        let old = step.old;
        let (locked, bits, flags) = (old & LOCKED, old & !LOCKED, LANE | ASKED);
        let allowed = match step.access {
            "word.barge" => locked == 0 && new == old | 1,
            "word.claim" | "word.enter-lane" | "word.ask" | "word.claim-lane" | "word.leave-lane" if locked != 1 => {
                let leaves = !matches!(step.access, "word.claim" | "word.enter-lane");
                new == (bits & !if leaves { flags } else { 0 }) | 1
            }
            "word.enter-lane" => old & LANE == 0 && new == old | LANE,
            "word.ask" => new == old | ASKED,
            "word.leave-lane" => new == old & !flags,
            "word.release-hot" => locked == 1 && new == bits,
            "word.release-exact" => locked == 1 && bits & !LANE == 0 && new == bits,
            "word.release-cold" if old & ASKED != 0 => locked == 1 && new == bits & !ASKED | 2,
            "word.release-cold" => locked == 1 && new == bits,
            "sleepers.push" => {
                let low = (1 << TAIL_SHIFT) - 1;
                locked == 1 && old & low == new & low && tail(new).is_some() && tail(new) != tail(old)
            }
            "sleepers.emptied" => locked == 1 && tail(old).is_some() && new == old & ((1 << TAIL_SHIFT) - 1),
            _ => false,
        };
        check(allowed, "a transition that the word does not have", step)
    })
}

struct Sleeper {
    node: Tail,
    who: Context,
    left: u32,
    holes: u32,
}

/// The owner of the lock, and nobody else, takes out the oldest, once; unlocks pass a sleeper as often as there are
/// others before it, and `holes` times more.
pub(crate) fn sleepers_order(holes: u32) -> Monitor {
    let mut queues: BTreeMap<usize, VecDeque<Sleeper>> = BTreeMap::new();
    let mut owners: BTreeMap<usize, Context> = BTreeMap::new();
    Box::new(move |step| {
        let Some(new) = step.new else { return Ok(()) };
        let mut passed = None;
        match (step.role, step.access) {
            (Role::Word(lock), access) => {
                let queue = queues.entry(lock).or_default();
                match (step.old & LOCKED, new & LOCKED) {
                    (0 | 2, 1) => drop(owners.insert(lock, step.who)),
                    (1, 0 | 2) => {
                        let owner = owners.remove(&lock);
                        check(
                            owner == Some(step.who),
                            &format!("released by another than its owner, {owner:?}"),
                            step,
                        )?;
                        passed = Some((lock, access == "word.release-hot"));
                    }
                    _ => {}
                }
                if access == "sleepers.push" {
                    let (node, left) = (tail(new).expect("checked above"), queue.len() as u32);
                    queue.push_back(Sleeper { node, who: step.who, left, holes });
                }
            }
            (Role::Grant(node), "node.prepare") => {
                let lies = queues.values().flatten().any(|sleeper| sleeper.node == node);
                check(!lies, "a node was prepared while it was in a queue", step)?;
            }
            (Role::Grant(node), "node.tell") => {
                let Some((&lock, queue)) = queues.iter_mut().find(|(_, queue)| queue.iter().any(|s| s.node == node))
                else {
                    return check(false, "somebody was told who is in no queue", step);
                };
                check(owners.get(&lock) == Some(&step.who), "somebody was taken out by another than the owner", step)?;
                let first = queue.pop_front().expect("it is in there");
                check(first.node == node, &format!("out of turn, {:?} was next", first.who), step)?;
                // Told that it owns the lock.
                if new == 4 {
                    owners.insert(lock, first.who);
                    passed = Some((lock, false));
                }
            }
            _ => {}
        }
        let Some((lock, is_hot)) = passed else { return Ok(()) };
        for sleeper in queues.entry(lock).or_default() {
            let left = if is_hot { &mut sleeper.holes } else { &mut sleeper.left };
            check(*left > 0, &format!("passed once more than it may be: {:?}", sleeper.who), step)?;
            *left -= 1;
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
