//! The code of locks, decoded, in builds that rewrite it; and the others have no such code.

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(feature = "portable")))]
#[path = "support/decoded.rs"]
mod decoded;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "support/patching.rs"]
mod patching;

use qspinlock::patch;

#[test]
fn there_are_sites_in_builds_that_rewrite_them() {
    // Something to record.
    let lock = qspinlock::Mutex::new(0);
    *lock.lock() += 1;
    let is_here = cfg!(all(target_arch = "x86_64", target_os = "linux", not(feature = "portable")));
    assert_eq!((patch::status().available, patch::sites().next().is_some()), (is_here, is_here));
}
