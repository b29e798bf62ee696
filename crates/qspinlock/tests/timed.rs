//! Waiting for a lock until some moment, by threads.

#[path = "support/watchdog.rs"]
mod watchdog;

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lock_api::RawMutexTimed;
use qspinlock::RawSpinLock;
use qspinlock::slowpath::{Parking, ParkingExact, Sleeping};
use qspinlock::threads::{Threads, waits_without_node};
use watchdog::Watchdog;

type Mutex<T, S = Parking> = lock_api::Mutex<RawSpinLock<Threads, S>, T>;

const SHORT: Duration = Duration::from_millis(5);

/// The count of waits without a node belongs to the process, so these tests take turns.
fn watched(test: &'static str) -> (std::sync::MutexGuard<'static, ()>, Watchdog) {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), Watchdog::arm(test, Duration::from_secs(120)))
}

/// Runs `f` on a thread of its own, which has neither a slot nor nodes left behind.
fn elsewhere<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|s| s.spawn(f).join()).expect("it does not panic")
}

#[test]
fn a_free_lock_is_taken_whatever_the_time() {
    let _watchdog = watched("a_free_lock_is_taken_whatever_the_time");
    let lock = Mutex::<_>::new(());
    for time in [Duration::ZERO, SHORT, Duration::MAX] {
        assert!(lock.try_lock_for(time).is_some(), "{time:?}");
    }
    let now = Instant::now();
    for moment in [now.checked_sub(SHORT).unwrap_or(now), now, now + Duration::from_secs(86_400 * 365 * 300)] {
        assert!(lock.try_lock_until(moment).is_some(), "{moment:?}");
    }
}

#[test]
fn a_held_lock_is_given_up_and_not_too_early() {
    let _watchdog = watched("a_held_lock_is_given_up_and_not_too_early");
    let lock = Mutex::<_>::new(());
    let guard = lock.lock();
    elsewhere(|| {
        assert!(lock.try_lock_for(Duration::ZERO).is_none());
        assert!(lock.try_lock_until(Instant::now()).is_none());
        let without = waits_without_node();
        // More often than there are nodes: all are left behind in the queue.
        for _ in 0..6 {
            let start = Instant::now();
            assert!(lock.try_lock_for(SHORT).is_none());
            assert!(start.elapsed() >= SHORT);
            let end = Instant::now() + SHORT;
            assert!(lock.try_lock_until(end).is_none());
            assert!(Instant::now() >= end);
        }
        assert!(waits_without_node() > without);
    });
    drop(guard);
    assert!(!lock.is_locked());
    // SAFETY: only looked at.
    assert!(!unsafe { lock.raw() }.is_contended(), "the unlock has taken out what was left behind");
    assert!(lock.try_lock().is_some());
}

/// A century is waited for, not taken for the past.
#[test]
fn centuries_do_not_overflow() {
    let _watchdog = watched("centuries_do_not_overflow");
    let lock = Mutex::<_>::new(0);
    for time in [Duration::MAX, Duration::from_secs(u64::MAX / 4), Duration::from_secs(86_400 * 365 * 290)] {
        let mut guard = lock.lock();
        std::thread::scope(|s| {
            let waiter = s.spawn(|| lock.try_lock_for(time).map(|mut guard| *guard += 1).is_some());
            // SAFETY: only looked at.
            while !unsafe { lock.raw() }.is_contended() {
                std::thread::yield_now();
            }
            std::thread::sleep(SHORT);
            *guard += 1;
            drop(guard);
            assert!(waiter.join().expect("it does not panic"), "{time:?}");
        });
    }
    assert_eq!(*lock.lock(), 6);
}

/// Hasty and patient threads on one lock: no one is lost, no two are in at once, and nothing stays in the queue.
fn fight<S: Sleeping<Threads>>() {
    const THREADS: u32 = 8;
    let lock = Mutex::<u64, S>::new(0);
    let (over, in_vain) = (AtomicBool::new(false), AtomicU32::new(0));
    let had: u64 = std::thread::scope(|s| {
        let threads: Vec<_> = (0..THREADS)
            .map(|n| {
                let (lock, over, in_vain) = (&lock, &over, &in_vain);
                s.spawn(move || {
                    let mut had = 0;
                    let mut random = fastrand::Rng::with_seed(n.into());
                    while !over.load(Ordering::Relaxed) {
                        let guard = if n % 4 == 0 {
                            Some(lock.lock())
                        } else {
                            lock.try_lock_for(Duration::from_micros(random.u64(0..300)))
                        };
                        let Some(mut guard) = guard else {
                            in_vain.fetch_add(1, Ordering::Relaxed);
                            continue;
                        };
                        had += 1;
                        *guard += 1;
                        if random.u32(..50) == 0 {
                            // Long enough for others to lie down, and to give up.
                            std::thread::sleep(Duration::from_micros(random.u64(0..400)));
                        }
                    }
                    had
                })
            })
            .collect();
        std::thread::sleep(Duration::from_secs(2));
        over.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum()
    });
    assert_eq!(*lock.lock(), had);
    assert!(had > 0 && in_vain.load(Ordering::Relaxed) > 0);
    assert!(!lock.is_locked());
}

#[test]
fn hasty_and_patient_threads() {
    let _watchdog = watched("hasty_and_patient_threads");
    fight::<Parking>();
}

#[test]
fn hasty_and_patient_threads_without_naps() {
    let _watchdog = watched("hasty_and_patient_threads_without_naps");
    fight::<ParkingExact>();
}

/// Nodes that were left behind come back when the lock is unlocked: as often as one likes.
#[test]
fn nodes_come_back() {
    let _watchdog = watched("nodes_come_back");
    let (one, other) = (Mutex::<_>::new(()), Mutex::<_>::new(()));
    elsewhere(|| {
        for _ in 0..10 {
            let without = waits_without_node();
            // Their guards are forgotten, so that this thread can unlock.
            elsewhere(|| std::mem::forget((one.lock(), other.lock())));
            assert!(one.try_lock_for(SHORT).is_none() && other.try_lock_for(SHORT).is_none());
            // SAFETY: locked above, by guards that are forgotten; and this kind of lock may be unlocked by any thread.
            unsafe {
                one.force_unlock(lock_api::GuardNoSend::new());
                other.force_unlock(lock_api::GuardNoSend::new());
            }
            assert_eq!(waits_without_node(), without);
        }
    });
}

fn is_timed<R: RawMutexTimed<Duration = Duration, Instant = Instant>>() {}

#[test]
fn what_lock_api_asks_for() {
    is_timed::<RawSpinLock<Threads, Parking>>();
    is_timed::<RawSpinLock<Threads, ParkingExact>>();
}
