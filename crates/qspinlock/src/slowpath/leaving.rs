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

use super::place::{ABANDONED, Place, TAKEN};
use super::vigil::{Fallible, Vigil, Waited, beside, rescue, wait};
use super::{Flavour, Queue, pending_lane};
use crate::machine::{Access, Budget, Cell, Event, Machine};
use crate::queue::{Node, Tail, node};
use crate::word::{LockWord, Value};

/// Waits in the queue. (Also what `grant` of a sleeper says.)
const WAITING: u32 = 1;
/// Instead of a link: who comes next is the head. The name of no node, whatever is said above it.
const LEFT: u32 = 1 << 3;

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
    fn take_behind(&self, link: u32) -> bool {
        self.next.update(FOLLOW, |next| Some(if next == 0 { link } else { next })) == Ok(0)
    }

    /// The link to the successor; or, if that has not linked yet, leaves the headship to it, and this node: then 0.
    pub(super) fn next_or_leave(&self) -> u32 {
        let next = self.next.update(HAND_ON, |next| Some(if next == 0 { LEFT } else { next }));
        next.unwrap_or_else(|next| next)
    }

    /// Makes its owner the head. False if it is abandoned: the caller has the node then.
    pub(super) fn make_head(&self, access: Access, grant: u32) -> bool {
        self.grant.update(access, |seen| (seen == WAITING).then_some(grant)).is_ok()
    }

    /// Leaves the node where it is. False if its owner has become the head.
    fn leave_behind(&self) -> bool {
        self.grant.cas(WAITING, ABANDONED, ABANDON).is_ok()
    }
}

/// Who comes after one that leaves.
pub(super) enum Next {
    /// Nobody: the queue is empty.
    Nobody,
    /// This one, unless it has been abandoned.
    Node(Tail),
    /// Whoever has the tail, and is yet to link. It finds that it is the head, and gives the node back that was left.
    WhoComes,
}

/// A flavour of this walk: what its queue has beside its order. By default nothing.
pub(super) trait Leaving<M: Machine>: Fallible<M> + Flavour<M> {
    /// What goes from head to head beside the turn.
    type Estate: Default;

    /// Fills in what goes with the caller's headship, before its node is queued.
    fn prepare_to_wait(_m: &M, _me: Tail) {}

    /// What a waiter's link says: its name, and what else others should know of it.
    fn as_link(_m: &M, me: Tail) -> u32 {
        me.code()
    }

    /// What a head has from the one before it. That one has put it into the node `from`: the new head's own, or one that
    /// was left to it. `None`: there was nobody before.
    fn inherit(_m: &M, _me: Tail, _from: Option<Tail>) -> Self::Estate {
        Self::Estate::default()
    }

    /// Whether nobody is in the queue but those whom the tail shows.
    fn is_all(_estate: &Self::Estate) -> bool {
        true
    }

    /// The head waits for the lock, no longer than a while.
    fn wait_free_for(
        m: &M,
        word: &LockWord<M::Cell>,
        _me: Tail,
        _estate: &mut Self::Estate,
        budget: Budget,
    ) -> Option<Value> {
        word.wait_free_for(m, budget)
    }

    /// The first in the queue, whose node is the caller's, goes out of it.
    fn step_out(m: &M, word: &LockWord<M::Cell>, leaving: Tail, _estate: &mut Self::Estate) -> Next {
        if word.leave_queue(leaving) {
            return Next::Nobody;
        }
        Tail::from_code(node(m, leaving).next_or_leave()).map_or(Next::WhoComes, Next::Node)
    }

    /// Makes the owner of this node the head. False if it is abandoned: the caller has the node then.
    fn make_head(m: &M, next: Tail, _estate: &Self::Estate) -> bool {
        node(m, next).make_head(PROMOTE, TAKEN)
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
    S: Leaving<M>,
    V: Vigil<M>,
{
    if S::PENDING_LANE && pending_lane::<M, S, _>(m, word, || await_in_lane(m, word, vigil))? {
        return Ok(());
    }
    let Some(place) = Place::take(m) else {
        m.count(Event::NoNode);
        return beside::<M, S, V>(m, word, vigil);
    };
    let (me, mine) = (place.me, place.node());
    mine.stand();
    S::prepare_to_wait(m, me);
    if word.try_acquire() {
        return Ok(());
    }
    m.count(Event::Queued);
    let mut estate = match word.exchange_tail(me) {
        None => S::inherit(m, me, None),
        Some(before) if node(m, before).take_behind(S::as_link(m, me)) => {
            match await_turn::<M, S, V>(m, word, vigil, me) {
                Ok(Front::Head) => S::inherit(m, me, Some(me)),
                came if mine.leave_behind() => {
                    place.leave(m);
                    return came.map(drop);
                }
                // Or we have just been made the head all the same.
                came => {
                    hand_on::<M, S>(m, word, place, S::inherit(m, me, Some(me)));
                    return came.map(drop);
                }
            }
        }
        Some(before) => {
            let estate = S::inherit(m, me, Some(before));
            node(m, before).vacate();
            estate
        }
    };
    let came = await_lock::<M, S, V>(m, word, vigil, me, &mut estate);
    match came {
        Ok(Queue::Emptied) => m.count(Event::SoleHead),
        Ok(Queue::Continues) => {
            hand_on::<M, S>(m, word, place, estate);
            m.count(Event::HandOff);
        }
        Err(_) => hand_on::<M, S>(m, word, place, estate),
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

/// Waits behind another one, until made the head.
fn await_turn<M, S, V>(m: &M, word: &LockWord<M::Cell>, vigil: &mut V, me: Tail) -> Result<Front, V::Error>
where
    M: Machine,
    S: Fallible<M>,
    V: Vigil<M>,
{
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
fn await_lock<M, S, V>(
    m: &M,
    word: &LockWord<M::Cell>,
    vigil: &mut V,
    me: Tail,
    estate: &mut S::Estate,
) -> Result<Queue, V::Error>
where
    M: Machine,
    S: Leaving<M>,
    V: Vigil<M>,
{
    loop {
        match wait(m, vigil, |budget| S::wait_free_for(m, word, me, estate, budget)) {
            Waited::Done(seen) if seen.tail() == Some(me) && S::is_all(estate) => match word.claim_sole(me) {
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
fn hand_on<M, S>(m: &M, word: &LockWord<M::Cell>, place: Place<'_, M>, mut estate: S::Estate)
where
    M: Machine,
    S: Leaving<M>,
{
    let mut leaving = place.me;
    core::mem::forget(place);
    loop {
        let next = match S::step_out(m, word, leaving, &mut estate) {
            Next::WhoComes => return,
            Next::Nobody => None,
            Next::Node(next) => Some(next),
        };
        node(m, leaving).vacate();
        match next {
            Some(next) if !S::make_head(m, next, &estate) => leaving = next,
            _ => return,
        }
    }
}
