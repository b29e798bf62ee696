//! Well-known locks on the same cells, to compare simulated figures with published ones.

use qspinlock::machine::{Access, Cell, Machine};

use super::cell::SimCell;
use super::locks::SimLock;
use super::machine::Virtual;

const LOOK: Access = Access::relaxed("reference.look", "an atomic follows");
const SWAP: Access = Access::acquire("reference.swap", "reference.free");
const FREE: Access = Access::release("reference.free", "reference.swap, reference.served");
const DRAW: Access = Access::relaxed("reference.draw", "reference.served acquires");
const SERVED: Access = Access::acquire("reference.served", "reference.free");
const OWN: Access = Access::relaxed("reference.own", "nobody else writes it now");
const TAIL: Access = Access::acq_rel("reference.tail", "itself");
const LINK: Access = Access::release("reference.link", "reference.next");
const NEXT: Access = Access::acquire("reference.next", "reference.link");
const TURN: Access = Access::acquire("reference.turn", "reference.pass");
const PASS: Access = Access::release("reference.pass", "reference.turn");

/// Test-and-set: an exchange, over and over.
#[derive(Debug, Default)]
pub struct Tas(SimCell);

impl SimLock for Tas {
    fn acquire(&self, _: &Virtual) {
        while self.0.update(SWAP, |_| Some(1)) != Ok(0) {}
    }

    fn release(&self, _: &Virtual) {
        self.0.store(0, FREE);
    }
}

/// Test-and-test-and-set: waits until it is free, and then tries.
#[derive(Debug, Default)]
pub struct Ttas(SimCell);

impl SimLock for Ttas {
    fn acquire(&self, m: &Virtual) {
        loop {
            m.until(&self.0, LOOK, |v| v == 0);
            if self.0.update(SWAP, |_| Some(1)) == Ok(0) {
                return;
            }
        }
    }

    fn release(&self, _: &Virtual) {
        self.0.store(0, FREE);
    }
}

/// On a line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(SimCell);

/// Tickets: draw a number, wait until it is served. The two words are on a line each.
#[derive(Debug, Default)]
pub struct Ticket {
    next: Line,
    served: Line,
}

impl SimLock for Ticket {
    fn acquire(&self, m: &Virtual) {
        let mine = self.next.0.update(DRAW, |v| Some(v.wrapping_add(1))).unwrap_or_else(|v| v);
        m.until(&self.served.0, SERVED, |v| v == mine);
    }

    fn release(&self, _: &Virtual) {
        self.served.0.store(self.served.0.load(OWN).wrapping_add(1), FREE);
    }
}

/// The node of a CPU in a queue of Mellor-Crummey and Scott: who comes next (its CPU + 1), and whether to wait. On a
/// line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct McsNode {
    next: SimCell,
    waits: SimCell,
}

/// The lock of Mellor-Crummey and Scott (TOCS 1991): the CPU + 1 of who came last.
#[derive(Debug)]
pub struct Mcs<'a> {
    tail: SimCell,
    nodes: &'a [McsNode],
}

impl<'a> Mcs<'a> {
    /// A free lock for CPUs with these nodes, each of which holds one such lock at a time.
    #[must_use]
    pub fn new(nodes: &'a [McsNode]) -> Self {
        Self { tail: SimCell::default(), nodes }
    }
}

impl SimLock for Mcs<'_> {
    fn acquire(&self, m: &Virtual) {
        let me = m.cpu() + 1;
        let node = &self.nodes[m.cpu() as usize];
        node.next.store(0, OWN);
        let before = self.tail.update(TAIL, |_| Some(me)).unwrap_or_else(|v| v);
        if before != 0 {
            node.waits.store(1, OWN);
            self.nodes[before as usize - 1].next.store(me, LINK);
            m.until(&node.waits, TURN, |v| v == 0);
        }
    }

    fn release(&self, m: &Virtual) {
        let me = m.cpu() + 1;
        let node = &self.nodes[m.cpu() as usize];
        let mut next = node.next.load(NEXT);
        if next == 0 {
            if self.tail.cas(me, 0, TAIL).is_ok() {
                return;
            }
            next = m.until(&node.next, NEXT, |v| v != 0);
        }
        self.nodes[next as usize - 1].waits.store(0, PASS);
    }
}
