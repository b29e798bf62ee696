//! What each CPU holds and what it waits for: written by itself, read by whoever looks for a deadlock.
//!
//! ```text
//!   wait      how many waits have begun or ended so far, and which entry is waited for
//!   entries   [ lock A, held ] [ lock B, held ] [ lock C, wanted ] [ - ] ...
//! ```
//!
//! An entry is *pushed before* the lock is tried and *removed after* it was released, so that an interrupt in between
//! finds it. It has the lock's address, which leaves two bits for how it stands:
//! * *held*;
//! * *wanted*: waited for;
//! * *unsure*: it is being tried, or released. Others do not count it as held: they would be wrong as soon as an
//!   interrupt makes that moment last.
//!
//! Entries are removed in any order, and pushed above all others: so what an interrupt holds is above what the context
//! that it has interrupted had then. Who releases each lock after having taken the next gets to the end of the room,
//! and then goes on in what was removed further down; but not in an interrupt of a wait. A lock whose guard was
//! forgotten stays, as it stays locked. When there is no room the lock is taken all the same, and counted; a deadlock
//! through it is not found, and its waiters' time runs out.
//!
//! # One writer
//! Only the CPU itself writes, and contexts that interrupt it undo what they did before they return. So plain loads and
//! stores do, in an order that leaves the entries in order at each step. Others read at any time:
//! [`wait`](Record::waits) tells them whether what they read belongs together (see [`detect`](super::detect)). It has
//! lines of its own, and is written only by who waits for long while it holds something: whoever looks takes no line
//! from a CPU that goes about its business.

use core::panic::Location;

use crate::machine::{Access, Cell, ConstCell, Machine};
use crate::queue::Cpu;
use crate::word::LockWord;

use super::Looks;
use super::report::{Report, Ticket};

/// Locks of a CPU that are recorded.
#[doc(alias = "RES_NR_HELD")]
pub const ENTRIES: usize = 31;

/// A cell that holds the name of a lock.
///
/// # Safety
/// As for [`Cell`]: atomic, with orderings at least as strong as C11's. Detection rests on it, and so whether an error
/// is true.
#[allow(unsafe_code, reason = "an obligation on implementations")]
pub unsafe trait NameCell {
    /// Reads.
    #[track_caller]
    fn load(&self, access: Access) -> usize;

    /// Writes.
    #[track_caller]
    fn store(&self, name: usize, access: Access);
}

/// Where in the source a lock was asked for. For reports only.
pub trait PlaceCell {
    /// What it holds.
    fn get(&self) -> Option<&'static Location<'static>>;

    /// Changes it.
    fn set(&self, place: &'static Location<'static>);
}

/// A machine whose CPUs have records: what resilient locks need.
///
/// # Safety
/// [`record`](Self::record) returns the same, distinct record for a CPU each time, valid for as long as the machine,
/// and [`name`](Self::name) distinct names for distinct locks, above 3 and divisible by 4. A CPU whose number passes to
/// another thread has had its record [cleared](Record::clear). What it held then is counted by
/// [`unrecorded`](Self::unrecorded), as is what those hold for whom [`here`](Machine::here) is `None`.
#[allow(unsafe_code, reason = "an obligation on implementations")]
pub unsafe trait Recorder: Machine + Sized {
    /// What holds a lock's name.
    type Name: NameCell;
    /// What holds a place.
    type Place: PlaceCell;

    /// The caller's CPU and its record: what [`here`](Machine::here) says, and [`record`](Self::record) of that.
    #[inline]
    fn mine(&self) -> Option<(Cpu, &RecordOf<Self>)> {
        self.here().map(|cpu| (cpu, self.record(cpu)))
    }

    /// The record of a CPU. Only called with numbers below [`recorded`](Self::recorded).
    fn record(&self, cpu: Cpu) -> &RecordOf<Self>;

    /// All that [`here`](Machine::here) has ever returned are below this.
    fn recorded(&self) -> u32;

