//! How a waiter stands with the queue, said by its node: whether it is the head, and whether it sleeps. One cell, so that
//! who goes to sleep and who makes it the head know of each other.

use crate::machine::{Access, Budget, Cell, Event, Machine};
use crate::queue::{Cpu, Node};

/// How a waiter stands: what its node's `grant` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Turn {
    /// It spins, and is not the first.
    Waiting = 0,
    /// It has spent its budget and sleeps.
    Asleep = 1,
    /// It sleeps since there is no hurry.
    AsleepEarly = 2,
    /// It is the head, and awake.
    Head = 3,
    /// It is the head, has spent its budget, and sleeps or is about to.
    HeadAsleep = 4,
    /// It was made the head while it slept early.
    HeadAsleepEarly = 5,
}

use Turn::{Asleep, AsleepEarly, Head, HeadAsleep, HeadAsleepEarly, Waiting};

const INIT: Access = Access::relaxed("turn.init", "sleepers.join publishes it");
const AWAIT: Access = Access::relaxed("turn.await", "who is made the head takes nothing from us: it claims the word");
const PEEK: Access = Access::relaxed("turn.peek", "a hint: whether to sleep early");
const DOZE_OFF: Access =
    Access::relaxed("turn.doze-off", "turn.promote is on the same cell: one of the two comes first");
const SLEEP: Access = Access::relaxed("turn.sleep", "turn.doze-off and turn.promote are on the same cell");
const PROMOTE: Access =
    Access::relaxed("turn.promote", "turn.doze-off is on the same cell: one of the two comes first");
const NOD: Access = Access::relaxed("turn.nod", "word.slow-down publishes it");
const WAKE: Access = Access::relaxed("turn.wake", "sleepers.newest has acquired what word.slow-down published");

const fn is_head(turn: u32) -> bool {
    turn >= Head as u32
}

impl<C: Cell> Node<C> {
    /// Before it joins: it will be the first, or not.
    pub(super) fn take_turn(&self, is_first: bool) {
        self.grant.store(if is_first { Head } else { Waiting } as u32, INIT);
    }

    /// Spins until it is the head. False when the budget is spent.
    pub(super) fn await_headship<M: Machine<Cell = C>>(&self, m: &M, budget: Budget) -> bool {
        m.until_for(&self.grant, AWAIT, budget, is_head).is_ok()
    }

    /// Whether who is behind this node, of CPU `cpu`, need not hurry: it sleeps, not early, or is a head without a CPU.
    pub(super) fn is_far<M: Machine<Cell = C>>(&self, m: &M, cpu: Cpu) -> bool {
        const ASLEEP: u32 = Asleep as u32;
        const HEAD_ASLEEP: u32 = HeadAsleep as u32;
        const HEAD: u32 = Head as u32;
        match self.grant.load(PEEK) {
            ASLEEP | HEAD_ASLEEP => true,
            HEAD => m.preempted(cpu),
            _ => false,
        }
    }

    /// Goes to sleep, but does not sleep yet. False if it is the head.
    pub(super) fn doze_off(&self, early: bool) -> Option<Turn> {
        let turn = if early { AsleepEarly } else { Asleep };
        self.grant.cas(Waiting as u32, turn as u32, DOZE_OFF).is_ok().then_some(turn)
    }

    /// The head goes to sleep, but does not sleep yet.
    pub(super) fn nod_off(&self) {
        self.grant.store(HeadAsleep as u32, NOD);
    }

    /// Whether the head is to sleep, and as what: it was made the head in its sleep.
    pub(super) fn is_head_asleep(&self) -> Option<Turn> {
        let turn = self.grant.load(AWAIT);
        [HeadAsleep, HeadAsleepEarly].into_iter().find(|&asleep| asleep as u32 == turn)
    }

    /// Sleeps until it stands otherwise. Who wakes for no reason sleeps on: there is nothing new to do.
    pub(super) fn sleep_through<M: Machine<Cell = C>>(&self, m: &M, turn: Turn) {
        loop {
            m.wait(&self.grant, turn as u32, SLEEP, None);
            if self.grant.load(AWAIT) != turn as u32 {
                return m.count(Event::KickWake);
            }
            m.count(Event::Spurious);
        }
    }

    /// Makes its owner the head, which sleeps on if it does: true.
    pub(super) fn promote(&self) -> bool {
        const WAITING: u32 = Waiting as u32;
        const ASLEEP_EARLY: u32 = AsleepEarly as u32;
        let promoted = |turn| match turn {
            WAITING => Some(Head as u32),
            ASLEEP_EARLY => Some(HeadAsleepEarly as u32),
            _ => Some(HeadAsleep as u32),
        };
        self.grant.update(PROMOTE, promoted).is_ok_and(|was| was != WAITING)
    }

    /// The head is to get going. Its kick follows.
    pub(super) fn rouse(&self) {
        self.grant.store(Head as u32, WAKE);
    }
}
