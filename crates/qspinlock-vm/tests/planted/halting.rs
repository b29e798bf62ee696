//! A small lock for virtual CPUs that halt, right as it stands, and the ways in which it can be wrong. The unlock finds the
//! head by walking to it from the newest, each time.

use qspinlock::machine::{Access, Cell, Machine};
use qspinlock::queue::{Cpu, Tail};
use qspinlock::word::Value;
use qspinlock_vm::check::{CheckCell, CheckMachine, Plain, World, free};

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// None, and the last one frees the lock.
    NoneFrees,
    MarkedAfterRelease,
    NotMarked,
    KickBeforeRelease,
    KickBeforeWake,
    NoKick,
    KickAtPromotion,
    KicksTheNewest,
    AnnouncesAfterLooking,
    PromotesByStore,
    UnlocksByStore,
    WakesAsWaiting,
    WakesNobody,
    TouchesAfterWake,
    WakesAfterRelease,
    SleepsThoughTold,
    RisesInSecret,
    HeadSleepsAtAFreeLock,
    NeverStarves,
}

const LOCKED: u32 = 1;
const SLOW: u32 = 4;
const AWAKE: u32 = 1 << 8;
const TAIL: u32 = !0 << 10;

const WAITING: u32 = 6;
const ASLEEP: u32 = 1;
const HEAD: u32 = 3;
const HEAD_ASLEEP: u32 = 4;

// The checker knows the steps by these names.
const STEAL: Access = Access::acquire("word.steal", "word.release");
const PEEK: Access = Access::relaxed("word.peek", "a swap follows");
const JOIN: Access = Access::acq_rel("sleepers.join", "sleepers.newest");
const NEWEST: Access = Access::acquire("sleepers.newest", "sleepers.join");
const RISE: Access = Access::acquire("word.rise", "word.release");
const SLOW_DOWN: Access = Access::acq_rel("word.slow-down", "word.release");
const MARK: Access = Access::relaxed("word.mark-slow", "the owner's");
const RELEASE: Access = Access::release("word.release", "every claim");
const RELEASE_SLOW: Access = Access::release("word.release-slow", "every claim");
const PREV: Access = Access::relaxed("node.prev", "sleepers.join publishes it");
const INIT: Access = Access::relaxed("turn.init", "sleepers.join publishes it");
const DOZE: Access = Access::relaxed("turn.doze-off", "turn.promote is on the same cell");
const PROMOTE: Access = Access::relaxed("turn.promote", "turn.doze-off is on the same cell");
const NOD: Access = Access::relaxed("turn.nod", "word.slow-down publishes it");
const WAKE: Access = Access::relaxed("turn.wake", "sleepers.newest");
const LOOK: Access = Access::relaxed("turn.look", "the claim acquires");
const WATCH: Access = Access::relaxed("word.watch", "a claim follows");
const COUNT: Access = Access::relaxed("sections.count", "the lock orders it");

pub(crate) struct Shared {
    pub(crate) word: CheckCell,
    pub(crate) data: Plain,
    grant: Vec<CheckCell>,
    prev: Vec<CheckCell>,
    sections: CheckCell,
}

fn bits(cpu: usize) -> u32 {
    Tail::new(Cpu::new(cpu as u32).expect("few CPUs"), 0).code() << 10
}

fn newest(word: u32) -> Option<usize> {
    Value::from_bits(word).tail().map(|tail| tail.cpu().index())
}

fn is_about_to_be_free(word: u32) -> bool {
    (LOCKED + 1..SLOW).contains(&(word & 0xff))
}

fn kick(m: &CheckMachine<'_>, cpu: usize) {
    m.kick(Cpu::new(cpu as u32).expect("few CPUs"));
}

impl Shared {
    pub(crate) fn new(world: &World, cpus: usize) -> Self {
        let cells = |what: &str| (0..cpus).map(|cpu| world.cell(format!("node{cpu}.{what}"))).collect();
        let (word, data, sections) = (world.cell("word"), world.plain("data"), world.cell("sections"));
        Self { word, data, grant: cells("grant"), prev: cells("prev"), sections }
    }

    /// One section, of `all` that there will be.
    pub(crate) fn section(&self, m: &CheckMachine<'_>, bug: Bug, all: usize) {
        self.acquire(m, bug);
        self.data.touch();
        let frees = matches!(bug, Bug::NoneFrees | Bug::TouchesAfterWake);
        let sections = if frees { self.sections.load(COUNT) + 1 } else { 0 };
        if frees {
            self.sections.store(sections, COUNT);
        }
        self.release(m, bug);
        if sections as usize == all {
            free(self.word.id());
        }
    }

