//! The walk without its pending lane, on threads: the second thread already queues, and so has a slot.

use std::convert::Infallible;

use qspinlock::Machine;
use qspinlock::slowpath::{Flavour, SlowPath, walk};
use qspinlock::threads::Threads;
use qspinlock::word::LockWord;

pub(crate) struct QueueOnly;

impl Flavour<Threads> for QueueOnly {
    type Error = Infallible;
    type Baton = ();
    const PENDING_LANE: bool = false;
}

// SAFETY: the walk returns when it has claimed the byte, and this flavour changes none of its waits.
unsafe impl SlowPath<Threads> for QueueOnly {
    type Error = Infallible;
    const NAME: &'static str = "queue-only";

    fn acquire(m: &Threads, word: &LockWord<<Threads as Machine>::Cell>) -> Result<(), Infallible> {
        walk::<_, Self>(m, word)
    }
}
