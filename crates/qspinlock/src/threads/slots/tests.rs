#![allow(unsafe_code, reason = "releases locks")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::*;
use crate::RawSpinLock;
use crate::machine::Machine;
use crate::slowpath::{Flavour, SlowPath, walk};
use crate::threads::{Threads, waits_without_node};
use crate::word::LockWord;

#[test]
fn a_table_gives_each_slot_once_and_again_when_it_is_back() {
    static TINY: Table<2> = Table::new();
    let numbers: BTreeSet<_> = (0..128).map_while(|_| TINY.claim()).collect();
    assert_eq!(numbers, (0..128).collect());
    assert_eq!(TINY.in_use(), 128);
    assert_eq!(TINY.claim(), None);
    for slot in [127, 64, 63, 0] {
        TINY.give_back(slot);
        assert_eq!(TINY.claim(), Some(slot), "a free slot is found wherever it is");
        assert_eq!(TINY.claim(), None);
    }
    TINY.give_back(100);
    TINY.give_back(3);
    assert_eq!(TINY.claim(), Some(3), "low slots come first: they stay few and warm");
}

#[test]
fn threads_that_claim_at_once_get_different_slots() {
    static TINY: Table<1> = Table::new();
    let claim_and_return = || {
        for _ in 0..2000 {
            let slots: Vec<_> = (0..20).filter_map(|_| TINY.claim()).collect();
            for &slot in &slots {
                // The depth is the owner's own: another owner would see it, or have its own erased.
                let claimed = OWNERS[slot as usize].swap(true, Ordering::Relaxed);
                assert!(!claimed, "slot {slot} was given twice");
            }
            for slot in slots {
                OWNERS[slot as usize].store(false, Ordering::Relaxed);
                TINY.give_back(slot);
            }
        }
    };
    static OWNERS: [AtomicBool; 64] = [const { AtomicBool::new(false) }; 64];
    std::thread::scope(|s| (0..4).for_each(|_| drop(s.spawn(claim_and_return))));
    assert_eq!(TINY.in_use(), 0);
}

/// The walk without its pending lane: the first waiter asks for a node.
struct QueueOnly;

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

/// The real table, filled. No other test of this process may wait for a lock meanwhile, so there is none.
#[test]
fn a_full_table_degrades_to_waiting_without_a_node() {
    static LOCK: RawSpinLock<Threads, QueueOnly> = RawSpinLock::new();
    let slots: Vec<_> = (0..CAPACITY).map_while(|_| TABLE.claim()).collect();
    assert_eq!((slots.len(), slots_in_use()), (CAPACITY, CAPACITY));

    let counted = waits_without_node();
    let wait_once = || {
        assert!(LOCK.try_acquire_on(&Threads));
        std::thread::scope(|s| {
            let waiter = s.spawn(|| {
                let Ok(()) = LOCK.acquire_on(&Threads);
                // SAFETY: acquired above.
                unsafe { LOCK.release_on(&Threads) };
            });
            // Until the waiter waits; if it does not, the count below says so.
            let start = Instant::now();
            while waits_without_node() == counted && !waiter.is_finished() && start.elapsed() < Duration::from_secs(60)
            {
                std::thread::yield_now();
            }
            // SAFETY: acquired above.
            unsafe { LOCK.release_on(&Threads) };
        });
    };
    wait_once();
    assert_eq!(waits_without_node(), counted + 1);

    // With a slot to be had, waiters have nodes again.
    slots.iter().for_each(|&slot| TABLE.give_back(slot));
    assert_eq!(slots_in_use(), 0);
    let (counted, waiter) = (waits_without_node(), std::thread::spawn(mine));
    assert!(waiter.join().expect("claiming does not panic").is_some());
    assert_eq!((waits_without_node(), slots_in_use()), (counted, 0));
}
