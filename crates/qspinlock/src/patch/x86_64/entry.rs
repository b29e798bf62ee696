//! Where the sites lead. All but [`look_up`] and [`release`] are called directly, having been chosen.
//!
//! The C ABI, since assembly calls them: a panic, which would be a mistake of the library, ends the process here.

use crate::atomic::AtomicCell;
use crate::machine::GlobalMachine;
use crate::select::SlowPathKind;
use crate::slowpath::{ByLoad, Native, Numa, Paravirt, Parking, SlowPath, TestAndSet};
use crate::start;
use crate::word::LockWord;

/// A slow path that can be chosen.
pub(super) trait Choosable<M: GlobalMachine<Cell = AtomicCell>>:
    SlowPath<M, Error = core::convert::Infallible>
{
    /// Whether it is chosen and stays.
    fn is_closed() -> bool;
}

impl<M: GlobalMachine<Cell = AtomicCell>> Choosable<M> for Native {
    #[inline(always)]
    fn is_closed() -> bool {
        start::is_closed_as(SlowPathKind::Native)
    }
}

impl<M: GlobalMachine<Cell = AtomicCell>> Choosable<M> for Numa {
    #[inline(always)]
    fn is_closed() -> bool {
        start::is_closed_as(SlowPathKind::Numa)
    }
}

impl<M: GlobalMachine<Cell = AtomicCell>> Choosable<M> for Paravirt {
    #[inline(always)]
    fn is_closed() -> bool {
        start::is_closed_as(SlowPathKind::Paravirt)
    }
}

impl<M: GlobalMachine<Cell = AtomicCell>> Choosable<M> for Parking {
    #[inline(always)]
    fn is_closed() -> bool {
        start::is_closed_as(SlowPathKind::Parking)
    }
}

impl<M: GlobalMachine<Cell = AtomicCell>> Choosable<M> for TestAndSet {
    #[inline(always)]
    fn is_closed() -> bool {
        start::is_closed_as(SlowPathKind::TestAndSet)
    }
}

/// What an acquire site calls as long as it is not rewritten.
#[cold]
#[inline(never)]
pub(super) extern "C" fn look_up<M: GlobalMachine<Cell = AtomicCell>>(word: &LockWord<AtomicCell>) {
    let Ok(()) = ByLoad::acquire(&M::MACHINE, word);
}

/// What it calls when `S` is chosen. The first to wait closes the choice, by the look-up; and so does a call that was on its
/// way while the choice changed find what is chosen now.
pub(super) extern "C" fn enter<M: GlobalMachine<Cell = AtomicCell>, S: Choosable<M>>(word: &LockWord<AtomicCell>) {
    if S::is_closed() {
        slow::<M, S>(word);
    } else {
        look_up::<M>(word);
    }
}

#[inline(never)]
extern "C" fn slow<M: GlobalMachine<Cell = AtomicCell>, S: Choosable<M>>(word: &LockWord<AtomicCell>) {
    // Not every slow path's own fast path is as strict as that before the site.
    if !S::try_acquire(word) {
        let Ok(()) = S::acquire(&M::MACHINE, word);
    }
}

/// The unlock by the choice: of a site that is not rewritten, and when somebody is to be told.
#[cold]
#[inline(never)]
pub(super) fn release<M: GlobalMachine<Cell = AtomicCell>>(word: &LockWord<AtomicCell>) {
    <ByLoad as SlowPath<M>>::release(&M::MACHINE, word);
}

pub(super) fn slow_path<M: GlobalMachine<Cell = AtomicCell>>(kind: SlowPathKind) -> usize {
    let function: extern "C" fn(&LockWord<AtomicCell>) = match kind {
        SlowPathKind::Native => slow::<M, Native>,
        SlowPathKind::Numa => slow::<M, Numa>,
        SlowPathKind::Paravirt => slow::<M, Paravirt>,
        SlowPathKind::Parking => slow::<M, Parking>,
        SlowPathKind::TestAndSet => slow::<M, TestAndSet>,
    };
    function as usize
}
