//! How a sleeper stands with the lock, and who tells it so. It lies in a [`lineup`](crate::slowpath::lineup).

use crate::machine::{Access, Cell, Machine};
use crate::queue::{Node, Tail};
use crate::slowpath::place;

const PREPARE: Access = Access::relaxed("node.prepare", "sleepers.push publishes it");
const TELL: Access = Access::release(
    "node.tell",
    "node.told: the node is its owner's again, and if it is handed the lock, so is what the lock protects",
);
const TOLD: Access = Access::acquire("node.told", "node.tell");
const ABANDON: Access =
    Access::relaxed("node.abandon", "nothing is passed on: the node is its owner's again when idle");
const BURY: Access = Access::release("node.bury", "node.reserve: the node's next owner comes after us");
const SLEEP: Access = Access::relaxed("node.sleep", "node.told follows");

/// How a sleeper stands with the lock: what its node's `grant` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum State {
    /// Not in use.
    Idle = 0,
    /// Asleep, or about to be.
    Waiting = 1,
    /// The same; and it has been woken in vain often enough, so that the lock is to be handed to it.
    Starving = 2,
    /// Taken out of the queue, to try its luck.
    Woken = 3,
    /// Taken out of the queue, and owner of the lock.
    Owner = 4,
    /// In the queue, but nobody waits there any more.
    Abandoned = 5,
    /// In no queue: waits for a condition.
    Listed = 6,
}

const _: () = assert!(State::Idle as u32 == place::IDLE && State::Woken as u32 == place::TAKEN);

impl State {
    fn of(grant: u32) -> Self {
        match grant {
            0 => Self::Idle,
            1 => Self::Waiting,
            2 => Self::Starving,
            3 => Self::Woken,
            4 => Self::Owner,
            5 => Self::Abandoned,
            6 => Self::Listed,
            _ => unreachable!("a node of a sleeper is in one of seven states"),
        }
    }
}

impl<C: Cell> Node<C> {
    /// Makes the node ready to be published, behind `prev`.
    pub(super) fn prepare(&self, me: Tail, prev: Option<Tail>, state: State) {
        self.grant.store(state as u32, PREPARE);
        self.follow(me, prev);
    }

    /// Not published after all.
    pub(super) fn stay_up(&self) {
        self.grant.store(State::Woken as u32, PREPARE);
    }

    /// Sleeps while the state is `state`, until told otherwise or until `until`. May wake for no reason.
    pub(super) fn sleep<M: Machine<Cell = C>>(&self, m: &M, state: State, until: Option<u64>) -> State {
        m.wait(&self.grant, state as u32, SLEEP, until);
        State::of(self.grant.load(TOLD))
    }

    /// Leaves the node in the queue, to whose turn it is to make it idle; or else what its owner has been told.
    pub(super) fn abandon(&self, state: State) -> State {
        match self.grant.cas(state as u32, State::Abandoned as u32, ABANDON) {
            Ok(_) => State::Abandoned,
            Err(_) => self.told(),
        }
    }

    /// The queue goes, and takes abandoned nodes with it.
    pub(super) fn bury(&self) {
        let _ = self.grant.cas(State::Abandoned as u32, State::Idle as u32, BURY);
    }

    /// What the node's owner has been told.
    pub(super) fn told(&self) -> State {
        State::of(self.grant.load(TOLD))
    }

    /// Tells the sleeper, which is out of the queue, what it is now: `waiting` if it waits, `starving` if it starves. What
    /// it was.
    pub(super) fn tell(&self, waiting: State, starving: State) -> State {
        let told = |state| match State::of(state) {
            State::Waiting => Some(waiting as u32),
            State::Starving => Some(starving as u32),
            State::Abandoned => Some(State::Idle as u32),
            _ => unreachable!("who is in the queue waits"),
        };
        State::of(self.grant.update(TELL, told).expect("a state follows"))
    }
}
