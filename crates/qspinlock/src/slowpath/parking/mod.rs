//! Threads, which the scheduler may take away at any moment: a running thread may pass, a waiter spins a little, yields,
//! and sleeps; and who has waited for long is served.
//!
//! A walk of its own, and not a flavour of [`walk`](super::walk): a queue in which the head waits awake hands the lock to
//! threads that do not run. With more threads than CPUs that is the common case, and a strict queue falls to half the
//! throughput of an unfair lock, or, if it spins, to a hundredth. So here
//! * **running threads pass** (*barging*): the lock never waits for somebody to wake up;
//! * **an unlock takes one sleeper out of the queue** and wakes it, to try its luck. Several are on their way at a
//!   time, since each may have to wait for a CPU;
//! * **newcomers yield** before they queue: whoever preempts an owner gives it back the CPU;
//! * **one waiter spins for long**, the one in the *lane*; after a while it *asks*, and the next unlock *grants* it the
//!   lock, which who passes by cannot take.
//!
//! ```text
//!   passing      byte 0 is 0: take it
//!   newcomer     spin ---> yield ---> lane free? ---> in the lane: spin ---> ask ---> granted
//!                                        | no            | too long
//!                                        v               v
//!   sleeper      lie down at the end of the queue, sleep ---> taken out by an unlock, woken: try again, or
//!                                                             (woken in vain too often) owner
//! ```
//!
//! # Bounded bypass
//! While a waiter lies in the queue, each unlock that finds the queue takes one out, the oldest first. So a waiter with k
//! before it is woken by the (k + 1)th such unlock at the latest; one more may pass, an unlock that looked before the
//! queue was there. Who has been woken [`turns`](Patience::turns) times in vain is handed the lock in its next turn,
//! asleep or not. What passes without a bound is who runs before a waiter has lain down, or while it is woken but has
//! no CPU: to wait for it would be a convoy. That time is bounded for who does have a CPU, by the spins and yields.
//!
//! In the lane: when it has asked, the next unlock that sees it grants the lock; again one may pass that looked before. A
//! grant can be taken by who has yielded or been woken, too, so that it is never lost on a waiter that is off its CPU;
//! then the one in the lane asks again.
//!
//! # No lost wake-ups
//! *If the lock is free and somebody sleeps, then somebody is awake, or about to be, who will look at the lock.* This
//! duty has whoever was taken out of the queue. It is done with when that waiter takes the lock, or sees it held: the
//! owner it sees claimed the lock after the queue was there, so its unlock finds the queue. One mistake is possible,
//! and the model checker found it: the waiter sees the very owner who has just told it, and lies down again behind that
//! owner's back. So an unlock is refused if somebody has lain down since it took one out.
//!
//! <a id="unlock"></a>
//! # Unlock without a second atomic
//! The unlock looks at the second byte, and if nobody sleeps it stores a byte. Who lies down between look and store is
//! not seen. Only the *first* to lie down can be in that place: who lies down behind it leaves the watch to it.
//! 1. *The store is in the store buffer.* It is visible within less than a microsecond. The first to lie down watches
//!    the word for [`poll`](Patience::poll) before it sleeps.
//! 2. *The unlocker is off its CPU* between look and store. The first to lie down therefore sleeps in naps: of
//!    [`nap`](Patience::nap), then twice as long each time, up to 4.3 s. An unlocker that was away for a time d after
//!    the waiter lay down is found out after at most 2 d + `nap`: the delay at most doubles, and a long wait costs only
//!    as many wake-ups as its logarithm. Those behind nap too, for longer: the first may have given up meanwhile.
//!
//! A nap that ends while the lock is free, and somebody else has the duty to look at it, takes the lock as well; from
//! behind it only unlocks again, so that the first in the queue has its turn.
//!
//! [`ParkingExact`] unlocks in one atomic step and has no such place, and its sleeps have no end of their own. There the
//! duty alone must be enough: it is what the checker explores, and what the same torture runs hammer.

mod condition;
mod list;
mod nap;
mod patience;
mod sleepers;
mod timed;
mod unlock;

pub(crate) use sleepers::State;

pub use condition::{RawCondvar, Waited};
pub use patience::{Excerpt, OutOfRange, Parameter, ParseError, Patience};

use core::convert::Infallible;

use self::kind::Kind;
use self::nap::{Nap, poll};
use self::unlock::{bury, get_up, release_cold, release_fair};
use super::vigil::{Fallible, Never, Until, Vigil};
use super::{HandsOver, SlowPath};
use crate::machine::{Budget, Event, Machine};
use crate::queue::{Level, Tail, node};
use crate::word::{LockWord, Step, Value};

