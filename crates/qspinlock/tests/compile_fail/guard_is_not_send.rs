//! A guard stays on its thread: in a kernel it stands for disabled preemption, which does not move.

fn main() {
    static LOCK: qspinlock::Mutex<u32> = qspinlock::Mutex::new(0);
    let guard = LOCK.lock();
    std::thread::spawn(move || drop(guard));
}
