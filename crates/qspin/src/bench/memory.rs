//! What this library's lock takes besides its four bytes: queue nodes, in slots that threads have.

use std::sync::RwLock;
use std::thread;
use std::time::{Duration, Instant};

use qspinlock::RawSpinLock;
use qspinlock::slowpath::Native;
use qspinlock::threads::{Threads, slots_in_use};

/// Far longer than it takes; nobody should wait for a count.
const LIMIT: Duration = Duration::from_secs(10);

/// Its second waiter already queues, and keeps its slot.
type Lock = RawSpinLock<Threads, Native>;

/// Slots in use when so many threads live that have all waited in the queue. `None` if that was not to be had in time.
///
/// Slots belong to the process: nothing else in it may use this library's locks meanwhile.
pub(super) fn slots_of(threads: usize) -> Option<usize> {
    let lock = Lock::new();
    let gate = RwLock::new(());
    let begun = Instant::now();
    let wait_until = |condition: &dyn Fn() -> bool| {
        while !condition() && begun.elapsed() < LIMIT {
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        // Until it is dropped, no thread ends and gives its slot back.
        let closed = gate.write();
        for before in 0..threads {
            acquire(&lock);
            // The first waiter takes the pending lane, which needs no node. The second one queues.
            scope.spawn(|| {
                acquire(&lock);
                release(&lock);
            });
            wait_until(&|| lock.is_contended());
            scope.spawn(|| {
                acquire(&lock);
                release(&lock);
                drop(gate.read());
            });
            wait_until(&|| slots_in_use() > before);
            release(&lock);
            wait_until(&|| !lock.is_taken());
        }
        let slots = slots_in_use();
        drop(closed);
        (begun.elapsed() < LIMIT).then_some(slots)
    })
}

fn acquire(lock: &Lock) {
    let Ok(()) = lock.acquire_on(&Threads);
}

fn release(lock: &Lock) {
    // SAFETY: each caller has acquired it in the statement or the loop turn before.
    unsafe { lock.release_on(&Threads) }
}
