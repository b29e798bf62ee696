//! The resilient mutex: what it reports, and what it leaves.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use qspinlock::{LockErrorKind, ResilientMutex};

#[test]
fn the_same_lock_again() {
    let lock = ResilientMutex::new(0);
    let guard = lock.lock().unwrap();
    let error = lock.lock().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Deadlock);
    let report = error.report().unwrap();
    assert_eq!(report.length(), 1);
    println!("{report}");
    drop(guard);
    *lock.lock().unwrap() += 1;
}

#[test]
fn a_circle_of_five() {
    let locks: [_; 5] = std::array::from_fn(ResilientMutex::new);
    let barrier = Barrier::new(5);
    let errors: Vec<_> = thread::scope(|s| {
        let run = |n: usize| {
            let (locks, barrier) = (&locks, &barrier);
            s.spawn(move || {
                let first = locks[n].lock().unwrap();
                barrier.wait();
                let second = locks[(n + 1) % 5].lock_within(Duration::from_secs(20));
                drop(first);
                second.err()
            })
        };
        let threads: Vec<_> = (0..5).map(run).collect();
        threads.into_iter().filter_map(|t| t.join().unwrap()).collect()
    });
    assert!(!errors.is_empty());
    for error in errors {
        println!("{}", error.report().unwrap());
        assert_eq!(error.kind(), LockErrorKind::Deadlock);
        assert_eq!(error.report().unwrap().length(), 5);
    }
}

#[test]
fn a_stalled_owner() {
    let lock = ResilientMutex::new(0);
    std::mem::forget(lock.lock().unwrap());
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for _ in 0..3 {
                    let error = lock.lock_within(Duration::from_millis(5)).unwrap_err();
                    assert_eq!(error.kind(), LockErrorKind::TimedOut);
                    println!("{}", error.report().unwrap());
                }
            });
        }
    });
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
