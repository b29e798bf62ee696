//! A hash map that threads share: the section is one look-up, or one time in five an insertion.

use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::hint::black_box;

use super::crowd::Section;

/// Few enough that the map stays in the cache: the lock is to be measured, not the memory.
const KEYS: u64 = 1024;

type Table = HashMap<u64, u64, BuildHasherDefault<DefaultHasher>>;

/// A map whose users lock.
pub(super) struct SharedMap(UnsafeCell<Table>);

// SAFETY: `work` is called by one thread at a time, its contract says.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// With every key in it, so that no insertion allocates.
    pub(super) fn new() -> Self {
        Self(UnsafeCell::new((0..KEYS).map(|key| (key, key)).collect()))
    }
}

impl Section for SharedMap {
    #[inline]
    unsafe fn work(&self, entered: u64, draw: u64) {
        // SAFETY: the caller has the lock, and the reference does not outlive this call.
        let table = unsafe { &mut *self.0.get() };
        let key = draw % KEYS;
        // Other bits than the key is made of.
        if (draw >> 32).is_multiple_of(5) {
            table.insert(key, entered);
        } else {
            black_box(table.get(&key));
        }
    }
}
