//! Unlocking what one does not hold takes an `unsafe`.

use qspinlock::RawMutex;
use qspinlock::threads::Threads;

fn main() {
    let lock = RawMutex::new();
    lock.release_on(&Threads);
}
