//! A guard borrows its mutex.

fn main() {
    let guard = {
        let lock = qspinlock::Mutex::new(0);
        lock.lock()
    };
    drop(guard);
}
