//! CPUs of several domains, explored: who may be passed, by whom, and that this comes to an end. All of the matrix:
//! `qspin check --lock numa --all`.

#[path = "explored/mod.rs"]
mod explored;
#[path = "oracle/watchdog.rs"]
mod watchdog;

use std::time::Duration;

use explored::{holds, holds_within};
use qspinlock::machine::Event;
use qspinlock_vm::check::{Lock, Outcome, Scenario, Sorting, Waiting};
use watchdog::Watchdog;

fn queued(cpus: usize, acquires: usize, domains: u32, sorting: Sorting) -> Scenario {
    Scenario::new(Lock::Numa, cpus, acquires).spread(domains, sorting).waiting(Waiting::Queue)
}

/// Whether some execution counted the event: a scenario that does not come to what it is about shows nothing.
fn comes_to(outcome: &Outcome, event: Event) -> bool {
    outcome.events >> event as u64 & 1 == 1
}

/// Nobody passes those of the lock's own domain, and those set aside are brought back.
#[test]
fn the_lock_stays_in_a_domain_in_order_of_arrival() {
    let _watchdog = Watchdog::after(Duration::from_secs(600), "two domains");
    // All executions: `qspin check --lock numa --all`, in a minute where the checker is optimised.
    let outcome = holds_within(queued(3, 2, 2, Sorting::Always), Some(2));
    for event in [Event::SetAside, Event::BroughtBack, Event::HandOff, Event::SoleHead] {
        assert!(comes_to(&outcome, event), "{event:?}");
    }
}

#[test]
fn with_one_domain_the_order_is_that_of_arrival() {
    let _watchdog = Watchdog::after(Duration::from_secs(600), "one domain");
    let outcome = holds(queued(3, 1, 1, Sorting::Whim));
    assert!(comes_to(&outcome, Event::HandOff));
    assert!(!comes_to(&outcome, Event::SetAside));
    // Everybody is urgent: as if there were one.
    let outcome = holds(Scenario { urgent: 3, ..queued(3, 1, 2, Sorting::Whim) });
    assert!(!comes_to(&outcome, Event::SetAside));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let native = Scenario { lock: Lock::Native, ..queued(2, 1, 2, Sorting::Always) };
    assert!(native.validate().is_err_and(|why| why.contains("sets no waiter aside")));
    assert!(Scenario { urgent: 3, ..queued(2, 1, 2, Sorting::Whim) }.validate().is_err());
    assert!(queued(3, 1, 2, Sorting::Whim).validate().is_ok());
}
