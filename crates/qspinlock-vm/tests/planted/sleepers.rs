//! A small lock whose waiters sleep, right as it stands, and the ways in which it can be wrong. Anybody lies down, the
//! owner takes out the oldest: here by walking to it each time.

use qspinlock::machine::{Access, Budget, Cell, Machine};
use qspinlock::queue::{Cpu, Tail};
use qspinlock::word::Value;
use qspinlock_vm::check::{CheckCell, CheckMachine, Plain, World};

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// None, and the unlock is a look and a store, so sleeps end by themselves.
    NoneHot,
    /// None, and one gives up while it lies.
    NoneGivesUp,
    ReleaseDoesNotLookAgain,
    UnlockDoesNotTell,
    TellsTheNewest,
    TellsTwice,
    ToldAfterRelease,
    LiesDownAtAFreeLock,
    LeavesTheLaneWithARequest,
    NapsDoNotEnd,
    KickBeforeTell,
    NoKick,
    StrangerTakesOut,
    HandsOverAndReleases,
    HandsOverToAnybody,
    WakesTheStarving,
    AbandonedIsWoken,
    GrantIsTakenInPassing,
    RequestIsNotGranted,
}

const LOCKED: u32 = 1;
const GRANTED: u32 = 2;
const LANE: u32 = 1 << 8;
const ASKED: u32 = 1 << 9;
const TAIL: u32 = !0 << 10;

const WAITING: u32 = 1;
const STARVING: u32 = 2;
const WOKEN: u32 = 3;
const OWNER: u32 = 4;
const ABANDONED: u32 = 5;

// The checker knows the steps by these names.
const BARGE: Access = Access::acquire("word.barge", "word.release");
const CLAIM: Access = Access::acquire("word.claim", "word.release");
const LANE_IN: Access = Access::acquire("word.enter-lane", "word.release");
const LANE_OUT: Access = Access::acquire("word.leave-lane", "word.release");
const SEEN: Access = Access::relaxed("word.seen", "a swap follows");
const WATCH: Access = Access::relaxed("word.watch", "the claim acquires");
const PUSH: Access = Access::acq_rel("sleepers.push", "sleepers.newest");
const NEWEST: Access = Access::acquire("sleepers.newest", "sleepers.push");
const EMPTIED: Access = Access::relaxed("sleepers.emptied", "the owner's");
const LOOK: Access = Access::relaxed("word.look-back", "naps end");
const HOT: Access = Access::release("word.release-hot", "every claim");
const EXACT: Access = Access::release("word.release-exact", "every claim");
const COLD: Access = Access::release("word.release-cold", "every claim");
const PREPARE: Access = Access::relaxed("node.prepare", "sleepers.push publishes it");
const PREV: Access = Access::relaxed("node.prev", "sleepers.push publishes it");
const TELL: Access = Access::acq_rel("node.tell", "node.told");
const ABANDON: Access = Access::acq_rel("node.abandon", "node.tell");
const TOLD: Access = Access::acquire("node.told", "node.tell");

pub(crate) struct Shared {
    pub(crate) word: CheckCell,
    pub(crate) data: Plain,
    state: Vec<CheckCell>,
    prev: Vec<CheckCell>,
}

fn bits(cpu: usize) -> u32 {
    Tail::new(Cpu::new(cpu as u32).expect("few CPUs"), 0).code() << 10
}

fn newest(word: u32) -> Option<usize> {
    Value::from_bits(word).tail().map(|tail| tail.cpu().index())
}

fn kick(m: &CheckMachine<'_>, cpu: usize) {
    m.kick(Cpu::new(cpu as u32).expect("few CPUs"));
}

fn claimed(word: u32) -> Option<u32> {
    (word & 0xff != LOCKED).then_some(word & !0xff | LOCKED)
}

impl Shared {
    pub(crate) fn new(world: &World, cpus: usize) -> Self {
        let cells = |what: &str| (0..cpus).map(|cpu| world.cell(format!("node{cpu}.{what}"))).collect();
        Self { word: world.cell("word"), data: world.plain("data"), state: cells("grant"), prev: cells("prev") }
    }

    /// Acquires. `gives_up`: does not care for the lock any more once it lies. True if it has the lock.
    pub(crate) fn acquire(&self, m: &CheckMachine<'_>, bug: Bug, gives_up: bool) -> bool {
        let passing = |v: u32| match bug {
            Bug::GrantIsTakenInPassing => claimed(v),
            _ => (v & 0xff == 0).then_some(v | LOCKED),
        };
        if self.word.update(BARGE, passing).is_ok() || self.lane(m, bug) {
            return true;
        }
        let mut state = WAITING;
        loop {
            if !self.lie_down(m.cpu(), state, bug) {
                return true;
            }
            if bug == Bug::StrangerTakesOut {
                self.tell_first(m, self.word.load(NEWEST), bug);
            }
            if gives_up && self.state[m.cpu()].cas(state, ABANDONED, ABANDON).is_ok() {
                return false;
            }
            match self.sleep(m, state, bug) {
                OWNER => return true,
                _ => state = STARVING,
            }
            if self.word.update(CLAIM, claimed).is_ok() {
                return true;
            }
        }
    }

