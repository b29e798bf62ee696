//! The queue of those who may sleep: anybody may join it, only the owner of the lock takes somebody out. So the lock itself
//! protects it, a node has one writer at any moment, and the owner finds the first in the queue without a table that leads
//! from locks to sleepers. (Where waiters halt, "the owner" is whoever leads the queue: see `paravirt/leaving.rs`.)
//!
//! The lock word names the newest. A node names its predecessor in `prev`, written before it is published. Who looks for
//! the first walks there from the newest, once: it leaves a link in the other direction (`next`) in each node it
//! passes, and the name of the first in the node where it began (`first`); the next walk ends there. So each waiter is
//! walked past once, whatever the number of walks.
//!
//! ```text
//!   word --> newest --prev--> · --prev--> · --prev--> oldest
//!              |                 <--next--  <--next--    ^
//!              +---------------- first ------------------+
//! ```

use crate::machine::{Access, Cell, Event, Machine};
use crate::queue::{Node, Tail, node};
use crate::word::LockWord;

// What the owner of the lock writes into nodes, the next one to do so reads: release and claim of the lock order it.
const SET_PREV: Access = Access::relaxed("node.set-prev", "sleepers.push publishes it");
const SET_FIRST: Access = Access::relaxed("node.set-first", "sleepers.push publishes it, or it is the lock owner's");
const SET_NEXT: Access = Access::relaxed("node.set-next", "the lock owner's");
const GET_PREV: Access = Access::relaxed("node.get-prev", "sleepers.newest has acquired it");
const GET_FIRST: Access = Access::relaxed("node.get-first", "sleepers.newest has acquired it");
const GET_NEXT: Access = Access::relaxed("node.get-next", "the lock owner's");

impl<C: Cell> Node<C> {
    /// Makes a prepared node, `me`, ready to be published behind `prev`.
    pub(in crate::slowpath) fn follow(&self, me: Tail, prev: Option<Tail>) {
        self.prev.store(prev.map_or(0, Tail::code), SET_PREV);
        self.first.store(if prev.is_none() { me.code() } else { 0 }, SET_FIRST);
    }
}

/// The oldest sleeper. The caller owns the lock.
pub(in crate::slowpath) fn first<M: Machine>(m: &M, word: &LockWord<M::Cell>) -> Option<Tail> {
    Some(find_first(m, word.newest()?))
}

/// Takes the oldest sleeper out of the queue. The caller owns the lock. Returns it, and the newest of those left.
pub(in crate::slowpath) fn take_first<M: Machine>(m: &M, word: &LockWord<M::Cell>) -> Option<(Tail, Option<Tail>)> {
    take_first_by(m, word, |last| word.all_up(last))
}

/// The same, with a step of the caller's own by which the last leaves the queue empty.
pub(in crate::slowpath) fn take_first_by<M: Machine>(
    m: &M,
    word: &LockWord<M::Cell>,
    all_up: impl Fn(Tail) -> bool,
) -> Option<(Tail, Option<Tail>)> {
    loop {
        let newest = word.newest()?;
        let first = find_first(m, newest);
        if first != newest {
            take_out(m, first, newest);
            return Some((first, Some(newest)));
        }
        if all_up(first) {
            return Some((first, None));
        }
    }
}

/// The owner of the lock was the first until now; `newest` has come after it, and was the newest at some time since it
/// got the lock. Returns who is the first now.
pub(in crate::slowpath) fn step_out<M: Machine>(m: &M, newest: Tail) -> Tail {
    take_out(m, find_first(m, newest), newest)
}

/// Has `newest`, which the walk to `first` began at, know who comes after that.
fn take_out<M: Machine>(m: &M, first: Tail, newest: Tail) -> Tail {
    let next = node(m, first).next.load(GET_NEXT);
    node(m, newest).first.store(next, SET_FIRST);
    Tail::from_code(next).expect("somebody is behind the first")
}

/// Walks from the newest to the first node that knows who is the oldest, and leaves links back.
fn find_first<M: Machine>(m: &M, newest: Tail) -> Tail {
    let mut at = newest;
    loop {
        if let Some(first) = Tail::from_code(node(m, at).first.load(GET_FIRST)) {
            if at != newest {
                node(m, newest).first.store(first.code(), SET_FIRST);
            }
            return first;
        }
        let prev = Tail::from_code(node(m, at).prev.load(GET_PREV)).expect("who has no predecessor is the first");
        node(m, prev).next.store(at.code(), SET_NEXT);
        m.count(Event::Step);
        at = prev;
    }
}
