//! The condition variable, with threads.

#[path = "support/watchdog.rs"]
mod watchdog;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use qspinlock::slowpath::{Parking, ParkingExact, Sleeping};
use qspinlock::threads::Threads;
use qspinlock::{Condvar, RawSpinLock};
use watchdog::Watchdog;

type Mutex<T, S = Parking> = lock_api::Mutex<RawSpinLock<Threads, S>, T>;

const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(3_600);

fn watched(test: &'static str) -> Watchdog {
    Watchdog::arm(test, Duration::from_secs(120))
}

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

#[test]
fn nobody_waits() {
    let condition = Condvar::new();
    assert!(!condition.notify_one());
    assert_eq!(condition.notify_all(), 0);
    assert_eq!(format!("{condition:?}"), "RawCondvar { has_waiters: false }");
}

fn ping_pong<S: Sleeping<Threads>>() {
    const ROUNDS: u32 = 5_000;
    let (turn, passed) = (Mutex::<u32, S>::new(0), Condvar::new());
    std::thread::scope(|s| {
        for me in 0..2 {
            let (turn, passed) = (&turn, &passed);
            s.spawn(move || {
                for _ in 0..ROUNDS {
                    let mut turn = turn.lock();
                    passed.wait_while(&mut turn, |turn| *turn % 2 != me);
                    *turn += 1;
                    // With the mutex, and without.
                    if me == 0 {
                        passed.notify_one();
                    } else {
                        drop(turn);
                        passed.notify_one();
                    }
                }
            });
        }
    });
    assert_eq!(*turn.lock(), 2 * ROUNDS);
}

#[test]
fn ping_pong_of_two() {
    let _watchdog = watched("ping_pong_of_two");
    ping_pong::<Parking>();
}

#[test]
fn ping_pong_of_two_without_naps() {
    let _watchdog = watched("ping_pong_of_two_without_naps");
    ping_pong::<ParkingExact>();
}

/// Everybody arrives before anybody leaves, many times.
#[test]
fn barrier() {
    const THREADS: u32 = 8;
    const ROUNDS: u32 = 300;
    let _watchdog = watched("barrier");
    let (arrived, complete) = (Mutex::<(u32, u32)>::new((0, 0)), Condvar::new());
    std::thread::scope(|s| {
        for _ in 0..THREADS {
            s.spawn(|| {
                for round in 0..ROUNDS {
                    let mut state = arrived.lock();
                    assert_eq!(state.1, round);
                    state.0 += 1;
                    if state.0 == THREADS {
                        *state = (0, round + 1);
                        complete.notify_all();
                    } else {
                        complete.wait_while(&mut state, |state| state.1 == round);
                    }
                }
            });
        }
    });
    assert_eq!(*arrived.lock(), (0, ROUNDS));
}

struct Bounded<S> {
    items: Mutex<VecDeque<u64>, S>,
    not_empty: Condvar,
    not_full: Condvar,
}

/// A bounded queue between several producers and consumers: what went in comes out, once.
fn bounded_queue<S: Sleeping<Threads>>() {
    const PAIRS: u64 = 4;
    const EACH: u64 = 3_000;
    const ROOM: usize = 3;
    let queue =
        Bounded::<S> { items: Mutex::new(VecDeque::new()), not_empty: Condvar::new(), not_full: Condvar::new() };
    let sum = AtomicU64::new(0);
    std::thread::scope(|s| {
        for producer in 0..PAIRS {
            let (queue, sum) = (&queue, &sum);
            s.spawn(move || {
                for n in 0..EACH {
                    let mut items = queue.items.lock();
                    queue.not_full.wait_while(&mut items, |items| items.len() == ROOM);
                    items.push_back(producer * EACH + n);
                    drop(items);
                    queue.not_empty.notify_one();
                }
            });
            s.spawn(move || {
                for _ in 0..EACH {
                    let mut items = queue.items.lock();
                    queue.not_empty.wait_while(&mut items, |items| items.is_empty());
                    sum.fetch_add(items.pop_front().expect("not empty"), Ordering::Relaxed);
                    queue.not_full.notify_one();
                }
            });
        }
    });
    let all = PAIRS * EACH;
    assert_eq!(sum.into_inner(), all * (all - 1) / 2);
    assert!(queue.items.lock().is_empty());
}

