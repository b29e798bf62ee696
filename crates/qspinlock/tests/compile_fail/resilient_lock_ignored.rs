//! Whether a resilient lock was taken has to be looked at.
#![deny(unused_must_use)]

fn main() {
    let lock = qspinlock::ResilientMutex::new(0);
    lock.lock();
    lock.try_lock();
}
