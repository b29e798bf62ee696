//! The steps on the word where virtual CPUs wait: what bit 8 means there, and the values 2 to 4 of the locked byte.
//!
//! ```text
//!  31                                  13 12     10   9   8 7              0
//! +--------------------------------------+---------+---+---+---------------+
//! |             CPU of newest            | level+1 | 0 | H |     locked    |
//! +--------------------------------------+---------+---+---+---------------+
//! ```
//!
//! * *locked*: 0 free, 1 held, 4 *slow*: held, and the first in the queue sleeps, or is about to. The unlock wakes it.
//!   3 is held, too, but *about to be free*: by an unlock that has found 4 and counted down. So is 2, if it counts once more.
//!   It looks for nobody else then; so nobody marks the lock slow, and whoever is the first waits awake.
//! * *H*, the head is awake: nobody else may take the lock. Set by the first in the queue while it spins; and by one that
//!   has been passed too often, also while it sleeps.
//! * *newest*: the last in the queue.
//!
//! | newest | H | locked | who is there |
//! |--------|---|--------|--------------|
//! | 0      | 0 | 0      | nobody |
//! | ·      | · | 1      | an owner |
//! | n      | · | 4      | an owner; and the first in the queue has to be woken by it |
//! | ·      | · | 2, 3   | an owner in its unlock; it wakes the first in the queue, or has done so |
//! | n      | · | 1      | an owner; the first in the queue is awake, or about to be, or its successor will be told by one that gives up |
//! | n      | 0 | 0      | the first in the queue is about to wake up; anybody may take the lock |
//! | n      | 1 | 0      | the first in the queue is about to take the lock |

use super::{LOCKED, LOCKED_MASK, LockWord, TAIL_MASK, Value, tail_bits};
use crate::machine::{Access, Cell};
use crate::queue::Tail;

const HEAD_AWAKE: u32 = 1 << 8;
/// So far above 1 that it can be counted down twice.
const SLOW: u32 = 4;

const JOIN: Access = Access::release("sleepers.join", "sleepers.newest: publishes our node");
const STEAL: Access = Access::acquire("word.steal", "word.release-*: enter the critical section");
const RISE: Access = Access::acquire("word.rise", "word.release-*: it claims if it can");
const CLAIM_FIRST: Access = Access::acquire("word.claim-first", "word.release-*: enter the critical section");
const SLOW_DOWN: Access = Access::acq_rel(
    "word.slow-down",
    "sleepers.newest: who finds the lock slow finds that we sleep; word.release-*: it claims if it can",
);
const MARK_SLOW: Access =
    Access::relaxed("word.mark-slow", "the owner's; its unlock, or that of who it lends the lock to");
const STEP_DOWN: Access =
    Access::acquire("word.step-down", "sleepers.join: the nodes behind us; word.release-*: it claims if it can");
const TAKE_BACK: Access = Access::relaxed("word.take-back", "nothing is passed on: the head sleeps no longer");
const DISBAND: Access = Access::relaxed("sleepers.disband", "who comes next finds no queue");
const RELEASE_FAST: Access = Access::release("word.release-fast", "every claim: the critical section comes before");
// What claims need they have from the count before, in whose release sequence this is; and the line-up from turn.wake.
const RELEASE_SLOW: Access =
    Access::release("word.release-slow", "every claim, by who frees the lock: our last touch comes before");

impl Value {
    /// The first in the queue is awake, or has been passed too often: the lock is for nobody else.
    pub(crate) const fn is_head_awake(self) -> bool {
        self.0 & HEAD_AWAKE != 0
    }

    /// Anybody may take the lock.
    pub(crate) const fn is_for_thieves(self) -> bool {
        self.0 & (LOCKED_MASK | HEAD_AWAKE) == 0
    }

    /// An unlock has found the lock slow, and has yet to release it.
    pub(crate) const fn is_about_to_be_free(self) -> bool {
        let locked = self.0 & LOCKED_MASK;
        LOCKED < locked && locked < SLOW
    }
}

/// What the first in the queue has left behind when it has taken the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Nobody.
    Nobody,
    /// Somebody: those up to this one, of whom the first is to be made the head.
    UpTo(Tail),
}

impl Behind {
    /// Who is behind `me`, the first, in a word that held this.
    fn of(seen: Value, me: Tail) -> Self {
        seen.tail().filter(|&newest| newest != me).map_or(Self::Nobody, Self::UpTo)
    }
}

const fn is_last(v: u32, me: Tail) -> bool {
    v & TAIL_MASK == tail_bits(me)
}