#[test]
fn bounded_queue_of_many() {
    let _watchdog = watched("bounded_queue_of_many");
    bounded_queue::<Parking>();
}

#[test]
fn bounded_queue_of_many_without_naps() {
    let _watchdog = watched("bounded_queue_of_many_without_naps");
    bounded_queue::<ParkingExact>();
}

/// Each notified waiter is counted, and each has the mutex in its turn, while others fight for it.
#[test]
fn notify_all_into_a_fight() {
    const WAITERS: usize = 12;
    let _watchdog = watched("notify_all_into_a_fight");
    let (state, opened) = (Mutex::<(usize, bool)>::new((0, false)), Condvar::new());
    let (passed, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    drop(state.lock());
                }
            });
        }
        for round in 0..20 {
            for _ in 0..WAITERS {
                s.spawn(|| {
                    let mut guard = state.lock();
                    guard.0 += 1;
                    opened.wait_while(&mut guard, |state| !state.1);
                    guard.0 -= 1;
                    passed.fetch_add(1, Ordering::Relaxed);
                });
            }
            wait_until(|| state.lock().0 == WAITERS);
            let mut guard = state.lock();
            guard.1 = true;
            if round % 2 == 0 {
                assert_eq!(opened.notify_all(), WAITERS, "all wait: nobody else has notified them");
                drop(guard);
            } else {
                drop(guard);
                assert_eq!(opened.notify_all(), WAITERS);
            }
            wait_until(|| passed.load(Ordering::Relaxed) == (round + 1) * WAITERS);
            state.lock().1 = false;
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// Who has waited the longest is notified first.
#[test]
fn notify_one_in_order() {
    const WAITERS: usize = 6;
    let _watchdog = watched("notify_one_in_order");
    // Who has gone to wait, who has come back.
    let (state, condition) = (Mutex::<(Vec<usize>, Vec<usize>)>::new(Default::default()), Condvar::new());
    std::thread::scope(|s| {
        for me in 0..WAITERS {
            let (state, condition) = (&state, &condition);
            s.spawn(move || {
                let mut guard = state.lock();
                guard.0.push(me);
                condition.wait(&mut guard);
                guard.1.push(me);
            });
        }
        wait_until(|| state.lock().0.len() == WAITERS);
        for n in 0..WAITERS {
            assert!(condition.notify_one());
            wait_until(|| state.lock().1.len() == n + 1);
        }
    });
    assert!(!condition.notify_one());
    let (went, came) = state.into_inner();
    assert_eq!(went, came);
}

#[test]
fn times() {
    let _watchdog = watched("times");
    let (lock, condition) = (Mutex::<_>::new(()), Condvar::new());
    let mut guard = lock.lock();
    assert!(condition.wait_for(&mut guard, Duration::ZERO).timed_out());
    assert!(condition.wait_until(&mut guard, Instant::now()).timed_out());
    let start = Instant::now();
    assert!(condition.wait_for(&mut guard, SHORT).timed_out());
    assert!(start.elapsed() >= SHORT);
    let end = Instant::now() + SHORT;
    assert!(condition.wait_while_until(&mut guard, |()| true, end).timed_out());
    assert!(Instant::now() >= end);
    assert!(!condition.wait_while_for(&mut guard, |()| false, SHORT).timed_out());
    assert!(lock.is_locked());
    drop(guard);
    assert!(!condition.notify_one(), "who is late has left");
    // Centuries are waited for.
    for time in [Duration::MAX, LONG] {
        let waits = Mutex::<_>::new(false);
        std::thread::scope(|s| {
            let waiter = s.spawn(|| {
                let mut guard = waits.lock();
                *guard = true;
                condition.wait_for(&mut guard, time)
            });
            wait_until(|| *waits.lock());
            std::thread::sleep(SHORT);
            assert!(condition.notify_one());
            assert!(!waiter.join().expect("it does not panic").timed_out());
        });
    }
}

/// As many waits report a notification as notifiers notified; and no other ends but by its time.
fn notifications_race_with_time<S: Sleeping<Threads>>() {
    let (lock, condition) = (Mutex::<u64, S>::new(0), Condvar::new());
    let (notified, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (reported, late): (usize, usize) = std::thread::scope(|s| {
        let waiters: Vec<_> = (0..6)
            .map(|n| {
                let (lock, condition, over) = (&lock, &condition, &over);
                s.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(n);
                    let (mut reported, mut late) = (0, 0);
                    while !over.load(Ordering::Relaxed) {
                        let mut guard = lock.lock();
                        let time = Duration::from_micros(random.u64(0..200));
                        if condition.wait_for(&mut guard, time).timed_out() {
                            late += 1;
                        } else {
                            reported += 1;
                        }
                        *guard += 1;
                    }
                    (reported, late)
                })
            })
            .collect();
        for n in 0..2 {
            let (lock, condition, over, notified) = (&lock, &condition, &over, &notified);
            s.spawn(move || {
                let mut random = fastrand::Rng::with_seed(100 + n);
                while !over.load(Ordering::Relaxed) {
                    let guard = random.bool().then(|| lock.lock());
                    let woken = if random.bool() { condition.notify_all() } else { condition.notify_one().into() };
                    notified.fetch_add(woken, Ordering::Relaxed);
                    drop(guard);
                    std::thread::sleep(Duration::from_micros(random.u64(0..100)));
                }
            });
        }
        std::thread::sleep(Duration::from_secs(3));
        over.store(true, Ordering::Relaxed);
        let ends = waiters.into_iter().map(|waiter| waiter.join().expect("it does not panic"));
        ends.fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
    });
    assert_eq!(reported, notified.into_inner());
    assert_eq!(*lock.lock() as usize, reported + late);
    assert!(reported > 0 && late > 0, "{reported} notified, {late} late");
}