    /// One waits awake for a while, and asks to be granted the lock. Only where that is what may go wrong.
    fn lane(&self, m: &CheckMachine<'_>, bug: Bug) -> bool {
        if !matches!(bug, Bug::LeavesTheLaneWithARequest | Bug::GrantIsTakenInPassing | Bug::RequestIsNotGranted) {
            return false;
        }
        let enter = |v| claimed(v).or((v & LANE == 0).then_some(v | LANE | ASKED));
        match self.word.update(LANE_IN, enter) {
            Ok(old) if old & 0xff != LOCKED => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
        let is_free = |v: u32| v & 0xff != LOCKED;
        let _ = m.until_for(&self.word, WATCH, Budget::Looks { most: 1, apart: 1 }, is_free);
        let keeps = if bug == Bug::LeavesTheLaneWithARequest { ASKED } else { 0 };
        let leave = |v| Some(claimed(v).map_or(v & !(LANE | ASKED) | v & keeps, |v| v & !(LANE | ASKED)));
        let old = self.word.update(LANE_OUT, leave).expect("it always writes");
        old & 0xff != LOCKED
    }

    /// False if it took the lock instead.
    fn lie_down(&self, me: usize, state: u32, bug: Bug) -> bool {
        loop {
            let seen = self.word.load(SEEN);
            if seen & 0xff != LOCKED && bug != Bug::LiesDownAtAFreeLock {
                if self.word.update(CLAIM, claimed).is_ok() {
                    return false;
                }
                continue;
            }
            self.state[me].store(state, PREPARE);
            self.prev[me].store(newest(seen).map_or(0, |cpu| cpu as u32 + 1), PREV);
            if self.word.cas(seen, seen & !TAIL | bits(me), PUSH).is_ok() {
                return true;
            }
        }
    }

    /// Sleeps until told, and what.
    fn sleep(&self, m: &CheckMachine<'_>, state: u32, bug: Bug) -> u32 {
        let mine = &self.state[m.cpu()];
        loop {
            // The unlock of this one may not have seen it; so its sleep must end by itself.
            m.wait(mine, state, SEEN, (bug == Bug::NoneHot).then_some(0));
            let told = mine.load(TOLD);
            if told != state {
                return told;
            }
            if bug == Bug::NoneHot && self.word.update(CLAIM, claimed).is_ok() {
                // It has the lock, and hands it to nobody.
                while mine.load(TOLD) == state {
                    let (first, ..) =
                        self.tell_first(m, self.word.load(NEWEST), Bug::WakesTheStarving).expect("it lies");
                    kick(m, first);
                }
                return OWNER;
            }
        }
    }

    /// Takes out the oldest, and tells it. What it was, and the word's tail after that.
    fn tell_first(&self, m: &CheckMachine<'_>, word: u32, bug: Bug) -> Option<(usize, u32, u32)> {
        let last = newest(word)?;
        let (mut first, mut behind) = (last, None);
        if bug != Bug::TellsTheNewest {
            while let Some(prev) = self.prev[first].load(PREV).checked_sub(1) {
                (behind, first) = (Some(first), prev as usize);
            }
        }
        match behind {
            Some(behind) => self.prev[behind].store(0, PREV),
            None if self.word.update(EMPTIED, |v| (newest(v) == Some(last)).then_some(v & !TAIL)).is_err() => {
                return self.tell_first(m, self.word.load(NEWEST), bug);
            }
            None => {}
        }
        let rest = if behind.is_none() { 0 } else { bits(last) };
        if bug == Bug::KickBeforeTell {
            kick(m, first);
        }
        if bug == Bug::ToldAfterRelease {
            return Some((first, WAITING, rest));
        }
        let was = self.tell(first, bug);
        if bug == Bug::TellsTwice {
            self.tell(first, bug);
        }
        Some((first, was, rest))
    }

    fn tell(&self, first: usize, bug: Bug) -> u32 {
        let told = |state| match state {
            STARVING if bug != Bug::WakesTheStarving => Some(OWNER),
            WAITING if bug == Bug::HandsOverToAnybody => Some(OWNER),
            ABANDONED if bug != Bug::AbandonedIsWoken => Some(0),
            _ => Some(WOKEN),
        };
        self.state[first].update(TELL, told).expect("it always writes")
    }

    pub(crate) fn release(&self, m: &CheckMachine<'_>, bug: Bug) {
        let awaited = |v: u32| v & (TAIL | ASKED);
        if matches!(bug, Bug::NoneHot | Bug::NapsDoNotEnd) {
            if awaited(self.word.load(LOOK)) == 0 {
                return self.word.store_low8(0, HOT);
            }
        } else if self.word.update(EXACT, |v| (awaited(v) == 0).then_some(v & !0xff)).is_ok() {
            return;
        }
        let mut woken = None;
        loop {
            let taken = match bug {
                Bug::UnlockDoesNotTell => None,
                _ => self.tell_first(m, self.word.load(NEWEST), bug),
            };
            if let Some((first, was, _)) = taken {
                if was == ABANDONED && bug != Bug::AbandonedIsWoken {
                    continue;
                }
                if let Some(earlier) = woken.replace(first) {
                    kick(m, earlier);
                }
                let is_theirs =
                    was == STARVING && bug != Bug::WakesTheStarving || was == WAITING && bug == Bug::HandsOverToAnybody;
                if is_theirs && bug != Bug::HandsOverAndReleases {
                    return kick(m, first);
                }
            }
            let rest = taken.map_or(0, |(_, _, rest)| rest);
            let as_it_was =
                |v: u32| v & TAIL == rest || matches!(bug, Bug::ReleaseDoesNotLookAgain | Bug::UnlockDoesNotTell);
            let free = |v: u32| match v & ASKED {
                0 => v & !0xff,
                _ if bug == Bug::RequestIsNotGranted => v & !0xff,
                _ => v & !(0xff | ASKED) | GRANTED,
            };
            if self.word.update(COLD, |v| as_it_was(v).then(|| free(v))).is_ok() {
                break;
            }
        }
        if let Some(woken) = woken {
            if bug == Bug::ToldAfterRelease {
                self.tell(woken, bug);
            }
            if !matches!(bug, Bug::NoKick | Bug::KickBeforeTell) {
                kick(m, woken);
            }
        }
    }
}
