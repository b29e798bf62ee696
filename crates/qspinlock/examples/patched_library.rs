//! The same in a shared library, for a program that knows nothing of the lock. The library has a copy of it, and its
//! own sites.

#![allow(unsafe_code, reason = "names for C")]

use qspinlock::{Mutex, patch};

static COUNT: Mutex<u64> = Mutex::new(0);

/// Adds one, so many times. Returns the sum.
// SAFETY: no other function has the name.
#[unsafe(no_mangle)]
pub extern "C" fn patched_library_add(times: u64) -> u64 {
    (0..times).for_each(|_| *COUNT.lock() += 1);
    *COUNT.lock()
}

/// 1 if all of its sites follow the choice, and there are some if there can be.
// SAFETY: no other function has the name.
#[unsafe(no_mangle)]
pub extern "C" fn patched_library_follows() -> i32 {
    let status = patch::status();
    i32::from(status.following == status.sites && (status.sites > 0) == status.available)
}
