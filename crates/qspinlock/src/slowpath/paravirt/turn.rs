//! How a waiter stands with the queue, said by its node: whether it is the head, and whether it sleeps. One cell, so that
//! who goes to sleep and who makes it the head know of each other.

use crate::machine::{Access, Budget, Cell, Event, Machine};
use crate::queue::{Cpu, Node};
use crate::slowpath::place::{IDLE, TAKEN};

/// How a waiter stands: what its node's `grant` holds. (0 is no turn: a node that nobody uses.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Turn {
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
    /// It spins, and is not the first.
    Waiting = 6,
    /// It has given up. The node is whose who takes it out of the queue.
    Gone = 7,
}

use Turn::{Asleep, AsleepEarly, Gone, Head, HeadAsleep, HeadAsleepEarly, Waiting};

// A node that was taken for a wait that may end says so whenever it is out of the queue, and never looks unused in it.
const _: () = assert!(Head as u32 == TAKEN && IDLE == 0);

const INIT: Access = Access::relaxed("turn.init", "sleepers.join publishes it");
const AWAIT: Access = Access::relaxed("turn.await", "turn.head follows, or the claim, which acquires");
const HEAD: Access =
    Access::acquire("turn.head", "turn.promote, turn.wake: the line-up, as whoever led the queue before has left it");
const PEEK: Access = Access::relaxed("turn.peek", "a hint: whether to sleep early");
const DOZE_OFF: Access =
    Access::relaxed("turn.doze-off", "turn.promote is on the same cell: one of the two comes first");
const SLEEP: Access = Access::relaxed("turn.sleep", "turn.doze-off and turn.promote are on the same cell");
const PROMOTE: Access = Access::release("turn.promote", "turn.head: the line-up, as we leave it");
const NOD: Access = Access::relaxed("turn.nod", "word.slow-down publishes it");
const WAKE: Access = Access::release("turn.wake", "turn.head: the line-up, as we leave it");
const GIVE_UP: Access =
    Access::relaxed("turn.give-up", "turn.promote and turn.wake are on the same cell: one of the two comes first");
const GET_UP: Access = Access::relaxed("turn.get-up", "our own: nobody else will write it");

const fn is_head(turn: u32) -> bool {
    Head as u32 <= turn && turn <= HeadAsleepEarly as u32
}

/// What became of a waiter that was to be made the head, or told that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is awake.
    Awake,
    /// It slept, and its CPU still does.
    Sleeping,
    /// It has given up. Its node is the caller's now.
    Gone,
}

/// How a waiter that gives up leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    /// It has left, and its node stays where it is.
    Node,
    /// It is the head, and awake.
    AsHead,
    /// It is the head, and sleeps: whoever unlocks may be about to wake it.
    AsSleepingHead,
}

impl Found {
    const fn of(was: u32) -> Self {
        const HEAD: u32 = Head as u32;
        const WAITING: u32 = Waiting as u32;
        const GONE: u32 = Gone as u32;
        match was {
            HEAD | WAITING => Self::Awake,
            GONE => Self::Gone,
            _ => Self::Sleeping,
        }
    }
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

    /// Whether the head is to sleep, and as what: it was made the head in its sleep. If not, the line-up is its own.
    pub(super) fn is_head_asleep(&self) -> Option<Turn> {
        let turn = self.grant.load(HEAD);
        [HeadAsleep, HeadAsleepEarly].into_iter().find(|&asleep| asleep as u32 == turn)
    }

    /// Sleeps until it stands otherwise: true; or for no reason, or until `until`.
    pub(super) fn sleep_as<M: Machine<Cell = C>>(&self, m: &M, turn: Turn, until: Option<u64>) -> bool {
        m.wait(&self.grant, turn as u32, SLEEP, until);
        // The head has the line-up from who woke it, though it may go to sleep once more before that one unlocks.
        let is_over = self.grant.load(HEAD) != turn as u32;
        m.count(if is_over { Event::KickWake } else { Event::Spurious });
        is_over
    }

    /// Makes its owner the head, which sleeps on if it does.
    pub(super) fn promote(&self) -> Found {
        const WAITING: u32 = Waiting as u32;
        const ASLEEP: u32 = Asleep as u32;
        const ASLEEP_EARLY: u32 = AsleepEarly as u32;
        let promoted = |turn| match turn {
            ASLEEP => Some(HeadAsleep as u32),
            ASLEEP_EARLY => Some(HeadAsleepEarly as u32),
            _ => Some(Head as u32),
        };
        Found::of(self.grant.update(PROMOTE, promoted).unwrap_or(WAITING))
    }

    /// Its owner is the head, and is to get going. If it sleeps, a kick follows.
    pub(super) fn wake(&self) -> Found {
        Found::of(self.grant.update(WAKE, |_| Some(Head as u32)).unwrap_or(Head as u32))
    }

    /// Its owner gives up, and leaves the node where it is; unless it is the head, who has more to leave.
    pub(super) fn give_up(&self) -> Leaves {
        match self.grant.update(GIVE_UP, |turn| (!is_head(turn)).then_some(Gone as u32)) {
            Ok(_) => Leaves::Node,
            Err(_) if self.is_head_asleep().is_none() => Leaves::AsHead,
            Err(_) => Leaves::AsSleepingHead,
        }
    }

    /// The same of a head that sleeps. False if it has been woken.
    pub(super) fn give_up_asleep(&self) -> bool {
        self.grant.update(GIVE_UP, |turn| (turn != Head as u32).then_some(Gone as u32)).is_ok()
            // This look acquires.
            || self.is_head_asleep().is_some()
    }

    /// The head is awake, and nobody has woken it, nor will.
    pub(super) fn get_up(&self) {
        self.grant.store(Head as u32, GET_UP);
    }
}
