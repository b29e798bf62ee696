//! One lock that a CPU holds or wants, in its [record](super::record).
//!
//! It has the lock's address, which leaves two bits for how it stands:
//! * *held*;
//! * *wanted*: waited for;
//! * *unsure*: it is being tried, or released. Others do not count it as held: they would be wrong as soon as an
//!   interrupt makes that moment last.

use core::panic::Location;

use super::recorder::{NameCell, PlaceCell};
use crate::machine::Access;

/// How an entry stands; nothing added: held.
const WANTED: usize = 1;
const UNSURE: usize = 2;
const STANDING: usize = 3;

/// What an entry holds that has nothing in it.
const EMPTY: usize = 0;
/// Somebody else has emptied it. Its own CPU may be at any step, and relies on what is in use to stay so until it itself
/// changes that: so this is no room, but for who finds no other.
const FORGOTTEN: usize = WANTED;

const PUSH: Access = Access::release("record.push", "record.see: the wait before has ended");
const HOLD: Access = Access::release("record.hold", "record.see: the wait before has ended");
const WANT: Access = Access::release("record.want", "record.see: the wait before has ended");
const LEAVE: Access = Access::relaxed("record.leave", "the next wait publishes it");
const REMOVE: Access = Access::release("record.remove", "record.see: the lock has been released");
const OWN: Access = Access::relaxed("record.own", "its CPU's own");
pub(super) const SEE: Access =
    Access::acquire("record.see", "record.push, -hold, -want, -remove: who sees it sees what came before");

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

/// For its CPU.
impl<N: NameCell, P: PlaceCell> Entry<N, P> {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.lock.load(OWN) == EMPTY
    }

    #[inline]
    pub(super) fn is_forgotten(&self) -> bool {
        self.lock.load(OWN) == FORGOTTEN
    }

    /// The lock is about to be tried. Its place second: a handler that comes before the lock is there takes the entry, and
    /// leaves its own place in it. Others read the place of a lock that is held or wanted, which comes later.
    #[inline(always)]
    pub(super) fn fill(&self, name: usize, place: &'static Location<'static>) {
        self.lock.store(name | UNSURE, PUSH);
        self.place.set(place);
    }

    /// The lock is held.
    #[inline]
    pub(super) fn hold(&self, name: usize) {
        self.lock.store(name, HOLD);
    }

    /// The lock is waited for.
    pub(super) fn want(&self, name: usize) {
        self.lock.store(name | WANTED, WANT);
    }

    /// The wait is over; how it has ended is still to be said.
    pub(super) fn want_no_more(&self, name: usize) {
        self.lock.store(name | UNSURE, HOLD);
    }

    /// The lock is about to be released.
    #[inline]
    pub(super) fn leave(&self, name: usize) {
        self.lock.store(name | UNSURE, LEAVE);
    }

    /// The lock has been released, or was not to be had.
    #[inline]
    pub(super) fn remove(&self) {
        self.lock.store(EMPTY, REMOVE);
    }

    /// Whether that lock is held, as this says. If not, its CPU's number is another's now.
    #[inline]
    pub(super) fn is_held(&self, name: usize) -> bool {
        self.lock.load(OWN) == name
    }

    /// Whether it is about that lock.
    #[inline]
    pub(super) fn is_of(&self, name: usize) -> bool {
        self.lock.load(OWN) & !STANDING == name
    }

    /// Whether it is about any.
    #[inline]
    pub(super) fn is_in_use(&self) -> bool {
        self.lock.load(OWN) > STANDING
    }
}

/// For others.
impl<N: NameCell, P: PlaceCell> Entry<N, P> {
    /// The lock that it is about.
    pub(super) fn seen_name(&self) -> usize {
        self.lock.load(SEE) & !STANDING
    }

    /// Whether that lock is held, as this says.
    pub(super) fn is_seen_held(&self, name: usize) -> bool {
        self.lock.load(SEE) == name
    }

    /// The lock is gone, whose guard was forgotten.
    pub(super) fn forget(&self) {
        self.lock.store(FORGOTTEN, REMOVE);
    }

    /// Where the lock was asked for.
    pub(super) fn place(&self) -> Option<&'static Location<'static>> {
        self.place.get()
    }
}
