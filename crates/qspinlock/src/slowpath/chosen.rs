//! The slow path that was chosen when the system started: one lock type for every machine.
//!
//! The fast path is the same whatever is chosen: take the lock if nobody holds it and nobody waits. What differs is
//! how to wait, and what an unlock looks after. [`ByLoad`] looks up the choice each time, by one load that always finds
//! the same and a branch that always goes the same way. [`Chosen`](super::Chosen) has it written into the code.

use core::convert::Infallible;

use super::parking::kind;
use super::vigil::{Fallible, Vigil};
use super::{HandsOver, Native, Numa, Paravirt, Parking, Patience, Sleeping, SlowPath, TestAndSet};
use crate::machine::{Budget, Machine};
use crate::select::SlowPathKind;
use crate::start;
use crate::word::{LockWord, Value};

/// The chosen slow path, looked up each time: one load that always finds the same.
#[derive(Clone, Copy, Debug)]
pub struct ByLoad;

/// Does the same with whichever slow path is chosen. By comparisons, and not by a `match` over all of them: of that the compiler
/// makes an indirect jump.
macro_rules! chosen {
    ($kind:expr, $S:ident => $do:expr) => {{
        let kind = $kind;
        if kind == SlowPathKind::Parking {
            type $S = Parking;
            $do
        } else if kind == SlowPathKind::Paravirt {
            type $S = Paravirt;
            $do
        } else if kind == SlowPathKind::TestAndSet {
            type $S = TestAndSet;
            $do
        } else if kind == SlowPathKind::Numa {
            type $S = Numa;
            $do
        } else {
            type $S = Native;
            $do
        }
    }};
}

// SAFETY: each of them is a slow path; all agree on what a word says that is held and for which nobody waits; and the
// choice does not change once anybody has waited.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: Machine> SlowPath<M> for ByLoad {
    type Error = Infallible;
    const NAME: &'static str = "chosen";

    fn acquire(m: &M, word: &LockWord<M::Cell>) -> Result<(), Infallible> {
        // Not every slow path's own fast path is as strict as ours.
        chosen!(start::closed(), S => {
            if <S as SlowPath<M>>::try_acquire(word) { Ok(()) } else { <S as SlowPath<M>>::acquire(m, word) }
        })
    }

    #[inline(always)]
    fn try_acquire(word: &LockWord<M::Cell>) -> bool {
        word.try_acquire()
    }

    // Kept out of the fast path of locking, which is the same for all.
    fn try_past(word: &LockWord<M::Cell>) -> bool {
        start::current() == SlowPathKind::Parking && <Parking as SlowPath<M>>::try_acquire(word)
    }

    #[inline(always)]
    fn release(m: &M, word: &LockWord<M::Cell>) {
        chosen!(start::current(), S => <S as SlowPath<M>>::release(m, word));
    }

    fn is_taken(seen: Value) -> bool {
        chosen!(start::current(), S => <S as SlowPath<M>>::is_taken(seen))
    }
}

impl<M: Machine> HandsOver<M> for ByLoad {
    fn release_fair(m: &M, word: &LockWord<M::Cell>) {
        match start::current() {
            SlowPathKind::Parking => Parking::release_fair(m, word),
            _ => Self::release(m, word),
        }
    }
}

impl kind::Sealed for ByLoad {}

impl<M: Machine> Sleeping<M> for ByLoad {
    fn patience(m: &M) -> Patience {
        m.patience()
    }

    fn lines_up() -> bool {
        start::closed() == SlowPathKind::Parking
    }

    fn acquire_until(m: &M, word: &LockWord<M::Cell>, deadline: u64) -> bool {
        match start::closed() {
            SlowPathKind::Parking => Parking::acquire_until(m, word, deadline),
            _ => look_until(m, word, deadline),
        }
    }
}

// SAFETY: as above.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: Machine> Fallible<M> for ByLoad {
    fn acquire_under<V: Vigil<M>>(m: &M, word: &LockWord<M::Cell>, vigil: &mut V) -> Result<(), V::Error> {
        chosen!(start::closed(), S => <S as Fallible<M>>::acquire_under(m, word, vigil))
    }

    fn acquire_beside<V: Vigil<M>>(m: &M, word: &LockWord<M::Cell>, vigil: &mut V) -> Result<(), V::Error> {
        chosen!(start::closed(), S => <S as Fallible<M>>::acquire_beside(m, word, vigil))
    }

    fn is_to_be_had(seen: Value) -> bool {
        chosen!(start::closed(), S => <S as Fallible<M>>::is_to_be_had(seen))
    }

    fn take_past_all(word: &LockWord<M::Cell>) -> bool {
        chosen!(start::closed(), S => <S as Fallible<M>>::take_past_all(word))
    }

    fn bury(m: &M, word: &LockWord<M::Cell>) {
        chosen!(start::closed(), S => <S as Fallible<M>>::bury(m, word));
    }
}

/// Waits beside the queue, in which nobody may give up a place, and takes the lock past it; but not from who is about to
/// take it, be that pending or an awake head.
fn look_until<M: Machine>(m: &M, word: &LockWord<M::Cell>, deadline: u64) -> bool {
    loop {
        let now = m.now();
        if now >= deadline {
            return false;
        }
        let budget = Budget::Until(deadline.min(now.saturating_add(m.patience().spin.into())));
        if word.watch(m, budget, Value::is_for_thieves) && word.steal() {
            return true;
        }
        m.yield_cpu();
    }
}