#[test]
fn notifications_race_with_the_clock() {
    let _watchdog = watched("notifications_race_with_the_clock");
    notifications_race_with_time::<Parking>();
}

#[test]
fn notifications_race_with_the_clock_without_naps() {
    let _watchdog = watched("notifications_race_with_the_clock_without_naps");
    notifications_race_with_time::<ParkingExact>();
}

/// Mutex and condition variable are freed by whoever returns last.
#[test]
fn freed_at_once() {
    let _watchdog = watched("freed_at_once");
    for round in 0..500 {
        let both = Arc::new((Mutex::<bool>::new(false), Condvar::new()));
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let both = both.clone();
                std::thread::spawn(move || {
                    let mut guard = both.0.lock();
                    both.1.wait_while(&mut guard, |is_open| !*is_open);
                })
            })
            .collect();
        *both.0.lock() = true;
        if round % 2 == 0 {
            both.1.notify_all();
        } else {
            while both.1.notify_one() {}
        }
        drop(both);
        waiters.into_iter().for_each(|waiter| waiter.join().expect("it does not panic"));
    }
}

#[test]
fn two_mutexes_at_a_time() {
    let _watchdog = watched("two_mutexes_at_a_time");
    let (one, other, condition) = (Mutex::<_>::new(false), Mutex::<_>::new(()), Condvar::new());
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut guard = one.lock();
            *guard = true;
            condition.wait_while(&mut guard, |waits| *waits);
        });
        wait_until(|| *one.lock());
        let wrong = catch_unwind(AssertUnwindSafe(|| condition.wait_for(&mut other.lock(), SHORT)));
        let text = wrong.expect_err("it panics");
        let text = text.downcast_ref::<String>().expect("a message");
        assert!(text.contains("two mutexes at a time"), "{text}");
        assert!(!other.is_locked(), "the guard was dropped");
        *one.lock() = false;
        assert_eq!(condition.notify_all(), 1);
    });
    // One after the other is well.
    assert!(condition.wait_for(&mut other.lock(), SHORT).timed_out());
}