    fn acquire(&self, m: &CheckMachine<'_>, bug: Bug) {
        let free = |v: u32| (v & (0xff | AWAKE) == 0).then_some(v | LOCKED);
        if self.word.update(STEAL, free).is_ok() {
            return;
        }
        let me = m.cpu();
        let is_head = loop {
            let last = newest(self.word.load(PEEK));
            self.grant[me].store(if last.is_none() { HEAD } else { WAITING }, INIT);
            self.prev[me].store(last.map_or(0, |last| last as u32 + 1), PREV);
            let join = |v| (newest(v) == last).then_some(v & !TAIL | bits(me));
            if self.word.update(JOIN, join).is_ok() {
                break last.is_none();
            }
        };
        let mut vain = u32::from(!is_head && self.await_turn(m, bug));
        let mut state = self.grant[me].load(LOOK);
        loop {
            if state != HEAD {
                self.sleep_as(m, state);
            }
            let awake = if bug == Bug::RisesInSecret { 0 } else { AWAKE };
            let Err(found) = self.claim(m, bug, RISE, |v| Some(v | awake)) else { return };
            if is_about_to_be_free(found) && bug != Bug::SleepsThoughTold {
                m.until(&self.word, WATCH, |v| !is_about_to_be_free(v));
                state = HEAD;
                continue;
            }
            self.grant[me].store(HEAD_ASLEEP, NOD);
            let starving = if vain > 0 && bug != Bug::NeverStarves { AWAKE } else { 0 };
            if self.claim(m, bug, SLOW_DOWN, |v| Some(v & !(AWAKE | 0xff) | starving | SLOW)).is_ok() {
                return;
            }
            (state, vain) = (HEAD_ASLEEP, 1);
        }
    }

    fn sleep_as(&self, m: &CheckMachine<'_>, state: u32) {
        while self.grant[m.cpu()].load(LOOK) == state {
            m.wait(&self.grant[m.cpu()], state, LOOK, None);
        }
    }

    /// Whether it slept until it was made the head.
    fn await_turn(&self, m: &CheckMachine<'_>, bug: Bug) -> bool {
        let mine = &self.grant[m.cpu()];
        let sleeps = if bug == Bug::AnnouncesAfterLooking {
            let sleeps = mine.load(LOOK) == WAITING;
            if sleeps {
                mine.store(ASLEEP, DOZE);
            }
            sleeps
        } else {
            mine.cas(WAITING, ASLEEP, DOZE).is_ok()
        };
        if sleeps {
            self.sleep_as(m, ASLEEP);
        }
        sleeps
    }

    /// The head takes the lock and makes the next one the head, or else changes the word, in which it has found this.
    fn claim(
        &self,
        m: &CheckMachine<'_>,
        bug: Bug,
        access: Access,
        or: impl Fn(u32) -> Option<u32>,
    ) -> Result<(), u32> {
        let me = m.cpu();
        let is_taken = |v: u32| v & 0xff != 0 || bug == Bug::HeadSleepsAtAFreeLock && access.name == SLOW_DOWN.name;
        let step = |v: u32| match v {
            v if is_taken(v) => or(v),
            v if newest(v) == Some(me) => Some(LOCKED),
            v => Some(v & !AWAKE | LOCKED),
        };
        let old = self.word.update(access, step).unwrap_or_else(|old| old);
        if is_taken(old) {
            return Err(old);
        }
        if newest(old) != Some(me) {
            self.promote(m, bug, self.next(me));
        }
        Ok(())
    }

    fn promote(&self, m: &CheckMachine<'_>, bug: Bug, next: usize) {
        self.prev[next].store(0, PREV);
        let promoted = |state| Some(if state == WAITING || bug == Bug::PromotesByStore { HEAD } else { HEAD_ASLEEP });
        let was = self.grant[next].update(PROMOTE, promoted).expect("it always writes");
        if was == WAITING {
            return;
        }
        if bug == Bug::KickAtPromotion {
            kick(m, next);
        }
        if !matches!(bug, Bug::NotMarked | Bug::MarkedAfterRelease) {
            self.word.cas_low8(LOCKED as u8, SLOW as u8, MARK);
        }
    }

    /// Who came after `before`.
    fn next(&self, before: usize) -> usize {
        let mut at = newest(self.word.load(NEWEST)).expect("somebody is behind");
        loop {
            match self.prev[at].load(PREV) as usize - 1 {
                prev if prev == before => return at,
                prev => at = prev,
            }
        }
    }

    fn head(&self) -> usize {
        let mut at = newest(self.word.load(NEWEST)).expect("a slow lock has a queue");
        while let Some(prev) = (self.prev[at].load(PREV) as usize).checked_sub(1) {
            at = prev;
        }
        at
    }

    fn release(&self, m: &CheckMachine<'_>, bug: Bug) {
        if bug == Bug::UnlocksByStore {
            return self.word.store_low8(0, RELEASE);
        }
        if self.word.count_down_low8(RELEASE) {
            if bug == Bug::MarkedAfterRelease && newest(self.word.load(NEWEST)).is_some() {
                self.word.cas_low8(LOCKED as u8, SLOW as u8, MARK);
            }
            return;
        }
        let head = match bug {
            Bug::KicksTheNewest => newest(self.word.load(NEWEST)).expect("a slow lock has a queue"),
            _ => self.head(),
        };
        if bug == Bug::KickBeforeWake {
            kick(m, head);
        }
        if bug != Bug::WakesAfterRelease {
            self.wake(bug, head);
        }
        if bug == Bug::KickBeforeRelease {
            kick(m, head);
        }
        self.word.store_low8(0, RELEASE_SLOW);
        if bug == Bug::WakesAfterRelease {
            self.wake(bug, head);
        }
        if bug == Bug::TouchesAfterWake {
            self.word.load(PEEK);
        }
        if !matches!(bug, Bug::NoKick | Bug::KickBeforeWake | Bug::KickBeforeRelease) {
            kick(m, head);
        }
    }

    fn wake(&self, bug: Bug, head: usize) {
        let state = match bug {
            Bug::WakesNobody => return,
            Bug::WakesAsWaiting => WAITING,
            _ => HEAD,
        };
        self.grant[head].update(WAKE, |_| Some(state)).expect("it always writes");
    }
}
