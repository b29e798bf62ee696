//! The lock word: 32 bits, and every step that may be made on them. The only file that knows bits.
//!
//! ```text
//!  31                                  13 12     10   9   8 7              0
//! +--------------------------------------+---------+---+---+---------------+
//! |             CPU of tail              | level+1 | 0 | P |     locked    |
//! +--------------------------------------+---------+---+---+---------------+
//! ```
//!
//! * *locked*: 0 free, 1 held. A byte, since storing a byte is the cheapest unlock there is.
//! * *P*, pending: one waiter that has no node waits in front of the queue.
//! * *tail* (level + 1 and CPU): the last waiter in the queue; 0, nobody queues. Level + 1, so that CPU 0 at level 0 is not
//!   "nobody"; and so that the *second byte* is 0 if and only if nobody waits, whoever it is. One load tells.
//! * Bit 9 is kept for waiters that sleep. They have no use for bit 8 as pending, so they have two.
//!
//! # Truth table
//! | tail | P | locked | who is there |
//! |------|---|--------|--------------|
//! | 0    | 0 | 0      | nobody |
//! | 0    | 0 | 1      | an owner |
//! | 0    | 1 | 1      | an owner; one waiter, pending |
//! | 0    | 1 | 0      | the pending waiter is about to take the lock |
//! | n    | 0 | 1      | an owner; a queue, whose head waits for the word |
//! | n    | 1 | 1      | an owner, a pending waiter, and a queue behind it |
//! | n    | 1 | 0      | the pending waiter is about to take the lock; a queue behind it |
//! | n    | 0 | 0      | the head of the queue is about to take the lock |
//!
//! # Why every claim is a compare-and-swap
//! The fast path looks at the second byte and then swaps only the first ([`LockWord::try_acquire`]): twice as fast,
//! alone, as a 32-bit swap whose load has to wait for the byte that the last unlock stored. The price is that a CPU
//! which looked before anybody waited may take the lock after somebody waits. So nobody may *assume* the lock when it
//! is free: the pending waiter and the head claim it too, and try again if they lost. How often one waiter can lose is
//! bounded: a CPU slips past only by a look it took before the waiter's bits were visible to it, at most once for each
//! of its contexts that is between look and swap, and waits behind it from then on.
//!
//! It also decides where `Acquire` belongs: on the claim, not on the wait before it. Between the two another owner
//! may have come and gone, and its critical section must be visible as well.

use crate::machine::{Access, Budget, Cell, ConstCell, Machine};
use crate::queue::Tail;

const LOCKED: u32 = 1;
const LOCKED_MASK: u32 = 0xff;
const PENDING: u32 = 1 << 8;
const WAITERS_MASK: u32 = 0xff00;
const TAIL_SHIFT: u32 = 10;
const TAIL_MASK: u32 = !0 << TAIL_SHIFT;

const _: () = {
    assert!(TAIL_SHIFT + Tail::BITS == 32);
    assert!(LOCKED & !LOCKED_MASK == 0);
    assert!(LOCKED_MASK & PENDING == 0 && (LOCKED_MASK | PENDING) & TAIL_MASK == 0);
    // Whoever waits shows in the second byte: pending, or a level + 1.
    assert!((PENDING | 0b111 << TAIL_SHIFT) & !WAITERS_MASK == 0);
    // The highest CPU fits, and so does half a million.
    assert!(crate::queue::Cpu::MAX == 1 << (Tail::BITS - 3) && crate::queue::Cpu::MAX > 500_000);
};

const LOOK: Access = Access::relaxed("word.look", "a hint: the swap that follows decides");
const PEEK: Access = Access::relaxed("word.peek", "nothing is concluded from it: a swap follows");
const TRY: Access = Access::acquire("word.try", "word.release: enter the critical section");
const PEND: Access = Access::relaxed("word.pend", "enters nothing: word.claim-pending does");
const WAIT: Access = Access::relaxed("word.wait", "another owner may come and go before the claim, which acquires");
const CLAIM_PENDING: Access = Access::acquire("word.claim-pending", "word.release: enter the critical section");
const UNPEND: Access = Access::relaxed("word.unpend", "nothing is passed on");
const LEAVE: Access = Access::relaxed("word.leave", "nothing is passed on: who comes next finds no queue");
const LEAVE_TO: Access = Access::release(
    "word.leave-to",
    "tail.exchange: whoever links to the last that was set aside finds its link empty",
);
const EXCHANGE: Access = Access::acq_rel(
    "tail.exchange",
    "itself: publishes our node to whoever swaps us out, and shows us the node of whom we swap out",
);
const CLAIM_SOLE: Access = Access::acquire("word.claim-sole", "word.release: enter the critical section");
const CLAIM_HEAD: Access = Access::acquire("word.claim-head", "word.release: enter the critical section");
const CLAIM_BRINGING_BACK: Access = Access::acq_rel(
    "word.claim-bringing-back",
    "word.release: enter the critical section; tail.exchange: whoever links to the last that was set aside finds its link empty",
);
const BARGE: Access = Access::acquire("word.barge", "word.release: enter the critical section");
const RELEASE: Access = Access::release("word.release", "every claim: the critical section comes before the free lock");

