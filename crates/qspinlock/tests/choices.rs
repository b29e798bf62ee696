//! What `Mutex` and `Condvar` promise they keep with every slow path that may be chosen.
//!
//! A process chooses once, so each choice has a child of its own: the same test, with the choice in the environment.

#[path = "support/watchdog.rs"]
mod watchdog;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use qspinlock::lock_api::MutexGuard;
use qspinlock::select::SlowPathKind;
use qspinlock::threads::{ENVIRONMENT_VARIABLE, SLOW_PATH_VARIABLE};
use qspinlock::{Condvar, Mutex, SendMutex, choice};
use watchdog::Watchdog;

const CASE: &str = "QSPINLOCK_TEST_CHOICE";
const SHORT: Duration = Duration::from_millis(5);

/// Runs the test once for each choice. A child that hangs ends itself.
fn with_each_choice(test: &'static str, body: fn()) {
    if let Ok(kind) = std::env::var(CASE) {
        assert_eq!(choice().slow_path.name(), kind, "{:?}", choice());
        let _watchdog = Watchdog::arm(test, Duration::from_secs(100));
        return body();
    }
    for kind in SlowPathKind::ALL {
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        child.args([test, "--exact", "--nocapture"]).env(CASE, kind.name());
        child.env(SLOW_PATH_VARIABLE, kind.name()).env_remove(ENVIRONMENT_VARIABLE);
        let output = child.output().expect("the child starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{test}, {}: {output:?}", kind.name());
    }
}

/// Is in the critical section alone, or the test fails.
fn alone_in(inside: &AtomicBool) {
    assert!(!inside.swap(true, Ordering::Relaxed), "two owners at once");
    for _ in 0..20 {
        std::hint::spin_loop();
    }
    inside.store(false, Ordering::Relaxed);
}

/// However it is locked and unlocked. More threads than CPUs, so waiters that can sleep do.
#[test]
fn one_owner_at_a_time() {
    with_each_choice("one_owner_at_a_time", || {
        static COUNT: Mutex<u32> = Mutex::new(0);
        static INSIDE: AtomicBool = AtomicBool::new(false);
        let end = Instant::now() + Duration::from_secs(1);
        let had: u32 = std::thread::scope(|s| {
            let threads: Vec<_> = (0..6)
                .map(|n| {
                    s.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(n);
                        let mut had = 0;
                        while Instant::now() < end {
                            let guard = match random.u32(..3) {
                                0 => COUNT.try_lock(),
                                1 => COUNT.try_lock_for(Duration::from_micros(random.u64(..500))),
                                _ => Some(COUNT.lock()),
                            };
                            let Some(mut guard) = guard else { continue };
                            *guard += 1;
                            had += 1;
                            alone_in(&INSIDE);
                            if random.u32(..100) == 0 {
                                std::thread::sleep(Duration::from_micros(random.u64(..300)));
                            }
                            match random.u32(..4) {
                                0 => MutexGuard::unlock_fair(guard),
                                1 => MutexGuard::bump(&mut guard),
                                _ => drop(guard),
                            }
                        }
                        had
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum()
        });
        assert!(had > 0);
        assert_eq!(*COUNT.lock(), had);
        assert!(!COUNT.is_locked());
    });
}

#[test]
fn a_time_limit_is_kept_and_not_too_early() {
    with_each_choice("a_time_limit_is_kept_and_not_too_early", || {
        let lock = Mutex::new(0);
        assert!(lock.try_lock_for(Duration::ZERO).is_some());
        let guard = lock.lock();
        std::thread::scope(|s| {
            s.spawn(|| {
                for _ in 0..6 {
                    let start = Instant::now();
                    assert!(lock.try_lock_for(SHORT).is_none());
                    assert!(start.elapsed() >= SHORT);
                }
                assert!(lock.try_lock_for(Duration::ZERO).is_none());
                assert!(lock.try_lock_until(Instant::now()).is_none());
            });
        });
        drop(guard);
        assert!(!lock.is_locked());
        assert!(lock.try_lock().is_some(), "who gave up left nothing behind");
        // Who has the time gets the lock; also before others that have come first and have less.
        for limit in [Duration::from_secs(600), Duration::MAX] {
            let mut guard = lock.lock();
            std::thread::scope(|s| {
                let patient = s.spawn(|| lock.try_lock_for(limit).map(|mut guard| *guard += 1).is_some());
                let hasty = s.spawn(|| lock.try_lock_for(SHORT).is_some());
                assert!(!hasty.join().expect("it does not panic"));
                *guard += 1;
                drop(guard);
                assert!(patient.join().expect("it does not panic"));
            });
        }
        assert_eq!(*lock.lock(), 4);
    });
}

/// Every item arrives, once, whoever waits for it.
#[test]
fn no_notification_is_lost() {
    with_each_choice("no_notification_is_lost", || {
        // A fair lock whose waiters spin is slow with more threads than CPUs.
        let most = if choice().slow_path == SlowPathKind::Parking { 400 } else { 40 };
        let (items, arrived, taken) = (Mutex::new(Vec::new()), Condvar::new(), AtomicU32::new(0));
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    loop {
                        let mut items = items.lock();
                        arrived.wait_while(&mut items, |items| items.is_empty());
                        match items.pop() {
                            Some(u32::MAX) => return,
                            Some(_) => taken.fetch_add(1, Ordering::Relaxed),
                            None => unreachable!("looked at with the lock held"),
                        };
                    }
                });
            }
            for n in 0..most {
                if n % 2 == 0 {
                    // Notified with the lock held, and without.
                    let mut items = items.lock();
                    items.push(n);
                    arrived.notify_one();
                } else {
                    items.lock().push(n);
                    arrived.notify_one();
                }
                if n % 8 == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            // Then the ends, taken only when all else is.
            while taken.load(Ordering::Relaxed) < most {
                std::thread::yield_now();
            }
            items.lock().extend([u32::MAX; 3]);
            arrived.notify_all();
        });
        assert_eq!((taken.into_inner(), items.into_inner()), (most, vec![]));
    });
}

