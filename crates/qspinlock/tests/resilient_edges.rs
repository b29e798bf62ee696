//! Resilient locks at their edges: bad input, more than there is room for, ends of threads and processes.
//!
//! Slots and reports belong to the process, so these tests take turns.

#![cfg(target_os = "linux")]

#[path = "support/forked.rs"]
mod forked;
#[path = "support/turn.rs"]
mod turn;
#[path = "support/watchdog.rs"]
mod watchdog;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use forked::in_child;
use qspinlock::atomic::reports::KEPT;
use qspinlock::machine::{Access, Budget};
use qspinlock::queue::{Cpu, Slot};
use qspinlock::resilient::{ENTRIES, RecordOf, Recorder};
use qspinlock::slowpath::{Chosen, Fallible, Native, Paravirt, Parking, ParkingExact, TestAndSet};
use qspinlock::threads::{Threads, locks_left_behind};
use qspinlock::{LockError, LockErrorKind, Machine, RawResilientLock, ResilientMutex, ResilientMutexGuard};
use turn::turn;

type Raw = RawResilientLock<Threads>;

/// In a thread of its own, whose slot is free when this returns.
fn in_thread<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|s| s.spawn(f).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn again<T>(lock: &ResilientMutex<T>) -> LockError {
    let _guard = lock.try_lock().expect("it is free");
    lock.lock().err().expect("it is held")
}

#[test]
fn what_is_not_held_is_not_released() {
    let (_turn, _watchdog) = turn("what_is_not_held_is_not_released");
    in_thread(|| {
        let (lock, other) = (Raw::new(), Raw::new());
        // SAFETY: not held here.
        let release = |lock: &Raw| unsafe { lock.release_on(&Threads) };
        assert!(release(&lock).is_err());
        assert_eq!(lock.acquire_on(&Threads), Ok(()));
        assert!(release(&other).is_err());
        in_thread(|| {
            assert!(release(&lock).is_err(), "it is another thread's");
            assert!(lock.acquire_within_on(&Threads, 0).is_err());
            assert!(release(&lock).is_err(), "it was not to be had");
        });
        assert!(lock.is_taken());
        assert_eq!((release(&lock), lock.is_taken()), (Ok(()), false));
        assert!(release(&lock).is_err(), "released before");
    });
}

#[test]
fn no_time_and_all_time() {
    let (_turn, _watchdog) = turn("no_time_and_all_time");
    in_thread(|| {
        let (lock, come) = (ResilientMutex::new(0), Barrier::new(2));
        for most in [Duration::ZERO, Duration::MAX, Duration::from_nanos(u64::MAX)] {
            *lock.lock_within(most).expect("it is free") += 1;
        }
        std::thread::scope(|s| {
            let guard = lock.lock().unwrap();
            s.spawn(|| {
                for short in [Duration::ZERO, Duration::from_nanos(1)] {
                    let error = lock.lock_within(short).unwrap_err();
                    assert_eq!(error.kind(), LockErrorKind::TimedOut);
                }
                come.wait();
                *lock.lock_within(Duration::MAX).expect("it comes") += 1;
            });
            come.wait();
            // It waits, now or soon.
            std::thread::sleep(Duration::from_millis(5));
            drop(guard);
        });
        assert_eq!(lock.into_inner(), 4);
    });
}

/// Threads whose clock stands still.
struct Still;

// SAFETY: each method is that of `Threads`, but for the clock, on which nothing rests.
unsafe impl Machine for Still {
    type Cell = <Threads as Machine>::Cell;

    fn here(&self) -> Option<Cpu> {
        Threads.here()
    }

    fn slot(&self, cpu: Cpu) -> &Slot<Self::Cell> {
        Threads.slot(cpu)
    }

    fn until(&self, cell: &Self::Cell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        Threads.until(cell, access, done)
    }

