//! How the queue is led, and how one leaves it before one's turn.
//!
//! # Who leads the queue
//! One at a time takes nodes out of the [line-up](crate::slowpath::lineup) and makes the next one the head:
//!
//! ```text
//!   the new owner, which was the head -- makes the next one the head --+--> that one is awake: it leads the queue
//!           ^                                                          |
//!           | has the lock                                             +--> it sleeps, the lock is slow: so does who unlocks
//!           |                                                                         | wakes the head
//!   the head, awake <-----------------------------------------------------------------+
//!           |         <---- was quicker: takes the mark back ----
//!           +------ goes to sleep, marks the lock slow ---------> who unlocks
//! ```
//!
//! So a head that is awake leads, owner or not: the lock is not slow then, no unlock looks for anybody, and a thief
//! leaves the queue alone. The lead passes by the lock, or by what is written into the head's node.
//!
//! # How one leaves
//! ```text
//!   awake or asleep in the queue   marks its node "gone"; whoever leads takes it out when it has become the first
//!   the head, awake                takes the lock if that is free. Else steps down: if somebody is behind, makes it the head
//!   the head, asleep               lock slow? takes the mark back, and is an awake head. Else an unlock is about to wake it, or
//!                                  whoever made it the head is about to mark the lock: marks its node "gone", which that unlock finds
//! ```
//!
//! Nobody waits for somebody else's step. Who finds that it has been made the head, or woken, while it gave up leaves
//! as the head that it is. Who is made the head by one that has not got the lock is woken for it, if it sleeps: there
//! is no owner that could be asked to do so later. Whoever stays keeps its place.
//!
//! A gone node goes back to its CPU when it is taken out. The last to be taken out leaves the queue empty.
//!
//! # A queue that stands still
//! As in [`slowpath/leaving.rs`](crate::slowpath): the head may have been interrupted by a handler that waits for
//! somebody behind it. Whoever is due to look, and finds the lock free for long, takes it past all, and leaves like one
//! that gives up.

use super::turn::{Found, Leaves};
use super::{hand_on, lead};
use crate::machine::Machine;
use crate::queue::{Tail, node};
use crate::slowpath::lineup::step_out;
use crate::word::{Behind, LockWord, SteppedDown};

/// What has become of a waiter that gave up, and of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It has left; the node stays in the queue.
    Node,
    /// It has left, and the node is its own.
    Clean,
    /// It has the lock after all, and the node is its own.
    Owner,
}

/// Gives up the place of `me` in the queue.
pub(super) fn leave<M: Machine>(m: &M, word: &LockWord<M::Cell>, me: Tail) -> Left {
    let mine = node(m, me);
    let stays = match mine.give_up() {
        Leaves::Node => true,
        Leaves::AsHead => false,
        Leaves::AsSleepingHead if word.take_back() => {
            mine.get_up();
            false
        }
        Leaves::AsSleepingHead => mine.give_up_asleep(),
    };
    if stays { Left::Node } else { step_down(m, word, me) }
}

/// The head, awake, leaves.
fn step_down<M: Machine>(m: &M, word: &LockWord<M::Cell>, me: Tail) -> Left {
    match word.step_down(me) {
        SteppedDown::Owner(behind) => {
            hand_on(m, word, behind);
            return Left::Owner;
        }
        SteppedDown::Left(Behind::Nobody) => {}
        SteppedDown::Left(Behind::UpTo(newest)) => {
            let next = step_out(m, newest);
            if let Some((head, Found::Sleeping)) = lead(m, word, next, |node| node.wake()) {
                m.kick(head.cpu());
            }
        }
    }
    Left::Clean
}
