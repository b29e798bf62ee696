//! Exclusion does not make a reference count that others share outside the lock atomic.

use std::rc::Rc;

fn main() {
    let lock = qspinlock::Mutex::new(Rc::new(0));
    std::thread::scope(|s| {
        s.spawn(|| drop(lock.lock().clone()));
    });
}
