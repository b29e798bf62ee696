//! The steps on the word where waiters sleep: what bits 8 and 9 mean there, and the value 2 of the locked byte.
//!
//! ```text
//!  31                                  13 12     10   9   8 7              0
//! +--------------------------------------+---------+---+---+---------------+
//! |             CPU of newest            | level+1 | A | L |     locked    |
//! +--------------------------------------+---------+---+---+---------------+
//! ```
//!
//! * *locked*: 0 free, 1 held, 2 *granted*: free, but not for who passes by.
//! * *L*, lane: one waiter spins, and others need not. A hint: it is nobody's property, and a waiter that is gone leaves
//!   it set at the price of a spin that the others do not spin.
//! * *A*, asked: the waiter in the lane has waited long enough. The next unlock grants the lock.
//! * *newest*: the last to lie down. If there is one, an unlock wakes the first.
//!
//! | newest | A | L | locked | who is there |
//! |--------|---|---|--------|--------------|
//! | 0      | 0 | 0 | 0      | nobody |
//! | ·      | · | · | 1      | an owner |
//! | 0      | 0 | · | 0      | perhaps waiters that are awake |
//! | 0      | 1 | · | 0      | the same; the unlock had looked before the lane asked |
//! | ·      | · | · | 2      | who has yielded, waits in the lane or was woken may take it |
//! | n      | · | · | 0      | sleepers; and one waiter that is awake, or about to be, or ends its nap: it will look |

use super::{LOCKED, LOCKED_MASK, LockWord, TAIL_MASK, Value, WAITERS_MASK, tail_bits};
use crate::machine::{Access, Budget, Cell, Machine};
use crate::queue::Tail;

const LANE: u32 = 1 << 8;
const ASKED: u32 = 1 << 9;
const GRANTED: u32 = 2;

/// What an unlock has to look after: all that the second byte shows, but for the lane.
const AWAITED: u32 = WAITERS_MASK & !LANE;

const LOOK_BACK: Access = Access::relaxed("word.look-back", "who sets a bit after this look watches the word itself");
const RELEASE_HOT: Access = Access::release("word.release-hot", "every claim: the critical section comes before");
const RELEASE_EXACT: Access = Access::release("word.release-exact", "every claim: the critical section comes before");
const RELEASE_COLD: Access = Access::release("word.release-cold", "every claim: the critical section comes before");
const RELEASE_FAIR: Access = Access::release("word.release-fair", "every claim: the critical section comes before");
const WATCH: Access = Access::relaxed("word.watch", "the claim that follows acquires");
const SEEN: Access = Access::relaxed("word.seen", "nothing is concluded from it: a swap follows");
const SEEN_NOW: Access =
    Access::acquire("word.seen-now", "resilient.fence: what an owner had entered before it claimed");
const DOZE: Access = Access::relaxed("word.doze", "the claim that follows acquires");
const CLAIM: Access = Access::acquire("word.claim", "word.release-*: enter the critical section");
const ENTER_LANE: Access = Access::acquire("word.enter-lane", "word.release-*: it claims if it can");
const ASK: Access = Access::acquire("word.ask", "word.release-*: it claims if it can");
const CLAIM_LANE: Access = Access::acquire("word.claim-lane", "word.release-*: enter the critical section");
const LEAVE_LANE: Access = Access::acquire("word.leave-lane", "word.release-*: it claims if it can");
const LIE_DOWN: Access = Access::release("sleepers.push", "sleepers.newest: publishes our node");
const NEWEST: Access = Access::acquire("sleepers.newest", "sleepers.push: the nodes of who lay down");
const EMPTIED: Access = Access::relaxed("sleepers.emptied", "the owner's, who reads no node after it");

impl Value {
    /// Nobody holds the lock, and it is not granted.
    pub(crate) const fn is_free(self) -> bool {
        self.0 & LOCKED_MASK == 0
    }

    /// Nobody holds the lock; who has waited for long may take it.
    pub(crate) const fn is_for_waiters(self) -> bool {
        self.0 & LOCKED_MASK != LOCKED
    }

    /// A waiter in the lane has asked to be granted the lock.
    pub(crate) const fn is_asked(self) -> bool {
        self.0 & ASKED != 0
    }
}

/// What came of a step that takes the lock if it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The lock is ours.
    Claimed,
    /// The flags are as we wanted them.
    Done,
    /// Neither.
    Refused,
}

impl<C: Cell> LockWord<C> {
    /// The unlock while nobody is to be told: a look, and a store of a byte. False if somebody is, or may be.
    #[inline(always)]
    pub(crate) fn release_hot(&self) -> bool {
        if self.0.load_byte1(LOOK_BACK) & AWAITED != 0 {
            return false;
        }
        self.0.store_low8(0, RELEASE_HOT);
        true
    }

    /// The same in one step, so that nobody comes between look and store.
    #[inline]
    pub(crate) fn release_exact(&self) -> bool {
        self.0.update(RELEASE_EXACT, |v| (v & AWAITED == 0).then_some(v & !LOCKED_MASK)).is_ok()
    }