    fn until_for(
        &self,
        cell: &Self::Cell,
        access: Access,
        budget: Budget,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, u32> {
        // One that ends at some time would be a spin for ever, in a machine that waits by its own clock.
        let budget = match budget {
            Budget::Until(_) => Budget::Looks { most: 10, apart: 1 },
            looks => looks,
        };
        Threads.until_for(cell, access, budget, done)
    }

    fn fence(&self, access: Access) {
        Threads.fence(access);
    }

    fn signal_fence(&self) {
        Threads.signal_fence();
    }

    fn now(&self) -> u64 {
        1_000_000
    }
}

// SAFETY: that of `Threads`.
unsafe impl Recorder for Still {
    type Name = <Threads as Recorder>::Name;
    type Place = <Threads as Recorder>::Place;

    fn record(&self, cpu: Cpu) -> &RecordOf<Self> {
        Threads.record(cpu)
    }

    fn recorded(&self) -> u32 {
        Threads.recorded()
    }
}

fn still<S: Fallible<Still>>() {
    let lock = RawResilientLock::<Still, S>::from_cell(qspinlock::machine::ConstCell::ZERO);
    assert_eq!(lock.acquire_on(&Still), Ok(()));
    assert!(lock.acquire_on(&Still).unwrap_err().is_deadlock());
    in_thread(|| assert!(lock.acquire_on(&Still).unwrap_err().is_timeout(), "{}", S::NAME));
    // SAFETY: acquired above.
    assert_eq!(unsafe { lock.release_on(&Still) }, Ok(()));
}

#[test]
fn a_clock_that_stands_still_ends_a_wait() {
    let (_turn, _watchdog) = turn("a_clock_that_stands_still_ends_a_wait");
    in_thread(|| {
        still::<Native>();
        still::<Parking>();
        still::<ParkingExact>();
        still::<Paravirt>();
        still::<TestAndSet>();
    });
}

#[test]
fn more_than_there_is_room_for() {
    let (_turn, _watchdog) = turn("more_than_there_is_room_for");
    in_thread(|| {
        const MANY: usize = ENTRIES + 9;
        let locks: [_; MANY] = std::array::from_fn(ResilientMutex::new);
        // Each order of release: the first first, the last first, every second.
        let orders: [fn(usize) -> usize; 3] = [|n| n, |n| MANY - 1 - n, |n| n * 3 % MANY];
        for order in orders {
            let mut guards: Vec<_> = locks.iter().map(|lock| Some(lock.lock().expect("it is free"))).collect();
            let within = |n: usize| locks[n].lock_within(Duration::from_micros(50)).unwrap_err().kind();
            for n in 0..MANY {
                let kind = if n < ENTRIES { LockErrorKind::Deadlock } else { LockErrorKind::TimedOut };
                assert_eq!(within(n), kind, "lock {n}");
            }
            (0..MANY).for_each(|n| drop(guards[order(n)].take().expect("each once")));
            assert!(locks.iter().all(|lock| !lock.is_locked()));
            // There is room again for all that there was.
            let guards: Vec<_> = locks[..ENTRIES].iter().map(|lock| lock.lock().expect("it is free")).collect();
            (0..ENTRIES).for_each(|n| assert_eq!(within(n), LockErrorKind::Deadlock));
            drop(guards);
        }
        // By the raw API nobody knows which of them has no room, and so all may be released.
        let raw: [Raw; MANY] = std::array::from_fn(|_| Raw::new());
        raw.iter().for_each(|lock| assert_eq!(lock.acquire_on(&Threads), Ok(())));
        // SAFETY: acquired above.
        raw.iter().for_each(|lock| assert_eq!(unsafe { lock.release_on(&Threads) }, Ok(())));
        // SAFETY: not held any more.
        assert!(raw.iter().all(|lock| unsafe { lock.release_on(&Threads) }.is_err()));
    });
}

#[test]
fn reports_outlive_locks_but_not_many_errors() {
    let (_turn, _watchdog) = turn("reports_outlive_locks_but_not_many_errors");
    in_thread(|| {
        let lock = Box::new(ResilientMutex::new(0));
        let (error, address) = (again(&lock), std::ptr::from_ref(&*lock).addr());
        drop(lock);
        let report = error.report().expect("it is the last one");
        assert_eq!((report.lock(), report.length(), report.kind()), (address, 1, LockErrorKind::Deadlock));
        assert!(report.to_string().contains(file!()), "{report}");
        // Another thread may ask, and copies are the same.
        assert_eq!(in_thread(move || error.report()), Some(report));
        let lock = ResilientMutex::new(0);
        for n in 1..=KEPT {
            assert_eq!(error.report(), Some(report), "after {} more", n - 1);
            let _ = again(&lock);
        }
        assert_eq!(error.report(), None, "after {KEPT} more");
        assert_eq!(error.kind(), LockErrorKind::Deadlock);
    });
}

/// The exit hooks of a thread run one after another. In one that comes after ours the thread has no number any more.
#[test]
fn a_thread_past_its_exit_hook() {
    static LOCK: ResilientMutex<u32> = ResilientMutex::new(0);
    static TOLD: AtomicU32 = AtomicU32::new(0);
    extern "C" fn late(value: *mut libc::c_void) {
        let round = value.addr();
        if round < 3 {
            // Once more: hooks of a round come in any order.
            // SAFETY: the key is there.
            unsafe { libc::pthread_setspecific(KEY.load(Ordering::Relaxed), std::ptr::without_provenance(round + 1)) };
            return;
        }
        let guard = LOCK.lock().expect("it is free");
        // It has no record, so only the time ends this.
        let error = LOCK.lock_within(Duration::from_millis(1)).unwrap_err();
        drop(guard);
        let report = error.report().expect("it is the last one");
        let is_so = error.is_timeout() && report.cpu().is_none() && Threads.here().is_none();
        TOLD.fetch_add(u32::from(is_so), Ordering::Relaxed);
    }
    static KEY: AtomicU32 = AtomicU32::new(0);
    let (_turn, _watchdog) = turn("a_thread_past_its_exit_hook");
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: `key` is live, and the hook is a function for as long as the program.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(late)) }, 0);
    #[allow(clippy::unnecessary_cast, reason = "the C library says which integer")]
    KEY.store(key as u32, Ordering::Relaxed);
    let thread = std::thread::spawn(move || {
        *LOCK.lock().unwrap() += 1;
        // SAFETY: the key is there.
        unsafe { libc::pthread_setspecific(key, std::ptr::dangling()) };
    });
    thread.join().expect("it ends");
    assert_eq!(TOLD.load(Ordering::Relaxed), 1);
    assert!(!LOCK.is_locked());
}

