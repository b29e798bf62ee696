//! The queue of sleepers: anybody may join it, only the owner of the lock takes somebody out. So the lock itself
//! protects it, and a node has one writer at any moment.
//!
//! The lock word names the newest. A node names its predecessor in `prev`, written before it is published. Who takes
//! out the first walks there from the newest, once: it leaves a link in the other direction (`next`) in each node it
//! passes, and the name of the first in the node where it began (`first`); the next walk ends there.
//!
//! ```text
//!   word --> newest --prev--> · --prev--> · --prev--> oldest
//!              |                 <--next--  <--next--    ^
//!              +---------------- first ------------------+
//! ```

use crate::machine::{Access, Cell, Machine};
use crate::queue::{Node, Tail, node};
use crate::word::LockWord;

// What the owner of the lock writes into nodes, the next one to do so reads: release and claim of the lock order it.
const SET_PREV: Access = Access::relaxed("node.set-prev", "sleepers.push publishes it");
const SET_FIRST: Access = Access::relaxed("node.set-first", "sleepers.push publishes it, or it is the lock owner's");
const SET_NEXT: Access = Access::relaxed("node.set-next", "the lock owner's");
const GET_PREV: Access = Access::relaxed("node.get-prev", "sleepers.newest has acquired it");
const GET_FIRST: Access = Access::relaxed("node.get-first", "sleepers.newest has acquired it");
const GET_NEXT: Access = Access::relaxed("node.get-next", "the lock owner's");
const PREPARE: Access = Access::relaxed("node.prepare", "sleepers.push publishes it");
const TELL: Access = Access::release(
    "node.tell",
    "node.told: the node is its owner's again, and if it is handed the lock, so is what the lock protects",
);
const TOLD: Access = Access::acquire("node.told", "node.tell");
const RESERVE: Access = Access::acquire("node.reserve", "node.tell: who took the abandoned node out has read it");
const ABANDON: Access =
    Access::relaxed("node.abandon", "nothing is passed on: the node is its owner's again when idle");
const GIVE_BACK: Access = Access::relaxed("node.give-back", "it passes from a thread to itself");
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

    /// Makes a prepared node, `me`, ready to be published behind `prev`.
    pub(super) fn follow(&self, me: Tail, prev: Option<Tail>) {
        self.prev.store(prev.map_or(0, Tail::code), SET_PREV);
        self.first.store(if prev.is_none() { me.code() } else { 0 }, SET_FIRST);
    }

    /// Sleeps while the state is `state`, until told otherwise or until `until`. May wake for no reason.
    pub(super) fn sleep<M: Machine<Cell = C>>(&self, m: &M, state: State, until: Option<u64>) -> State {
        m.wait(&self.grant, state as u32, SLEEP, until);
        State::of(self.grant.load(TOLD))
    }

    /// Takes the node for a wait that may end before its turn. False if it is in use, or still lies in some queue.
    pub(super) fn reserve(&self) -> bool {
        self.grant.cas(State::Idle as u32, State::Woken as u32, RESERVE).is_ok()
    }

    /// Gives back a reserved node that lies in no queue.
    pub(super) fn give_back(&self) {
        self.grant.store(State::Idle as u32, GIVE_BACK);
    }

    /// Leaves the node in the queue, to whose turn it is to make it idle; or else what its owner has been told.
    pub(super) fn abandon(&self, state: State) -> State {
        match self.grant.cas(state as u32, State::Abandoned as u32, ABANDON) {
            Ok(_) => State::Abandoned,
            Err(_) => self.told(),
        }
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

/// The oldest sleeper. The caller owns the lock.
pub(super) fn first<M: Machine>(m: &M, word: &LockWord<M::Cell>) -> Option<Tail> {
    Some(find_first(m, word.newest()?))
}

/// Takes the oldest sleeper out of the queue. The caller owns the lock. Returns it, and the newest of those left.
pub(super) fn take_first<M: Machine>(m: &M, word: &LockWord<M::Cell>) -> Option<(Tail, Option<Tail>)> {
    loop {
        let newest = word.newest()?;
        let first = find_first(m, newest);
        if first != newest {
            let next = node(m, first).next.load(GET_NEXT);
            node(m, newest).first.store(next, SET_FIRST);
            return Some((first, Some(newest)));
        }
        if word.all_up(first) {
            return Some((first, None));
        }
    }
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
        at = prev;
    }
}
