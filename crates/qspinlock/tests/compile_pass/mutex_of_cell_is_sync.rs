//! What may move between threads may be shared in a mutex, also when it may not be shared by itself.

use std::cell::Cell;

fn main() {
    static LOCK: qspinlock::Mutex<Cell<u32>> = qspinlock::Mutex::new(Cell::new(0));
    std::thread::scope(|s| {
        s.spawn(|| LOCK.lock().set(1));
        s.spawn(|| LOCK.lock().set(2));
    });
    assert_ne!(LOCK.lock().get(), 0);
}