/// What a lock word held at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(u32);

impl Value {
    /// No owner, no waiter.
    pub const FREE: Self = Self(0);

    /// What these bits say.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Someone holds the lock.
    #[must_use]
    pub const fn is_locked(self) -> bool {
        self.0 & LOCKED_MASK != 0
    }

    /// A waiter is in the pending lane.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        self.0 & PENDING != 0
    }

    /// The last waiter in the queue.
    #[must_use]
    pub const fn tail(self) -> Option<Tail> {
        Tail::from_code(self.0 >> TAIL_SHIFT)
    }

    /// Someone waits.
    #[must_use]
    pub const fn is_contended(self) -> bool {
        self.0 & WAITERS_MASK != 0
    }

    /// Someone holds the lock, or is about to before the head of the queue.
    #[must_use]
    pub const fn is_busy(self) -> bool {
        self.is_locked() || self.is_pending()
    }

    /// The pending waiter is about to take the lock, and nobody is behind it.
    #[must_use]
    pub const fn is_handover(self) -> bool {
        self.0 == PENDING
    }
}

const fn tail_bits(tail: Tail) -> u32 {
    tail.code() << TAIL_SHIFT
}

/// The lock word: a cell, and the named steps that may be made on it.
#[derive(Debug)]
#[repr(transparent)]
pub struct LockWord<C>(C);

impl<C: ConstCell> LockWord<C> {
    /// A free lock.
    #[must_use]
    pub const fn new() -> Self {
        Self(C::ZERO)
    }
}

impl<C: ConstCell> Default for LockWord<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Cell> LockWord<C> {
    /// A free lock in a cell that holds 0, for machines that make their own cells.
    pub const fn from_cell(cell: C) -> Self {
        Self(cell)
    }

    /// What the word holds now.
    #[inline]
    pub fn peek(&self) -> Value {
        Value(self.0.load(PEEK))
    }

    /// The fast path: (0,0,0) → (0,0,1). Fails if anybody holds the lock or waits for it.
    ///
    /// Two steps, see the module's docs: a look at the second byte, then a swap of the first.
    #[inline(always)]
    pub fn try_acquire(&self) -> bool {
        self.0.load_byte1(LOOK) == 0 && self.0.cas_low8(0, LOCKED as u8, TRY)
    }

    /// The unlock: (·,·,1) → (·,·,0). The other bits change all the time, so it must not write them.
    #[inline(always)]
    #[doc(alias = "queued_spin_unlock")]
    pub fn release(&self) {
        self.0.store_low8(0, RELEASE);
    }

    /// Waits a while until a hand-over to the pending waiter is not in flight.
    pub(crate) fn settle<M: Machine<Cell = C>>(&self, m: &M, budget: Budget) -> Value {
        let seen = m.until_for(&self.0, PEEK, budget, |v| !Value(v).is_handover());
        Value(seen.unwrap_or_else(|still| still))
    }

    /// Takes the pending lane: (0,0,l) → (0,1,l), `seen` being (0,0,l). If somebody was faster, what is there now.
    ///
    /// A swap of the whole word, and not the fetch-or that the kernel uses: that sets the bit also when it finds a
    /// queue, and must take it back. This one leaves no stray bit behind, so "a tail, then no new pending" is plain.
    pub(crate) fn try_pend(&self, seen: Value) -> Result<(), Value> {
        debug_assert!(!seen.is_contended());
        self.0.cas(seen.0, seen.0 | PENDING, PEND).map(drop).map_err(Value)
    }

    /// Waits in the pending lane until nobody holds the lock.
    pub(crate) fn wait_pending<M: Machine<Cell = C>>(&self, m: &M) {
        m.until_mine(&self.0, WAIT, |v| !Value(v).is_locked());
    }

    /// Waits until nobody holds the lock, among any number of others that do.
    pub(crate) fn wait_unlocked<M: Machine<Cell = C>>(&self, m: &M) {
        m.until(&self.0, WAIT, |v| !Value(v).is_locked());
    }

