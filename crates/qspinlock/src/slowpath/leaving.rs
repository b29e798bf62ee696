//! The [walk](super::walk) of those who may leave before their turn.
//!
//! ```text
//!   pending        takes its bit back
//!   in the queue   marks its node abandoned; who is to make it the head makes the next one the head instead
//!   head           nobody behind it: empties the queue. Else makes the next one the head, without having had the lock
//!   between        somebody has the tail, but has yet to link itself: finds a mark in its predecessor's link, and is the head
//! ```
//!
//! (M. L. Scott, "Non-blocking timeout in scalable queue-based spin locks", PODC 2002, has a queue of this kind.)
//! Nobody waits for somebody else's step here: neither for a link that is yet to come, nor for an abandoned node's
//! owner. Who hands on the headship leaves its own node to whoever comes, if need be; and gives back the abandoned ones
//! that it passes. So when all who were in a queue have left it, however they left, no trace of it remains.
//!
//! # A queue that stands still
//! The head, or who is pending, may have been interrupted, by a handler that waits for another lock. That lock's owner
//! may stand in this queue, behind it. Nobody can see it in who holds what: this lock is free. So a waiter that finds
//! the lock free for longer than anybody takes who is about to claim it, claims it, wherever it stands ([`rescue`]).

use super::place::{Place, TAKEN};
use super::vigil::{Fallible, Vigil, Waited, beside, rescue, wait};
use super::{Flavour, Queue, pending_lane};
use crate::machine::{Access, Cell, Event, Machine};
use crate::queue::{Node, Tail, node};
use crate::word::LockWord;

/// Waits in the queue. (Also what `grant` of a sleeper says.)
const WAITING: u32 = 1;
/// In the queue, but nobody waits there any more.
const ABANDONED: u32 = 5;
/// Instead of a link: who comes next is the head.
const LEFT: u32 = u32::MAX;

const PREPARE: Access = Access::relaxed("leaving.prepare", "tail.exchange publishes it");
const AWAIT: Access =
    Access::relaxed("leaving.await", "whoever is made the head takes nothing from us: it claims the word");
const ABANDON: Access = Access::release("leaving.abandon", "leaving.promote: who passes our node has it to itself");
const PROMOTE: Access = Access::acquire("leaving.promote", "leaving.abandon: the abandoned node is ours now");
const FOLLOW: Access = Access::acq_rel("leaving.follow", "leaving.hand-on: our node, and the one that was left to us");
const HAND_ON: Access =
    Access::acq_rel("leaving.hand-on", "leaving.follow: the successor's node, and our own that we leave to it");

impl<C: Cell> Node<C> {
    fn stand(&self) {
        self.next.store(0, PREPARE);
        self.grant.store(WAITING, PREPARE);
    }

    // Of these two the one that comes second sees what the first did before. So both write, whatever they find: a
    // read-modify-write that writes nothing is a relaxed load, which may even be an old one.

    /// Takes a successor, which calls this. False if the node's owner has left: then the caller is the head.
    fn take_behind(&self, successor: Tail) -> bool {
        self.next.update(FOLLOW, |next| Some(if next == 0 { successor.code() } else { next })) == Ok(0)
    }

    /// The successor; or, if it has not linked yet, leaves the headship to it, and this node.
    fn next_or_leave(&self) -> Option<Tail> {
        let next = self.next.update(HAND_ON, |next| Some(if next == 0 { LEFT } else { next }));
        let code = next.unwrap_or_else(|next| next);
        (code != 0).then(|| Tail::from_code(code).expect("a link names a node"))
    }

    /// Makes its owner the head. False if it is abandoned: the caller has the node then.
    fn make_head(&self) -> bool {
        self.grant.update(PROMOTE, |grant| (grant == WAITING).then_some(TAKEN)).is_ok()
    }

    /// Leaves the node where it is. False if its owner has become the head.
    fn leave_behind(&self) -> bool {
        self.grant.cas(WAITING, ABANDONED, ABANDON).is_ok()
    }
}

/// How a waiter has come to the front.
enum Front {
    /// It is the head.
    Head,
    /// It has taken the lock past those before it.
    Owner,
}

