//! A node in a queue from which waiters are set aside: its named steps.

use super::super::place::{ABANDONED, IDLE, STATE};
use crate::machine::{Access, Cell, Machine};
use crate::queue::{Node, Tail};

/// What an urgent waiter says instead of its domain.
pub(super) const URGENT: u32 = (1 << (u32::BITS - Tail::BITS)) - 1;
/// What is granted if nobody is set aside. No node has this code.
const ALONE: u32 = 1 << Tail::BITS;
/// Those set aside, beside a state in `grant`, where one may leave.
const ASIDE_SHIFT: u32 = 8;

const _: () = assert!(ASIDE_SHIFT + Tail::BITS <= 32 && STATE >> ASIDE_SHIFT == 0);

const DOMAIN: Access = Access::relaxed("numa.domain", "its owner's own; or that of whom numa.grant makes the head");
const LINK: Access = Access::release("numa.link", "numa.next: the head reads our node before it claims the word");
const NEXT: Access = Access::acquire("numa.next", "numa.link: the successor's node is initialised");
const SORT: Access = Access::relaxed("numa.sort", "the links of who waits are the head's; numa.grant publishes them");
const SINCE: Access = Access::relaxed("numa.since", "numa.grant publishes it");
const GRANT: Access = Access::release("numa.grant", "numa.granted: whom the head has set aside, and how long ago");
const GRANTED: Access = Access::acquire("numa.granted", "numa.grant: the secondary queue is ours now");

const OWN: Access = Access::relaxed("numa.own", "a hint; whoever writes it waits for nothing that we do");
const GONE: Access =
    Access::relaxed("numa.gone", "leaving.abandon is its owner's last step there, and its link published those before");
const INHERIT: Access = Access::acquire("numa.inherit", "numa.promote: the secondary queue is ours now");
const BEQUEATH: Access = Access::relaxed("numa.bequeath", "leaving.hand-on publishes it");

/// Who is next, and of which domain: so that the head need not fetch its line to know. What a link holds here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiter {
    pub(super) tail: Tail,
    pub(super) domain: u32,
}

impl Waiter {
    pub(super) const fn link(self) -> u32 {
        self.tail.code() | self.domain << Tail::BITS
    }

    /// `None` for 0, and for what says that somebody has left.
    pub(super) const fn from_link(link: u32) -> Option<Self> {
        match Tail::from_code(link & NAME) {
            Some(tail) => Some(Self { tail, domain: link >> Tail::BITS }),
            None => None,
        }
    }

    /// Whether it may pass those who are set aside while the lock is to stay at `home`.
    pub(super) const fn may_pass(self, home: u32) -> bool {
        self.domain == home || self.domain == URGENT
    }
}

const NAME: u32 = (1 << Tail::BITS) - 1;

/// A domain as links have room for it. Two that differ by a multiple of 1023 count as one.
pub(super) const fn short(domain: u32) -> u32 {
    domain % URGENT
}

// `prev` and `first`: what only sleepers need elsewhere.
impl<C: Cell> Node<C> {
    /// The domain to stay in: the owner's own; for a head that was handed a secondary queue, that of the one before it.
    pub(super) fn home(&self) -> u32 {
        self.prev.load(DOMAIN)
    }

    pub(super) fn set_home(&self, domain: u32) {
        self.prev.store(domain, DOMAIN);
    }

    /// When the secondary queue was begun. In the node of the last in it: the hand-off of a turn is to be one store.
    pub(super) fn since(&self) -> u32 {
        self.first.load(SINCE)
    }

    pub(super) fn set_since(&self, since: u32) {
        self.first.store(since, SINCE);
    }

    /// Tells the owner of this node who its successor is, and that the successor's node may be read.
    pub(super) fn publish_next(&self, successor: Waiter) {
        self.next.store(successor.link(), LINK);
    }

    /// The successor, if one has linked.
    pub(super) fn next_now(&self) -> Option<Waiter> {
        Waiter::from_link(self.next.load(NEXT))
    }

    /// The successor, who links about now.
    pub(super) fn next_to_come<M: Machine<Cell = C>>(&self, m: &M) -> Waiter {
        Waiter::from_link(self.link_to_come(m)).expect("a link names a node")
    }

    /// By the head, of a node whose link nobody else writes any more.
    pub(super) fn point_to(&self, next: Waiter) {
        self.next.store(next.link(), SORT);
    }

    /// The last of those set aside becomes the last of the queue.
    pub(super) fn unlink(&self) {
        self.next.store(0, SORT);
    }

    /// Makes its owner the head, with the last of those set aside.
    pub(super) fn hand(&self, aside: Option<Tail>) {
        self.grant.store(aside.map_or(ALONE, Tail::code), GRANT);
    }

    /// Waits to be made the head. The last of those set aside.
    pub(super) fn handed<M: Machine<Cell = C>>(&self, m: &M) -> Option<Tail> {
        Tail::from_code(m.until(&self.grant, GRANTED, |grant| grant != 0))
    }

    // Where one may leave.

    /// Its owner waits there, or has it in hand.
    pub(super) fn is_in_use(&self) -> bool {
        let state = self.grant.load(OWN) & STATE;
        state != IDLE && state != ABANDONED
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.grant.load(GONE) & STATE == ABANDONED
    }

    /// What its owner, or whoever comes to it, has with the headship: the last of those set aside.
    pub(super) fn inherited(&self) -> Option<Tail> {
        Tail::from_code(self.grant.load(INHERIT) >> ASIDE_SHIFT)
    }

    /// Leaves that to whoever comes.
    pub(super) fn bequeath(&self, aside: u32) {
        self.grant.store(ABANDONED | aside, BEQUEATH);
    }
}

/// Those set aside as they stand beside a state.
pub(super) const fn beside(last: Tail) -> u32 {
    last.code() << ASIDE_SHIFT
}
