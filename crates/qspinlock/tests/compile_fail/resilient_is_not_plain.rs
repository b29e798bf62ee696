//! No plain lock where a resilient one is meant, and none the other way.

fn counts_on_errors(_: &qspinlock::ResilientMutex<u32>) {}

fn counts_on_the_lock(_: &qspinlock::Mutex<u32>) {}

fn main() {
    counts_on_errors(&qspinlock::Mutex::new(0));
    counts_on_the_lock(&qspinlock::ResilientMutex::new(0));
}
