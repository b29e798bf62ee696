//! Programs of others that take a `lock_api` mutex as a type, unchanged, on the locks that are measured here.
//!
//! What is measured is the program, so an operation is one of the program's and takes the lock more than once.

mod allocator;
mod channel;
mod raw;

use qspinlock::RawSpinLock;
use qspinlock::slowpath::{ByLoad, Chosen, Native, Numa, Paravirt, Parking, ParkingExact, TestAndSet};
use qspinlock::threads::Threads;

use self::raw::{Bridge, StdRaw};
use super::cell::{Found, Order};
use super::plan::Scenario;
use crate::locks::LockName;

/// Whether the programs can be built on this lock.
pub(super) const fn take(lock: LockName) -> bool {
    !matches!(lock, LockName::Mcs | LockName::PthreadMutex | LockName::PthreadSpin | LockName::Broken)
        && !lock.is_resilient()
}

/// Those that a program is measured with by default: the locks that sleep, and the spin lock that programs without an
/// operating system are given. (talc's own examples use one.)
pub(super) const fn are_used_with(lock: LockName) -> bool {
    take(lock) && !lock.is_form_of_another() && (lock.sleeps() || matches!(lock, LockName::Spin))
}

/// Runs the order's program on the order's lock, for which [`take`] holds.
pub(super) fn run(order: &Order) -> Found {
    match order.lock {
        LockName::Native => with::<Bridge<RawSpinLock<Threads, Native>>>(order),
        LockName::Numa => with::<Bridge<RawSpinLock<Threads, Numa>>>(order),
        LockName::Paravirt => with::<Bridge<RawSpinLock<Threads, Paravirt>>>(order),
        LockName::Parking => with::<Bridge<RawSpinLock<Threads, Parking>>>(order),
        LockName::ParkingExact => with::<Bridge<RawSpinLock<Threads, ParkingExact>>>(order),
        LockName::Chosen => with::<Bridge<RawSpinLock<Threads, Chosen>>>(order),
        LockName::ChosenByLoad => with::<Bridge<RawSpinLock<Threads, ByLoad>>>(order),
        LockName::TestAndSetOurs => with::<Bridge<RawSpinLock<Threads, TestAndSet>>>(order),
        LockName::ParkingLot => with::<Bridge<parking_lot::RawMutex>>(order),
        LockName::Std => with::<StdRaw>(order),
        LockName::Spin => with::<spin::mutex::SpinMutex<()>>(order),
        LockName::SpinTicket => with::<spin::mutex::TicketMutex<()>>(order),
        LockName::Mcs
        | LockName::PthreadMutex
        | LockName::PthreadSpin
        | LockName::Resilient
        | LockName::ResilientNative
        | LockName::ResilientNuma
        | LockName::ResilientParavirt
        | LockName::ResilientTestAndSet
        | LockName::Broken => {
            panic!("no program takes {}: it has no lock_api form", order.lock)
        }
    }
}

fn with<R: lock_api_04::RawMutex + Send + Sync + 'static>(order: &Order) -> Found {
    match order.cell.scenario {
        Scenario::Channel => channel::run::<R>(order),
        _ => allocator::run::<R>(order),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::bench::clock::Clock;
    use crate::bench::plan::Cell;

    fn order(lock: LockName, scenario: Scenario, threads: usize) -> Order {
        Order {
            lock,
            cell: Cell { scenario, threads, section_ns: None, think_ns: Some(100) },
            round: 0,
            seed: 1,
            slice_s: 0.02,
            clock: Clock::calibrate(),
            // None: threads are not pinned.
            cpus: Vec::new(),
            stats: false,
            hang: false,
        }
    }

    /// Runs it; a lock that loses a wake-up is a failure and not a hang.
    fn run_in_time(order: Order) -> Found {
        let name = order.lock;
        let (done, wait_done) = mpsc::channel();
        std::thread::spawn(move || done.send(run(&order)));
        let found = wait_done.recv_timeout(Duration::from_secs(60));
        found.unwrap_or_else(|why| panic!("{name}: {why}"))
    }

    /// Under any lock a program does its work, and does it right.
    #[test]
    fn every_lock_that_fits_runs_both_programs() {
        for scenario in [Scenario::Allocator, Scenario::Channel] {
            for &lock in LockName::ALL.iter().filter(|&&lock| take(lock)) {
                let found = run_in_time(order(lock, scenario, 4));
                assert_eq!(found.excluded_ok, Some(true), "{lock} in {scenario:?}");
                assert!(found.acquisitions > 0, "{lock} in {scenario:?}");
            }
        }
    }

    #[test]
    fn the_usual_locks_fit() {
        assert!(LockName::ALL.iter().filter(|&&l| are_used_with(l)).all(|&l| take(l)));
        assert!(are_used_with(LockName::Parking) && are_used_with(LockName::Std));
    }
}
