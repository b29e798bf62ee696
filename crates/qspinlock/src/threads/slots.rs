//! The slot table: a number for each thread that has ever had to wait, and its queue nodes.
//!
//! A static table, since a slot is claimed in the middle of an acquire, perhaps in a signal handler: nothing here
//! allocates, locks, or calls what a handler may not call. Slots that no thread has used are untouched zero pages and
//! take no memory; used ones take 128 bytes. Nodes are never freed, only their slot passes to another thread, so a
//! late reader of a node finds a node.

use core::cell::Cell as ThreadCell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::exit;
use crate::atomic::{AtomicCell, signal_fence};
use crate::queue::{Cpu, Slot};

/// Threads that can have a slot at the same time. More can run: those wait without a node, unfairly, and
/// [`waits_without_node`](super::waits_without_node) counts it.
pub const CAPACITY: usize = 8192;

static TABLE: [Slot<AtomicCell>; CAPACITY] = [const { Slot::new() }; CAPACITY];

/// A bit for each slot, set while it is taken.
static TAKEN: [AtomicU64; CAPACITY / 64] = [const { AtomicU64::new(0) }; CAPACITY / 64];

/// Below this word of [`TAKEN`] every slot was taken when last looked: where a search may start.
static LOWEST: AtomicU32 = AtomicU32::new(0);

const NONE: u32 = 0;
const GONE: u32 = u32::MAX;

std::thread_local! {
    // Slot + 1; or NONE; or GONE, when the thread is past its exit hook. `const` and without a destructor, so that
    // reading it is one load, also in a signal handler.
    static MINE: ThreadCell<u32> = const { ThreadCell::new(NONE) };
}

/// The caller's slot; claims one if it has none yet.
#[inline]
pub(super) fn mine() -> Option<Cpu> {
    match MINE.with(ThreadCell::get) {
        NONE => first_use(),
        GONE => None,
        number => Cpu::new(number - 1),
    }
}

#[inline]
pub(super) fn get(cpu: Cpu) -> &'static Slot<AtomicCell> {
    &TABLE[cpu.index()]
}

/// How many threads have a slot now.
#[must_use]
pub fn slots_in_use() -> usize {
    TAKEN.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
}

#[cold]
fn first_use() -> Option<Cpu> {
    // Without an exit hook the slot would be lost when the thread ends; without a slot the thread merely waits
    // unfairly. The hook comes first, so that a thread which is killed in between loses nothing.
    if !exit::arm() {
        return None;
    }
    let slot = claim()?;
    signal_fence();
    // A signal handler may have run since `mine` looked, waited for a lock, and claimed a slot for this thread. It is
    // done with it, but keep that one: others may have seen its number. A handler that comes after this look and
    // before the store is the remaining window; its slot would be lost, so the store is a swap that finds out.
    let before = MINE.with(|mine| mine.replace(slot + 1));
    signal_fence();
    if before != NONE {
        give_back(before - 1);
    }
    Cpu::new(slot)
}

/// Takes the lowest free slot.
fn claim() -> Option<u32> {
    let start = LOWEST.load(Ordering::Relaxed) as usize;
    // Slots below `start` may have been given back by a thread that had yet to lower it: look there last.
    for index in (start..TAKEN.len()).chain(0..start) {
        // Acquire pairs with the release in `give_back`: the last owner's use of the nodes is over.
        let taken = TAKEN[index]
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |bits| (bits != u64::MAX).then_some(bits | (bits + 1)));
        if let Ok(bits) = taken {
            if bits | (bits + 1) == u64::MAX {
                LOWEST.fetch_max(index as u32 + 1, Ordering::Relaxed);
            }
            return Some((index * 64) as u32 + bits.trailing_ones());
        }
    }
    None
}

fn give_back(slot: u32) {
    let (index, bit) = (slot as usize / 64, 1 << (slot % 64));
    TAKEN[index].fetch_and(!bit, Ordering::Release);
    LOWEST.fetch_min(index as u32, Ordering::Relaxed);
}

/// The thread ends: its slot is free for another, and if it still takes locks (in a later exit hook) it waits without
/// a node. It is not waiting now, so no queue names its nodes, but for a late reader.
pub(super) fn thread_ends() {
    let number = MINE.with(|mine| mine.replace(GONE));
    signal_fence();
    if number != NONE && number != GONE {
        give_back(number - 1);
    }
}
