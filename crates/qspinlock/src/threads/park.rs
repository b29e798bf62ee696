//! Sleeping and waking: a token for each slot, sticky, like the kick of a hypervisor.
//!
//! | token | |
//! |---|---|
//! | `EMPTY` | nothing has happened |
//! | `PARKED` | the thread sleeps, or is about to |
//! | `KICKED` | somebody has kicked it; the next sleep ends at once |
//!
//! Both sides swap the token, so they have one order: a kick that comes first is found by the sleeper's swap, and one
//! that comes second finds that there is somebody to wake. The sleeper looks at its cell between its swap and its
//! sleep; whoever wrote the cell before its kick is seen there, or kicks afterwards.
//!
//! A signal handler sleeps on the token of the thread that it interrupted, perhaps between that thread's look and its
//! sleep, and may use up a kick that was meant for it. So every sleep leaves `EMPTY` behind, on which nobody sleeps:
//! the interrupted one wakes for no reason, and looks again. (Xen's wait once cleared the outer one's event.)

use core::sync::atomic::Ordering;

use crate::atomic::AtomicCell;

const EMPTY: u32 = 0;
const PARKED: u32 = 1;
const KICKED: u32 = 2;

/// Sleeps until kicked or until `until`, unless `holds` is false.
pub(super) fn sleep(token: &AtomicCell, holds: impl FnOnce() -> bool, until: Option<u64>) {
    let token = token.as_atomic();
    // Acquire: what the kicker did before is visible to who looks again.
    if token.swap(PARKED, Ordering::AcqRel) != KICKED && holds() {
        system::sleep(token, PARKED, until);
    }
    token.swap(EMPTY, Ordering::Acquire);
}

/// Ends the sleep on this token, or the next one.
pub(super) fn kick(token: &AtomicCell) {
    let token = token.as_atomic();
    if token.swap(KICKED, Ordering::AcqRel) == PARKED {
        system::wake(token);
    }
}

pub(super) use system::yield_cpu;

#[cfg(all(any(target_os = "linux", target_os = "android"), not(feature = "portable")))]
mod system {
    use core::sync::atomic::AtomicU32;

    use rustix::thread::futex::{self, Flags, Timespec};

    /// Sleeps while the token is `value`, until `until` on the monotonic clock, or for no reason.
    pub(super) fn sleep(token: &AtomicU32, value: u32, until: Option<u64>) {
        let until = until.map(|ns| Timespec {
            tv_sec: (ns / 1_000_000_000).cast_signed(),
            tv_nsec: (ns % 1_000_000_000).cast_signed(),
        });
        // Woken, out of time, interrupted, or no longer `value`: it is all the same to who looks again.
        let _ = futex::wait_bitset(token, Flags::PRIVATE, value, until.as_ref(), core::num::NonZeroU32::MAX);
    }

    pub(super) fn wake(token: &AtomicU32) {
        let _ = futex::wake(token, Flags::PRIVATE, 1);
    }

    pub(in super::super) fn yield_cpu() {
        rustix::thread::sched_yield();
    }
}