#[test]
fn a_thread_that_ends_leaves_nothing_to_who_comes_after_it() {
    let (_turn, _watchdog) = turn("a_thread_that_ends_leaves_nothing_to_who_comes_after_it");
    let locks: [_; 3] = std::array::from_fn(ResilientMutex::new);
    let before = locks_left_behind();
    let slot = || Threads.here().expect("there are slots");
    let first = in_thread(|| {
        locks[..2].iter().for_each(|lock| std::mem::forget(lock.lock().unwrap()));
        drop(locks[2].lock());
        slot()
    });
    assert_eq!(locks_left_behind() - before, 2);
    in_thread(|| {
        assert_eq!(slot(), first, "another slot shows nothing");
        // It does not hold them, whoever had its number.
        for lock in &locks[..2] {
            let error = lock.lock_within(Duration::from_micros(100)).unwrap_err();
            assert!(error.is_timeout());
            assert_eq!(error.report().unwrap().holder(), None, "who held it is gone");
        }
        assert!(again(&locks[2]).is_deadlock());
    });
    assert_eq!(locks_left_behind() - before, 2);
}

/// A guard in a variable of a thread may be dropped after the thread's exit hook, which gives its number back.
#[test]
fn a_guard_is_dropped_when_its_thread_has_ended() {
    type Lock = RawResilientLock<Threads, Chosen>;
    static KEY: AtomicU32 = AtomicU32::new(0);
    static HELD: ResilientMutex<u32> = ResilientMutex::new(0);
    static ENDED: Barrier = Barrier::new(2);
    static DROP: Barrier = Barrier::new(2);
    static ROUND: AtomicU32 = AtomicU32::new(0);
    extern "C" fn late(value: *mut libc::c_void) {
        // Hooks of a round come in any order.
        if ROUND.fetch_add(1, Ordering::Relaxed) < 2 {
            // SAFETY: the key is there.
            unsafe { libc::pthread_setspecific(KEY.load(Ordering::Relaxed) as libc::pthread_key_t, value) };
            return;
        }
        assert_eq!(Threads.here(), None);
        ENDED.wait();
        DROP.wait();
        // SAFETY: a box of this type, which nobody else has.
        drop(unsafe { Box::from_raw(value.cast::<ResilientMutexGuard<'static, u32>>()) });
    }
    let (_turn, _watchdog) = turn("a_guard_is_dropped_when_its_thread_has_ended");
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: `key` is live, and the hook is a function for as long as the program.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(late)) }, 0);
    #[allow(clippy::unnecessary_cast, reason = "the C library says which integer")]
    KEY.store(key as u32, Ordering::Relaxed);
    let ends = std::thread::spawn(move || {
        let guard = Box::into_raw(Box::new(HELD.lock().unwrap()));
        // SAFETY: the key is there.
        unsafe { libc::pthread_setspecific(key, guard.cast()) };
    });
    ENDED.wait();
    in_thread(|| {
        let lock = Lock::new();
        lock.acquire_on(&Threads).expect("it is new");
        DROP.wait();
        while HELD.is_locked() {
            std::thread::yield_now();
        }
        // What was dropped there was not this one's.
        assert!(lock.acquire_on(&Threads).unwrap_err().is_deadlock());
        // SAFETY: acquired above.
        unsafe { lock.release_on(&Threads) }.expect("it is held");
    });
    ends.join().expect("it ends");
}