    /// The name of a lock: its address.
    #[inline]
    fn name(&self, word: &LockWord<Self::Cell>) -> usize {
        core::ptr::from_ref(word).addr()
    }

    /// How often, so far, a lock came to be held that is in no record; `None` while any is. By who has no CPU number,
    /// or had one, which is somebody else's now.
    fn unrecorded(&self) -> Option<u32> {
        Some(0)
    }

    /// Whether anybody holds a lock who had no CPU number when it took it.
    fn is_unnumbered(&self) -> bool {
        false
    }

    /// Who has no CPU number is about to try a lock.
    fn enter_unnumbered(&self) {}

    /// It has released that lock, or has not got it.
    fn leave_unnumbered(&self) {}

    /// Somebody has released a lock whose CPU number was somebody else's by then.
    fn leave_orphaned(&self) {}

    /// How long a lock waits that was not told otherwise, in nanoseconds.
    #[doc(alias = "RES_DEF_TIMEOUT")]
    fn limit(&self) -> u64 {
        super::DEFAULT_LIMIT
    }

    /// When a waiter looks for a deadlock.
    fn looks(&self) -> Looks {
        Looks::DEFAULT
    }

    /// Whether a lock that fails panics, instead of returning an error.
    fn is_strict(&self) -> bool {
        false
    }

    /// Keeps what there is to tell of an error. By default in a [ring](crate::atomic::reports) that all machines share.
    fn keep(&self, report: &Report) -> Ticket {
        crate::atomic::reports::keep(report)
    }
}

/// The record of a CPU of machine `M`.
pub type RecordOf<M> = Record<<M as Machine>::Cell, <M as Recorder>::Name, <M as Recorder>::Place>;

/// How an entry stands; nothing added: held.
const WANTED: usize = 1;
const UNSURE: usize = 2;
const STANDING: usize = 3;

const TOP: Access = Access::relaxed("record.top", "its CPU's own; or a hint, how far to look");
const SET_TOP: Access = Access::relaxed("record.set-top", "its CPU's own");
const PUSHES: Access = Access::acquire("record.pushes", "record.pushed: what was pushed is seen");
const PUSHED: Access = Access::release("record.pushed", "record.pushes");
const PUSH: Access = Access::release("record.push", "record.see: the wait before has ended");
const HOLD: Access = Access::release("record.hold", "record.see: the wait before has ended");
const WANT: Access = Access::release("record.want", "record.see: the wait before has ended");
const LEAVE: Access = Access::relaxed("record.leave", "the next wait publishes it");
const REMOVE: Access = Access::release("record.remove", "record.see: the lock has been released");
const CLOSE: Access = Access::relaxed("record.close", "nothing was there");
const OWN: Access = Access::relaxed("record.own", "its CPU's own");
const SEE: Access =
    Access::acquire("record.see", "record.push, -hold, -want, -remove: who sees it sees what came before");
const WAIT: Access = Access::release("record.wait", "record.seen-wait: what is held and wanted in this wait");
const SEEN_WAIT: Access = Access::acquire("record.seen-wait", "record.wait: what is held and wanted in this wait");

/// What an entry below the top holds that was removed. One that holds 0 has been reserved, and is about to be filled.
const GONE: usize = 1;

/// Bits of [`Record::wait`] that say which entry is waited for, plus one.
const INDEX: u32 = 0x1f;

/// Bits above those that say where the top was then. The rest counts.
const BOUND: u32 = 0x3e0;
const BOUND_SHIFT: u32 = INDEX.count_ones();

const _: () = assert!(ENTRIES <= INDEX as usize && ENTRIES <= (BOUND >> BOUND_SHIFT) as usize);

/// One lock that a CPU holds or wants.
#[derive(Debug)]
pub struct Entry<N, P> {
    lock: N,
    place: P,
}

impl<N, P> Entry<N, P> {
    /// An empty entry, from cells that hold 0 and nothing.
    pub const fn from_cells(lock: N, place: P) -> Self {
        Self { lock, place }
    }
}

