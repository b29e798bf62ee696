//! The slow path whose calls are sites. What it does is [`ByLoad`]'s; only how it gets there differs.

use core::convert::Infallible;

use super::sites;
use crate::atomic::AtomicCell;
use crate::machine::GlobalMachine;
use crate::slowpath::{ByLoad, Fallible, HandsOver, Patience, Sealed, Sleeping, SlowPath, Vigil};
use crate::word::{LockWord, Value};

/// The slow path that was chosen when the system started, on real CPUs or threads. Where code can be rewritten, lock
/// and unlock follow the choice without looking it up: see [`patch`](crate::patch). Waiting with a deadline and fair
/// unlocks do look it up.
///
/// A machine that is a value, or has cells of its own, takes [`ByLoad`].
#[derive(Clone, Copy, Debug)]
pub struct Chosen;

// SAFETY: as `ByLoad`, which every form of a site either is or agrees with.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: GlobalMachine<Cell = AtomicCell>> SlowPath<M> for Chosen {
    type Error = Infallible;
    const NAME: &'static str = <ByLoad as SlowPath<M>>::NAME;

    fn acquire(m: &M, word: &LockWord<AtomicCell>) -> Result<(), Infallible> {
        ByLoad::acquire(m, word)
    }

    #[inline(always)]
    fn acquire_cold(_m: &M, word: &LockWord<AtomicCell>) -> Result<(), Infallible> {
        unlikely();
        sites::acquire::<M>(word);
        Ok(())
    }

    #[inline(always)]
    fn try_acquire(word: &LockWord<AtomicCell>) -> bool {
        <ByLoad as SlowPath<M>>::try_acquire(word)
    }

    fn try_past(word: &LockWord<AtomicCell>) -> bool {
        <ByLoad as SlowPath<M>>::try_past(word)
    }

    #[inline(always)]
    fn release(_m: &M, word: &LockWord<AtomicCell>) {
        sites::release::<M>(word);
    }

    fn is_taken(seen: Value) -> bool {
        <ByLoad as SlowPath<M>>::is_taken(seen)
    }
}

/// Tells the compiler that what follows is out of the way.
#[cold]
#[inline(always)]
const fn unlikely() {}

impl<M: GlobalMachine<Cell = AtomicCell>> HandsOver<M> for Chosen {
    fn release_fair(m: &M, word: &LockWord<AtomicCell>) {
        ByLoad::release_fair(m, word);
    }
}

impl Sealed for Chosen {}

impl<M: GlobalMachine<Cell = AtomicCell>> Sleeping<M> for Chosen {
    fn patience(m: &M) -> Patience {
        <ByLoad as Sleeping<M>>::patience(m)
    }

    fn lines_up() -> bool {
        <ByLoad as Sleeping<M>>::lines_up()
    }

    fn acquire_until(m: &M, word: &LockWord<AtomicCell>, deadline: u64) -> bool {
        ByLoad::acquire_until(m, word, deadline)
    }
}

// SAFETY: as `ByLoad`.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: GlobalMachine<Cell = AtomicCell>> Fallible<M> for Chosen {
    fn acquire_under<V: Vigil<M>>(m: &M, word: &LockWord<AtomicCell>, vigil: &mut V) -> Result<(), V::Error> {
        ByLoad::acquire_under(m, word, vigil)
    }

    fn acquire_beside<V: Vigil<M>>(m: &M, word: &LockWord<AtomicCell>, vigil: &mut V) -> Result<(), V::Error> {
        ByLoad::acquire_beside(m, word, vigil)
    }

    fn is_to_be_had(seen: Value) -> bool {
        <ByLoad as Fallible<M>>::is_to_be_had(seen)
    }

    fn take_past_all(word: &LockWord<AtomicCell>) -> bool {
        <ByLoad as Fallible<M>>::take_past_all(word)
    }

    fn bury(m: &M, word: &LockWord<AtomicCell>) {
        ByLoad::bury(m, word);
    }
}
