//! Resilient locks whose waiters halt, on threads: whoever gives up, wherever it stands, leaves a lock that works, and
//! no node in use.

#[path = "support/watchdog.rs"]
mod watchdog;

use std::cell::UnsafeCell;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use qspinlock::LockErrorKind;
use qspinlock::machine::Machine;
use qspinlock::queue::{LEVELS, NODES};
use qspinlock::resilient::RawResilientLock;
use qspinlock::slowpath::Paravirt;
use qspinlock::threads::Threads;
use watchdog::Watchdog;

type Lock = RawResilientLock<Threads, Paravirt>;

const M: Threads = Threads;

fn ms(ms: u64) -> u64 {
    ms * 1_000_000
}

fn release(lock: &Lock) {
    // SAFETY: every caller has acquired it, and holds no guard.
    unsafe { lock.release_on(&M) }.unwrap();
}

/// The nodes of the calling thread that a wait may leave behind are all its own again.
fn nothing_is_left() {
    let slot = M.slot(M.here().expect("a thread has a slot"));
    let texts: Vec<_> = (LEVELS..NODES).map(|level| format!("{:?}", slot.node(level))).collect();
    for text in texts {
        assert!(text.contains("grant: AtomicCell(0)"), "a node is in use: {text}");
    }
}

fn times_out(lock: &Lock, limit: u64) {
    let error = lock.acquire_within_on(&M, limit).unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::TimedOut);
}

#[test]
fn a_sole_waiter_times_out() {
    let _watchdog = Watchdog::arm("a_sole_waiter_times_out", Duration::from_secs(60));
    let lock = Lock::new();
    lock.acquire_on(&M).unwrap();
    thread::scope(|s| {
        s.spawn(|| {
            // At once, awake, and asleep.
            for limit in [0, 1, 2_000, 50_000, ms(3), ms(20)] {
                times_out(&lock, limit);
                nothing_is_left();
            }
        });
    });
    release(&lock);
    assert!(!lock.is_taken());
    lock.acquire_on(&M).unwrap();
    release(&lock);
}

/// The head, one in mid-queue, the last one: whoever leaves, the others have their turn.
#[test]
fn one_of_many_times_out() {
    let _watchdog = Watchdog::arm("one_of_many_times_out", Duration::from_secs(120));
    for leaver in 0..4 {
        for limit in [ms(1), ms(30)] {
            let (lock, barrier) = (Lock::new(), Barrier::new(5));
            lock.acquire_on(&M).unwrap();
            thread::scope(|s| {
                for n in 0..4 {
                    let (lock, barrier) = (&lock, &barrier);
                    s.spawn(move || {
                        // In this order, as far as sleeping can see to it.
                        thread::sleep(Duration::from_millis(5 * n));
                        if n == leaver {
                            times_out(lock, limit);
                        } else {
                            lock.acquire_within_on(&M, u64::MAX).unwrap();
                            release(lock);
                        }
                        barrier.wait();
                        nothing_is_left();
                    });
                }
                thread::sleep(Duration::from_millis(60));
                release(&lock);
                barrier.wait();
            });
            assert!(!lock.is_taken());
        }
    }
}

#[test]
fn all_time_out_at_once() {
    let _watchdog = Watchdog::arm("all_time_out_at_once", Duration::from_secs(120));
    for limit in [20_000, ms(2), ms(20)] {
        let (lock, barrier) = (Lock::new(), Barrier::new(9));
        lock.acquire_on(&M).unwrap();
        thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    barrier.wait();
                    times_out(&lock, limit);
                    barrier.wait();
                    // The owner has unlocked, and with it whoever was asleep at the head is out of the queue.
                    barrier.wait();
                    nothing_is_left();
                    lock.acquire_within_on(&M, u64::MAX).unwrap();
                    release(&lock);
                });
            }
            barrier.wait();
            barrier.wait();
            release(&lock);
            assert!(!lock.is_taken());
            barrier.wait();
        });
        assert!(!lock.is_taken());
    }
}

/// Each holds a lock and wants the next one's: somebody is told so, and the others go on.
#[test]
fn circles_are_reported() {
    let _watchdog = Watchdog::arm("circles_are_reported", Duration::from_secs(120));
    for length in 2..=8 {
        for _ in 0..5 {
            let locks: Vec<_> = (0..length).map(|_| Lock::new()).collect();
            let barrier = Barrier::new(length);
            let found = AtomicU64::new(0);
            thread::scope(|s| {
                for n in 0..length {
                    let (locks, barrier, found) = (&locks, &barrier, &found);
                    s.spawn(move || {
                        locks[n].acquire_on(&M).unwrap();
                        barrier.wait();
                        let next = &locks[(n + 1) % length];
                        match next.acquire_within_on(&M, u64::MAX) {
                            Ok(()) => release(next),
                            Err(error) => {
                                assert_eq!(error.kind(), LockErrorKind::Deadlock);
                                assert_eq!(error.report().map(|report| report.length()), Some(length));
                                found.fetch_add(1, Relaxed);
                            }
                        }
                        release(&locks[n]);
                        barrier.wait();
                        nothing_is_left();
                    });
                }
            });
            assert!(found.load(Relaxed) > 0, "a circle of {length} was not found");
            assert!(locks.iter().all(|lock| !lock.is_taken()));
        }
    }
}

/// What the lock protects.
struct Data(UnsafeCell<u64>);

// SAFETY: touched by the owner of the lock alone.
unsafe impl Sync for Data {}

/// Many short time-outs: nobody is inside with somebody else, and whoever stays gets the lock.
#[test]
fn a_storm_of_short_time_outs() {
    const ROUNDS: u64 = 4_000;
    let _watchdog = Watchdog::arm("a_storm_of_short_time_outs", Duration::from_secs(240));
    let (lock, data, inside) = (Lock::new(), Data(UnsafeCell::new(0)), AtomicBool::new(false));
    let (ours, late, barrier) = (AtomicU64::new(0), AtomicU64::new(0), Barrier::new(8));
    thread::scope(|s| {
        for n in 0..8_u64 {
            let (lock, data, inside, ours, late, barrier) = (&lock, &data, &inside, &ours, &late, &barrier);
            s.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(n);
                for round in 0..ROUNDS {
                    let limit = match n {
                        0 => u64::MAX,
                        1 => rng.u64(..200_000),
                        _ => rng.u64(..20_000),
                    };
                    match lock.acquire_within_on(&M, limit) {
                        Ok(()) => {
                            assert!(!inside.swap(true, Relaxed), "two at a time");
                            let data = data.0.get();
                            // SAFETY: the lock is ours.
                            unsafe { *data += 1 };
                            if round % 64 == n {
                                thread::sleep(Duration::from_micros(rng.u64(..100)));
                            }
                            inside.store(false, Relaxed);
                            ours.fetch_add(1, Relaxed);
                            release(lock);
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), LockErrorKind::TimedOut);
                            late.fetch_add(1, Relaxed);
                        }
                    }
                }
                barrier.wait();
                nothing_is_left();
            });
        }
    });
    assert!(!lock.is_taken());
    assert_eq!(data.0.into_inner(), ours.load(Relaxed));
    assert!(late.load(Relaxed) > 0 && ours.load(Relaxed) >= ROUNDS, "{late:?} late of {}", 8 * ROUNDS);
}
