//! Threads and their signal handlers: levels, slots, and what happens when there are no more of either.
//!
//! Slots and the count of waits without a node belong to the process, so these tests take turns.

#![cfg(unix)]

#[path = "support/queue_only.rs"]
mod queue_only;
#[path = "support/watchdog.rs"]
mod watchdog;

use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qspinlock::queue::LEVELS;
use qspinlock::threads::{CAPACITY, Threads, slots_in_use, waits_without_node};
use qspinlock::{Machine, RawSpinLock};
use queue_only::QueueOnly;
use watchdog::Watchdog;

type Lock = RawSpinLock<Threads, QueueOnly>;

fn turn(test: &'static str) -> (MutexGuard<'static, ()>, Watchdog) {
    static TURN: Mutex<()> = Mutex::new(());
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), Watchdog::arm(test, Duration::from_secs(120)))
}

fn acquire(lock: &Lock) {
    let Ok(()) = lock.acquire_on(&Threads);
}

fn release(lock: &Lock) {
    // SAFETY: every caller has acquired it.
    unsafe { lock.release_on(&Threads) };
}

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

fn on_signal(signal: i32, handler: usize) {
    // SAFETY: a zeroed action with a handler that does only what a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        // It may interrupt itself.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
    }
}

/// A thread waits for lock 0; a handler on top of it for lock 1; a handler on top of that for lock 2; and so on. The
/// first four wait in a queue, the others have no node left.
#[test]
fn handlers_nest_four_deep_and_beyond() {
    const DEEP: usize = LEVELS + 3;
    static LOCKS: [Lock; DEEP] = [const { Lock::new() }; DEEP];
    static DEPTH: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handler(_: i32, _: *const libc::siginfo_t, _: *const c_void) {
        let depth = DEPTH.fetch_add(1, Ordering::Relaxed) + 1;
        acquire(&LOCKS[depth]);
        release(&LOCKS[depth]);
        DEPTH.fetch_sub(1, Ordering::Relaxed);
    }

    let (_turn, _watchdog) = turn("handlers_nest_four_deep_and_beyond");
    on_signal(libc::SIGUSR1, handler as *const () as usize);
    let without_node = waits_without_node();
    LOCKS.iter().for_each(acquire);
    let waiter = std::thread::spawn(|| {
        acquire(&LOCKS[0]);
        release(&LOCKS[0]);
        // All handlers are done, so the thread's slot is as good as new.
        acquire(&LOCKS[0]);
        release(&LOCKS[0]);
    });
    for (depth, lock) in LOCKS.iter().enumerate() {
        if depth > 0 {
            use std::os::unix::thread::JoinHandleExt;
            // SAFETY: the thread is not joined yet, and cannot end: it waits.
            assert_eq!(unsafe { libc::pthread_kill(waiter.as_pthread_t() as _, libc::SIGUSR1) }, 0);
        }
        let counted = without_node + (depth + 1).saturating_sub(LEVELS) as u64;
        wait_until(|| waits_without_node() == counted && (depth >= LEVELS || lock.is_contended()));
        assert_eq!(lock.is_contended(), depth < LEVELS, "level {depth}: a node is a place in the queue");
    }
    assert_eq!(slots_in_use(), 1, "all levels are on one slot");
    // Any order would do: each handler waits for its own.
    LOCKS.iter().for_each(release);
    waiter.join().expect("the waiter ends");
    assert_eq!((slots_in_use(), DEPTH.load(Ordering::Relaxed)), (0, 0));
}

/// More threads than there are slots, one after the other: each has one.
#[test]
fn slots_come_back_when_threads_end() {
    let (_turn, _watchdog) = turn("slots_come_back_when_threads_end");
    let mut highest = 0;
    for n in 0..=CAPACITY {
        let cpu = std::thread::spawn(|| (Threads.here(), Threads.here())).join().expect("claiming does not panic");
        assert_eq!(cpu.0, cpu.1, "a thread keeps its slot");
        highest = highest.max(cpu.0.unwrap_or_else(|| panic!("thread {n} got no slot")).index());
    }
    assert_eq!((highest, slots_in_use()), (0, 0), "the lowest slot is used again and again");
}

#[test]
fn a_slot_is_claimed_by_the_first_wait_and_not_before() {
    let (_turn, _watchdog) = turn("a_slot_is_claimed_by_the_first_wait_and_not_before");
    let lock = Lock::new();
    acquire(&lock);
    std::thread::scope(|s| {
        let waiter = s.spawn(|| {
            acquire(&lock);
            release(&lock);
            slots_in_use()
        });
        wait_until(|| lock.is_contended());
        assert_eq!(slots_in_use(), 1, "who waits has one, who never waited has none");
        release(&lock);
        assert_eq!(waiter.join().expect("the waiter ends"), 1, "it is kept for the next wait");
    });
    assert_eq!(slots_in_use(), 0);
}

/// Locks that are taken while a thread ends: in a destructor of a thread-local, when it still has its slot, and in an
/// exit hook after the one that gave it back.
#[test]
fn a_thread_that_lost_its_slot_still_locks() {
    static EARLY: Lock = Lock::new();
    static LATE: Lock = Lock::new();
    static ROUND: AtomicUsize = AtomicUsize::new(0);
    static KEY: AtomicUsize = AtomicUsize::new(0);

    struct InDestructor;
    impl Drop for InDestructor {
        fn drop(&mut self) {
            acquire(&EARLY);
            release(&EARLY);
        }
    }
    std::thread_local!(static LOCAL: InDestructor = const { InDestructor });

    /// Runs again as long as it sets its key again; the second time all hooks have run once, the library's too.
    extern "C" fn hook(value: *mut c_void) {
        if ROUND.fetch_add(1, Ordering::Relaxed) == 0 {
            // SAFETY: the key exists.
            unsafe { libc::pthread_setspecific(KEY.load(Ordering::Relaxed) as _, value) };
        } else {
            acquire(&LATE);
            release(&LATE);
        }
    }

    let (_turn, _watchdog) = turn("a_thread_that_lost_its_slot_still_locks");
    let mut key = 0;
    // SAFETY: `key` is live, `hook` a function for as long as the program.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(hook)) }, 0);
    KEY.store(key as usize, Ordering::Relaxed);
    let without_node = waits_without_node();
    acquire(&EARLY);
    acquire(&LATE);
    let waiter = std::thread::spawn(move || {
        assert!(Threads.here().is_some());
        LOCAL.with(|_| ());
        // SAFETY: the key exists; the value is not followed.
        assert_eq!(unsafe { libc::pthread_setspecific(key, std::ptr::dangling::<u8>().cast()) }, 0);
    });
    // The destructor comes first, with its slot: it queues.
    wait_until(|| EARLY.is_contended());
    assert_eq!((slots_in_use(), waits_without_node()), (1, without_node));
    release(&EARLY);
    wait_until(|| waits_without_node() > without_node);
    assert_eq!((LATE.is_contended(), slots_in_use()), (false, 0), "the slot is gone before the second round");
    release(&LATE);
    waiter.join().expect("the thread ends");
    assert_eq!((ROUND.load(Ordering::Relaxed), slots_in_use()), (2, 0));
}
