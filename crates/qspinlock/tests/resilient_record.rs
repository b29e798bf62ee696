//! The record of what a thread holds keeps what is held, whatever the order of releases and whenever a handler comes.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;

use qspinlock::ResilientMutex;
use qspinlock::resilient::ENTRIES;

/// Each lock is released after the next one was taken. There is room for what is held, however far that goes.
#[test]
fn hand_over_hand() {
    let locks: [ResilientMutex<()>; 3 * ENTRIES] = std::array::from_fn(|_| ResilientMutex::new(()));
    let mut before = None;
    for lock in &locks {
        let guard = lock.lock().unwrap();
        assert!(lock.lock().unwrap_err().is_deadlock());
        drop(before.replace(guard));
        assert!(lock.lock().unwrap_err().is_deadlock());
    }
    drop(before);
    assert!(locks.iter().all(|lock| lock.lock().is_ok()));
}

/// Locks are taken and released in any order: each that is held is found, and no other, as long as there is room.
#[test]
fn any_order() {
    const LOCKS: usize = ENTRIES + 9;
    let locks: [ResilientMutex<()>; LOCKS] = std::array::from_fn(|_| ResilientMutex::new(()));
    let mut held: Vec<_> = locks.iter().map(|_| None).collect();
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let at = rng.usize(..LOCKS);
        let has_room = held.iter().flatten().count() < ENTRIES;
        match locks[at].lock() {
            Ok(_guard) if held[at].is_some() => panic!("a lock that is held was taken again"),
            Ok(guard) if has_room => held[at] = Some(guard),
            Ok(_) => {}
            Err(error) => {
                assert!(held[at].is_some() && error.is_deadlock(), "{error}");
                // Now and then all but a few, so that the record has been full and is nearly empty.
                let most = if rng.u32(..200) == 0 { LOCKS } else { 1 };
                held[at] = None;
                held.iter_mut().filter(|guard| guard.is_some()).take(most - 1).for_each(|guard| *guard = None);
            }
        }
    }
}

/// What is waited for in the place of something else has what is held above it: a circle through that is found.
#[test]
fn a_circle_from_what_came_later() {
    let locks: [ResilientMutex<()>; ENTRIES] = std::array::from_fn(|_| ResilientMutex::new(()));
    let other = ResilientMutex::new(());
    let barrier = std::sync::Barrier::new(2);
    thread::scope(|s| {
        let (locks, other, barrier) = (&locks, &other, &barrier);
        let one = s.spawn(move || {
            let mut all: Vec<_> = locks.iter().map(|lock| lock.lock().unwrap()).collect();
            let last = all.pop();
            drop(all);
            barrier.wait();
            let told = other.lock_within(LONG).err();
            drop(last);
            told
        });
        let two = s.spawn(move || {
            let held = other.lock().unwrap();
            barrier.wait();
            let told = locks[ENTRIES - 1].lock_within(LONG).err();
            drop(held);
            told
        });
        let told = [one.join().unwrap(), two.join().unwrap()];
        assert!(told.iter().flatten().count() > 0);
        assert!(told.iter().flatten().all(|error| error.is_deadlock()), "{told:?}");
    });
}

const LONG: std::time::Duration = std::time::Duration::from_secs(20);

/// A handler that comes while a lock is being entered leaves what it finds.
#[cfg(target_os = "linux")]
#[test]
fn a_handler_at_any_moment() {
    static OF_HANDLERS: ResilientMutex<()> = ResilientMutex::new(());
    static RUN: AtomicU32 = AtomicU32::new(0);
    extern "C" fn handler(_: libc::c_int) {
        drop(OF_HANDLERS.lock());
        RUN.fetch_add(1, Relaxed);
    }
    // SAFETY: the handler is of the right type, and takes a lock that nobody else does.
    unsafe { libc::signal(libc::SIGUSR1, handler as *const () as usize) };
    let lock = ResilientMutex::new(());
    let is_over = AtomicBool::new(false);
    // SAFETY: no memory is involved.
    let me = unsafe { libc::pthread_self() };
    thread::scope(|s| {
        s.spawn(|| {
            while !is_over.load(Relaxed) {
                // SAFETY: the thread waits for this one to end.
                unsafe { libc::pthread_kill(me, libc::SIGUSR1) };
                for _ in 0..200 {
                    std::hint::spin_loop();
                }
            }
        });
        let mut found = true;
        while found && RUN.load(Relaxed) < 5_000 {
            let _guard = lock.lock().unwrap();
            // By time, if it is not found: that is no deadlock.
            found = lock.lock_within(std::time::Duration::from_millis(50)).unwrap_err().is_deadlock();
        }
        is_over.store(true, Relaxed);
        assert!(found, "a lock that is held was not in the record");
    });
}