/// A slow path whose waiters can also wait until some moment, and for a condition.
///
/// Not to be implemented elsewhere: all that sleeps follows one protocol.
pub trait Sleeping<M: Machine>: Fallible<M> + kind::Sealed {
    /// How long a waiter tries one thing before it tries the next.
    fn patience(m: &M) -> Patience;

    /// Whether waiters sleep in the queue of the lock, so that who waits for a condition can be moved there.
    #[must_use]
    fn lines_up() -> bool {
        true
    }

    /// Waits for the lock and takes it. False when [`Machine::now`] has reached `deadline`: nothing is held then. Tries
    /// nothing if it has been reached already.
    #[must_use = "the lock is held only if this is true"]
    fn acquire_until(m: &M, word: &LockWord<M::Cell>, deadline: u64) -> bool {
        Self::acquire_under(m, word, &mut Until(deadline)).is_ok()
    }
}

/// The lock for threads. See the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Parking;

/// The same, but the unlock is one atomic step and sleeps do not end by themselves: nothing covers up a mistake. For
/// tests; it costs a second atomic in each unlock.
#[derive(Clone, Copy, Debug)]
pub struct ParkingExact;

pub(crate) mod kind {
    use super::{Parking, ParkingExact, Patience};
    use crate::machine::Cell;
    use crate::word::LockWord;

    pub trait Sealed {}
    impl<S: Kind> Sealed for S {}

    /// In what the two differ.
    pub trait Kind {
        const KIND: &'static str;

        /// The unlock while nobody is to be told. False if somebody is, or may be.
        fn release_unawaited<C: Cell>(word: &LockWord<C>) -> bool;

        fn naps(patience: Patience) -> Patience;
    }

    impl Kind for Parking {
        const KIND: &'static str = "parking";

        #[inline(always)]
        fn release_unawaited<C: Cell>(word: &LockWord<C>) -> bool {
            word.release_hot()
        }

        fn naps(patience: Patience) -> Patience {
            patience
        }
    }

    impl Kind for ParkingExact {
        const KIND: &'static str = "parking-exact";

        #[inline(always)]
        fn release_unawaited<C: Cell>(word: &LockWord<C>) -> bool {
            word.release_exact()
        }

        fn naps(patience: Patience) -> Patience {
            Patience { nap: 0, nap_behind: 0, ..patience }
        }
    }
}

// SAFETY: every way out of `acquire` is a claim of the locked byte, or a hand-over by who had claimed it.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: Machine, S: Kind> SlowPath<M> for S {
    type Error = Infallible;
    const NAME: &'static str = S::KIND;

    fn acquire(m: &M, word: &LockWord<M::Cell>) -> Result<(), Infallible> {
        wait_for(m, word, &<S as Sleeping<M>>::patience(m));
        Ok(())
    }

    #[inline(always)]
    fn try_acquire(word: &LockWord<M::Cell>) -> bool {
        word.barge()
    }

    #[inline(always)]
    fn release(m: &M, word: &LockWord<M::Cell>) {
        if !S::release_unawaited(word) {
            release_cold(m, word);
        }
    }

    fn is_taken(seen: Value) -> bool {
        seen.is_locked()
    }
}

// SAFETY: the same ways out, but for those that say so.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: Machine, S: Kind> Fallible<M> for S {
    fn acquire_under<V: Vigil<M>>(m: &M, word: &LockWord<M::Cell>, vigil: &mut V) -> Result<(), V::Error> {
        timed::acquire_under(m, word, &<S as Sleeping<M>>::patience(m), vigil)
    }

    fn is_to_be_had(seen: Value) -> bool {
        seen.is_for_waiters()
    }

    fn take_past_all(word: &LockWord<M::Cell>) -> bool {
        word.claim()
    }

    fn bury(m: &M, word: &LockWord<M::Cell>) {
        bury(m, word);
    }
}

impl<M: Machine, S: Kind> HandsOver<M> for S {
    fn release_fair(m: &M, word: &LockWord<M::Cell>) {
        release_fair(m, word);
    }
}

impl<M: Machine, S: Kind> Sleeping<M> for S {
    fn patience(m: &M) -> Patience {
        S::naps(m.patience())
    }
}

fn wait_for<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience) {
    if spin(m, word, patience) {
        return;
    }
    for _ in 0..patience.yields {
        m.yield_cpu();
        if word.claim() {
            return;
        }
    }
    contend(m, word, patience, 0);
}

