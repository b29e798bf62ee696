//! What each CPU holds and what it waits for: written by itself, read by whoever looks for a deadlock.
//!
//! ```text
//!   wait      how many waits have begun or ended so far, and which entry is waited for
//!   entries   [ lock A, held ] [ lock B, held ] [ lock C, wanted ] [ - ] ...
//! ```
//!
//! An entry is *pushed before* the lock is tried and *removed after* it was released, so that an interrupt in between
//! finds it; how it stands in between is said by the [entry](super::entry).
//!
//! Entries are removed in any order, and pushed above all others: so what an interrupt holds is above what the context
//! that it has interrupted had then. Removing one empties it, and leaves the top where it is: the next push finds the
//! topmost empty, and lowers the top only if there is more to lower. So who takes and releases one lock after another
//! never writes the top, and does not wait for what it has just written to come back to it.
//!
//! Who releases each lock after having taken the next gets to the end of the room, and then goes on in what was removed
//! further down; but not in an interrupt of a wait. A lock whose guard was forgotten stays, as it stays locked. When
//! there is no room the lock is taken all the same, and counted; a deadlock through it is not found, and its waiters'
//! time runs out.
//!
//! An interrupt that comes between a push's look at an empty entry and its filling it takes the same one, and has
//! emptied it again when it returns. If it has forgotten a guard instead, one of the two entries is lost, and whoever
//! wants that lock is told by time. What somebody else empties, because a lock is gone whose guard was forgotten, is
//! not taken for empty: it is filled again only when there is no other room.
//!
//! # One writer
//! Only the CPU itself writes (but for locks that are gone), and contexts that interrupt it have removed what they pushed
//! before they return. So plain loads and stores do, in an order that leaves the entries in order at each step. Others
//! read at any time:
//! [`wait`](Record::waits) tells them whether what they read belongs together (see [`detect`](super::detect)). It has
//! lines of its own, and is written only by who waits for long while it holds something: whoever looks takes no line
//! from a CPU that goes about its business.

use core::panic::Location;

use super::entry::{Entry, SEE};
use super::recorder::{NameCell, PlaceCell};
use crate::machine::{Access, Cell, ConstCell, Machine};

/// Locks of a CPU that are recorded.
#[doc(alias = "RES_NR_HELD")]
pub const ENTRIES: usize = 31;

const TOP: Access = Access::relaxed("record.top", "its CPU's own; or a hint, how far to look");
const SET_TOP: Access = Access::relaxed("record.set-top", "its CPU's own");
const PUSHED: Access = Access::release("record.pushed", "record.pushes");
const PUSHES: Access = Access::acquire("record.pushes", "record.pushed: what was pushed is seen");
const WAIT: Access = Access::release("record.wait", "record.seen-wait: what is held and wanted in this wait");
const SEEN_WAIT: Access = Access::acquire("record.seen-wait", "record.wait: what is held and wanted in this wait");

/// Bits of [`Record::wait`] that say which entry is waited for, plus one.
const INDEX: u32 = 0x1f;

/// Bits above those that say where the top was then. The rest counts.
const BOUND: u32 = 0x3e0;
const BOUND_SHIFT: u32 = INDEX.count_ones();

const _: () = assert!(ENTRIES <= INDEX as usize && ENTRIES <= (BOUND >> BOUND_SHIFT) as usize);

/// On lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Line<C>(C);

/// The record of a CPU.
#[derive(Debug)]
#[repr(C)]
pub struct Record<C, N, P> {
    wait: Line<C>,
    /// Entries in use are below; all that are not hold 0.
    top: C,
    /// Locks that had no room.
    beyond: C,
    /// Counts what was pushed.
    pushes: C,
    entries: [Entry<N, P>; ENTRIES],
}

/// A wait of a CPU, as others see it: the same value, the same wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait(u32);

impl Wait {
    /// None.
    pub(super) const NONE: Self = Self(0);

    fn entry(self) -> Option<usize> {
        (self.0 & INDEX).checked_sub(1).map(|index| index as usize)
    }

    /// What is held throughout it is below. What is above is held by a context that has interrupted it.
    fn bound(self) -> usize {
        ((self.0 & BOUND) >> BOUND_SHIFT) as usize
    }
}

/// Where a lock is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At(u32);

impl At {
    /// Nowhere: there was no room.
    pub(super) const BEYOND: Self = Self(ENTRIES as u32);

    /// In which entry, if any.
    #[inline]
    pub(super) fn index(self) -> Option<usize> {
        Some(self.0 as usize).filter(|&at| at < ENTRIES)
    }
}

impl<C: ConstCell, N, P> Record<C, N, P> {
    /// Nothing held, nothing wanted; `entries` are empty.
    #[must_use]
    pub const fn new(entries: [Entry<N, P>; ENTRIES]) -> Self {
        Self::from_cells(C::ZERO, C::ZERO, C::ZERO, C::ZERO, entries)
    }
}

