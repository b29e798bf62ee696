//! Waiting for a lock until some moment, explored: whoever gives up takes nobody's wake-up away, leaves nothing behind
//! that stays, and has the lock if and only if it says so.

#[path = "sleepers/mod.rs"]
mod sleepers;
#[path = "oracle/watchdog.rs"]
mod watchdog;

use std::rc::Rc;
use std::time::Duration;

use qspinlock::machine::Event;
use qspinlock::slowpath::{Parking, ParkingExact, Patience, Sleeping};
use qspinlock_vm::check::{Outcome, World};
use sleepers::{Guarded, LANE, POLL, SLEEP, SOON, Sleeper, Step, comes_to, explored, verdict};
use watchdog::Watchdog;

/// What a CPU does with the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// Takes it, for as long as it lasts.
    Patiently,
    /// Gives up at some time.
    Hastily,
    /// The same, twice.
    HastilyTwice,
}

use Waits::{Hastily, HastilyTwice, Patiently};

/// At the end the word must be 0, if that `is_judged`.
fn explored_with<S>(patience: Patience, nodeless: usize, cpus: &[Waits], is_judged: bool) -> Outcome
where
    S: for<'w> Sleeping<Sleeper<'w>> + 'static,
{
    let name = format!("{cpus:?}, {nodeless} without a node, lane {}, poll {}", patience.lane, patience.poll);
    let world = World::new(cpus.len(), 1).with_nodeless(nodeless);
    let lock = Rc::new(Guarded::<S>::new(&world));
    let program = |(cpu, &waits): (usize, &Waits)| -> Step<'_> {
        let (lock, m) = (lock.clone(), Sleeper::new(&world, cpu, patience, waits != Patiently));
        match waits {
            Patiently => Box::new(move || lock.section(&m)),
            Hastily => Box::new(move || lock.section_until(&m, SOON)),
            HastilyTwice => Box::new(move || (0..2).for_each(|_| lock.section_until(&m, SOON))),
        }
    };
    let words = if is_judged { vec![lock.word] } else { Vec::new() };
    explored(&name, &world, words, Some(3), cpus.iter().enumerate().map(program).collect())
}

/// With an unlock in one step and sleeps that have no end of their own: the protocol alone.
fn exact(patience: Patience, cpus: &[Waits]) -> Outcome {
    let outcome = explored_with::<ParkingExact>(patience, 0, cpus, true);
    assert_eq!(verdict(&outcome), "holds", "{cpus:?}");
    outcome
}

fn watched(test: &'static str) -> Watchdog {
    Watchdog::after(Duration::from_secs(3600), test)
}

#[test]
fn who_gives_up_is_passed_over() {
    let _watchdog = watched("who_gives_up_is_passed_over");
    let outcome = exact(SLEEP, &[Patiently, Hastily]);
    assert!(comes_to(&outcome, Event::Abandoned));
    exact(LANE, &[Patiently, Hastily]);
    exact(POLL, &[Patiently, Hastily]);
    // The node that it left behind is found idle, or another one is taken.
    exact(SLEEP, &[Patiently, HastilyTwice]);
}

#[test]
fn who_gives_up_takes_nobodys_wake_up_away() {
    let _watchdog = watched("who_gives_up_takes_nobodys_wake_up_away");
    let outcome = exact(SLEEP, &[Patiently, Patiently, Hastily]);
    assert!(comes_to(&outcome, Event::Abandoned));
}

#[test]
fn who_has_no_node_is_in_nobodys_way() {
    let _watchdog = watched("who_has_no_node_is_in_nobodys_way");
    let outcome = explored_with::<ParkingExact>(SLEEP, 1, &[Patiently, Patiently, Hastily], true);
    assert_eq!(verdict(&outcome), "holds");
    assert!(comes_to(&outcome, Event::NoNode) && !comes_to(&outcome, Event::Abandoned));
}

/// With the unlock that looks and then stores: naps end by themselves, so that nothing hangs; exclusion and the queue.
/// An abandoned node may stay there, if the last unlock did not see it.
#[test]
fn the_unlock_in_two_steps() {
    let _watchdog = watched("the_unlock_in_two_steps");
    for patience in [SLEEP, POLL] {
        let outcome = explored_with::<Parking>(patience, 0, &[Patiently, Hastily], false);
        assert_eq!(verdict(&outcome), "holds");
        assert!(comes_to(&outcome, Event::Abandoned));
    }
}
