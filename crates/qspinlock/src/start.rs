//! The choice of a slow path, made once, when the system starts.
//!
//! ```text
//!   undecided ---> decided ---> closed
//!                   ^    |        nothing changes any more: somebody has waited
//!                   +----+
//!                   adopted instead, once
//! ```
//!
//! It must not change while anybody waits: two CPUs that follow different protocols on one lock would wait for each
//! other. Locks that are *held* while it changes are no trouble: held is 1 for every slow path, and every unlock accepts
//! that. So a system decides before its second CPU starts, and whoever waits first closes the choice.
//!
//! A process decides before `main`, from its environment ([`threads`](crate::threads)). A kernel decides for itself:
//! [`select::choose`](crate::select::choose) says what fits, and [`adopt`] makes it so.
//!
//! [`Chosen`](crate::slowpath::Chosen) is the slow path that follows it.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::select::SlowPathKind;

/// Which one: 1 + its place in [`SlowPathKind::ALL`]. 0: undecided.
const KIND: u32 = 0xff;
/// Somebody has said which; it was not left to the system.
const ADOPTED: u32 = 1 << 8;
/// Somebody has waited.
const CLOSED: u32 = 1 << 9;

/// On a line that nobody writes to later: every unlock reads it, where it is not patched.
#[repr(align(128))]
struct Line(AtomicU32);

static STATE: Line = Line(AtomicU32::new(0));

const fn code(kind: SlowPathKind) -> u32 {
    kind as u32 + 1
}

#[inline(always)]
const fn kind(state: u32) -> Option<SlowPathKind> {
    match (state & KIND).checked_sub(1) {
        Some(n) => Some(SlowPathKind::ALL[n as usize]),
        None => None,
    }
}

/// What has been chosen, if anything has.
#[inline(always)]
#[must_use]
pub fn decided() -> Option<SlowPathKind> {
    kind(STATE.0.load(Ordering::Relaxed))
}

/// What is chosen, for who is about to unlock.
#[inline(always)]
pub(crate) fn current() -> SlowPathKind {
    match decided() {
        Some(kind) => kind,
        None => decide_late(),
    }
}

/// What is chosen, for who is about to wait: from now on it stays.
#[inline]
pub(crate) fn closed() -> SlowPathKind {
    let state = STATE.0.load(Ordering::Relaxed);
    if state & CLOSED == 0 {
        close();
    }
    current()
}

#[cold]
fn close() {
    let _ = decide_late();
    STATE.0.fetch_or(CLOSED, Ordering::Relaxed);
}

/// Decides for a system that did not: a lock is used before the system's own start-up code has run, or there is none.
#[cold]
fn decide_late() -> SlowPathKind {
    #[cfg(feature = "std")]
    let kind = crate::threads::automatic();
    // What is best where nothing is known: a machine without a hypervisor is the common case, and an unfair lock there is
    // a loss that nobody would notice.
    #[cfg(not(feature = "std"))]
    let kind = SlowPathKind::Native;
    decide(kind)
}

/// Decides, if nobody has. What applies.
pub(crate) fn decide(kind: SlowPathKind) -> SlowPathKind {
    match STATE.0.compare_exchange(0, code(kind), Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => kind,
        Err(state) => self::kind(state).unwrap_or(kind),
    }
}

/// Chooses a slow path for [`Chosen`](crate::slowpath::Chosen), instead of what the system would have chosen.
///
/// Call it while no other CPU or thread uses such locks. One that is unlocking just now would do so by the old choice, and
/// might not wake who waits by the new one.
///
/// # Errors
/// If it has been done already, or if anybody has waited for such a lock. Then nothing changes.
pub fn adopt(kind: SlowPathKind) -> Result<(), AdoptError> {
    let adopt = |state| (state & (ADOPTED | CLOSED) == 0).then_some(code(kind) | ADOPTED);
    match STATE.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, adopt) {
        Ok(_) => Ok(()),
        Err(state) if state & ADOPTED != 0 => Err(AdoptError::Twice),
        Err(_) => Err(AdoptError::Late),
    }
}

/// Why [`adopt`] did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdoptError {
    /// It has been done already.
    Twice,
    /// Somebody has waited already.
    Late,
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Twice => "a slow path has been adopted already: adopt one, once, when the system starts",
            Self::Late => "somebody has waited for a lock already: adopt a slow path before anybody can",
        })
    }
}

impl core::error::Error for AdoptError {}