#[test]
fn all_that_wait_are_notified_and_who_is_late_is_told() {
    with_each_choice("all_that_wait_are_notified_and_who_is_late_is_told", || {
        let (state, changed) = (Mutex::new((0, false)), Condvar::new());
        std::thread::scope(|s| {
            for n in 0..4 {
                let (state, changed) = (&state, &changed);
                s.spawn(move || {
                    let mut guard = state.lock();
                    guard.0 += 1;
                    while !guard.1 {
                        // Half of them with a limit that they never reach.
                        match n % 2 {
                            0 => changed.wait(&mut guard),
                            _ => assert!(!changed.wait_for(&mut guard, Duration::from_secs(600)).timed_out()),
                        }
                    }
                    guard.0 -= 1;
                });
            }
            while state.lock().0 < 4 {
                std::thread::yield_now();
            }
            let mut guard = state.lock();
            let start = Instant::now();
            assert!(changed.wait_while_for(&mut guard, |_| true, SHORT).timed_out());
            assert!(start.elapsed() >= SHORT);
            guard.1 = true;
            drop(guard);
            assert_eq!(changed.notify_all(), 4, "and not who was late");
        });
        assert_eq!(state.lock().0, 0);
        assert_eq!(changed.notify_all(), 0);
        assert!(!changed.notify_one());
    });
}

#[test]
fn a_guard_may_be_dropped_elsewhere() {
    with_each_choice("a_guard_may_be_dropped_elsewhere", || {
        static COUNT: SendMutex<u32> = SendMutex::new(0);
        std::thread::scope(|s| {
            let mut last = None;
            for _ in 0..40 {
                let guard = COUNT.lock();
                // Somebody waits while the guard is on its way.
                let waiter = s.spawn(|| *COUNT.lock() += 1);
                s.spawn(move || {
                    let mut guard = guard;
                    std::thread::sleep(Duration::from_micros(500));
                    *guard += 1;
                });
                if let Some(last) = last.replace(waiter) {
                    last.join().expect("it does not panic");
                }
            }
        });
        assert_eq!(*COUNT.lock(), 80);
    });
}

/// A lock that whoever is last frees.
#[derive(Clone, Copy)]
struct Shared(*const Mutex<u32>);

// SAFETY: who counts down to 0 is the last to use it.
unsafe impl Send for Shared {}

impl Shared {
    fn count_down(self) {
        // SAFETY: nobody has counted down to 0 yet, since we have not counted.
        let mut left = unsafe { &*self.0 }.lock();
        *left -= 1;
        let is_last = *left == 0;
        drop(left);
        if is_last {
            // SAFETY: it came from a box, and nobody else uses it any more.
            drop(unsafe { Box::from_raw(self.0.cast_mut()) });
        }
    }
}

/// The last owner frees the lock as soon as it has it; who unlocked before it must be through with it.
#[test]
fn a_lock_is_freed_at_once() {
    with_each_choice("a_lock_is_freed_at_once", || {
        for _ in 0..300 {
            let shared = Shared(Box::into_raw(Box::new(Mutex::new(3))));
            let others = [(); 2].map(|()| std::thread::spawn(move || shared.count_down()));
            shared.count_down();
            others.into_iter().for_each(|other| other.join().expect("it does not panic"));
        }
    });
}

/// Where waiters sleep, who runs takes a free lock past them. Right after an unlock that is nearly always so: somebody is
/// woken, and the others sleep on.
#[test]
fn try_lock_passes_sleepers() {
    with_each_choice("try_lock_passes_sleepers", || {
        const ROUNDS: u32 = 50;
        if choice().slow_path != SlowPathKind::Parking {
            return;
        }
        let (lock, mut passed) = (Mutex::new(0), [0; 2]);
        for n in 0..ROUNDS {
            let guard = lock.lock();
            std::thread::scope(|s| {
                let sleepers = [(); 3].map(|()| s.spawn(|| *lock.lock() += 1));
                std::thread::sleep(Duration::from_millis(10));
                drop(guard);
                let passes = match n % 2 {
                    0 => lock.try_lock().is_some(),
                    _ => lock.try_lock_for(Duration::ZERO).is_some(),
                };
                passed[n as usize % 2] += u32::from(passes);
                sleepers.into_iter().for_each(|sleeper| sleeper.join().expect("it does not panic"));
            });
        }
        assert_eq!(*lock.lock(), 3 * ROUNDS);
        assert!(passed.iter().all(|&n| n > ROUNDS / 10), "passed {passed:?} of {ROUNDS} times");
    });
}
