//! The same in a queue that one may leave before one's turn: see the [walk](super::super::leaving) of those who may.
//!
//! ```text
//!   head gives up     hands on the headship and those set aside, as an owner does
//!   nobody linked     leaves both in its own node, to whoever comes
//!   nobody else       those set aside are the queue, whoever has the lock
//!   set aside         marks its node abandoned there, as in the queue; who passes it later gives it back
//!   to be set aside   and abandoned already: given back at once
//! ```
//!
//! Nobody waits for somebody else's step, as there; and a waiter that takes a lock which stays free does so from the
//! secondary queue as well. What goes with the headship lies in the new head's node: the last of those set aside in
//! `grant`, above the state that says that it is the head; and where the lock is to stay.

use super::super::Flavour;
use super::super::leaving::{Leaving, Next};
use super::super::place::TAKEN;
use super::node::{Waiter, beside};
use super::{Aside, Numa, Sorted, home, is_to_sort, set_aside_next, succession};
use crate::machine::{Access, Budget, Cell, Event, Machine};
use crate::queue::{LEVELS, NODES, Node, Tail, node};
use crate::word::{LockWord, Value};

const PROMOTE: Access = Access::release(
    "numa.promote",
    "numa.inherit: whom the head has set aside, and how long ago. Abandoned: as numa.gone",
);

impl<C: Cell> Node<C> {
    /// Says what goes with a headship that this node's owner, or whoever comes next, is about to have.
    fn endow(&self, Estate { aside, home, .. }: &Estate) -> u32 {
        let Some(Aside { last, .. }) = aside else { return 0 };
        self.set_home(*home);
        beside(*last)
    }
}

/// What a head has beside its turn.
#[derive(Default)]
pub(crate) struct Estate {
    aside: Option<Aside>,
    /// Where the lock is to stay; if it looks for those to set aside, or has any.
    home: u32,
    looks: bool,
    /// It has inherited some, and has not looked yet: it does once, busy or not.
    is_new: bool,
}

impl<M: Machine> Leaving<M> for Numa {
    type Estate = Estate;

    /// A CPU waits in one place at a time, but for those who interrupt each other.
    fn prepare_to_wait(m: &M, me: Tail) {
        let others = (LEVELS..NODES).filter(|&level| level != me.level()).map(|level| Tail::new(me.cpu(), level));
        let is_nested = others.into_iter().any(|other| node(m, other).is_in_use());
        Self::prepare(m, node(m, me), is_nested);
    }

    fn as_link(m: &M, me: Tail) -> u32 {
        Waiter { tail: me, domain: node(m, me).home() }.link()
    }

    fn inherit(m: &M, me: Tail, from: Option<Tail>) -> Estate {
        let from = from.map(|from| node(m, from));
        let last = from.and_then(Node::inherited);
        let mut aside = last.map(|last| Aside::inherited(m, last));
        let looks = is_to_sort(m, &mut aside);
        let home = match (from, &aside) {
            (Some(from), Some(_)) => from.home(),
            _ if looks => home(m, node(m, me)),
            _ => 0,
        };
        let is_new = aside.is_some();
        Estate { aside, home, looks, is_new }
    }

    fn is_all(estate: &Estate) -> bool {
        estate.aside.is_none()
    }

    /// Sets one aside at a time, so that it is asked between two whether it is to give up.
    fn wait_free_for(
        m: &M,
        word: &LockWord<M::Cell>,
        me: Tail,
        Estate { aside, home, looks, is_new }: &mut Estate,
        budget: Budget,
    ) -> Option<Value> {
        if *looks && (*is_new || word.peek().is_busy()) {
            if pass_abandoned(node(m, me), m) {
                return None;
            }
            *is_new = false;
            if set_aside_next(m, node(m, me), *home, aside) == Sorted::Aside {
                m.count(Event::SetAside);
                return None;
            }
        }
        word.wait_free_for(m, budget)
    }

    fn step_out(m: &M, word: &LockWord<M::Cell>, leaving: Tail, estate: &mut Estate) -> Next {
        // Who does not have the tail any more never has it again.
        let may_be_last = word.peek().tail() == Some(leaving);
        if may_be_last {
            match estate.aside {
                None if word.leave_queue(leaving) => return Next::Nobody,
                None => {}
                Some(Aside { last, .. }) => {
                    // Who comes links to the last of those set aside.
                    let first = node(m, last).next_now().expect("a circle");
                    node(m, last).unlink();
                    if word.leave_queue_to(leaving, last) {
                        estate.aside = None;
                        m.count(Event::BroughtBack);
                        return Next::Node(first.tail);
                    }
                    node(m, last).point_to(first);
                }
            }
        }
        let mine = node(m, leaving);
        mine.bequeath(mine.endow(estate));
        let Some(next) = Waiter::from_link(mine.next_or_leave()) else { return Next::WhoComes };
        Next::Node(succession(m, estate.home, &mut estate.aside, next).tail)
    }

    fn make_head(m: &M, next: Tail, estate: &Estate) -> bool {
        let theirs = node(m, next);
        let aside = theirs.endow(estate);
        theirs.make_head(PROMOTE, TAKEN | aside)
    }
}

/// Gives back the node of who is next, if that has given up, and is not the last.
fn pass_abandoned<M: Machine>(mine: &Node<M::Cell>, m: &M) -> bool {
    let Some(next) = mine.next_now() else { return false };
    let theirs = node(m, next.tail);
    if !theirs.is_abandoned() {
        return false;
    }
    let Some(after) = theirs.next_now() else { return false };
    mine.point_to(after);
    theirs.vacate();
    true
}
