//! A server's memory: threads that answer requests allocate from one talc heap, whose lock is the program's.

use std::sync::atomic::{AtomicBool, Ordering};

use allocator_api2::alloc::System;
use allocator_api2::vec::Vec as VecIn;
use talc::TalcLock;
use talc::source::GlobalAllocSource;

use crate::bench::cell::{Found, Order};
use crate::bench::clock::ticks;
use crate::bench::crowd::{found, play};

/// Requests that a thread has open at a time.
const OPEN: usize = 64;

type Heap<R> = TalcLock<R, GlobalAllocSource<System>>;

/// An operation is a request: a message of 16 bytes to 3 KiB comes in, and an older one is answered and freed. One
/// allocation and one release, each under the lock.
pub(super) fn run<R: lock_api_04::RawMutex + Send + Sync>(order: &Order) -> Found {
    let heap: Heap<R> = TalcLock::new(GlobalAllocSource::new(System));
    let all_well = AtomicBool::new(true);
    let tallies = play(order, |player| {
        let mut open: Vec<VecIn<u8, &Heap<R>>> = (0..OPEN).map(|_| VecIn::new_in(&heap)).collect();
        // A message is told by its bytes: two that overlap would show.
        let mut tag = player.index as u8;
        loop {
            let draw = player.random.draw();
            let Some(asked) = player.ask() else { break };
            let place = draw as usize % OPEN;
            let size = (16 << ((draw >> 8) % 8)) + (draw >> 16) as usize % 1024;
            tag = tag.wrapping_add(37);
            let mut message = VecIn::with_capacity_in(size, &heap);
            message.resize(size, tag);
            let answered = std::mem::replace(&mut open[place], message);
            if answered.iter().any(|&byte| Some(&byte) != answered.first()) {
                all_well.store(false, Ordering::Relaxed);
            }
            drop(answered);
            player.had(asked, ticks());
            player.think();
        }
    });
    found(order, &tallies, all_well.into_inner())
}
