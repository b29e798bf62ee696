//! What each thread has entered of the resilient locks that it holds and wants.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Threads;
use super::policy::policy;
use super::slots::{self, CAPACITY};
use crate::atomic::reports::AtomicPlace;
use crate::atomic::{AtomicName, AtomicRecord};
use crate::queue::Cpu;
use crate::resilient::Recorder;

/// Records of threads that never hold such a lock are untouched zero pages.
static RECORDS: [AtomicRecord; CAPACITY] = [const { AtomicRecord::EMPTY }; CAPACITY];

/// All slots that were ever claimed are below.
static USED: AtomicU32 = AtomicU32::new(0);

static ORPHANS: AtomicU64 = AtomicU64::new(0);

/// Locks that are held and in no record: how many, and in the upper half how many there have been.
static UNRECORDED: AtomicU64 = AtomicU64::new(0);

/// How many of those are held by threads without a slot.
static UNNUMBERED: AtomicU32 = AtomicU32::new(0);

fn unrecorded(locks: u32) {
    UNRECORDED.fetch_add(u64::from(locks) * (1 << 32 | 1), Ordering::Relaxed);
}

/// How many resilient locks were still held by threads when these ended, since the process started; in the child of a
/// `fork` also by threads that are not there. Mostly nobody will ever release them, and who waits for one is told so by
/// time; but a guard in a thread-local variable may yet be dropped.
#[must_use]
pub fn locks_left_behind() -> u64 {
    ORPHANS.load(Ordering::Relaxed)
}

/// A slot has been claimed.
pub(super) fn is_used(slot: u32) {
    // Who looks for others must not miss one whose lock it has seen taken: the claim of that lock comes after this.
    USED.fetch_max(slot + 1, Ordering::AcqRel);
}

/// The thread of a slot ends.
pub(super) fn owner_ends(slot: u32) {
    let held = RECORDS[slot as usize].clear();
    if held > 0 {
        unrecorded(held);
        ORPHANS.fetch_add(held.into(), Ordering::Relaxed);
    }
}

/// In the child of a `fork`: of all threads only that of slot `mine` is left. What the others held is left behind.
#[cfg(unix)]
pub(super) fn others_are_gone(mine: Option<u32>) {
    (0..USED.load(Ordering::Relaxed)).filter(|&slot| mine != Some(slot)).for_each(owner_ends);
}

// SAFETY: a static table; addresses of locks are distinct, aligned to 4, and not 0; a record is cleared when its thread
// ends, and what it held is counted.
#[allow(unsafe_code, reason = "promises distinct records")]
unsafe impl Recorder for Threads {
    type Name = AtomicName;
    type Place = AtomicPlace;

    #[inline(always)]
    fn known(&self) -> Option<(Cpu, &AtomicRecord)> {
        // One comparison for a thread that has a slot.
        let slot = slots::number().wrapping_sub(1);
        RECORDS.get(slot as usize).map(|record| (Cpu::known(slot), record))
    }

    #[inline]
    fn record(&self, cpu: Cpu) -> &AtomicRecord {
        &RECORDS[cpu.index()]
    }

    #[inline]
    fn recorded(&self) -> u32 {
        USED.load(Ordering::Acquire)
    }

    fn unrecorded(&self) -> Option<u32> {
        let both = UNRECORDED.load(Ordering::Relaxed);
        (both as u32 == 0).then_some((both >> 32) as u32)
    }

    fn is_unnumbered(&self) -> bool {
        UNNUMBERED.load(Ordering::Relaxed) > 0
    }

    #[cold]
    fn enter_unnumbered(&self) {
        UNNUMBERED.fetch_add(1, Ordering::Relaxed);
        unrecorded(1);
    }

    #[cold]
    fn leave_unnumbered(&self) {
        UNNUMBERED.fetch_sub(1, Ordering::Relaxed);
        self.leave_orphaned();
    }

    #[cold]
    fn leave_orphaned(&self) {
        UNRECORDED.fetch_sub(1, Ordering::Relaxed);
    }

    fn limit(&self) -> u64 {
        policy().limit.as_nanos() as u64
    }

    fn is_strict(&self) -> bool {
        policy().strict
    }
}