    /// [Waits](Self::wait_pending) for no more than a while.
    pub(crate) fn wait_pending_for<M: Machine<Cell = C>>(&self, m: &M, budget: Budget) -> Option<()> {
        m.until_mine_for(&self.0, WAIT, budget, |v| !Value(v).is_locked()).ok().map(drop)
    }

    /// The pending waiter leaves without the lock: (·,1,l) → (·,0,l).
    pub(crate) fn unpend(&self) {
        let _ = self.0.update(UNPEND, |v| Some(v & !PENDING));
    }

    /// The pending waiter takes the lock and leaves the lane in one step: (·,1,0) → (·,0,1).
    pub(crate) fn claim_from_pending(&self) -> bool {
        let claim = |v| (!Value(v).is_locked()).then_some((v & !PENDING) | LOCKED);
        self.0.update(CLAIM_PENDING, claim).is_ok()
    }

    /// Makes `me` the last in the queue: (t,p,l) → (me,p,l). Returns t, whom `me` now follows.
    #[doc(alias = "xchg_tail")]
    pub(crate) fn exchange_tail(&self, me: Tail) -> Option<Tail> {
        let old = self.0.update(EXCHANGE, |v| Some((v & !TAIL_MASK) | tail_bits(me)));
        Value(old.unwrap_or_else(|v| v)).tail()
    }

    /// Waits until nobody holds the lock and nobody is pending. For the head of the queue.
    ///
    /// It does not fetch the line for writing, as who is pending does: among many, each newcomer takes the line anyway, and
    /// head and newcomers would take it from each other. 1.1 to 1.2 times the throughput from four simulated CPUs up.
    pub(crate) fn wait_free<M: Machine<Cell = C>>(&self, m: &M) -> Value {
        Value(m.until(&self.0, WAIT, Self::is_for_head))
    }

    const fn is_for_head(v: u32) -> bool {
        !Value(v).is_busy()
    }

    /// The same, for no more than a while.
    pub(crate) fn wait_free_for<M: Machine<Cell = C>>(&self, m: &M, budget: Budget) -> Option<Value> {
        m.until_for(&self.0, WAIT, budget, Self::is_for_head).ok().map(Value)
    }

    /// The last in the queue leaves it empty, without the lock or with it: (me,p,l) → (0,p,l). False if it is not the last.
    pub(crate) fn leave_queue(&self, me: Tail) -> bool {
        self.0.update(LEAVE, |v| (v & TAIL_MASK == tail_bits(me)).then_some(v & !TAIL_MASK)).is_ok()
    }

    /// The last in the queue leaves it to those who were set aside, the last of which is `last`, without the lock or with it:
    /// (me,p,l) → (last,p,l). False if it is not the last.
    pub(crate) fn leave_queue_to(&self, me: Tail, last: Tail) -> bool {
        let leave = |v| (v & TAIL_MASK == tail_bits(me)).then_some(v & !TAIL_MASK | tail_bits(last));
        self.0.update(LEAVE_TO, leave).is_ok()
    }

    /// The head, the last in the queue, takes the lock and leaves the queue empty: (me,0,0) → (0,0,1). If somebody
    /// queued or took the lock in the meantime, what is there now.
    pub(crate) fn claim_sole(&self, me: Tail) -> Result<(), Value> {
        self.0.cas(tail_bits(me), LOCKED, CLAIM_SOLE).map(drop).map_err(Value)
    }

    /// The head, the last in the queue, takes the lock and leaves the queue to those whom it had set aside, the last of
    /// which is `last`: (me,0,0) → (last,0,1). If somebody queued or took the lock in the meantime, what is there now.
    pub(crate) fn claim_bringing_back(&self, me: Tail, last: Tail) -> Result<(), Value> {
        self.0.cas(tail_bits(me), tail_bits(last) | LOCKED, CLAIM_BRINGING_BACK).map(drop).map_err(Value)
    }

    /// The head takes the lock and leaves the queue to those behind it: (n,·,0) → (n,·,1).
    pub(crate) fn claim_head(&self) -> bool {
        self.0.cas_low8(0, LOCKED as u8, CLAIM_HEAD)
    }

    /// Takes the lock past whoever waits: (·,·,0) → (·,·,1).
    pub(crate) fn barge(&self) -> bool {
        self.0.cas_low8(0, LOCKED as u8, BARGE)
    }
}

mod halting;
mod sleeping;
pub(crate) use halting::{Behind, SteppedDown};
pub(crate) use sleeping::Step;

#[cfg(all(test, feature = "std"))]
mod tests;
