//! Waiters that give up, explored: whoever leaves, from wherever, leaves nothing behind, and those who stay keep their
//! order and are not left to wait for somebody who never comes.

#[path = "explored/mod.rs"]
mod explored;
#[path = "oracle/watchdog.rs"]
mod watchdog;

use std::time::Duration;

use explored::{holds, holds_within};
use qspinlock::machine::Event;
use qspinlock_vm::check::{Handler, Lock, Outcome, Scenario, Usage, Waiting};
use watchdog::Watchdog;

/// Whether some execution counted the event: a scenario that does not come to what it is about shows nothing.
fn comes_to(outcome: &Outcome, event: Event) -> bool {
    outcome.events >> event as u64 & 1 == 1
}

const LEAVING: [Usage; 3] = [Usage::Leaving, Usage::Hasty, Usage::Rescued];

#[test]
fn who_leaves_a_queue_leaves_nothing_behind() {
    let _watchdog = Watchdog::after(Duration::from_secs(1200), "leaving a queue");
    for usage in LEAVING {
        for (cpus, acquires) in [(2, 1), (2, 2), (3, 1)] {
            holds(Scenario::new(Lock::Native, cpus, acquires).used(usage));
        }
    }
    // From the middle of the queue, twice by the same CPU: with a node that lies there still, and another.
    // Completely: `qspin check --all --deep`.
    let outcome = holds_within(Scenario::new(Lock::Native, 3, 2).used(Usage::Leaving), Some(3));
    for event in [Event::Abandoned, Event::HandOff, Event::SoleHead, Event::Queued] {
        assert!(comes_to(&outcome, event), "{event:?}");
    }
}

#[test]
fn an_interrupt_may_arrive_wherever_one_waits() {
    let _watchdog = Watchdog::after(Duration::from_secs(1200), "leaving with interrupts");
    for handler in [Handler::Other, Handler::Same] {
        for usage in LEAVING {
            holds(Scenario::new(Lock::Native, 2, 1).used(usage).interrupted(1, handler));
        }
    }
}

#[test]
fn who_has_no_node_waits_beside_the_queue() {
    let _watchdog = Watchdog::after(Duration::from_secs(1200), "leaving without a node");
    for usage in LEAVING {
        let outcome = holds(Scenario { nodeless: 1, ..Scenario::new(Lock::Native, 3, 1).used(usage) });
        assert!(comes_to(&outcome, Event::NoNode), "{usage:?}");
    }
}

/// A head sets somebody aside only if two are behind it: `qspin check --lock numa --all --deep`.
#[test]
fn waiters_of_two_domains_leave_as_well() {
    let _watchdog = Watchdog::after(Duration::from_secs(1200), "leaving a queue of two domains");
    let numa = |cpus, acquires| Scenario { domains: 2, ..Scenario::new(Lock::Numa, cpus, acquires) };
    for usage in LEAVING {
        for (cpus, acquires) in [(2, 1), (2, 2), (3, 1)] {
            holds(numa(cpus, acquires).used(usage));
        }
    }
    let outcome = holds(numa(3, 1).used(Usage::Crowd));
    for event in [Event::Abandoned, Event::HandOff, Event::SoleHead] {
        assert!(comes_to(&outcome, event), "{event:?}");
    }
}

#[test]
fn locks_without_a_queue_are_left_as_well() {
    let _watchdog = Watchdog::after(Duration::from_secs(1200), "leaving a lock without a queue");
    for usage in LEAVING {
        holds(Scenario::new(Lock::TestAndSet, 2, 2).used(usage));
        holds(Scenario::new(Lock::TestAndSet, 3, 1).used(usage));
        holds(Scenario::new(Lock::Paravirt, 2, 1).used(usage).waiting(Waiting::Sleepers));
    }
}

#[test]
fn sleepers_may_leave() {
    let _watchdog = Watchdog::after(Duration::from_secs(1200), "sleepers that leave");
    for usage in LEAVING {
        for waiting in [Waiting::Sleepers, Waiting::All] {
            let outcome = holds(Scenario::new(Lock::ParkingExact, 2, 1).used(usage).waiting(waiting));
            assert!(usage == Usage::Rescued || comes_to(&outcome, Event::Abandoned), "{usage:?} {waiting:?}");
        }
    }
    holds(Scenario::new(Lock::ParkingExact, 2, 2).used(Usage::Leaving).waiting(Waiting::Sleepers));
    holds(Scenario::new(Lock::Parking, 2, 1).used(Usage::Leaving).waiting(Waiting::Sleepers));
}
