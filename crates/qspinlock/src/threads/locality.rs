//! How long the locks of this process stay in one domain: set by the program at any time, or by the environment.

use core::sync::atomic::{AtomicU64, Ordering};

use super::environment;
use crate::slowpath::{Locality, LocalityError};

/// Nobody has said anything, or asked: the environment has not been read, or says nothing. No code of a locality, since none
/// has 0 for the lower half.
const UNSAID: u64 = 0;

/// Both parameters in one word, so that they are read together.
#[repr(align(128))]
struct Line(AtomicU64);

static LOCALITY: Line = Line(AtomicU64::new(UNSAID));

fn code(locality: Locality) -> u64 {
    u64::from(locality.threshold) << 32 | u64::from(locality.one_in)
}

/// How long the locks of this process stay in one domain from now on, where the slow path is
/// [`Numa`](crate::slowpath::Numa). At any time: who becomes the head of a queue looks.
///
/// # Errors
/// If a parameter is out of range ([`Locality::validate`]). Then nothing changes.
#[doc(alias = "numa_spinlock_threshold_ns")]
pub fn set_locality(locality: Locality) -> Result<(), LocalityError> {
    locality.validate().map_err(LocalityError::OutOfRange)?;
    // First, or where it is not read at start-up it would be read later, on top of this.
    let _ = environment::sensible();
    LOCALITY.0.store(code(locality), Ordering::Relaxed);
    Ok(())
}

/// How long the locks of this process stay in one domain now.
#[must_use]
pub fn locality() -> Locality {
    let said = match LOCALITY.0.load(Ordering::Relaxed) {
        UNSAID => first(),
        said => said,
    };
    Locality { threshold: (said >> 32) as u32, one_in: said as u32 }
}

#[cold]
fn first() -> u64 {
    let _ = environment::sensible();
    take_from_environment(Locality::DEFAULT);
    LOCALITY.0.load(Ordering::Relaxed)
}

/// What the environment says, before anybody can have asked.
pub(super) fn take_from_environment(locality: Locality) {
    let _ = LOCALITY.0.compare_exchange(UNSAID, code(locality), Ordering::Relaxed, Ordering::Relaxed);
}
