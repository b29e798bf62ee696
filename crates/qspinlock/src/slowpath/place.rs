//! The right to a node for a wait that may end before its turn.
//!
//! Such a node stays in the queue when its owner has given up, until its turn comes; so it cannot be that of a nesting
//! level, which the next wait needs. A CPU has a few of its own for this ([`NODES`]).

use crate::machine::{Access, Cell, Event, Machine};
use crate::queue::{LEVELS, NODES, Node, Tail, node};

const RESERVE: Access =
    Access::acquire("node.reserve", "node.tell, node.vacate: who took the abandoned node out has read it");
const VACATE: Access = Access::release("leaving.vacate", "node.reserve: the node's next owner comes after us");
const GIVE_BACK: Access = Access::relaxed("node.give-back", "it passes from a thread to itself");

/// What `grant` of such a node holds while nobody uses it.
pub(super) const IDLE: u32 = 0;
/// What it holds while its owner has it to itself.
pub(super) const TAKEN: u32 = 3;
/// In its low bits: it lies in a queue, and nobody waits there any more.
pub(super) const ABANDONED: u32 = 5;
/// The low bits. Those above may say what goes with the headship.
pub(super) const STATE: u32 = 0xff;

impl<C: Cell> Node<C> {
    /// Takes the node. False if it is in use, or still lies in some queue.
    fn reserve(&self) -> bool {
        self.grant.cas(IDLE, TAKEN, RESERVE).is_ok()
    }

    /// Gives back a reserved node that lies in no queue.
    fn give_back(&self) {
        self.grant.store(IDLE, GIVE_BACK);
    }

    /// Gives back a node that somebody has left.
    pub(super) fn vacate(&self) {
        self.grant.store(IDLE, VACATE);
    }
}

/// The right to a node for a wait that may end before its turn. Given back when dropped.
pub(super) struct Place<'m, M: Machine> {
    machine: &'m M,
    pub(super) me: Tail,
}

impl<'m, M: Machine> Place<'m, M> {
    /// Takes a free one of the caller's CPU. `None` if it has no CPU, or none is free.
    pub(super) fn take(machine: &'m M) -> Option<Self> {
        let cpu = machine.here()?;
        let mut places = (LEVELS..NODES).map(|level| Tail::new(cpu, level));
        // One step, so that a handler which interrupts us takes another one.
        places.find(|&me| node(machine, me).reserve()).map(|me| Self { machine, me })
    }

    pub(super) fn node(&self) -> &'m Node<M::Cell> {
        node(self.machine, self.me)
    }

    /// Leaves the node in the queue.
    pub(super) fn leave(self, m: &M) {
        m.count(Event::Abandoned);
        core::mem::forget(self);
    }
}

impl<M: Machine> Drop for Place<'_, M> {
    fn drop(&mut self) {
        self.node().give_back();
    }
}