/// The walk.
pub(super) fn walk<M, S, V>(m: &M, word: &LockWord<M::Cell>, vigil: &mut V) -> Result<(), V::Error>
where
    M: Machine,
    S: Fallible<M> + Flavour<M>,
    V: Vigil<M>,
{
    if S::PENDING_LANE && pending_lane::<M, S, _>(m, word, || await_in_lane(m, word, vigil))? {
        return Ok(());
    }
    let Some(place) = Place::take(m) else {
        m.count(Event::NoNode);
        return beside::<M, S, V>(m, word, vigil);
    };
    let mine = place.node();
    mine.stand();
    if word.try_acquire() {
        return Ok(());
    }
    m.count(Event::Queued);
    if let Some(before) = word.exchange_tail(place.me) {
        match await_turn::<M, S, V>(m, word, vigil, place.me, before) {
            Ok(Front::Head) => {}
            came if mine.leave_behind() => {
                place.leave(m);
                return came.map(drop);
            }
            // Or we have just been made the head all the same.
            came => {
                hand_on(m, word, place);
                return came.map(drop);
            }
        }
    }
    let came = await_lock::<M, S, V>(m, word, vigil, place.me);
    match came {
        Ok(Queue::Emptied) => m.count(Event::SoleHead),
        Ok(Queue::Continues) => {
            hand_on(m, word, place);
            m.count(Event::HandOff);
        }
        Err(_) => hand_on(m, word, place),
    }
    came.map(drop)
}

/// Waits in the pending lane until nobody holds the lock.
fn await_in_lane<M: Machine, V: Vigil<M>>(m: &M, word: &LockWord<M::Cell>, vigil: &mut V) -> Result<(), V::Error> {
    loop {
        match wait(m, vigil, |budget| word.wait_pending_for(m, budget)) {
            Waited::Done(()) => return Ok(()),
            // Nobody but us has a claim on it.
            Waited::Looked => {}
            Waited::Over(over) => return Err(over),
        }
    }
}

/// Waits behind `before`, until made the head.
fn await_turn<M, S, V>(
    m: &M,
    word: &LockWord<M::Cell>,
    vigil: &mut V,
    me: Tail,
    before: Tail,
) -> Result<Front, V::Error>
where
    M: Machine,
    S: Fallible<M>,
    V: Vigil<M>,
{
    if !node(m, before).take_behind(me) {
        node(m, before).vacate();
        return Ok(Front::Head);
    }
    let mine = node(m, me);
    loop {
        let is_head = |budget| m.until_for(&mine.grant, AWAIT, budget, |grant| grant != WAITING).ok();
        match wait(m, vigil, is_head) {
            Waited::Done(_) => return Ok(Front::Head),
            Waited::Looked if rescue::<M, S>(m, word) => return Ok(Front::Owner),
            Waited::Looked => {}
            Waited::Over(over) => return Err(over),
        }
    }
}

/// The head's wait on the lock word, and its claim.
fn await_lock<M, S, V>(m: &M, word: &LockWord<M::Cell>, vigil: &mut V, me: Tail) -> Result<Queue, V::Error>
where
    M: Machine,
    S: Fallible<M>,
    V: Vigil<M>,
{
    loop {
        match wait(m, vigil, |budget| word.wait_free_for(m, budget)) {
            Waited::Done(seen) if seen.tail() == Some(me) => match word.claim_sole(me) {
                Ok(()) => return Ok(Queue::Emptied),
                Err(now) if !now.is_locked() => {}
                Err(_) => m.count(Event::Bypassed),
            },
            Waited::Done(_) if word.claim_head() => return Ok(Queue::Continues),
            Waited::Done(_) => m.count(Event::Bypassed),
            Waited::Looked if rescue::<M, S>(m, word) => return Ok(Queue::Continues),
            Waited::Looked => {}
            Waited::Over(over) => return Err(over),
        }
    }
}

/// The head leaves the queue, with the lock or without, and makes the next one the head.
fn hand_on<M: Machine>(m: &M, word: &LockWord<M::Cell>, place: Place<'_, M>) {
    let mine = place.me;
    core::mem::forget(place);
    let mut leaving = mine;
    while !word.leave_queue(leaving) {
        let Some(next) = node(m, leaving).next_or_leave() else {
            // Whoever has the tail finds that it is the head, and gives the node back.
            return;
        };
        node(m, leaving).vacate();
        if node(m, next).make_head() {
            return;
        }
        leaving = next;
    }
    node(m, leaving).vacate();
}