/// On lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Line<C>(C);

/// The record of a CPU.
#[derive(Debug)]
#[repr(C)]
pub struct Record<C, N, P> {
    wait: Line<C>,
    /// Entries in use are below.
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
    /// Enters a lock that is about to be tried.
    #[inline]
    pub(super) fn push<M: Machine<Cell = C>>(&self, m: &M, name: usize, place: &'static Location<'static>) -> At {
        let top = self.top.load(TOP);
        let Some(entry) = self.entries.get(top as usize) else {
            return self.push_below(name, place);
        };
        // First the room, then what is in it: a handler that comes in between takes the next, and finds this one not
        // gone.
        self.top.store(top + 1, SET_TOP);
        m.signal_fence();
        self.fill(entry, name, place);
        At(top)
    }

    #[inline]
    fn fill(&self, entry: &Entry<N, P>, name: usize, place: &'static Location<'static>) {
        entry.place.set(place);
        entry.lock.store(name | UNSURE, PUSH);
        self.pushes.count_up_own(PUSHED);
    }

    /// Enters it where something was removed.
    #[cold]
    fn push_below(&self, name: usize, place: &'static Location<'static>) -> At {
        // What is below the top when a wait begins counts as held by who waits: not what an interrupt of it takes.
        let is_waiting = Wait(self.wait.0.load(OWN)).entry().is_some();
        let gone = self.entries.iter().rposition(|entry| entry.lock.load(OWN) == GONE);
        let Some(at) = gone.filter(|_| !is_waiting) else {
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

    /// What was pushed is held.
    #[inline]
    pub(super) fn hold(&self, name: usize, at: At) {
        if let Some(entry) = self.at(at) {
            entry.lock.store(name, HOLD);
        }
    }

    /// Where a lock is that is held. If it is not recorded, and one that had no room is held, it may be that one.
    #[inline]
    pub(super) fn find(&self, name: usize) -> Option<At> {
        let found = self.in_use().iter().rposition(|entry| entry.lock.load(OWN) == name);
        let beyond = || (self.beyond.load(TOP) > 0).then_some(At::BEYOND);
        found.map(|at| At(at as u32)).or_else(beyond)
    }

    /// Those in use, and some between them that are not.
    #[inline]
    fn in_use(&self) -> &[Entry<N, P>] {
        &self.entries[..ENTRIES.min(self.top.load(TOP) as usize)]
    }

    #[inline]
    fn at(&self, at: At) -> Option<&Entry<N, P>> {
        self.entries.get(at.index()?)
    }

    /// The lock is about to be released. False if it is not entered there: its CPU's number is another's now.
    #[inline]
    pub(super) fn leave(&self, name: usize, at: At) -> bool {
        let entry = self.at(at).filter(|entry| entry.lock.load(OWN) == name);
        if let Some(entry) = entry {
            entry.lock.store(name | UNSURE, LEAVE);
        }
        entry.is_some()
    }

    /// The lock has been released, or was not to be had.
    #[inline]
    pub(super) fn remove<M: Machine<Cell = C>>(&self, m: &M, at: At) {
        let Some(entry) = self.at(at) else { return };
        let mut top = at.0;
        if self.top.load(TOP) != top + 1 {
            // Whoever is above closes it, when it goes.
            return entry.lock.store(GONE, REMOVE);
        }
        entry.lock.store(0, REMOVE);
        while top > 0 && self.entries[top as usize - 1].lock.load(OWN) == GONE {
            top -= 1;
            self.entries[top as usize].lock.store(0, CLOSE);
        }
        // What is above is empty, before a handler may push there.
        m.signal_fence();
        self.top.store(top, SET_TOP);
    }

    /// Whether this CPU has to do with any lock but that one, so that somebody might wait for it.
    pub(super) fn has_others(&self, at: At) -> bool {
        let is_other = |(n, entry): (usize, &Entry<N, P>)| at.index() != Some(n) && entry.lock.load(OWN) > STANDING;
        self.in_use().iter().enumerate().any(is_other)
    }

    /// The innermost context begins to wait for what is entered there. What [`end_wait`](Self::end_wait) is to be told.
    pub(super) fn begin_wait(&self, name: usize, at: At) -> Wait {
        if let Some(entry) = self.at(at) {
            entry.lock.store(name | WANTED, WANT);
            let top = self.top.load(TOP).min(ENTRIES as u32);
            self.set_wait((at.0 + 1) | top << BOUND_SHIFT)
        } else {
            self.set_wait(0)
        }
    }

    /// The wait is over; what was interrupted goes on.
    pub(super) fn end_wait(&self, name: usize, at: At, before: Wait) {
        self.set_wait(before.0 & (INDEX | BOUND));
        if let Some(entry) = self.at(at) {
            entry.lock.store(name | UNSURE, HOLD);
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
            match entry.lock.load(OWN) {
                held if held == name => return Own::Holds(At(at as u32)),
                other if other & !STANDING == name => own = Own::Unsure(At(at as u32)),
                _ => {}
            }
        }
        own
    }

    /// How many locks are held, or being taken.
    #[must_use]
    pub fn held(&self) -> u32 {
        let held = self.in_use().iter().filter(|entry| entry.lock.load(OWN) > STANDING).count() as u32;
        held + self.beyond.load(TOP)
    }

    /// Forgets everything, for a CPU whose number is to be another's. Returns how many locks it held.
    pub fn clear(&self) -> u32 {
        let held = self.held();
        self.set_wait(0);
        self.in_use().iter().for_each(|entry| entry.lock.store(0, REMOVE));
        self.top.store(0, SET_TOP);
        self.beyond.store(0, SET_TOP);
        held
    }

    /// A lock that is held here goes, whose guard was forgotten: so nobody else writes its entry. For others.
    pub(super) fn forget(&self, name: usize) {
        self.entries
            .iter()
            .filter(|entry| entry.lock.load(SEE) == name)
            .for_each(|entry| entry.lock.store(GONE, REMOVE));
    }

    /// The innermost wait, if there is one that has been made known: for others.
    pub(super) fn waits(&self) -> Option<Wait> {
        let wait = Wait(self.wait.0.load(SEEN_WAIT));
        wait.entry().map(|_| wait)
    }

    /// What is waited for in a wait: its name, and where it was asked for. For others.
    pub(super) fn wanted(&self, wait: Wait) -> Option<(usize, Option<&'static Location<'static>>)> {
        let entry = self.entries.get(wait.entry()?)?;
        Some((entry.lock.load(SEE) & !STANDING, entry.place.get()))
    }

    /// Where in this record a lock is that is held throughout a wait. For others.
    pub(super) fn held_in(&self, wait: Wait, name: usize) -> Option<At> {
        let below = self.entries.get(..wait.bound())?;
        below.iter().position(|entry| entry.lock.load(SEE) == name).map(|at| At(at as u32))
    }

    /// Whether this CPU says that it holds a lock, and where. A hint, for others.
    pub(super) fn holds(&self, name: usize) -> Option<At> {
        self.in_use().iter().position(|entry| entry.lock.load(SEE) == name).map(|at| At(at as u32))
    }

    /// Where a lock was asked for. For others.
    pub(super) fn place(&self, at: At) -> Option<&'static Location<'static>> {
        self.at(at)?.place.get()
    }

    /// How often anything was pushed. For others: what was pushed so far is seen.
    pub(super) fn pushes(&self) -> u32 {
        self.pushes.load(PUSHES)
    }

    /// Whether this CPU has anything to do with a lock, or may have. For others.
    pub(super) fn may_hold(&self, name: usize) -> bool {
        self.beyond.load(SEE) > 0 || self.entries.iter().any(|entry| entry.lock.load(SEE) & !STANDING == name)
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
