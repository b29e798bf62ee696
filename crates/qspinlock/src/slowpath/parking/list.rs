//! The list of those who wait for a condition, from the oldest to the newest. A lock of the condition's own protects it.
//!
//! A waiter is in it with the node that it will have in the lock's queue, linked the same way (`prev`), so that a piece
//! of the list is a piece of a queue. `next` is there for those who leave from the middle.

use super::sleepers::State;
use crate::machine::{Access, Cell, ConstCell, Machine};
use crate::queue::{Node, Tail, node};

const NOBODY: Access = Access::relaxed(
    "list.nobody",
    "who has changed what is waited for did so after the waiter's unlock, so sees it listed",
);
const OLDEST: Access = Access::relaxed("list.oldest", "the condition's lock orders it");
const NEWEST: Access = Access::relaxed("list.newest", "the condition's lock orders it");
const SET_OLDEST: Access = Access::relaxed("list.set-oldest", "the condition's lock orders it");
const SET_NEWEST: Access = Access::relaxed("list.set-newest", "the condition's lock orders it");
const PREV: Access = Access::relaxed("list.prev", "the condition's lock orders it");
const NEXT: Access = Access::relaxed("list.next", "the condition's lock orders it");
const SET_PREV: Access = Access::relaxed("list.set-prev", "the condition's lock orders it, and then sleepers.push");
const SET_NEXT: Access = Access::relaxed("list.set-next", "the condition's lock orders it, and then sleepers.push");
const NOTIFY: Access =
    Access::relaxed("list.notify", "the condition's lock orders it, and then sleepers.push or node.tell");
const IS_LISTED: Access = Access::relaxed("list.is-listed", "the condition's lock orders it");

/// The list. Every method but [`looks_empty`](Self::looks_empty) is for who holds its lock.
#[derive(Debug)]
pub(super) struct List<C> {
    oldest: C,
    newest: C,
}

impl<C: ConstCell> List<C> {
    pub(super) const fn new() -> Self {
        Self { oldest: C::ZERO, newest: C::ZERO }
    }
}

impl<C: Cell> List<C> {
    pub(super) const fn from_cells(oldest: C, newest: C) -> Self {
        Self { oldest, newest }
    }

    /// Whether nobody waits that the caller could know of.
    pub(super) fn looks_empty(&self) -> bool {
        self.oldest.load(NOBODY) == 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.oldest().is_none()
    }

    fn oldest(&self) -> Option<Tail> {
        Tail::from_code(self.oldest.load(OLDEST))
    }

    fn newest(&self) -> Option<Tail> {
        Tail::from_code(self.newest.load(NEWEST))
    }

    /// Who comes after `of`. The newest has an old link, or none.
    fn after<M: Machine<Cell = C>>(&self, m: &M, of: Tail) -> Option<Tail> {
        if self.newest() == Some(of) { None } else { Tail::from_code(node(m, of).next.load(NEXT)) }
    }

    /// Adds the newest.
    pub(super) fn push<M: Machine<Cell = C>>(&self, m: &M, me: Tail) {
        let newest = self.newest();
        node(m, me).prepare(me, newest, State::Listed);
        self.set_next(m, newest, Some(me));
        self.set_prev(m, None, Some(me));
    }

    /// Takes out the oldest: from now on it is notified.
    pub(super) fn take_oldest<M: Machine<Cell = C>>(&self, m: &M) -> Option<Tail> {
        let oldest = self.oldest()?;
        let next = self.after(m, oldest);
        self.set_next(m, None, next);
        self.set_prev(m, next, None);
        node(m, oldest).notify();
        Some(oldest)
    }

    /// Takes out all: the oldest and the newest of them, and how many.
    pub(super) fn take_all<M: Machine<Cell = C>>(&self, m: &M) -> Option<(Tail, Tail, usize)> {
        let oldest = self.oldest()?;
        let newest = self.newest()?;
        let (mut at, mut count) = (newest, 1);
        while at != oldest {
            node(m, at).notify();
            at = node(m, at).older().expect("only the oldest has nobody before it");
            count += 1;
        }
        node(m, oldest).notify();
        self.set_next(m, None, None);
        self.set_prev(m, None, None);
        Some((oldest, newest, count))
    }

    /// Takes out one that nobody has notified. False if somebody has.
    pub(super) fn remove<M: Machine<Cell = C>>(&self, m: &M, me: Tail) -> bool {
        let mine = node(m, me);
        let is_listed = mine.grant.load(IS_LISTED) == State::Listed as u32;
        if is_listed {
            let older = mine.older();
            let newer = self.after(m, me);
            self.set_next(m, older, newer);
            self.set_prev(m, newer, older);
        }
        is_listed
    }

    /// Who comes after `of`, or first of all.
    fn set_next<M: Machine<Cell = C>>(&self, m: &M, of: Option<Tail>, next: Option<Tail>) {
        match of {
            Some(of) => node(m, of).next.store(code(next), SET_NEXT),
            None => self.oldest.store(code(next), SET_OLDEST),
        }
    }

    /// Who comes before `of`, or last of all.
    fn set_prev<M: Machine<Cell = C>>(&self, m: &M, of: Option<Tail>, prev: Option<Tail>) {
        match of {
            Some(of) => node(m, of).prev.store(code(prev), SET_PREV),
            None => self.newest.store(code(prev), SET_NEWEST),
        }
    }
}

impl<C: Cell> Node<C> {
    pub(super) fn older(&self) -> Option<Tail> {
        Tail::from_code(self.prev.load(PREV))
    }

    fn notify(&self) {
        self.grant.store(State::Waiting as u32, NOTIFY);
    }
}

fn code(tail: Option<Tail>) -> u32 {
    tail.map_or(0, Tail::code)
}
