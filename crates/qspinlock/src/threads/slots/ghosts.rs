//! Slots of threads that are gone without having ended, as all but one are in the child of a `fork`.
//!
//! Such a thread may have been waiting. Then its node is in a queue, and whoever takes it out finds it *abandoned*, and
//! turns to the next. Until that has happened the slot is *haunted*: a new thread must not have it, or its node would be
//! in two queues. A new thread that wants a slot looks first whether ghosts have gone.
//!
//! So what a child loses, and its children after it, is at most a slot for each thread that was waiting when it was made.
//! It comes back when the lock that was waited for is released. It does not if that never happens, if the waiter was just
//! about to lie down, or if it waited in a queue of spinning waiters: none of those can be told from a node that is still
//! in a queue.

use core::sync::atomic::Ordering;

use super::Table;
use crate::atomic::AtomicCell;
use crate::queue::{LEVELS, NODES, Slot};
use crate::slowpath::parking::State;

impl<const WORDS: usize> Table<WORDS> {
    /// Of the threads that have a slot only the caller is left, whose slot is `mine`; and nothing else runs.
    #[cfg_attr(not(unix), allow(dead_code, reason = "only Unix forks"))]
    pub(super) fn others_are_gone(&self, mine: Option<u32>) {
        for (index, taken) in self.taken.iter().enumerate() {
            let gone = taken.load(Ordering::Relaxed) & !self.haunted[index].load(Ordering::Relaxed);
            for bit in bits(gone) {
                let slot = index as u32 * 64 + bit;
                if mine == Some(slot) {
                    continue;
                }
                if leave(self.slot(slot as usize)) {
                    self.give_back(slot);
                } else {
                    self.haunted[index].fetch_or(1 << bit, Ordering::Relaxed);
                    self.ghosts.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Gives back the slots whose nodes have been taken out of their queues.
    #[cold]
    pub(super) fn lay_ghosts(&self) {
        for (index, haunted) in self.haunted.iter().enumerate() {
            for bit in bits(haunted.load(Ordering::Relaxed)) {
                let slot = index as u32 * 64 + bit;
                // One of those who see it, so that it is given back once.
                if is_quiet(self.slot(slot as usize))
                    && haunted.fetch_and(!(1 << bit), Ordering::Relaxed) & 1 << bit != 0
                {
                    self.ghosts.fetch_sub(1, Ordering::Relaxed);
                    self.give_back(slot);
                }
            }
        }
    }
}

/// The numbers of the bits that are set.
fn bits(mut word: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros());
        word &= word.wrapping_sub(1);
        bit
    })
}

/// The owner of the slot is gone. True if no queue can name its nodes.
fn leave(slot: &Slot<AtomicCell>) -> bool {
    let depth = slot.depth.as_atomic().swap(0, Ordering::Relaxed) as usize;
    slot.token().as_atomic().store(0, Ordering::Relaxed);
    for level in 0..NODES {
        let grant = &slot.node(level).grant.as_atomic();
        let state = grant.load(Ordering::Relaxed);
        let is = |states: &[State]| states.iter().any(|&known| known as u32 == state);
        let may_be_queued = if level < LEVELS {
            // Nobody tidies up a node that is not in use. One that is in use and has been told is out of its queue; of
            // any other it cannot be known, least of all if its lock is one whose waiters spin.
            level < depth && !is(&[State::Woken, State::Owner])
        } else {
            // A node for a wait that may end has no level, and is idle when it is not in use.
            is(&[State::Waiting, State::Starving, State::Abandoned])
        };
        grant.store(if may_be_queued { State::Abandoned } else { State::Idle } as u32, Ordering::Relaxed);
    }
    is_quiet(slot)
}

/// Whether none of the nodes is in a queue, of a slot whose owner is gone.
fn is_quiet(slot: &Slot<AtomicCell>) -> bool {
    // Acquire: who took a node out of its queue and said so does not touch it any more.
    (0..NODES).all(|level| slot.node(level).grant.as_atomic().load(Ordering::Acquire) == State::Idle as u32)
}

#[cfg(test)]
mod tests;
