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

use crate::select::{Choice, Reason, SlowPathKind};

/// Which one: 1 + its place in [`SlowPathKind::ALL`]. 0: undecided.
const KIND: u32 = 0xff;
/// Somebody has said which; it was not left to the system.
const ADOPTED: u32 = 1 << 8;
/// Somebody has waited.
const CLOSED: u32 = 1 << 9;
/// Code has been rewritten to follow it.
const FOLLOWED: u32 = 1 << 10;
/// Why: its place in [`Reason::ALL`], from this bit on.
const REASON: u32 = 16;

/// On a line that nobody writes to later: every unlock reads it, where it is not patched.
#[repr(align(128))]
struct Line(AtomicU32);

static STATE: Line = Line(AtomicU32::new(0));

#[inline(always)]
const fn kind_code(kind: SlowPathKind) -> u32 {
    (kind as u32).wrapping_add(1)
}

const fn code(choice: Choice) -> u32 {
    kind_code(choice.slow_path) | (choice.reason as u32) << REASON
}

// No look-up in a table: an unlock that is not patched does this.
#[inline(always)]
const fn kind(state: u32) -> Option<SlowPathKind> {
    match state & KIND {
        1 => Some(SlowPathKind::Native),
        2 => Some(SlowPathKind::Numa),
        3 => Some(SlowPathKind::Paravirt),
        4 => Some(SlowPathKind::Parking),
        5 => Some(SlowPathKind::TestAndSet),
        _ => None,
    }
}

const _: () = {
    let mut n = 0;
    while n < SlowPathKind::ALL.len() {
        let code = kind_code(SlowPathKind::ALL[n]);
        assert!(matches!(kind(code), Some(kind) if kind_code(kind) == code));
        n += 1;
    }
};

fn choice(state: u32) -> Option<Choice> {
    let reason = Reason::ALL[(state >> REASON) as usize];
    kind(state).map(|slow_path| Choice { reason, ..slow_path.into() })
}

/// What has been chosen, if anything has.
#[inline(always)]
#[must_use]
pub fn decided() -> Option<SlowPathKind> {
    kind(STATE.0.load(Ordering::Relaxed))
}

/// What is chosen, and why. Where nobody has chosen yet, that is done now; it can still be changed.
#[must_use]
pub fn chosen() -> Choice {
    choice(STATE.0.load(Ordering::Relaxed)).unwrap_or_else(decide_late)
}

/// What is chosen, for who is about to unlock.
#[inline(always)]
pub(crate) fn current() -> SlowPathKind {
    match decided() {
        Some(kind) => kind,
        None => decide_late().slow_path,
    }
}

/// What is chosen, for who is about to wait: from now on it stays.
#[inline]
pub(crate) fn closed() -> SlowPathKind {
    let state = STATE.0.load(Ordering::Relaxed);
    match kind(state) {
        Some(kind) if state & CLOSED != 0 => kind,
        _ => close(),
    }
}

/// Whether this is chosen and stays, for who was told so: one load.
#[allow(dead_code, reason = "only code that has been rewritten is told")]
#[inline(always)]
pub(crate) fn is_closed_as(kind: SlowPathKind) -> bool {
    STATE.0.load(Ordering::Relaxed) & (KIND | CLOSED) == kind_code(kind) | CLOSED
}

#[cold]
fn close() -> SlowPathKind {
    let decided = current();
    // It may have changed until now.
    kind(STATE.0.fetch_or(CLOSED, Ordering::Relaxed)).unwrap_or(decided)
}

/// Decides for a system that has not: a lock is used before the system's own start-up code has run, or there is none. What
/// applies.
#[cold]
fn decide_late() -> Choice {
    #[cfg(feature = "std")]
    let choice = crate::threads::automatic();
    // Nothing known.
    #[cfg(not(feature = "std"))]
    let choice = crate::select::choose(&crate::select::Facts::new(crate::select::Setting::Kernel, 0));
    match STATE.0.compare_exchange(0, code(choice), Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => choice,
        Err(state) => self::choice(state).unwrap_or(choice),
    }
}

/// Chooses a slow path for [`Chosen`](crate::slowpath::Chosen), instead of what the system would have chosen: one that is
/// named, or what [`choose`](crate::select::choose) says.
///
/// Call it while no other CPU or thread uses such locks. One that is unlocking just now would do so by the old choice, and
/// might not wake who waits by the new one. If the slow path stays the same that does not matter.
///
/// If code follows another choice it has to be rewritten, and nobody may be in the middle of it. So a process refuses that
/// unless it has one thread; and a signal handler, which may have interrupted an unlock, must not do it.
///
/// # Errors
/// If it has been done already, if anybody has waited for such a lock, or if code follows another choice and cannot be
/// changed. Then nothing changes.
pub fn adopt(choice: impl Into<Choice>) -> Result<(), AdoptError> {
    let choice = choice.into();
    let refusal = |state| refusal(state, choice.slow_path);
    #[cfg(all(feature = "std", any(target_os = "linux", target_os = "android")))]
    if refusal(STATE.0.load(Ordering::Relaxed)) == Some(AdoptError::Followed) {
        // One that was taken off its CPU between two instructions of a site would go on in the middle of another one.
        if crate::threads::count() != Some(1) {
            return Err(AdoptError::OtherThreads);
        }
        // If it fails, that is what is said below.
        let _ = crate::patch::loosen();
    }
    let adopt = |state| refusal(state).is_none().then_some((state & FOLLOWED) | code(choice) | ADOPTED);
    let adopted = STATE.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, adopt);
    // Code that could not be rewritten looks up the choice.
    #[cfg(all(feature = "std", any(target_os = "linux", target_os = "android")))]
    let _ = crate::patch::follow();
    adopted.map(drop).map_err(|state| refusal(state).unwrap_or(AdoptError::Late))
}

/// Why this cannot be adopted.
fn refusal(state: u32, slow_path: SlowPathKind) -> Option<AdoptError> {
    match state {
        _ if state & ADOPTED != 0 => Some(AdoptError::Twice),
        _ if state & CLOSED != 0 => Some(AdoptError::Late),
        _ if state & FOLLOWED != 0 && kind(state) != Some(slow_path) => Some(AdoptError::Followed),
        _ => None,
    }
}

/// What is chosen, for who is about to make code follow it: until it is [let go](let_go), it stays.
pub(crate) fn hold() -> SlowPathKind {
    let _ = current();
    let held = STATE.0.fetch_or(FOLLOWED, Ordering::Relaxed);
    kind(held).unwrap_or_else(current)
}

/// No code follows it.
pub(crate) fn let_go() {
    STATE.0.fetch_and(!FOLLOWED, Ordering::Relaxed);
}

/// Why [`adopt`] did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdoptError {
    /// It has been done already.
    Twice,
    /// Somebody has waited already.
    Late,
    /// Code follows the old choice, and has not been made to look it up again
    /// ([`patch::loosen_with`](crate::patch::loosen_with)). A process does that by itself; the system refused to.
    Followed,
    /// Code follows the old choice, and other threads may be running it, or it cannot be told whether there are any.
    OtherThreads,
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Twice => "a slow path has been adopted already: adopt one, once, when the system starts",
            Self::Followed => {
                "code follows the choice already: adopt a slow path before it does, or have it look up the choice again first"
            }
            Self::OtherThreads => {
                "code follows the choice already, and there may be other threads: adopt a slow path before the first one starts"
            }
            Self::Late => "somebody has waited for a lock already: adopt a slow path before anybody can",
        })
    }
}

impl core::error::Error for AdoptError {}