/// Waits in earnest, having been woken in vain so many times.
fn contend<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience, mut turns: u32) {
    loop {
        if lane(m, word, patience) {
            return;
        }
        match sleep(m, word, patience, turns) {
            State::Owner => return,
            _ => turns = patience.turns.min(turns + 1),
        }
        if word.claim() || spin(m, word, patience) {
            return;
        }
    }
}

/// Takes the lock if it becomes free within a short while.
fn spin<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience) -> bool {
    patience.spin > 0 && spin_from(m, word, patience, m.now())
}

/// The same, from a moment on that has just been.
fn spin_from<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience, now: u64) -> bool {
    if patience.spin == 0 {
        return false;
    }
    let budget = Budget::Until(now.saturating_add(patience.spin.into()));
    while word.watch(m, budget, Value::is_free) {
        if word.barge() {
            return true;
        }
        m.count(Event::Bypassed);
    }
    false
}

/// Spins in the lane, if that is free. False, and out of the lane, if the lock was not to be had.
fn lane<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience) -> bool {
    if patience.lane == 0 {
        return false;
    }
    match word.enter_lane() {
        Step::Claimed => return true,
        Step::Refused => return false,
        Step::Done => {}
    }
    let start = m.now();
    let budget = |ns: u32| Budget::Until(start.saturating_add(ns.into()));
    let is_ours = 'wait: {
        while word.watch(m, budget(patience.ask_after), Value::is_for_waiters) {
            if word.claim_from_lane() {
                break 'wait true;
            }
            m.count(Event::Bypassed);
        }
        // Asked for again when somebody else was granted what we asked for.
        while word.ask() == Step::Done {
            if !word.watch(m, budget(patience.lane), |v| v.is_for_waiters() || !v.is_asked()) {
                break 'wait word.leave_lane() == Step::Claimed;
            }
            if word.claim_from_lane() {
                break 'wait true;
            }
        }
        true
    };
    if is_ours {
        m.count(Event::Pending);
    }
    is_ours
}

/// Lies down and sleeps. The lock is ours (`Owner`), or we have been taken out of the queue to try again (`Woken`).
fn sleep<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience, turns: u32) -> State {
    let Some(level) = Level::take(m) else {
        without_node(m, word, patience);
        return State::Owner;
    };
    let Ok(told) = sleep_on(m, word, patience, turns, level.me(), &mut Never);
    told
}

/// The same, on the node `me`, and for as long as a vigil lets it. When that ends it, the node stays in the queue, abandoned.
fn sleep_on<M: Machine, V: Vigil<M>>(
    m: &M,
    word: &LockWord<M::Cell>,
    patience: &Patience,
    turns: u32,
    me: Tail,
    vigil: &mut V,
) -> Result<State, V::Error> {
    let mine = node(m, me);
    let state = if turns >= patience.turns { State::Starving } else { State::Waiting };
    let is_first = loop {
        let seen = word.seen();
        if seen.is_for_waiters() {
            if word.claim() {
                mine.stay_up();
                return Ok(State::Owner);
            }
            continue;
        }
        mine.prepare(me, seen.tail(), state);
        if word.lie_down(seen.tail(), me) {
            break seen.tail().is_none();
        }
    };
    m.count(Event::Queued);
    if is_first && poll(m, word, patience) && word.claim() && get_up(m, word, me) {
        return Ok(State::Owner);
    }
    let mut nap = Nap::new(m, if is_first { patience.nap } else { patience.nap_behind });
    let mut looked = vigil.look_before_sleep(m).map(|()| false);
    loop {
        if let Err(over) = looked {
            return match mine.abandon(state) {
                State::Abandoned => Err(over),
                told => Ok(told),
            };
        }
        m.count(if is_first { Event::WaitHead } else { Event::WaitNode });
        match mine.sleep(m, state, nap.end_or(vigil.due())) {
            State::Waiting | State::Starving => m.count(Event::Spurious),
            told => {
                m.count(Event::KickWake);
                return Ok(told);
            }
        }
        looked = vigil.look(m);
        if (nap.ends() || !matches!(looked, Ok(false))) && word.seen().is_for_waiters() && word.claim() {
            m.count(Event::Rescued);
            if get_up(m, word, me) {
                return Ok(State::Owner);
            }
        }
        nap.next(m);
    }
}

/// Waits without a node, and so without sleep: on a fifth nesting level, or with no slot. Correct, unfair, counted.
fn without_node<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience) {
    while !(spin(m, word, patience) || word.claim()) {
        m.yield_cpu();
    }
}
