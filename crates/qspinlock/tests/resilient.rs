//! The resilient mutex, with each slow path: what it reports, and what it leaves.

#[path = "support/watchdog.rs"]
mod watchdog;

use std::panic::Location;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use qspinlock::resilient::{LINKS, Mutex};
use qspinlock::slowpath::{Chosen, Fallible, Native, Paravirt, Parking, ParkingExact, TestAndSet};
use qspinlock::threads::Threads;
use qspinlock::{LockErrorKind, Machine, ResilientMutex};
use watchdog::Watchdog;

static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

type Lock<S, T> = Mutex<Threads, S, T>;

/// Far more than a deadlock needs to be found.
const LONG: Duration = Duration::from_secs(30);

/// Runs a case with each slow path. One at a time: as many errors as some of them cause would make others forget
/// theirs.
macro_rules! for_all {
    ($case:ident) => {{
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _watchdog = Watchdog::arm(stringify!($case), Duration::from_secs(120));
        $case::<Native>();
        $case::<Parking>();
        $case::<ParkingExact>();
        $case::<Paravirt>();
        $case::<TestAndSet>();
        $case::<Chosen>();
    }};
}

fn is_here(place: Option<&Location<'_>>, line: u32) {
    let place = place.expect("it is known");
    assert_eq!((place.file(), place.line()), (file!(), line));
}

fn the_same_lock_again<S: Fallible<Threads>>() {
    let lock = Lock::<S, _>::new(0);
    let (guard, first) = (lock.lock().unwrap(), line!());
    let (error, second) = (lock.lock_within(LONG).unwrap_err(), line!());
    assert_eq!((error.kind(), error.is_deadlock(), error.is_timeout()), (LockErrorKind::Deadlock, true, false));
    assert!(lock.try_lock().is_none() && lock.is_locked());
    let report = error.report().expect("a recent one");
    let links: Vec<_> = report.links().collect();
    assert_eq!((report.length(), links.len(), report.kind()), (1, 1, LockErrorKind::Deadlock));
    assert_eq!((report.cpu(), Some(links[0].cpu)), (Threads.here(), Threads.here()));
    assert_eq!(links[0].wants, report.lock());
    is_here(report.asked_at(), second);
    is_here(links[0].wants_at, second);
    is_here(links[0].holds_at, first);
    let text = report.to_string();
    assert!(text.contains(&format!("{}:{first}:", file!())), "{text}");
    drop(guard);
    *lock.lock().unwrap() += 1;
    assert_eq!(lock.into_inner(), 1);
}

#[test]
fn the_same_lock_again_is_told_at_once() {
    for_all!(the_same_lock_again);
}

/// Threads that hold a lock each and want that of the next one. What those were told who were.
fn circle<S: Fallible<Threads>>(length: usize) -> Vec<qspinlock::LockError> {
    let locks: Vec<_> = (0..length).map(Lock::<S, _>::new).collect();
    let barrier = Barrier::new(length);
    let errors = thread::scope(|s| {
        let run = |n: usize| {
            let (locks, barrier) = (&locks, &barrier);
            s.spawn(move || {
                let first = locks[n].lock().expect("nobody else wants it yet");
                barrier.wait();
                let second = locks[(n + 1) % length].lock_within(LONG);
                drop(first);
                second.err()
            })
        };
        let threads: Vec<_> = (0..length).map(run).collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("it does not panic")).collect()
    });
    assert!(locks.iter().all(|lock| !lock.is_locked()));
    errors
}

fn circles<S: Fallible<Threads>>() {
    for length in [2, 5, LINKS + 3] {
        let errors = circle::<S>(length);
        assert!(!errors.is_empty(), "{}: nobody was told", S::NAME);
        for error in errors {
            assert_eq!(error.kind(), LockErrorKind::Deadlock, "{}", S::NAME);
            let report = error.report().expect("a recent one");
            let mut cpus: Vec<_> = report.links().map(|link| link.cpu).collect();
            let mut locks: Vec<_> = report.links().map(|link| link.wants).collect();
            assert_eq!((report.cpu(), report.lock()), (Some(cpus[0]), locks[0]));
            assert!(report.links().all(|link| link.wants_at.is_some() && link.holds_at.is_some()), "{report}");
            for of in [cpus.len(), locks.len()] {
                assert_eq!((report.length(), of), (length, length.min(LINKS)));
            }
            cpus.sort_unstable();
            cpus.dedup();
            locks.sort_unstable();
            locks.dedup();
            assert_eq!((cpus.len(), locks.len()), (length.min(LINKS), length.min(LINKS)), "each once: {report}");
            let text = report.to_string();
            assert_eq!(text.contains(&format!("and {} more", length.saturating_sub(LINKS))), length > LINKS, "{text}");
        }
    }
}

