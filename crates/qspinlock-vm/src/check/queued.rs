//! The slow paths of CPUs of several domains without the pending lane. More of few CPUs queue then, and to set a waiter aside
//! takes three that do.

use std::convert::Infallible;

use qspinlock::queue::{Node, Tail};
use qspinlock::slowpath::{Fallible, Flavour, Numa, Queue, SlowPath, Vigil, walk};
use qspinlock::word::LockWord;

use super::machine::{CheckCell, CheckMachine};

type Word = LockWord<CheckCell>;

/// [`Numa`], in which everybody queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueuedNuma;

impl<'w> Flavour<CheckMachine<'w>> for QueuedNuma {
    type Error = Infallible;
    type Baton = <Numa as Flavour<CheckMachine<'w>>>::Baton;
    const PENDING_LANE: bool = false;

    fn prepare(m: &CheckMachine<'w>, mine: &Node<CheckCell>, is_nested: bool) {
        Numa::prepare(m, mine, is_nested);
    }

    fn link(m: &CheckMachine<'w>, predecessor: Tail, me: Tail) {
        Numa::link(m, predecessor, me);
    }

    fn await_turn(m: &CheckMachine<'w>, mine: &Node<CheckCell>, before: Tail) -> Result<Self::Baton, Infallible> {
        Numa::await_turn(m, mine, before)
    }

    fn await_lock(
        m: &CheckMachine<'w>,
        word: &Word,
        me: Tail,
        mine: &Node<CheckCell>,
        baton: &mut Self::Baton,
    ) -> Result<Queue, Infallible> {
        Numa::await_lock(m, word, me, mine, baton)
    }

    fn promote(m: &CheckMachine<'w>, word: &Word, mine: &Node<CheckCell>, baton: Self::Baton) {
        Numa::promote(m, word, mine, baton);
    }
}

// SAFETY: the walk returns when it has claimed the byte, and the waits are those of `Numa`, which do so.
unsafe impl<'w> SlowPath<CheckMachine<'w>> for QueuedNuma {
    type Error = Infallible;
    const NAME: &'static str = <Numa as SlowPath<CheckMachine<'w>>>::NAME;

    fn acquire(m: &CheckMachine<'w>, word: &Word) -> Result<(), Infallible> {
        walk::<_, Self>(m, word)
    }
}

// SAFETY: its own promise.
unsafe impl<'w> Fallible<CheckMachine<'w>> for QueuedNuma {
    fn acquire_under<V: Vigil<CheckMachine<'w>>>(
        m: &CheckMachine<'w>,
        word: &Word,
        vigil: &mut V,
    ) -> Result<(), V::Error> {
        Numa::acquire_under(m, word, vigil)
    }
}
