//! The queue's parts: who waits ([`Tail`]), where it waits ([`Node`]), and on which nesting level.
//!
//! A node is named by a number, the CPU and nesting level that owns it, and is found in a table that lives as long
//! as the machine. Links carry numbers, not pointers: the queue needs no `unsafe`, and whoever follows a stale link
//! finds a node, never freed memory.

use core::num::NonZeroU32;

use crate::machine::{Access, Cell, ConstCell, Event, Machine};

/// Contexts that can nest on one CPU and each have a node: task, soft interrupt, interrupt, NMI. In user space:
/// a thread and three signal handlers, one within the other.
pub const LEVELS: usize = 4;

/// Nodes of a CPU: one for each level, and three for waits that may end before their turn. Such a node stays in the
/// queue until its turn comes, when its owner has long gone on, so it cannot be the node of a level.
pub const NODES: usize = LEVELS + 3;

/// The number of a CPU, or of a thread's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cpu(u32);

impl Cpu {
    /// CPUs that the lock word has room for: 524,288.
    pub const MAX: u32 = 1 << 19;

    /// CPU `index`, or `None` if the lock word has no room for it.
    #[must_use]
    pub const fn new(index: u32) -> Option<Self> {
        if index < Self::MAX { Some(Self(index)) } else { None }
    }

    /// CPU `index`, which is the index of one.
    pub(crate) const fn known(index: u32) -> Self {
        debug_assert!(index < Self::MAX);
        Self(index)
    }

    /// The number, from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The name of a node: its CPU in 19 bits, and its level + 1 in the 3 bits below. Never 0, so that 0 can say "nobody".
///
/// Level + 1, and not CPU + 1 as one might expect: so the lowest bits, which the lock word keeps in one byte with the
/// other signs of a waiter, are never 0 for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tail(NonZeroU32);

impl Tail {
    /// Bits that a code takes.
    pub const BITS: u32 = 22;

    /// The node of `cpu` at `level`, or beyond the levels one of those for waits that may end.
    ///
    /// # Panics
    /// If `level` is not below [`NODES`].
    #[must_use]
    pub const fn new(cpu: Cpu, level: usize) -> Self {
        assert!(level < NODES);
        match NonZeroU32::new((cpu.0 << 3) | (level as u32 + 1)) {
            Some(code) => Self(code),
            None => unreachable!(),
        }
    }

    /// From what a lock word or a link holds. `None` for 0, and for a code that no node has.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        match NonZeroU32::new(code) {
            Some(n) if code & 7 != 0 && code >> Self::BITS == 0 => Some(Self(n)),
            _ => None,
        }
    }

    /// What a lock word or a link holds.
    #[must_use]
    pub const fn code(self) -> u32 {
        self.0.get()
    }

    /// The CPU that owns the node.
    #[must_use]
    pub const fn cpu(self) -> Cpu {
        Cpu(self.code() >> 3)
    }

    /// The nesting level of the node.
    #[must_use]
    pub const fn level(self) -> usize {
        (self.code() & 7) as usize - 1
    }
}

// Where nobody sleeps, no access to a node has an order of its own: the lock word has it all. Whoever follows us has exchanged the tail
// after us (acquire), so finds our node initialised; and we reach for our successor only after we have claimed the word
// (acquire), in whose chain of read-modify-writes its exchange (release) comes before. A flavour that hands over more
// than the baton must order that itself.
const INIT_NEXT: Access = Access::relaxed("node.init-next", "tail.exchange publishes it");
const INIT_GRANT: Access = Access::relaxed("node.init-grant", "tail.exchange publishes it");
const LINK: Access = Access::relaxed("node.link", "tail.exchange published our node, and showed us the predecessor's");
const NEXT: Access = Access::relaxed("node.next", "the claim has acquired the successor's tail.exchange");
const GRANT: Access = Access::relaxed("node.grant", "whoever is granted takes nothing from us: it claims the word");
const GRANTED: Access = Access::relaxed("node.granted", "the claim that follows acquires");

/// Where one context waits. Only its owner initialises it, only its predecessor grants it, only its successor
/// links to it. (Where waiters sleep, it is the owner of the lock that links and grants.)
#[derive(Debug)]
pub struct Node<C> {
    /// The code of the successor, 0 while nobody has linked.
    pub(crate) next: C,
    /// 0 while waiting; set by the predecessor. Flavours may grant more than a 1.
    pub(crate) grant: C,
    /// The code of the predecessor. Only where waiters sleep, see [`sleepers`](crate::slowpath::parking); `numa` has its
    /// domain here.
    pub(crate) prev: C,
    /// The code of the first in the queue, or 0 if this node does not know. Only where waiters sleep; `numa` has a time here.
    pub(crate) first: C,
}

impl<C: Cell> Node<C> {
    /// A node from two cells that hold 0, for machines that make their own cells.
    pub const fn from_cells(next: C, grant: C, prev: C, first: C) -> Self {
        Self { next, grant, prev, first }
    }

