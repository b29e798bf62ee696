//! Tests that take turns, since slots belong to the process.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qspinlock::threads::slots_in_use;

use crate::watchdog::Watchdog;

pub(crate) fn turn(test: &'static str) -> (MutexGuard<'static, ()>, Watchdog) {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = (TURN.lock().unwrap_or_else(PoisonError::into_inner), Watchdog::arm(test, Duration::from_secs(120)));
    // Threads of the test before may still be on their way out.
    while slots_in_use() > 0 {
        std::thread::yield_now();
    }
    turn
}
