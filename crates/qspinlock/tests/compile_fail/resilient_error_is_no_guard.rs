//! Only a guard unlocks, and only who has the lock has one.

fn main() {
    let lock = qspinlock::ResilientMutex::new(0);
    *lock.lock() += 1;
    lock.unlock();
}
