//! How the resilient locks of this process fail: set by the program at any time, or by the environment when it starts.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use super::environment;
use crate::resilient::{DEFAULT_LIMIT, Policy, PolicyError};

/// The limit in nanoseconds, times two; plus one if it is strict. One word, so that it is read as a whole.
#[repr(align(128))]
struct Line(AtomicU64);

static POLICY: Line = Line(AtomicU64::new(DEFAULT_LIMIT << 1));

/// Before anything else was said.
const UNSAID: u64 = DEFAULT_LIMIT << 1;

fn code(policy: Policy) -> u64 {
    (policy.limit.as_nanos() as u64) << 1 | u64::from(policy.strict)
}

/// How long the resilient locks of this process wait from now on, and how they fail. Who waits already is not
/// concerned.
///
/// # Errors
/// If the limit is not what it may be ([`Policy::validate`]). Then nothing changes.
pub fn set_policy(policy: Policy) -> Result<(), PolicyError> {
    policy.validate()?;
    // First, or where it is not read at start-up it would be read later, on top of this.
    let _ = environment::sensible();
    POLICY.0.store(code(policy), Ordering::Relaxed);
    Ok(())
}

/// How long the resilient locks of this process wait now, and how they fail.
#[must_use]
pub fn policy() -> Policy {
    let _ = environment::sensible();
    let code = POLICY.0.load(Ordering::Relaxed);
    Policy { limit: Duration::from_nanos(code >> 1), strict: code & 1 != 0 }
}

/// What the environment says, before anybody can have asked.
pub(super) fn take_from_environment(policy: Policy) {
    let _ = POLICY.0.compare_exchange(UNSAID, code(policy), Ordering::Relaxed, Ordering::Relaxed);
}