    /// The unlock when somebody is awaited: grants the lock if it was asked for. Refuses if the newest sleeper is not
    /// `newest`.
    ///
    /// # Errors
    /// What is there now. Else what was there before.
    pub(crate) fn release_cold(&self, newest: Option<Tail>) -> Result<Value, Value> {
        self.release_behind(RELEASE_COLD, newest, ASKED)
    }

    /// The unlock that grants the lock if anybody is in the lane. Refuses if somebody sleeps.
    pub(crate) fn release_granting(&self) -> bool {
        self.release_behind(RELEASE_FAIR, None, LANE | ASKED).is_ok()
    }

    /// Releases the lock, if the newest sleeper is `newest`; and grants it, if one of the bits `granting` is set.
    #[inline]
    fn release_behind(&self, access: Access, newest: Option<Tail>, granting: u32) -> Result<Value, Value> {
        let release = |v| match v {
            v if Value(v).tail() != newest => None,
            v if v & granting != 0 => Some((v & !(LOCKED_MASK | ASKED)) | GRANTED),
            v => Some(v & !LOCKED_MASK),
        };
        self.0.update(access, release).map(Value).map_err(Value)
    }

    /// What is there, as a hint.
    pub(crate) fn seen(&self) -> Value {
        Value(self.0.load(SEEN))
    }

    /// What is there now, and all that whoever wrote it had done before.
    pub(crate) fn seen_now(&self) -> Value {
        Value(self.0.load(SEEN_NOW))
    }

    /// Waits a while until `done`.
    pub(crate) fn watch<M: Machine<Cell = C>>(&self, m: &M, budget: Budget, done: impl Fn(Value) -> bool) -> bool {
        m.until_for(&self.0, WATCH, budget, |v| done(Value(v))).is_ok()
    }

    /// Sleeps until `until`, or less. Nobody wakes who is in no queue.
    pub(crate) fn doze<M: Machine<Cell = C>>(&self, m: &M, until: u64) {
        let seen = self.seen();
        if !seen.is_for_waiters() {
            m.wait(&self.0, seen.0, DOZE, Some(until));
        }
    }

    /// A waiter of some patience takes the lock: it may be free or granted.
    pub(crate) fn claim(&self) -> bool {
        let claim = |v| Value(v).is_for_waiters().then_some((v & !LOCKED_MASK) | LOCKED);
        self.0.update(CLAIM, claim).is_ok()
    }

    /// Takes the lock, or else the lane if nobody is in it.
    pub(crate) fn enter_lane(&self) -> Step {
        self.claim_or(ENTER_LANE, 0, |v| (v & LANE == 0).then_some(v | LANE))
    }

    /// From the lane: takes the lock and leaves, or else asks for it.
    pub(crate) fn ask(&self) -> Step {
        self.claim_or(ASK, LANE | ASKED, |v| Some(v | ASKED))
    }

    /// From the lane: takes the lock and leaves.
    pub(crate) fn claim_from_lane(&self) -> bool {
        self.claim_or(CLAIM_LANE, LANE | ASKED, |_| None) == Step::Claimed
    }

    /// Leaves the lane, and takes back what was asked: in the step that would find the lock granted, so that it is never
    /// granted to who has gone.
    pub(crate) fn leave_lane(&self) -> Step {
        self.claim_or(LEAVE_LANE, LANE | ASKED, |v| Some(v & !(LANE | ASKED)))
    }

    fn claim_or(&self, access: Access, clear: u32, or: impl Fn(u32) -> Option<u32>) -> Step {
        let step = |v| match Value(v) {
            value if value.is_for_waiters() => Some((v & !(LOCKED_MASK | clear)) | LOCKED),
            _ => or(v),
        };
        match self.0.update(access, step) {
            Ok(old) if Value(old).is_for_waiters() => Step::Claimed,
            Ok(_) => Step::Done,
            Err(_) => Step::Refused,
        }
    }

    /// Makes `me` the newest sleeper, behind `last`, if that is still the newest and the lock has an owner, who will wake
    /// us.
    pub(crate) fn lie_down(&self, last: Option<Tail>, me: Tail) -> bool {
        let push = |v| {
            let is_fit = Value(v).tail() == last && !Value(v).is_for_waiters();
            is_fit.then_some((v & !TAIL_MASK) | tail_bits(me))
        };
        self.0.update(LIE_DOWN, push).is_ok()
    }

    /// The newest sleeper, for the owner.
    pub(crate) fn newest(&self) -> Option<Tail> {
        Value(self.0.load(NEWEST)).tail()
    }

    /// The owner has taken out the last sleeper, unless somebody has lain down behind it.
    pub(crate) fn all_up(&self, last: Tail) -> bool {
        self.0.update(EMPTIED, |v| (v & TAIL_MASK == tail_bits(last)).then_some(v & !TAIL_MASK)).is_ok()
    }
}
