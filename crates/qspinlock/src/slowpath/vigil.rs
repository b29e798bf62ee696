//! What a waiter minds beside the lock: whether it is time to give up. A deadline, or the search for a deadlock.
//!
//! A wait goes on for as long as its vigil lets it. It asks often while it spins, which costs a look at the clock; and
//! a sleep ends when the next look is due. A wait that nothing can end is written without one.

use core::convert::Infallible;

use super::SlowPath;
use crate::machine::{Budget, Event, Machine};
use crate::word::{LockWord, Value};

/// Whether a wait may go on.
pub trait Vigil<M: Machine> {
    /// Why it may not.
    type Error;

    /// Whether the lock may be handed to a waiter that sleeps. Otherwise whoever gets it takes it itself.
    const MAY_BE_HANDED: bool = true;

    /// When the next look is due, on [`Machine::now`]'s clock: a sleep ends then. `None`: never; or that is known only after
    /// the first look, so nobody sleeps before it.
    fn due(&self) -> Option<u64>;

    /// Whether it has lasted so long that somebody else may have this CPU between two looks at the lock.
    fn gives_way(&self) -> bool {
        false
    }

    /// Looks, if a look is due: true then. The caller holds nothing that it waits for.
    ///
    /// # Errors
    /// The wait is to end. Whoever gets the lock before it has left has it all the same.
    fn look(&mut self, m: &M) -> Result<bool, Self::Error>;

    /// The same for a caller that has just looked at the clock: that costs as much as a short wait.
    ///
    /// # Errors
    /// The same.
    fn look_at(&mut self, m: &M, _now: u64) -> Result<bool, Self::Error> {
        self.look(m)
    }

    /// Looks, due or not: the waiter is about to sleep, and should not find out only when it wakes that it never will.
    ///
    /// # Errors
    /// The same.
    fn look_before_sleep(&mut self, m: &M) -> Result<(), Self::Error>;
}

/// A slow path whose waiters may give up.
///
/// All who ever wait for a lock do so under a vigil, or none of them: in some queues those who wait for ever do not
/// look whether somebody before or behind them has left. [`RawResilientLock`](crate::RawResilientLock) is of the first
/// kind, [`RawSpinLock`](crate::RawSpinLock) of the second.
///
/// # Safety
/// As for [`SlowPath`]: `Ok` only to a caller that has claimed the lock, and [`take_past_all`](Self::take_past_all) is
/// true only then.
#[allow(unsafe_code, reason = "an obligation on implementations")]
pub unsafe trait Fallible<M: Machine>: SlowPath<M, Error = Infallible> {
    /// Waits for the lock and takes it, for as long as the vigil lets it.
    ///
    /// # Errors
    /// The vigil's. Nothing is held then; those who wait keep their places and their order.
    fn acquire_under<V: Vigil<M>>(m: &M, word: &LockWord<M::Cell>, vigil: &mut V) -> Result<(), V::Error>;

    /// The same, but in nobody's queue: for an interrupt whose own CPU is in it, which cannot go on meanwhile.
    ///
    /// # Errors
    /// The same.
    fn acquire_beside<V: Vigil<M>>(m: &M, word: &LockWord<M::Cell>, vigil: &mut V) -> Result<(), V::Error>
    where
        Self: Sized,
    {
        beside::<M, Self, V>(m, word, vigil)
    }

    /// Whether nobody holds the lock of which this was seen.
    fn is_to_be_had(seen: Value) -> bool {
        !seen.is_locked()
    }

    /// Takes the lock if nobody holds it, whoever is about to.
    fn take_past_all(word: &LockWord<M::Cell>) -> bool {
        word.barge()
    }

    /// The lock goes, held by nobody who could release it: nobody waits for it, but those who gave up may have left
    /// nodes in its queue.
    fn bury(_m: &M, _word: &LockWord<M::Cell>) {}
}

/// A wait that nothing ends.
pub(super) struct Never;

impl<M: Machine> Vigil<M> for Never {
    type Error = Infallible;

    fn due(&self) -> Option<u64> {
        None
    }

    fn look(&mut self, _: &M) -> Result<bool, Infallible> {
        Ok(false)
    }

    fn look_before_sleep(&mut self, _: &M) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A wait until some moment.
#[derive(Clone, Copy, Debug)]
pub struct Until(pub u64);

/// The moment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

impl<M: Machine> Vigil<M> for Until {
    type Error = Late;

    fn due(&self) -> Option<u64> {
        Some(self.0)
    }

    fn look(&mut self, m: &M) -> Result<bool, Late> {
        self.look_at(m, m.now())
    }

    fn look_at(&mut self, _: &M, now: u64) -> Result<bool, Late> {
        if now >= self.0 { Err(Late) } else { Ok(false) }
    }

    fn look_before_sleep(&mut self, m: &M) -> Result<(), Late> {
        self.look(m).map(drop)
    }
}

/// Looks at a cell, and then one at the clock. About a microsecond: the clock costs as much as a few looks.
const LOOKS: Budget = Budget::Looks { most: 32, apart: 1 };

/// Why a wait under a vigil has ended.
pub(super) enum Waited<T, E> {
    /// What was waited for has come.
    Done(T),
    /// A look was due, and found nothing: the waiter may see to other things, and go on.
    Looked,
    /// The wait is to end.
    Over(E),
}

/// Waits for as long as the vigil lets it. `wait` waits for no more than it is told, and says what has come.
#[track_caller]
pub(super) fn wait<M: Machine, V: Vigil<M>, T>(
    m: &M,
    vigil: &mut V,
    mut wait: impl FnMut(Budget) -> Option<T>,
) -> Waited<T, V::Error> {
    loop {
        if let Some(come) = wait(LOOKS) {
            return Waited::Done(come);
        }
        match vigil.look(m) {
            Ok(false) if vigil.gives_way() => m.yield_cpu(),
            Ok(false) => {}
            Ok(true) => return Waited::Looked,
            Err(over) => return Waited::Over(over),
        }
    }
}

/// Waits beside any queue, and takes the lock past it.
pub(super) fn beside<M: Machine, S: Fallible<M>, V: Vigil<M>>(
    m: &M,
    word: &LockWord<M::Cell>,
    vigil: &mut V,
) -> Result<(), V::Error> {
    loop {
        if word.watch(m, LOOKS, S::is_to_be_had) {
            if S::take_past_all(word) {
                return Ok(());
            }
            m.count(Event::Bypassed);
        }
        vigil.look(m)?;
        // Somebody else may need this CPU, such as the owner.
        m.yield_cpu();
    }
}

/// How long a lock must be free for whoever has a claim on it to be given up: long enough for one that runs to claim
/// it.
const LONG_FREE: u64 = 2_000;

/// Takes the lock past everybody if it stays free. Whoever is about to take it may have been interrupted, by a handler
/// that waits for a lock whose owner stands behind it in this queue: nobody would ever go on.
pub(super) fn rescue<M: Machine, S: Fallible<M>>(m: &M, word: &LockWord<M::Cell>) -> bool {
    let is_free = |m: &M| {
        S::is_to_be_had(word.seen()) && {
            let budget = Budget::Until(m.now().saturating_add(LONG_FREE));
            !word.watch(m, budget, |seen| !S::is_to_be_had(seen))
        }
    };
    let is_ours = is_free(m) && S::take_past_all(word);
    if is_ours {
        m.count(Event::Rescued);
    }
    is_ours
}