impl<C, N, P> Record<C, N, P> {
    /// Nothing held, nothing wanted, in cells that hold 0, for machines that make their own cells.
    pub const fn from_cells(wait: C, top: C, beyond: C, pushes: C, entries: [Entry<N, P>; ENTRIES]) -> Self {
        Self { wait: Line(wait), top, beyond, pushes, entries }
    }
}

impl<C: Cell, N: NameCell, P: PlaceCell> Record<C, N, P> {
    /// Enters a lock that is about to be tried. `None`, and nothing done, if there are empty entries to be given up first,
    /// or no room.
    #[inline(always)]
    pub(super) fn push_simply<M: Machine<Cell = C>>(
        &self,
        m: &M,
        name: usize,
        place: &'static Location<'static>,
    ) -> Option<(&Entry<N, P>, At)> {
        let top = self.top.load(TOP);
        // Two ways, and not one index that is computed: which way it goes is guessed, while an index would have to wait for
        // the entry that was written just before.
        if !self.is_empty_below(top) {
            let entry = self.entries.get(top as usize)?;
            self.set_top(m, top + 1);
            self.fill(entry, name, place);
            Some((entry, At(top)))
        } else if !self.is_empty_below(top - 1) {
            let entry = self.entries.get(top as usize - 1)?;
            self.fill(entry, name, place);
            Some((entry, At(top - 1)))
        } else {
            None
        }
    }

    /// Enters a lock that is about to be tried.
    pub(super) fn push<M: Machine<Cell = C>>(&self, m: &M, name: usize, place: &'static Location<'static>) -> At {
        // Again, if a handler has moved the top in between.
        loop {
            if let Some((_, at)) = self.push_simply(m, name, place) {
                return at;
            }
            let used = self.in_use();
            let empty = used.iter().rev().take_while(|entry| entry.is_empty()).count();
            if empty > 0 {
                // The lowest of them is for us.
                self.set_top(m, (used.len() - empty + 1) as u32);
            } else if used.len() == ENTRIES {
                return self.push_below(name, place);
            }
        }
    }

    #[inline(always)]
    fn fill(&self, entry: &Entry<N, P>, name: usize, place: &'static Location<'static>) {
        entry.fill(name, place);
        self.pushes.count_up_own(PUSHED);
    }

    /// First the room, then what is in it: a handler that comes in between pushes there or above, and finds it empty again,
    /// as we do.
    #[inline(always)]
    fn set_top<M: Machine<Cell = C>>(&self, m: &M, top: u32) {
        self.top.store(top, SET_TOP);
        m.signal_fence();
    }

    /// Whether there is an entry below that one, with nothing in it.
    #[inline(always)]
    fn is_empty_below(&self, top: u32) -> bool {
        self.entries.get(top.wrapping_sub(1) as usize).is_some_and(Entry::is_empty)
    }

    /// Enters it where something was removed.
    #[cold]
    fn push_below(&self, name: usize, place: &'static Location<'static>) -> At {
        // What is below the top when a wait begins counts as held by who waits: not what an interrupt of it takes.
        let is_waiting = Wait(self.wait.0.load(TOP)).entry().is_some();
        let empty = self.entries.iter().rposition(|entry| entry.is_empty() || entry.is_forgotten());
        let Some(at) = empty.filter(|_| !is_waiting) else {
            self.beyond.store(self.beyond.load(TOP) + 1, SET_TOP);
            return At::BEYOND;
        };
        self.fill(&self.entries[at], name, place);
        At(at as u32)
    }

    /// One that had no room is gone.
    pub(super) fn forget_beyond(&self) {
        self.beyond.store(self.beyond.load(TOP).saturating_sub(1), SET_TOP);
    }

    /// Where a lock is that is held. If it is not recorded, and one that had no room is held, it may be that one.
    #[inline]
    pub(super) fn find(&self, name: usize) -> Option<At> {
        let found = self.in_use().iter().rposition(|entry| entry.is_held(name));
        let beyond = || (self.beyond.load(TOP) > 0).then_some(At::BEYOND);
        found.map(|at| At(at as u32)).or_else(beyond)
    }

    /// Those in use, and some between them that are not.
    #[inline]
    fn in_use(&self) -> &[Entry<N, P>] {
        &self.entries[..ENTRIES.min(self.top.load(TOP) as usize)]
    }

    /// Panics if there is none.
    #[inline]
    pub(super) fn entry(&self, at: usize) -> &Entry<N, P> {
        &self.entries[at]
    }

    #[inline]
    fn at(&self, at: At) -> Option<&Entry<N, P>> {
        self.entries.get(at.index()?)
    }