#[test]
fn circles_are_told_to_somebody_in_them() {
    for_all!(circles);
}

fn a_stalled_owner<S: Fallible<Threads>>() {
    let lock = Lock::<S, _>::new(0);
    let (guard, line) = (lock.lock().unwrap(), line!());
    let here = Threads.here();
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for limit in [0, 300, 5000].map(Duration::from_micros) {
                    let error = lock.lock_within(limit).unwrap_err();
                    assert_eq!((error.kind(), error.is_deadlock()), (LockErrorKind::TimedOut, false));
                    let report = error.report().expect("a recent one");
                    assert!(report.waited() >= limit, "{report}");
                    assert_eq!((report.length(), report.links().count()), (0, 0));
                    let (holder, place) = report.holder().expect("it says so");
                    assert_eq!(Some(holder), here);
                    is_here(place, line);
                }
            });
        }
    });
    drop(guard);
    assert_eq!(*lock.lock().expect("nothing is left"), 0);
}

#[test]
fn a_stalled_owner_is_not_waited_for() {
    for_all!(a_stalled_owner);
}

fn guards<S: Fallible<Threads>>() {
    let mut locks: [_; 4] = std::array::from_fn(Lock::<S, _>::new);
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let mut guards = locks.each_ref().map(|lock| lock.lock().ok());
        for n in order {
            assert!(locks[n].lock().unwrap_err().is_deadlock());
            drop(guards[n].take());
            *locks[n].lock().unwrap() += 10;
        }
    }
    // One that was forgotten is held.
    std::mem::forget(locks[2].lock().unwrap());
    assert!(locks[2].lock().unwrap_err().is_deadlock());
    assert!(locks[2].is_locked() && !locks[1].is_locked());
    assert_eq!(
        format!("{:?} {:?}", locks[1], locks[2]),
        r#"ResilientMutex { data: 31 } ResilientMutex { data: <locked> }"#
    );
    assert_eq!(locks.each_mut().map(|lock| *lock.get_mut()), [30, 31, 32, 33]);
}

#[test]
fn guards_are_dropped_in_any_order() {
    // In threads of their own: they leave a lock behind.
    for_all!(in_threads);
    fn in_threads<S: Fallible<Threads>>() {
        thread::scope(|s| s.spawn(guards::<S>).join()).expect("it is so");
    }
}

/// Threads that count, while they take two locks in any order: those who are told give up and try again.
fn contended<S: Fallible<Threads>>() {
    let locks: [_; 3] = std::array::from_fn(|_| Lock::<S, _>::new(0_u64));
    let done: u64 = thread::scope(|s| {
        let run = |seed| {
            let locks = &locks;
            s.spawn(move || {
                let (mut random, mut done) = (fastrand::Rng::with_seed(seed), 0);
                for _ in 0..2000 {
                    let first = random.usize(..3);
                    let second = (first + 1 + random.usize(..2)) % 3;
                    let Ok(mut a) = locks[first].lock_within(LONG) else { continue };
                    match locks[second].lock_within(LONG) {
                        Ok(mut b) => {
                            *a += 1;
                            *b += 1;
                            done += 2;
                        }
                        Err(error) => assert!(error.is_deadlock(), "{}: {:?}", S::NAME, error.report()),
                    }
                }
                done
            })
        };
        let threads: Vec<_> = (0..4).map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum()
    });
    assert!(done > 0);
    assert_eq!(locks.map(Lock::into_inner).into_iter().sum::<u64>(), done);
}

#[test]
fn any_order_goes_on() {
    for_all!(contended);
}

/// A guard that is forgotten leaves its entry. If the lock goes, another one may come to stand in its place.
#[test]
fn a_lock_that_is_gone_is_in_nobodys_record() {
    let mut place = std::mem::MaybeUninit::<ResilientMutex<u32>>::uninit();
    for _ in 0..100 {
        let lock = place.write(ResilientMutex::new(0));
        std::mem::forget(lock.lock().expect("a new lock is free"));
        // SAFETY: written above.
        unsafe { place.assume_init_drop() };
    }
    let last = place.write(ResilientMutex::new(0));
    let (is_held, is_told) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|s| {
        s.spawn(|| {
            let _guard = last.lock().expect("a new lock is free");
            is_held.wait();
            is_told.wait();
        });
        is_held.wait();
        // Somebody else holds it. We hold others, that stood here.
        let error = last.lock_within(Duration::from_millis(1)).unwrap_err();
        is_told.wait();
        assert_eq!(error.kind(), LockErrorKind::TimedOut);
    });
    // SAFETY: written above.
    unsafe { place.assume_init_drop() };
}
