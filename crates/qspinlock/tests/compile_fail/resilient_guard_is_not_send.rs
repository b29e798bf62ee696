//! A guard stays on its thread, which has recorded that it holds the lock.

fn main() {
    static LOCK: qspinlock::ResilientMutex<u32> = qspinlock::ResilientMutex::new(0);
    let guard = LOCK.lock().unwrap();
    std::thread::spawn(move || drop(guard));
}
