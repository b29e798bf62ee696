//! What must hold of every step where virtual CPUs halt, restated from the lock's contract.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use qspinlock::queue::Tail;

use crate::vm::{Context, Monitor, Role, Step};

const LOCKED: u32 = 0xff;
const SLOW: u32 = 4;
/// An unlock has found it slow.
const COUNTED: u32 = 3;
const AWAKE: u32 = 1 << 8;
const TAIL: u32 = !0 << 10;

/// States of a node from which a promotion leads to a head that sleeps.
const ASLEEP: [u32; 2] = [1, 2];

fn tail(word: u32) -> Option<Tail> {
    Tail::from_code(word >> 10)
}

fn check(holds: bool, what: &str, step: &Step) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{what}: {step:x?}")) }
}

/// All of them.
pub(crate) fn monitors() -> Vec<Monitor> {
    vec![transitions(), order(), crate::monitors::levels()]
}

/// Each access makes only the transitions that the word has.
fn transitions() -> Monitor {
    Box::new(|step| {
        let (Role::Word(_), Some(new)) = (step.role, step.new) else { return Ok(()) };
        let old = step.old;
        let (locked, bits) = (old & LOCKED, old & !LOCKED);
        let allowed = match step.access {
            "word.try" | "word.barge" => locked == 0 && new == old | 1,
            "word.steal" => locked == 0 && old & AWAKE == 0 && new == old | 1,
            "sleepers.join" => old & !TAIL == new & !TAIL && tail(new).is_some() && tail(new) != tail(old),
            "word.rise" | "word.claim-first" | "word.slow-down" if locked == 0 => {
                tail(old).is_some() && (new == 1 || new == bits & !AWAKE | 1)
            }
            "word.rise" => new == old | AWAKE,
            "word.slow-down" => locked == 1 && new | AWAKE == bits | AWAKE | SLOW,
            "word.mark-slow" => locked == 1 && tail(old).is_some() && new == bits | SLOW,
            "word.release-fast" if locked == SLOW => tail(old).is_some() && new == bits | COUNTED,
            "word.release-fast" => locked == 1 && new == bits,
            "word.release-slow" => locked == COUNTED && new == bits,
            _ => false,
        };
        check(allowed, "a transition that the word does not have", step)
    })
}

#[derive(Default)]
struct Queue {
    /// First the head.
    nodes: VecDeque<(Tail, Context)>,
    is_promoted: bool,
    is_asleep: bool,
}

/// Those who queue have the lock in the order of arrival; each is made the head once, and is not woken then; a slow unlock
/// wakes the head, once, and an unlock leaves no head asleep.
fn order() -> Monitor {
    let mut queues: BTreeMap<usize, Queue> = BTreeMap::new();
    // A context unlocks one lock at a time; its handlers are others.
    let (mut owed, mut unlocking) = (BTreeMap::<Context, Tail>::new(), BTreeSet::<Context>::new());
    Box::new(move |step| {
        let Some(new) = step.new else { return Ok(()) };
        match (step.role, step.access) {
            (Role::Word(lock), access) => {
                let queue = queues.entry(lock).or_default();
                let was = step.old & LOCKED;
                match access {
                    "sleepers.join" => {
                        queue.is_promoted |= queue.nodes.is_empty();
                        queue.nodes.push_back((tail(new).expect("checked above"), step.who));
                    }
                    "word.rise" | "word.claim-first" | "word.slow-down" => {
                        let first = queue.nodes.front().map(|&(_, who)| who);
                        check(first == Some(step.who) && queue.is_promoted, "not the head", step)?;
                        queue.is_asleep = access == "word.slow-down" && was != 0;
                        if was == 0 {
                            queue.nodes.pop_front();
                            queue.is_promoted = false;
                        }
                    }
                    // Still held: the other one follows.
                    "word.release-fast" if new & LOCKED != 0 => {
                        unlocking.insert(step.who);
                    }
                    "word.release-fast" | "word.release-slow" => {
                        check(queue.nodes.is_empty() || queue.is_promoted, "unlocked, and nobody is the head", step)?;
                        check(!queue.is_asleep, "an unlock left the head asleep", step)?;
                        unlocking.remove(&step.who);
                    }
                    _ => {}
                }
            }
            (Role::Grant(node), "turn.promote") => {
                let queue = queues.values_mut().find(|queue| queue.nodes.front().is_some_and(|&(of, _)| of == node));
                let Some(queue) = queue else { return check(false, "promoted out of turn", step) };
                check(!queue.is_promoted, "promoted twice", step)?;
                queue.is_promoted = true;
                queue.is_asleep = ASLEEP.contains(&step.old);
            }
            (Role::Grant(node), "turn.wake") => {
                check(unlocking.contains(&step.who), "woken by who need not", step)?;
                let queue = queues.values_mut().find(|queue| queue.nodes.front().is_some_and(|&(of, _)| of == node));
                let Some(queue) = queue else { return check(false, "woken, and not the head", step) };
                check(queue.is_promoted && queue.is_asleep, "woken, and not asleep", step)?;
                queue.is_asleep = false;
                owed.insert(step.who, node);
            }
            (Role::Token(cpu), "kick") => {
                check(!unlocking.contains(&step.who), "a kick before the lock is free", step)?;
                let whom = owed.remove(&step.who);
                check(whom.is_some_and(|node| node.cpu().index() == cpu), "a kick that nobody is owed", step)?;
            }
            _ => {}
        }
        Ok(())
    })
}
