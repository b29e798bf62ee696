//! Sleeping and waking: a token for each slot, sticky, like the kick of a hypervisor.
//!
//! | token | |
//! |---|---|
//! | `EMPTY` | nothing has happened |
//! | `PARKED` | the thread sleeps, or is about to |
//! | `KICKED` | somebody has kicked it; the next sleep ends at once |
//!
//! Both sides swap the token, so they have one order. A kick that comes first is found by the sleeper's swap, which
//! then does not sleep. One that comes second finds `PARKED`, and so that there is somebody to wake; and the system's
//! sleep ends, or does not begin, once the token is no longer `PARKED`.
//!
//! The sleeper looks at its cell between its swap and its sleep. That is for kicks that are used up already, by a wait
//! before this one or by a signal handler: whoever wrote the cell before such a kick is seen there, since the swap that
//! used it up has acquired it.
//!
//! A signal handler sleeps on the token of the thread that it interrupted, perhaps between that thread's look and its
//! sleep, and may use up a kick that was meant for it. So every sleep leaves `EMPTY` behind, on which nobody sleeps:
//! the interrupted one wakes for no reason, and looks again. (Xen's wait once cleared the outer one's event.)
//!
//! How to sleep until a word changes is the system's: `futex` where there is one, else `portable`.

use core::sync::atomic::Ordering;

use crate::atomic::AtomicCell;

#[cfg(all(any(target_os = "linux", target_os = "android"), not(feature = "portable")))]
#[path = "park/futex.rs"]
mod system;

#[cfg(not(all(any(target_os = "linux", target_os = "android"), not(feature = "portable"))))]
#[path = "park/portable.rs"]
mod system;

pub(super) use system::yield_cpu;

#[cfg(unix)]
pub(super) use system::others_are_gone;

const EMPTY: u32 = 0;
const PARKED: u32 = 1;
const KICKED: u32 = 2;

/// Sleeps until kicked or until `until`, unless `holds` is false.
pub(super) fn sleep(token: &AtomicCell, holds: impl FnOnce() -> bool, until: Option<u64>) {
    let _errno = Errno::keep();
    let token = token.as_atomic();
    // Acquire, here and below: what the kicker did before is visible to who looks again. A kick is passed on through the
    // swaps that come between, in whatever order they are.
    if token.swap(PARKED, Ordering::Acquire) != KICKED && holds() {
        system::sleep(token, PARKED, until);
    }
    token.swap(EMPTY, Ordering::Acquire);
}

/// Ends the sleep on this token, or the next one.
pub(super) fn kick(token: &AtomicCell) {
    let token = token.as_atomic();
    // Release, for who swaps after us. Nothing is read here but the token.
    if token.swap(KICKED, Ordering::Release) == PARKED {
        let _errno = Errno::keep();
        system::wake(token);
    }
}

/// Puts back the C library's error number when dropped: a lock that is taken in a signal handler must not change what
/// the interrupted code is about to look at.
pub(super) struct Errno(#[cfg(unix)] errno::Errno);

impl Errno {
    pub(super) fn keep() -> Self {
        Self(
            #[cfg(unix)]
            errno::errno(),
        )
    }
}

impl Drop for Errno {
    fn drop(&mut self) {
        #[cfg(unix)]
        errno::set_errno(self.0);
    }
}

#[cfg(all(test, unix))]
mod tests;
