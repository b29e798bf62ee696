//! A small queued lock that stays in one domain for a while, right as it stands, and the ways in which it can be wrong.
//! There is no pending lane, and all but the first CPU queue at once: few CPUs show much then.

use qspinlock::machine::{Access, Cell, Machine};
use qspinlock::queue::{Cpu, Tail};
use qspinlock::slowpath::Locality;
use qspinlock::word::Value;
use qspinlock_vm::check::{CheckCell, CheckMachine, Plain, World};

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// Of whom nobody follows yet: its link may be written at any time.
    LastIsSetAside,
    UrgentIsSetAside,
    /// After a swap of the tail that failed.
    CircleIsNotRestored,
    /// The head, when nobody else waits.
    ForgetsThoseAside,
    /// Those who were set aside come first again, and the rest of the queue is lost.
    ForgetsTheRest,
    NeverBringsBack,
    /// Who was next before the head set anybody aside is taken to be so still.
    NextIsNotReadAgain,
    GrantIsRelaxed,
    GrantedIsRelaxed,
}

const LOCKED: u32 = 1;
const TAIL: u32 = !0 << 10;
const URGENT: u32 = u32::MAX;
/// A grant, with nobody set aside. Else it is the code of the last of them.
const ALONE: u32 = 1 << Tail::BITS;

// The checker knows the steps of a queue by these names.
const TRY: Access = Access::acquire("word.try", "word.release");
const PEEK: Access = Access::relaxed("word.peek", "a claim follows");
const EXCHANGE: Access = Access::acq_rel("tail.exchange", "itself");
const WAIT: Access = Access::relaxed("word.wait", "a claim follows");
const CLAIM_SOLE: Access = Access::acquire("word.claim-sole", "word.release");
const CLAIM_HEAD: Access = Access::acquire("word.claim-head", "word.release");
const BRING_BACK: Access = Access::acq_rel("word.claim-bringing-back", "word.release, tail.exchange");
const RELEASE: Access = Access::release("word.release", "every claim");
const INIT: Access = Access::relaxed("node.init", "tail.exchange publishes it");
const LINK: Access = Access::release("node.link", "node.next");
const NEXT: Access = Access::acquire("node.next", "node.link");
const HOME: Access = Access::relaxed("node.home", "node.link and numa.grant publish it");
const SORT: Access = Access::relaxed("numa.sort", "numa.grant publishes it");
const GRANT: Access = Access::release("numa.grant", "numa.granted");
const RELAXED_GRANT: Access = Access::relaxed("numa.grant", "nothing");
const GRANTED: Access = Access::acquire("numa.granted", "numa.grant");
const RELAXED_GRANTED: Access = Access::relaxed("numa.granted", "nothing");

pub(crate) struct Shared {
    pub(crate) word: CheckCell,
    pub(crate) data: Plain,
    next: Vec<CheckCell>,
    grant: Vec<CheckCell>,
    home: Vec<CheckCell>,
}

fn tail_of(cpu: usize) -> Tail {
    Tail::new(Cpu::new(cpu as u32).expect("few CPUs"), 0)
}

fn code(cpu: usize) -> u32 {
    tail_of(cpu).code()
}

fn bits(cpu: usize) -> u32 {
    code(cpu) << 10
}

/// The CPU whose node has this code.
fn whose(code: u32) -> Option<usize> {
    Tail::from_code(code).map(|tail| tail.cpu().index())
}

impl Shared {
    pub(crate) fn new(world: &World, cpus: usize) -> Self {
        let cells = |what: &str| (0..cpus).map(|cpu| world.cell(format!("node{cpu}.{what}"))).collect();
        let (word, data) = (world.cell("word"), world.plain("data"));
        Self { word, data, next: cells("next"), grant: cells("grant"), home: cells("home") }
    }

    pub(crate) fn acquire(&self, m: &CheckMachine<'_>, bug: Bug) {
        let me = m.cpu();
        if me == 0 && self.word.cas(0, LOCKED, TRY).is_ok() {
            return;
        }
        self.next[me].store(0, INIT);
        self.grant[me].store(0, INIT);
        self.home[me].store(if m.is_urgent() { URGENT } else { m.domain() }, INIT);
        let old = self.word.update(EXCHANGE, |v| Some(v & !TAIL | bits(me))).expect("it always writes");
        let mut aside = None;
        if let Some(before) = Value::from_bits(old).tail() {
            self.next[before.cpu().index()].store(code(me), LINK);
            let granted = if bug == Bug::GrantedIsRelaxed { RELAXED_GRANTED } else { GRANTED };
            aside = whose(m.until(&self.grant[me], granted, |grant| grant != 0));
        }
        let next = if bug == Bug::NextIsNotReadAgain { whose(self.next[me].load(NEXT)) } else { None };
        let is_due = self.sort(m, me, &mut aside, bug);
        if self.claim(m, me, aside, bug) {
            self.promote(m, me, next, (aside, is_due), bug);
        }
    }

