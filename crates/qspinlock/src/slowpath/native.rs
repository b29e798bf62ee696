//! CPUs of our own, one memory node: spin, and hand off in the order of arrival. The walk as it stands.

use core::convert::Infallible;

use super::leaving::{self, Leaving};
use super::vigil::{Fallible, Vigil};
use super::{Flavour, HandsOver, SlowPath, walk};
use crate::machine::Machine;
use crate::word::LockWord;

/// The queued spinlock for CPUs that nobody takes away while they wait.
///
/// With more runnable waiters than CPUs it collapses, as every fair spinning lock does: the lock is handed to
/// waiters that do not run.
#[derive(Clone, Copy, Debug)]
#[doc(alias = "native_queued_spin_lock_slowpath")]
pub struct Native;

impl<M: Machine> Flavour<M> for Native {
    type Error = Infallible;
    type Baton = ();
}

// SAFETY: the walk returns when it has claimed the byte, and this flavour changes none of its waits.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: Machine> SlowPath<M> for Native {
    type Error = Infallible;
    const NAME: &'static str = "native";

    fn acquire(m: &M, word: &LockWord<M::Cell>) -> Result<(), Infallible> {
        walk::<M, Self>(m, word)
    }
}

// SAFETY: that walk, too.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: Machine> Fallible<M> for Native {
    fn acquire_under<V: Vigil<M>>(m: &M, word: &LockWord<M::Cell>, vigil: &mut V) -> Result<(), V::Error> {
        leaving::walk::<M, Self, V>(m, word, vigil)
    }
}

impl<M: Machine> Leaving<M> for Native {
    type Estate = ();
}

impl<M: Machine> HandsOver<M> for Native {
    /// Every unlock is fair: newcomers see the waiter's bits, and queue.
    #[inline(always)]
    fn release_fair(_m: &M, word: &LockWord<M::Cell>) {
        word.release();
    }
}