/// What came of it that the first in the queue gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SteppedDown {
    /// It has the lock.
    Owner(Behind),
    /// It has not. Those it leaves behind have no head.
    Left(Behind),
}

impl<C: Cell> LockWord<C> {
    /// Takes the lock past the queue: (·,0,0) → (·,0,1).
    pub(crate) fn steal(&self) -> bool {
        let steal = |v| Value(v).is_for_thieves().then_some(v | LOCKED);
        self.0.update(STEAL, steal).is_ok()
    }

    /// Makes `me` the newest, behind `last`, if that is still the newest.
    pub(crate) fn join(&self, last: Option<Tail>, me: Tail) -> bool {
        let join = |v| (Value(v).tail() == last).then_some((v & !TAIL_MASK) | tail_bits(me));
        self.0.update(JOIN, join).is_ok()
    }

    /// The first in the queue, `me`, is awake: it takes the lock, or sees to it that nobody else does; then, what it found.
    pub(crate) fn rise(&self, me: Tail) -> Result<Behind, Value> {
        self.claim_first(RISE, me, |v| Some(v | HEAD_AWAKE))
    }

    /// The first in the queue, `me`, takes the lock if it is free.
    pub(crate) fn claim_as_first(&self, me: Tail) -> Option<Behind> {
        self.claim_first(CLAIM_FIRST, me, |_| None).ok()
    }

    /// The first in the queue, `me`, takes the lock, or else asks to be woken. Nobody may pass it if it is `starving`.
    /// Not while the lock is about to be free, which it has not been since `me` rose, if it was not then.
    pub(crate) fn slow_down(&self, me: Tail, starving: bool) -> Option<Behind> {
        let flags = if starving { HEAD_AWAKE } else { 0 };
        // Written in any case: it publishes our node.
        let slow = |v| Some((v & !(HEAD_AWAKE | LOCKED_MASK)) | flags | SLOW);
        self.claim_first(SLOW_DOWN, me, slow).ok()
    }

    /// Takes the lock, and leaves the queue if nobody is behind `me`; or else perhaps something else, and what was there.
    fn claim_first(&self, access: Access, me: Tail, or: impl Fn(u32) -> Option<u32>) -> Result<Behind, Value> {
        let step = |v| match v {
            v if v & LOCKED_MASK != 0 => or(v),
            v if is_last(v, me) => Some(LOCKED),
            v => Some((v & !HEAD_AWAKE) | LOCKED),
        };
        let old = self.0.update(access, step).unwrap_or_else(|v| v);
        match old {
            _ if old & LOCKED_MASK != 0 => Err(Value(old)),
            _ => Ok(Behind::of(Value(old), me)),
        }
    }

    /// The owner's unlock is to wake the first in the queue. The latter may have said so itself.
    pub(crate) fn mark_slow(&self) {
        self.0.cas_low8(LOCKED as u8, SLOW as u8, MARK_SLOW);
    }

    /// The unlock, if nobody is to be woken: (·,·,1) → (·,·,0). Else (·,·,4) → (·,·,3), and the lock is still held.
    ///
    /// It counts down, and does not compare and swap: as good, since only this owner can do so, and a fifth faster, alone.
    #[inline(always)]
    pub(crate) fn release_fast(&self) -> bool {
        self.0.count_down_low8(RELEASE_FAST)
    }

    /// The unlock when who is to be woken has been told so: (·,·,2 or 3) → (·,·,0).
    pub(crate) fn release_slow(&self) {
        self.0.store_low8(0, RELEASE_SLOW);
    }

    /// The first in the queue, `me`, is awake and gives up: it takes the lock if it is free. Else the queue is empty, or
    /// those behind it are to be seen to.
    pub(crate) fn step_down(&self, me: Tail) -> SteppedDown {
        let leave = |v| Some(if is_last(v, me) { v & LOCKED_MASK } else { v & !HEAD_AWAKE });
        match self.claim_first(STEP_DOWN, me, leave) {
            Ok(behind) => SteppedDown::Owner(behind),
            Err(seen) => SteppedDown::Left(Behind::of(seen, me)),
        }
    }

    /// The first in the queue, which sleeps, does so no longer: (·,·,4) → (·,·,1). False if the lock is not slow: not yet,
    /// or no more.
    pub(crate) fn take_back(&self) -> bool {
        self.0.cas_low8(SLOW as u8, LOCKED as u8, TAKE_BACK)
    }

    /// `last`, who has given up, was the last in the queue, and the first. Or somebody has joined behind it.
    pub(crate) fn disband(&self, last: Tail) -> bool {
        self.0.update(DISBAND, |v| is_last(v, last).then_some(v & LOCKED_MASK)).is_ok()
    }
}
