//! Whoever tries a lock must look whether it was taken.
#![deny(unused_must_use)]

use qspinlock::RawMutex;
use qspinlock::threads::Threads;

fn main() {
    let lock = RawMutex::new();
    lock.try_acquire_on(&Threads);
}
