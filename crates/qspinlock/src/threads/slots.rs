//! The slot table: a number for each thread that has ever had to wait, and its queue nodes.
//!
//! A static table, since a slot is claimed in the middle of an acquire, perhaps in a signal handler: nothing here
//! allocates, locks, or calls what a handler may not call. Slots that no thread has used are untouched zero pages and
//! take no memory; used ones take 128 bytes. Nodes are never freed, only their slot passes to another thread, so a
//! late reader of a node finds a node.

mod ghosts;

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{exit, fork, records};
use crate::atomic::{AtomicCell, signal_fence};
use crate::queue::{Cpu, Slot};

/// Threads that can have a slot at the same time. More can run: those wait without a node, unfairly, and
/// [`waits_without_node`](super::waits_without_node) counts it.
pub const CAPACITY: usize = WORDS * 64;

const WORDS: usize = 128;

static TABLE: Table<WORDS> = Table::new();

const NONE: u32 = 0;
const GONE: u32 = u32::MAX;

std::thread_local! {
    // Slot + 1; or NONE; or GONE, when the thread is past its exit hook. `const` and without a destructor, so that
    // reading it is one load, also in a signal handler. Atomic, since a handler may write it between any two
    // instructions of its thread.
    static MINE: AtomicU32 = const { AtomicU32::new(NONE) };
}

/// The caller's slot; claims one if it has none yet.
#[inline]
pub(super) fn mine() -> Option<Cpu> {
    match MINE.with(|mine| mine.load(Ordering::Relaxed)) {
        NONE => first_use(),
        GONE => None,
        number => Cpu::new(number - 1),
    }
}

/// The caller's slot + 1, claimed before; or a number that is of no slot.
#[inline]
pub(super) fn number() -> u32 {
    MINE.with(|mine| mine.load(Ordering::Relaxed))
}

#[inline]
pub(super) fn get(cpu: Cpu) -> &'static Slot<AtomicCell> {
    TABLE.slot(cpu.index())
}

/// How many threads have a slot now.
#[must_use]
pub fn slots_in_use() -> usize {
    TABLE.in_use()
}

#[cold]
fn first_use() -> Option<Cpu> {
    // Without an exit hook the slot would be lost when the thread ends; without a slot the thread merely waits
    // unfairly. The hook comes first, so that a thread which is killed in between loses nothing.
    if !exit::arm() {
        return None;
    }
    fork::arm();
    let slot = TABLE.claim()?;
    records::is_used(slot);
    // A signal handler may have run since `mine` looked, waited for a lock, and claimed a slot for this thread. Then
    // keep that one. One instruction, so that no handler comes between looking and writing: its slot would be lost.
    match MINE.with(|mine| mine.compare_exchange(NONE, slot + 1, Ordering::Relaxed, Ordering::Relaxed)) {
        Ok(_) => Cpu::new(slot),
        Err(handlers) => {
            TABLE.give_back(slot);
            if handlers == GONE { None } else { Cpu::new(handlers - 1) }
        }
    }
}

/// The thread ends: its slot is free for another, and if it still takes locks (in a later exit hook) it waits without
/// a node. It is not waiting now, so no queue names its nodes, but for a late reader.
pub(super) fn thread_ends() {
    let number = MINE.with(|mine| mine.swap(GONE, Ordering::Relaxed));
    // A handler from here on must find no slot: this one is about to be another thread's.
    signal_fence();
    if number != NONE && number != GONE {
        records::owner_ends(number - 1);
        TABLE.give_back(number - 1);
    }
}

/// In the child of a `fork`, before anything else runs there: of all threads only the caller is left.
#[cfg(unix)]
pub(super) fn others_are_gone() {
    let mine = match MINE.with(|mine| mine.load(Ordering::Relaxed)) {
        NONE | GONE => None,
        number => Some(number - 1),
    };
    records::others_are_gone(mine);
    TABLE.others_are_gone(mine);
}

/// `WORDS * 64` slots, and who has them.
struct Table<const WORDS: usize> {
    slots: [[Slot<AtomicCell>; 64]; WORDS],
    /// A bit for each slot, set while it is taken.
    taken: [AtomicU64; WORDS],
    /// A bit for each slot that is taken by nobody, since a queue may still name one of its nodes.
    haunted: [AtomicU64; WORDS],
    /// How many those are, at least while nothing changes.
    ghosts: AtomicU32,
    /// Below this word of `taken` every slot was taken when last looked: where a search may start.
    lowest: AtomicU32,
}

impl<const WORDS: usize> Table<WORDS> {
    const fn new() -> Self {
        Self {
            slots: [const { [const { Slot::new() }; 64] }; WORDS],
            taken: [const { AtomicU64::new(0) }; WORDS],
            haunted: [const { AtomicU64::new(0) }; WORDS],
            ghosts: AtomicU32::new(0),
            lowest: AtomicU32::new(0),
        }
    }

    #[inline]
    fn slot(&self, number: usize) -> &Slot<AtomicCell> {
        &self.slots[number / 64][number % 64]
    }

    fn in_use(&self) -> usize {
        self.taken.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }

    /// Takes a free slot, a low one if it can.
    fn claim(&self) -> Option<u32> {
        if self.ghosts.load(Ordering::Relaxed) != 0 {
            self.lay_ghosts();
        }
        let start = self.lowest.load(Ordering::Relaxed) as usize;
        // Slots below `start` may have been given back by a thread that had yet to lower it: look there last.
        for index in (start..WORDS).chain(0..start) {
            // Acquire pairs with the release in `give_back`: the last owner's use of the nodes is over.
            let take = |bits: u64| (bits != u64::MAX).then(|| bits | (bits + 1));
            if let Ok(bits) = self.taken[index].fetch_update(Ordering::Acquire, Ordering::Relaxed, take) {
                if bits | (bits + 1) == u64::MAX {
                    self.lowest.fetch_max(index as u32 + 1, Ordering::Relaxed);
                }
                return Some((index * 64) as u32 + bits.trailing_ones());
            }
        }
        None
    }

    fn give_back(&self, slot: u32) {
        let (index, bit) = (slot as usize / 64, 1 << (slot % 64));
        self.taken[index].fetch_and(!bit, Ordering::Release);
        self.lowest.fetch_min(index as u32, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
