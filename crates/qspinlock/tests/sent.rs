//! Locks that one thread takes and another one releases, as a guard that is sent does; also when the thread that took it
//! has ended, and its slot is another's.

#![cfg(unix)]

#[path = "support/watchdog.rs"]
mod watchdog;
#[path = "support/watched.rs"]
mod watched;

use std::cell::UnsafeCell;
use std::convert::Infallible;
use std::sync::mpsc::channel;
use std::time::Duration;

use qspinlock::atomic::AtomicCell;
use qspinlock::machine::ConstCell;
use qspinlock::slowpath::{Native, Parking, ParkingExact, Patience, SlowPath, TestAndSet};
use qspinlock::{Machine, RawSpinLock};
use watchdog::Watchdog;
use watched::{SLEEPS_AT_ONCE, Watched};

const SPINS: Patience = Patience { spin: u32::MAX, ..Patience::DEFAULT };
const STAYS_IN_THE_LANE: Patience = Patience { lane: u32::MAX, ask_after: 0, ..SLEEPS_AT_ONCE };
const IS_HANDED_THE_LOCK: Patience = Patience { turns: 0, ..SLEEPS_AT_ONCE };
const ALL: [Patience; 5] = [Patience::DEFAULT, SPINS, STAYS_IN_THE_LANE, SLEEPS_AT_ONCE, IS_HANDED_THE_LOCK];

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// A thread takes the lock at once and ends; another one, which has the slot of the first if that had one, waits; a third
/// one, which has none, releases. Then the waiter's lock, which it waited for, is sent as well.
fn outlives_its_thread<S: SlowPath<Watched, Error = Infallible>>(patience: Patience) {
    let machine = Watched::new(patience);
    let lock = RawSpinLock::<Watched, S>::from_cell(AtomicCell::ZERO);
    let acquire = || {
        let Ok(()) = lock.acquire_on(&machine);
    };
    // SAFETY: each call below follows an acquire, by whatever thread.
    let release = || unsafe { lock.release_on(&machine) };
    let spawned_and_joined = |what: &(dyn Fn() + Sync)| std::thread::scope(|s| drop(s.spawn(what).join()));

    spawned_and_joined(&|| {
        // Has a slot, and gives it back.
        assert!(machine.here().is_some());
        acquire();
    });
    std::thread::scope(|s| {
        let waiter = s.spawn(acquire);
        let leaves_no_trace = patience == SPINS || S::NAME == "test-and-set";
        wait_until(|| leaves_no_trace || lock.is_contended());
        // Time to begin, where there is no trace, and to fall asleep, where waiters do.
        std::thread::sleep(Duration::from_millis(2));
        spawned_and_joined(&release);
        waiter.join().expect("it has the lock");
    });
    assert!(lock.is_taken(), "by a thread that has ended");
    release();
    assert!(!lock.is_taken());
}

#[test]
fn a_lock_may_be_released_when_its_thread_has_ended() {
    let _watchdog = Watchdog::arm("a_lock_may_be_released_when_its_thread_has_ended", Duration::from_secs(60));
    for patience in ALL {
        outlives_its_thread::<Parking>(patience);
        outlives_its_thread::<ParkingExact>(patience);
        outlives_its_thread::<Native>(patience);
        outlives_its_thread::<TestAndSet>(patience);
    }
}

/// What the lock protects.
struct Counted(UnsafeCell<u64>);

// SAFETY: used under the lock alone.
unsafe impl Sync for Counted {}

/// Several take the lock, and several others count and release.
fn is_passed_on<S: SlowPath<Watched, Error = Infallible>>(patience: Patience, each: u64) {
    const TAKERS: u64 = 3;
    let machine = Watched::new(patience);
    let lock = RawSpinLock::<Watched, S>::from_cell(AtomicCell::ZERO);
    let counted = Counted(0.into());
    std::thread::scope(|s| {
        let (machine, lock, counted) = (&machine, &lock, &counted);
        for _ in 0..TAKERS {
            let (send, receive) = channel();
            s.spawn(move || {
                for _ in 0..each {
                    let Ok(()) = lock.acquire_on(machine);
                    send.send(()).expect("the other one receives until we end");
                }
            });
            s.spawn(move || {
                for () in receive {
                    // SAFETY: the lock is held, by us since it was sent.
                    unsafe {
                        *counted.0.get() += 1;
                        lock.release_on(machine);
                    }
                }
            });
        }
    });
    assert_eq!(counted.0.into_inner(), TAKERS * each);
    assert!(!lock.is_taken() && !lock.is_contended());
}

#[test]
fn locks_that_are_sent_again_and_again() {
    let _watchdog = Watchdog::arm("locks_that_are_sent_again_and_again", Duration::from_secs(60));
    for patience in ALL {
        // One that spins for seconds keeps who releases from its CPU.
        let each = if patience == SPINS || patience == STAYS_IN_THE_LANE { 20 } else { 2_000 };
        is_passed_on::<Parking>(patience, each);
        is_passed_on::<ParkingExact>(patience, each);
    }
    is_passed_on::<Native>(Patience::DEFAULT, 20);
    is_passed_on::<TestAndSet>(Patience::DEFAULT, 20);
}