    /// Whether this CPU has to do with any lock but that one, so that somebody might wait for it.
    pub(super) fn has_others(&self, at: At) -> bool {
        let is_other = |(n, entry): (usize, &Entry<N, P>)| at.index() != Some(n) && entry.is_in_use();
        self.in_use().iter().enumerate().any(is_other)
    }

    /// The innermost context begins to wait for what is entered there. What [`end_wait`](Self::end_wait) is to be told.
    pub(super) fn begin_wait(&self, name: usize, at: At) -> Wait {
        if let Some(entry) = self.at(at) {
            entry.want(name);
            // What an interrupt pushes is above: that goes to the lowest that is empty above all that is not.
            let top = self.in_use().iter().rposition(|entry| !entry.is_empty());
            let bound = top.map_or(0, |top| top as u32 + 1);
            self.set_wait((at.0 + 1) | bound << BOUND_SHIFT)
        } else {
            self.set_wait(0)
        }
    }

    /// The wait is over; what was interrupted goes on.
    pub(super) fn end_wait(&self, name: usize, at: At, before: Wait) {
        self.set_wait(before.0 & (INDEX | BOUND));
        if let Some(entry) = self.at(at) {
            entry.want_no_more(name);
        }
    }

    /// One step: a handler that waits has numbers of its own, also if it comes in between. What was before.
    fn set_wait(&self, is: u32) -> Wait {
        let next = |was: u32| Some((was | INDEX | BOUND).wrapping_add(1) | is);
        Wait(self.wait.0.update(WAIT, next).unwrap_or_else(|same| same))
    }

    /// How this CPU itself stands with a lock, but for the entry `except`.
    #[inline]
    pub(super) fn own(&self, name: usize, except: At) -> Own {
        let mut own = Own::Nothing;
        for (at, entry) in self.in_use().iter().enumerate().filter(|&(at, _)| except.index() != Some(at)) {
            if entry.is_held(name) {
                return Own::Holds(At(at as u32));
            } else if entry.is_of(name) {
                own = Own::Unsure(At(at as u32));
            }
        }
        own
    }

    /// How many locks are held, or being taken.
    #[must_use]
    pub fn held(&self) -> u32 {
        let held = self.in_use().iter().filter(|entry| entry.is_in_use()).count() as u32;
        held + self.beyond.load(TOP)
    }

    /// Forgets everything, for a CPU whose number is to be another's. Returns how many locks it held.
    pub fn clear(&self) -> u32 {
        let held = self.held();
        self.set_wait(0);
        self.in_use().iter().for_each(Entry::remove);
        self.top.store(0, SET_TOP);
        self.beyond.store(0, SET_TOP);
        held
    }

    /// A lock that is held here goes, whose guard was forgotten: so nobody else writes its entry. For others.
    pub(super) fn forget(&self, name: usize) {
        self.entries.iter().filter(|entry| entry.is_seen_held(name)).for_each(Entry::forget);
    }

    /// The innermost wait, if there is one that has been made known: for others.
    pub(super) fn waits(&self) -> Option<Wait> {
        let wait = Wait(self.wait.0.load(SEEN_WAIT));
        wait.entry().map(|_| wait)
    }

    /// What is waited for in a wait: its name, and where it was asked for. For others.
    pub(super) fn wanted(&self, wait: Wait) -> Option<(usize, Option<&'static Location<'static>>)> {
        let entry = self.entries.get(wait.entry()?)?;
        Some((entry.seen_name(), entry.place()))
    }

    /// Where in this record a lock is that is held throughout a wait. For others.
    pub(super) fn held_in(&self, wait: Wait, name: usize) -> Option<At> {
        let below = self.entries.get(..wait.bound())?;
        below.iter().position(|entry| entry.is_seen_held(name)).map(|at| At(at as u32))
    }

    /// Whether this CPU says that it holds a lock, and where. A hint, for others.
    pub(super) fn holds(&self, name: usize) -> Option<At> {
        self.in_use().iter().position(|entry| entry.is_seen_held(name)).map(|at| At(at as u32))
    }

    /// Where a lock was asked for. For others.
    pub(super) fn place(&self, at: At) -> Option<&'static Location<'static>> {
        self.at(at)?.place()
    }

    /// How often anything was pushed. For others: what was pushed so far is seen.
    pub(super) fn pushes(&self) -> u32 {
        self.pushes.load(PUSHES)
    }

    /// Whether this CPU has anything to do with a lock, or may have. For others.
    pub(super) fn may_hold(&self, name: usize) -> bool {
        self.beyond.load(SEE) > 0 || self.entries.iter().any(|entry| entry.seen_name() == name)
    }
}

/// How a CPU stands with a lock that it now wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// Not at all.
    Nothing,
    /// A context that was interrupted is trying it, waits for it, or is releasing it.
    Unsure(At),
    /// It holds it.
    Holds(At),
}