/// Who holds a lock without a number is in no record. A handler whose own context is about to take that lock must not take
/// it for the owner.
#[test]
fn an_owner_without_a_number_is_not_the_one_that_was_interrupted() {
    static KEY: AtomicU32 = AtomicU32::new(0);
    static HELD: ResilientMutex<u32> = ResilientMutex::new(0);
    static ROUND: AtomicU32 = AtomicU32::new(0);
    static IS_HELD: Barrier = Barrier::new(2);
    static RELEASE: Barrier = Barrier::new(2);
    static TOLD: AtomicU32 = AtomicU32::new(0);
    extern "C" fn late(value: *mut libc::c_void) {
        if ROUND.fetch_add(1, Ordering::Relaxed) < 2 {
            // SAFETY: the key is there.
            unsafe { libc::pthread_setspecific(KEY.load(Ordering::Relaxed) as libc::pthread_key_t, value) };
            return;
        }
        let guard = HELD.lock().expect("it is free");
        IS_HELD.wait();
        RELEASE.wait();
        drop(guard);
    }
    extern "C" fn handler(_: i32) {
        let error = HELD.lock_within(Duration::from_millis(20)).map(drop);
        TOLD.store(if error.is_err_and(LockError::is_timeout) { 1 } else { 2 }, Ordering::Relaxed);
    }
    let (_turn, _watchdog) = turn("an_owner_without_a_number_is_not_the_one_that_was_interrupted");
    let mut key: libc::pthread_key_t = 0;
    // SAFETY: `key` is live, and the hook is a function for as long as the program.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(late)) }, 0);
    #[allow(clippy::unnecessary_cast, reason = "the C library says which integer")]
    KEY.store(key as u32, Ordering::Relaxed);
    // SAFETY: a zeroed action with a handler of the right type, that does what a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    let holds = std::thread::spawn(move || {
        let _ = Threads.here();
        // SAFETY: the key is there.
        unsafe { libc::pthread_setspecific(key, std::ptr::dangling()) };
    });
    IS_HELD.wait();
    in_thread(|| {
        // SAFETY: no preconditions.
        let me = unsafe { libc::pthread_self() };
        std::thread::scope(|s| {
            s.spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                // SAFETY: it waits, below.
                assert_eq!(unsafe { libc::pthread_kill(me, libc::SIGUSR1) }, 0);
                while TOLD.load(Ordering::Relaxed) == 0 {
                    std::thread::yield_now();
                }
                RELEASE.wait();
            });
            *HELD.lock_within(Duration::from_secs(60)).expect("it is released in the end") += 1;
        });
    });
    assert_eq!(TOLD.load(Ordering::Relaxed), 1, "no deadlock");
    holds.join().expect("it ends");
}

