//! Sleeping on a word, by Linux's futex. A signal handler may do all of it.

use core::num::NonZeroU32;
use core::sync::atomic::AtomicU32;

use rustix::thread::futex::{self, Flags, Timespec};

/// Every moment that a clock of this process can show, also where the system counts seconds in 32 bits.
const LAST_SECOND: u64 = i32::MAX as u64;

/// Sleeps while the token is `value`, until `until` on the monotonic clock, or for no reason.
pub(super) fn sleep(token: &AtomicU32, value: u32, until: Option<u64>) {
    let until = until
        .map(|ns| Timespec { tv_sec: (ns / 1_000_000_000).min(LAST_SECOND) as _, tv_nsec: (ns % 1_000_000_000) as _ });
    // Woken, out of time, interrupted, or no longer `value`: it is all the same to who looks again. This form of the
    // call, unlike the plain one, takes a moment and not a duration, on the clock of `Machine::now`.
    let _ = futex::wait_bitset(token, Flags::PRIVATE, value, until.as_ref(), NonZeroU32::MAX);
}

/// Ends a sleep on the token whose value has just been changed.
pub(super) fn wake(token: &AtomicU32) {
    let _ = futex::wake(token, Flags::PRIVATE, 1);
}

pub(in crate::threads) fn yield_cpu() {
    rustix::thread::sched_yield();
}

/// In the child of a `fork`: nothing here knows of threads.
pub(in crate::threads) fn others_are_gone() {}
