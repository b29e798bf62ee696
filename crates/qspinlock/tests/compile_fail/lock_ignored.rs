//! A guard that nobody keeps unlocks at once.
#![deny(unused_must_use)]

fn main() {
    let lock = qspinlock::Mutex::new(0);
    lock.lock();
}
