//! A small queued lock, right as it stands, and the ways in which it can be wrong.

use qspinlock::machine::{Access, Cell, Machine, Ordering};
use qspinlock::queue::{Cpu, Tail};
use qspinlock::word::Value;
use qspinlock_vm::check::{CheckCell, CheckMachine, Plain, World};

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// None, and there is a pending lane.
    NoneWithPendingLane,
    ClaimByStore,
    HeadDoesNotLook,
    HeadClaimsByStore,
    GrantIsNotReset,
    NextIsNotReset,
    GrantTwice,
    GrantNobody,
    GrantTheLast,
    GrantBeforeTheClaim,
    SoleHeadWaitsForSuccessor,
    TailStays,
    UnlockStoresTheWord,
    UnlockIsRelaxed,
    NewcomersPass,
    PendingIsNotUndone,
}

const LOCKED: u32 = 1;
const PENDING: u32 = 1 << 8;
const TAIL: u32 = !0 << 10;

// The checker knows the steps of a queue by these names.
const TRY: Access = Access::acquire("word.try", "word.release");
const LOOK: Access = Access::relaxed("word.look", "a swap follows");
const SET_PENDING: Access = Access::relaxed("word.set-pending", "the claim acquires");
const CLAIM_PENDING: Access = Access::acquire("word.from-pending", "word.release");
const EXCHANGE: Access = Access::acq_rel("tail.exchange", "itself");
const WAIT: Access = Access::relaxed("word.wait", "a claim follows");
const CLAIM_SOLE: Access = Access::acquire("word.claim-sole", "word.release");
const CLAIM_HEAD: Access = Access::acquire("word.claim-head", "word.release");
const RELEASE: Access = Access::release("word.release", "every claim");
const INIT: Access = Access::relaxed("node.init", "tail.exchange publishes it");
const LINK: Access = Access::release("node.link", "node.next");
const NEXT: Access = Access::acquire("node.next", "node.link");
const GRANT: Access = Access::release("node.grant", "node.granted");
const GRANTED: Access = Access::acquire("node.granted", "node.grant");

pub(crate) struct Shared {
    pub(crate) word: CheckCell,
    pub(crate) data: Plain,
    next: Vec<CheckCell>,
    grant: Vec<CheckCell>,
}

fn tail_of(cpu: usize) -> Tail {
    Tail::new(Cpu::new(cpu as u32).expect("few CPUs"), 0)
}

fn bits(cpu: usize) -> u32 {
    tail_of(cpu).code() << 10
}

impl Shared {
    pub(crate) fn new(world: &World, cpus: usize) -> Self {
        let cells = |what: &str| (0..cpus).map(|cpu| world.cell(format!("node{cpu}.{what}"))).collect();
        Self { word: world.cell("word"), data: world.plain("data"), next: cells("next"), grant: cells("grant") }
    }

    pub(crate) fn acquire(&self, m: &CheckMachine<'_>, bug: Bug) {
        if self.is_taken_at_once(bug) || self.is_taken_from_pending(m, bug) {
            return;
        }
        let me = m.cpu();
        if bug != Bug::NextIsNotReset {
            self.next[me].store(0, INIT);
        }
        if bug != Bug::GrantIsNotReset {
            self.grant[me].store(0, INIT);
        }
        let old = self.word.update(EXCHANGE, |v| Some(v & !TAIL | bits(me))).expect("it always writes");
        if let Some(before) = Value::from_bits(old).tail() {
            self.next[before.cpu().index()].store(tail_of(me).code(), LINK);
            m.until(&self.grant[me], GRANTED, |grant| grant != 0);
        }
        self.claim_as_head(m, me, bug);
    }

    fn is_taken_at_once(&self, bug: Bug) -> bool {
        match bug {
            Bug::ClaimByStore => {
                let is_free = self.word.load(TRY) == 0;
                if is_free {
                    self.word.store(LOCKED, LOOK);
                }
                is_free
            }
            Bug::NewcomersPass => self.word.cas_low8(0, 1, TRY),
            _ => self.word.cas(0, LOCKED, TRY).is_ok(),
        }
    }

    /// The lane, with a fetch-or: whoever finds that it was not the first must take its bit back.
    fn is_taken_from_pending(&self, m: &CheckMachine<'_>, bug: Bug) -> bool {
        if !matches!(bug, Bug::NoneWithPendingLane | Bug::PendingIsNotUndone) || self.word.load(LOOK) & !0xff != 0 {
            return false;
        }
        let old = self.word.update(SET_PENDING, |v| Some(v | PENDING)).expect("it always writes");
        if old & !0xff == 0 {
            m.until(&self.word, WAIT, |v| v & 0xff == 0);
            self.word.update(CLAIM_PENDING, |v| Some(v & !PENDING | LOCKED)).expect("it always writes");
            return true;
        }
        if old & PENDING == 0 && bug != Bug::PendingIsNotUndone {
            self.word.update(SET_PENDING, |v| Some(v & !PENDING)).expect("it always writes");
        }
        false
    }

    fn claim_as_head(&self, m: &CheckMachine<'_>, me: usize, bug: Bug) {
        loop {
            let seen = match bug {
                Bug::HeadDoesNotLook => self.word.load(WAIT) & TAIL,
                _ => m.until(&self.word, WAIT, |v| v & (0xff | PENDING) == 0),
            };
            if seen == bits(me) {
                if self.is_claimed_alone(seen, bug) {
                    if bug == Bug::SoleHeadWaitsForSuccessor {
                        self.promote(m, me, bug);
                    }
                    return;
                }
                continue;
            }
            if bug == Bug::GrantBeforeTheClaim {
                self.promote(m, me, bug);
            }
            if self.is_claimed_with_queue(seen, bug) {
                break;
            }
        }
        let grants = match bug {
            Bug::GrantNobody | Bug::GrantBeforeTheClaim => 0,
            Bug::GrantTwice => 2,
            _ => 1,
        };
        (0..grants).for_each(|_| self.promote(m, me, bug));
    }

    fn is_claimed_alone(&self, seen: u32, bug: Bug) -> bool {
        match bug {
            Bug::TailStays => self.word.cas(seen, seen | LOCKED, CLAIM_SOLE).is_ok(),
            Bug::HeadDoesNotLook => self.word.update(CLAIM_SOLE, |_| Some(LOCKED)).is_ok(),
            _ => self.word.cas(seen, LOCKED, CLAIM_SOLE).is_ok(),
        }
    }

    fn is_claimed_with_queue(&self, seen: u32, bug: Bug) -> bool {
        if bug == Bug::HeadClaimsByStore {
            self.word.store(seen | LOCKED, CLAIM_HEAD);
            return true;
        }
        // A loser's pending bit may stand here for a while, so only the byte is looked at.
        self.word.cas_low8(0, 1, CLAIM_HEAD)
    }

    fn promote(&self, m: &CheckMachine<'_>, me: usize, bug: Bug) {
        let code = m.until(&self.next[me], NEXT, |next| next != 0);
        let next = Tail::from_code(code).expect("a link names a node");
        let last = || Value::from_bits(self.word.load(LOOK)).tail().expect("somebody queues");
        let heir = if bug == Bug::GrantTheLast { last() } else { next };
        self.grant[heir.cpu().index()].store(1, GRANT);
    }

    pub(crate) fn release(&self, bug: Bug) {
        match bug {
            Bug::UnlockStoresTheWord => self.word.store(0, RELEASE),
            Bug::UnlockIsRelaxed => self.word.store_low8(0, Access { order: Ordering::Relaxed, ..RELEASE }),
            _ => self.word.store_low8(0, RELEASE),
        }
    }
}