/// Of the threads only the caller is left in a child: it holds what it held, and who comes after the others inherits
/// nothing.
#[test]
fn in_a_child_only_what_the_caller_holds_is_held() {
    let (_turn, _watchdog) = turn("in_a_child_only_what_the_caller_holds_is_held");
    let [mine, theirs] = std::array::from_fn(ResilientMutex::new);
    let step = Barrier::new(2);
    std::thread::scope(|s| {
        let thread = s.spawn(|| {
            let guard = theirs.lock().unwrap();
            step.wait();
            step.wait();
            drop(guard);
        });
        step.wait();
        let guard = mine.lock().unwrap();
        let result = catch_unwind(AssertUnwindSafe(|| {
            in_child(20, || {
                let short = Duration::from_millis(1);
                assert!(mine.lock_within(short).unwrap_err().is_deadlock());
                let error = theirs.lock_within(short).unwrap_err();
                assert!(error.is_timeout());
                assert_eq!(error.report().unwrap().holder(), None, "it is not there");
                in_thread(|| {
                    assert!(theirs.lock_within(short).unwrap_err().is_timeout(), "by another one's number");
                    assert!(mine.lock_within(short).unwrap_err().is_timeout());
                });
            });
        }));
        drop(guard);
        step.wait();
        thread.join().expect("it ends");
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(!mine.is_locked() && !theirs.is_locked());
}

#[test]
fn a_panic_releases_what_was_held() {
    let (_turn, _watchdog) = turn("a_panic_releases_what_was_held");
    in_thread(|| {
        let [a, b] = std::array::from_fn(ResilientMutex::new);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _a = a.lock().unwrap();
            let _b = b.lock().unwrap();
            let _ = a.lock().unwrap();
        }));
        assert!(panicked.is_err());
        for lock in [&a, &b] {
            assert!(!lock.is_locked());
            assert!(again(lock).is_deadlock(), "it is not recorded, or was before");
        }
    });
}

/// A handler that interrupts an owner is told, and asks for the report.
#[test]
fn a_handler_asks_for_a_report() {
    static LOCK: ResilientMutex<u32> = ResilientMutex::new(0);
    static LENGTH: AtomicU32 = AtomicU32::new(0);
    extern "C" fn handler(_: i32) {
        if let Err(error) = LOCK.lock() {
            let length = error.report().map_or(0, |report| report.length());
            LENGTH.store(length as u32, Ordering::Relaxed);
        }
    }
    let (_turn, _watchdog) = turn("a_handler_asks_for_a_report");
    in_thread(|| {
        // SAFETY: a zeroed action with a handler of the right type, that does what a handler may.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            assert_eq!(libc::sigaction(libc::SIGUSR2, &raw const action, std::ptr::null_mut()), 0);
        }
        let guard = LOCK.lock().unwrap();
        // SAFETY: no preconditions.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR2) }, 0);
        assert_eq!(LENGTH.load(Ordering::Relaxed), 1);
        drop(guard);
        LENGTH.store(7, Ordering::Relaxed);
        // SAFETY: no preconditions.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR2) }, 0);
        assert_eq!(LENGTH.load(Ordering::Relaxed), 7, "it had the lock");
        assert!(!LOCK.is_locked());
    });
}
