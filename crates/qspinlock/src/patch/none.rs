//! No patching: each lock and unlock looks up the choice.

use super::SiteKind;
use crate::atomic::AtomicCell;
use crate::machine::GlobalMachine;
use crate::select::SlowPathKind;
use crate::slowpath::{ByLoad, SlowPath};
use crate::word::LockWord;

pub(crate) const AVAILABLE: bool = false;
pub(crate) const LONGEST: usize = 1;

/// There is none.
#[derive(Debug)]
pub(crate) enum Record {}

impl Record {
    pub(crate) fn kind(&self) -> Option<SiteKind> {
        match *self {}
    }

    pub(crate) fn address(&self) -> usize {
        match *self {}
    }

    pub(crate) fn len(&self) -> usize {
        match *self {}
    }

    pub(crate) fn target(&self, _form: Option<SlowPathKind>) -> Option<usize> {
        match *self {}
    }

    pub(crate) fn code(&self, _form: Option<SlowPathKind>) -> Option<[u8; LONGEST]> {
        match *self {}
    }
}

pub(crate) fn records() -> &'static [Record] {
    &[]
}

// Out of line, so that a call site is the fast path and one call.
#[cold]
#[inline(never)]
pub(crate) fn acquire<M: GlobalMachine<Cell = AtomicCell>>(word: &LockWord<AtomicCell>) {
    let Ok(()) = <ByLoad as SlowPath<M>>::acquire(&M::MACHINE, word);
}

#[inline(always)]
pub(crate) fn release<M: GlobalMachine<Cell = AtomicCell>>(word: &LockWord<AtomicCell>) {
    <ByLoad as SlowPath<M>>::release(&M::MACHINE, word);
}