    fn home(&self, m: &CheckMachine<'_>, me: usize) -> u32 {
        match self.home[me].load(HOME) {
            URGENT => m.domain(),
            home => home,
        }
    }

    /// Sets waiters aside while the lock is busy. Whether those who were set aside before have waited for long enough.
    fn sort(&self, m: &CheckMachine<'_>, me: usize, aside: &mut Option<usize>, bug: Bug) -> bool {
        let Locality { threshold, one_in } = m.locality();
        match aside {
            Some(_) if threshold == 0 && bug != Bug::NeverBringsBack => return true,
            None if m.choose(one_in) != 0 => return false,
            _ => {}
        }
        let home = self.home(m, me);
        while self.word.load(PEEK) & 0xff != 0 {
            let Some(next) = whose(self.next[me].load(NEXT)) else { return false };
            let is_ours = match self.home[next].load(HOME) {
                URGENT => bug != Bug::UrgentIsSetAside,
                domain => domain == home,
            };
            let after = self.next[next].load(NEXT);
            if is_ours || after == 0 && bug != Bug::LastIsSetAside {
                return false;
            }
            self.next[me].store(after, SORT);
            let first = aside.map_or(code(next), |last| self.next[last].load(SORT));
            self.next[next].store(first, SORT);
            if let Some(last) = *aside {
                self.next[last].store(code(next), SORT);
            }
            *aside = Some(next);
        }
        false
    }

    /// The head takes the lock. Whether it has yet to make somebody the head.
    fn claim(&self, m: &CheckMachine<'_>, me: usize, aside: Option<usize>, bug: Bug) -> bool {
        loop {
            if m.until(&self.word, WAIT, |v| v & 0xff == 0) != bits(me) {
                if self.word.cas_low8(0, 1, CLAIM_HEAD) {
                    return true;
                }
                continue;
            }
            let Some(last) = aside.filter(|_| bug != Bug::ForgetsThoseAside) else {
                if self.word.cas(bits(me), LOCKED, CLAIM_SOLE).is_ok() {
                    return false;
                }
                continue;
            };
            let first = self.next[last].load(SORT);
            self.next[last].store(0, SORT);
            if self.word.cas(bits(me), bits(last) | LOCKED, BRING_BACK).is_ok() {
                self.make_head(whose(first).expect("a circle"), ALONE, bug);
                return false;
            }
            if bug != Bug::CircleIsNotRestored {
                self.next[last].store(first, SORT);
            }
        }
    }

    /// The owner makes whoever is next the head. `before`: who was, before the head set anybody aside.
    fn promote(
        &self,
        m: &CheckMachine<'_>,
        me: usize,
        before: Option<usize>,
        (aside, is_due): (Option<usize>, bool),
        bug: Bug,
    ) {
        let next = before.or_else(|| whose(m.until(&self.next[me], NEXT, |next| next != 0))).expect("somebody waits");
        let home = self.home(m, me);
        let Some(last) = aside else { return self.make_head(next, ALONE, bug) };
        // Who is next may not be of the lock's domain: it is the last, or came when the lock was free.
        let may_pass = matches!(self.home[next].load(HOME), domain if domain == home || domain == URGENT);
        if is_due || !may_pass {
            let first = whose(self.next[last].load(SORT)).expect("a circle");
            if bug != Bug::ForgetsTheRest {
                self.next[last].store(code(next), SORT);
            }
            return self.make_head(first, ALONE, bug);
        }
        self.home[next].store(home, HOME);
        self.make_head(next, code(last), bug);
    }

    fn make_head(&self, cpu: usize, grant: u32, bug: Bug) {
        self.grant[cpu].store(grant, if bug == Bug::GrantIsRelaxed { RELAXED_GRANT } else { GRANT });
    }

    pub(crate) fn release(&self) {
        self.word.store_low8(0, RELEASE);
    }
}
