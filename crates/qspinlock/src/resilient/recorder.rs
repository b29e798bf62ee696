//! What a machine keeps for resilient locks: a record for each CPU.

use core::panic::Location;

use super::Looks;
use super::entry::Entry;
use super::record::Record;
use super::report::{Report, Ticket};
use crate::machine::{Access, Machine};
use crate::queue::Cpu;
use crate::word::LockWord;

/// A cell that holds the name of a lock.
///
/// # Safety
/// As for [`Cell`](crate::machine::Cell): atomic, with orderings at least as strong as C11's. Detection rests on it, and so whether an error
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
/// [`record`](Self::record) returns the same, distinct record for a CPU each time, valid for as long as the machine;
/// [`known`](Self::known) what [`mine`](Self::mine) says, or nothing; and [`name`](Self::name) distinct names for distinct locks, above 3 and divisible by 4. A CPU whose number passes to
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

    /// The same, if that is known already: for the fast path, which leaves everything else to one that is not in line.
    #[inline]
    fn known(&self) -> Option<(Cpu, &RecordOf<Self>)> {
        self.mine()
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

/// An entry of a CPU of machine `M`.
pub(super) type EntryOf<M> = Entry<<M as Recorder>::Name, <M as Recorder>::Place>;

/// The record of a CPU of machine `M`.
pub type RecordOf<M> = Record<<M as Machine>::Cell, <M as Recorder>::Name, <M as Recorder>::Place>;