    /// Forgets the last use. Before the tail is exchanged: from then on others write here.
    pub(crate) fn init(&self) {
        self.next.store(0, INIT_NEXT);
        self.grant.store(0, INIT_GRANT);
    }

    /// Tells the owner of this node who its successor is.
    pub(crate) fn link(&self, successor: Tail) {
        self.next.store(successor.code(), LINK);
    }

    /// Waits for a successor to link. Call only when there is one: the tail names another node.
    pub(crate) fn successor<M: Machine<Cell = C>>(&self, m: &M) -> Tail {
        Tail::from_code(self.link_to_come(m)).expect("a link names a node")
    }

    /// What the successor's link says. Flavours may say more than its name.
    pub(crate) fn link_to_come<M: Machine<Cell = C>>(&self, m: &M) -> u32 {
        m.until(&self.next, NEXT, |next| next != 0)
    }

    /// Makes the owner of this node the head of the queue.
    pub(crate) fn grant(&self, value: u32) {
        debug_assert_ne!(value, 0);
        self.grant.store(value, GRANT);
    }

    /// Waits to be made the head.
    pub(crate) fn granted<M: Machine<Cell = C>>(&self, m: &M) -> u32 {
        m.until(&self.grant, GRANTED, |grant| grant != 0)
    }
}

/// What a machine keeps for a CPU: its nodes, and how many are in use.
///
/// Aligned so that no two CPUs share a line, nor the pair of lines that a prefetcher fetches together. The nodes of
/// one CPU do share lines: nesting is rare, and then the CPU waits for one of them at a time.
#[derive(Debug)]
#[repr(align(128))]
pub struct Slot<C> {
    /// Levels in use. Only the owning CPU and what interrupts it touch it, so plain loads and stores do.
    pub(crate) depth: C,
    /// The machine's own, to sleep on. The algorithms do not touch it.
    token: C,
    nodes: [Node<C>; NODES],
}

impl<C: Cell> Slot<C> {
    /// A slot from cells that hold 0, for machines that make their own cells.
    pub const fn from_cells(depth: C, token: C, nodes: [Node<C>; NODES]) -> Self {
        Self { depth, token, nodes }
    }

    /// A cell of the machine's own, to sleep on: the algorithms do not touch it.
    #[must_use]
    pub const fn token(&self) -> &C {
        &self.token
    }

    /// The node at a level.
    #[must_use]
    pub fn node(&self, level: usize) -> &Node<C> {
        &self.nodes[level]
    }
}

impl<C: ConstCell> Slot<C> {
    /// An unused slot.
    #[must_use]
    pub const fn new() -> Self {
        let nodes = [const { Node { next: C::ZERO, grant: C::ZERO, prev: C::ZERO, first: C::ZERO } }; NODES];
        Self { depth: C::ZERO, token: C::ZERO, nodes }
    }
}

impl<C: ConstCell> Default for Slot<C> {
    fn default() -> Self {
        Self::new()
    }
}

/// The node that a number names.
pub(crate) fn node<M: Machine>(m: &M, tail: Tail) -> &Node<M::Cell> {
    m.slot(tail.cpu()).node(tail.level())
}

const DEPTH: Access = Access::relaxed("level.depth", "the owner's own; interrupts on its CPU restore it");

/// A nesting level in use: the right to one node. Given back when dropped, on every way out of an acquire.
pub(crate) struct Level<'m, M: Machine> {
    machine: &'m M,
    me: Tail,
}

impl<'m, M: Machine> Level<'m, M> {
    /// Takes the next level of the caller's CPU. `None`, counted, if it has no CPU or no level is left.
    pub(crate) fn take(machine: &'m M) -> Option<Self> {
        let level = machine.here().and_then(|cpu| {
            let slot = machine.slot(cpu);
            let depth = slot.depth.load(DEPTH);
            if depth as usize >= LEVELS {
                return None;
            }
            slot.depth.store(depth + 1, DEPTH);
            // An interrupt that arrives from here on must find the level taken before it finds the node half
            // initialised; it is the compiler that could swap the two.
            machine.signal_fence();
            Some(Self { machine, me: Tail::new(cpu, depth as usize) })
        });
        if level.is_none() {
            machine.count(Event::NoNode);
        }
        level
    }

    /// The name of the node.
    pub(crate) fn me(&self) -> Tail {
        self.me
    }

    /// The node.
    pub(crate) fn node(&self) -> &'m Node<M::Cell> {
        node(self.machine, self.me)
    }
}

impl<M: Machine> Drop for Level<'_, M> {
    fn drop(&mut self) {
        let depth = &self.machine.slot(self.me.cpu()).depth;
        self.machine.signal_fence();
        depth.store(self.me.level() as u32, DEPTH);
    }
}
