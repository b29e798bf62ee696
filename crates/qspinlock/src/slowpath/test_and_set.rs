//! No queue: everybody spins on the word. For virtual CPUs under a hypervisor that offers no wait and kick, where a
//! fair lock waits for whichever waiter was preempted. Also what a waiter without a node does.

use core::convert::Infallible;

use super::SlowPath;
use super::vigil::{Fallible, Vigil, beside};
use crate::machine::{Event, Machine};
use crate::word::LockWord;

/// A test-and-set lock on the same word. Unfair; it never waits for a CPU that does not hold the lock.
#[derive(Clone, Copy, Debug)]
#[doc(alias = "virt_spin_lock")]
pub struct TestAndSet;

// SAFETY: `barge` returns when it has claimed the byte.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: Machine> SlowPath<M> for TestAndSet {
    type Error = Infallible;
    const NAME: &'static str = "test-and-set";

    fn acquire(m: &M, word: &LockWord<M::Cell>) -> Result<(), Infallible> {
        barge(m, word);
        Ok(())
    }
}

// SAFETY: `beside` returns when it has claimed the byte, or has given up.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: Machine> Fallible<M> for TestAndSet {
    fn acquire_under<V: Vigil<M>>(m: &M, word: &LockWord<M::Cell>, vigil: &mut V) -> Result<(), V::Error> {
        beside::<M, Self, V>(m, word, vigil)
    }
}

/// Takes the lock past any queue, whenever it is free.
pub(super) fn barge<M: Machine>(m: &M, word: &LockWord<M::Cell>) {
    word.wait_unlocked(m);
    while !word.barge() {
        m.count(Event::Bypassed);
        word.wait_unlocked(m);
    }
}
