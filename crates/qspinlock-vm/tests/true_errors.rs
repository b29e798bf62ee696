//! Resilient locks, explored: every error is true, and nobody waits for ever. No time ends a wait here.

#[path = "explored/mod.rs"]
mod explored;
#[path = "oracle/watchdog.rs"]
mod watchdog;

use std::collections::HashMap;
use std::time::Duration;

use explored::{holds, holds_within};
use qspinlock::machine::Ordering;
use qspinlock_vm::check::{Handler, Lock, Scenario, Search, Usage, Verdict, Waiting};
use watchdog::Watchdog;

const LOCKS: [Lock; 3] = [Lock::Native, Lock::TestAndSet, Lock::ParkingExact];

fn of(lock: Lock, (cpus, acquires): (usize, usize), usage: Usage) -> Scenario {
    Scenario::new(lock, cpus, acquires).used(usage).waiting(Waiting::Sleepers)
}

#[test]
fn the_same_lock_again() {
    let _watchdog = Watchdog::after(Duration::from_secs(1200), "the same lock again");
    for lock in LOCKS {
        for size in [(1, 1), (2, 1), (2, 2)] {
            holds(of(lock, size, Usage::Again));
        }
    }
}

#[test]
fn a_circle_of_two() {
    let _watchdog = Watchdog::after(Duration::from_secs(1200), "a circle of two");
    for lock in LOCKS {
        holds(of(lock, (2, 1), Usage::Circle));
        // Whoever closes it finds it at its first look.
        holds(of(lock, (2, 1), Usage::Once));
    }
}

/// Who was in a circle before, and gave up, is not seen in it again.
#[test]
fn a_circle_twice() {
    let _watchdog = Watchdog::after(Duration::from_secs(1200), "a circle twice");
    let scenario = of(Lock::TestAndSet, (2, 2), Usage::Circle);
    holds_within(scenario, Some(2));
    let orders = HashMap::from([("watch.over", Ordering::Relaxed)]);
    let search = Search { time: Duration::from_secs(600), preemptions: Some(2), orders, ..Search::default() };
    match scenario.explore(&search).verdict {
        Verdict::Broken(broken) => assert!(broken.what.contains("deadlock"), "{}", broken.what),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_circle_of_three() {
    let _watchdog = Watchdog::after(Duration::from_secs(1200), "a circle of three");
    holds_within(of(Lock::TestAndSet, (3, 1), Usage::Once), Some(2));
    holds_within(of(Lock::Native, (3, 1), Usage::Once), Some(2));
}

#[test]
fn the_same_order_is_no_circle() {
    let _watchdog = Watchdog::after(Duration::from_secs(1200), "the same order");
    for lock in LOCKS {
        holds(of(lock, (2, 1), Usage::Ordered));
    }
}

#[test]
fn an_interrupt_wants_the_lock_of_whom_it_interrupts() {
    let _watchdog = Watchdog::after(Duration::from_secs(1200), "interrupts");
    for lock in LOCKS {
        holds(of(lock, (1, 1), Usage::Alone).interrupted(1, Handler::Same));
    }
}

/// That whoever closes a circle finds it at once rests on one fence.
#[test]
fn without_the_fence_a_circle_is_missed() {
    let _watchdog = Watchdog::after(Duration::from_secs(1200), "no fence");
    for lock in [Lock::Native, Lock::TestAndSet] {
        let orders = HashMap::from([("detect.fence", Ordering::AcqRel)]);
        let search = Search { time: Duration::from_secs(600), orders, ..Search::default() };
        match of(lock, (2, 1), Usage::Once).explore(&search).verdict {
            Verdict::Broken(broken) => assert!(broken.what.starts_with("hang"), "{}", broken.what),
            other => panic!("{other:?}"),
        }
    }
}
