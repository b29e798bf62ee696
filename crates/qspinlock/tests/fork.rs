//! `fork` while other threads wait: in the child they are not there, and the locks work all the same.
//!
//! A child that hangs is ended by an alarm. Slots belong to the process, so these tests take turns.

#![cfg(target_os = "linux")]

#[path = "support/forked.rs"]
mod forked;
#[path = "support/turn.rs"]
mod turn;
#[path = "support/watchdog.rs"]
mod watchdog;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use forked::in_child;
use qspinlock::slowpath::Parking;
use qspinlock::threads::{ENVIRONMENT_VARIABLE, Threads, slots_in_use};
use qspinlock::{Machine, RawSpinLock};
use turn::turn;
use watchdog::Watchdog;

type Lock = RawSpinLock<Threads, Parking>;

const WAITERS: usize = 8;

fn acquire(lock: &Lock) {
    let Ok(()) = lock.acquire_on(&Threads);
}

fn release(lock: &Lock) {
    // SAFETY: every caller has acquired it.
    unsafe { lock.release_on(&Threads) };
}

/// The slot of the calling thread.
fn slot() -> usize {
    Threads.here().expect("there are slots").index()
}

/// Four threads lock it 1000 times.
fn works(lock: &Lock) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let add = || {
        for _ in 0..250 {
            acquire(lock);
            // Not one step: two owners at once would lose one.
            COUNT.store(COUNT.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            release(lock);
        }
    };
    let before = COUNT.load(Ordering::Relaxed);
    std::thread::scope(|s| {
        let threads = [0; 4].map(|_| s.spawn(add));
        // Joined one by one: only then have they given back their slots.
        threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    });
    assert_eq!(COUNT.load(Ordering::Relaxed) - before, 1000);
}

/// Threads that wait for a lock, which the caller holds.
struct Waiters<'s> {
    threads: Vec<std::thread::ScopedJoinHandle<'s, ()>>,
    /// Their thread numbers and slots.
    who: Vec<(i32, usize)>,
}

impl<'s> Waiters<'s> {
    fn start<'e>(s: &'s std::thread::Scope<'s, 'e>, lock: &'s Lock) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let waiter = |n| {
            let tell = tell.clone();
            s.spawn(move || {
                // SAFETY: no preconditions.
                tell.send((unsafe { libc::gettid() }, slot())).expect("somebody waits for it");
                // Half of them with a limit, so with a node of another kind.
                match n % 2 {
                    0 => acquire(lock),
                    _ => assert!(lock.try_acquire_until_on(&Threads, u64::MAX)),
                }
                release(lock);
            })
        };
        let threads = (0..WAITERS).map(waiter).collect();
        let who = told.into_iter().take(WAITERS).collect();
        Self { threads, who }
    }

    /// Until each has gone to sleep, so lies in the queue.
    fn asleep(&self) {
        for (tid, _) in &self.who {
            loop {
                let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).expect("it runs");
                if stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('S')) {
                    break;
                }
                std::thread::yield_now();
            }
        }
    }

    fn end(self) {
        self.threads.into_iter().for_each(|thread| thread.join().expect("a waiter ends"));
    }
}

/// Slots that new threads get, `count` of them at the same time.
fn new_slots(count: usize) -> BTreeSet<usize> {
    let all_have_one = std::sync::Barrier::new(count);
    std::thread::scope(|s| {
        let claim = || {
            let mine = slot();
            all_have_one.wait();
            mine
        };
        let threads: Vec<_> = (0..count).map(|_| s.spawn(claim)).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
    })
}

fn sleepers_that_are_gone() {
    let lock = Lock::new();
    acquire(&lock);
    std::thread::scope(|s| {
        let waiters = Waiters::start(s, &lock);
        waiters.asleep();
        // They are let go also if something panics: they would be waited for.
        let result = catch_unwind(AssertUnwindSafe(|| in_children(&lock, &waiters)));
        release(&lock);
        waiters.end();
        result.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

fn in_children(lock: &Lock, waiters: &Waiters<'_>) {
    let (mine, theirs) = (slot(), waiters.who.iter().map(|&(_, slot)| slot).collect::<BTreeSet<_>>());
    assert_eq!((theirs.len(), slots_in_use()), (WAITERS, WAITERS + 1));
    in_child(20, || {
        assert_eq!(slot(), mine);
        assert_eq!(slots_in_use(), WAITERS + 1, "a queue names them");
        let new = new_slots(WAITERS);
        assert!(new.len() == WAITERS && new.is_disjoint(&theirs) && !new.contains(&mine), "{new:?} {theirs:?}");

        // Also in the child of the child.
        in_child(20, || {
            assert!(new_slots(WAITERS).is_disjoint(&theirs));
            release(lock);
            works(lock);
        });
        release(lock);
        works(lock);
        let new = new_slots(WAITERS);
        assert_eq!(new, theirs, "they are out of the queue, and have the lowest numbers");
        assert_eq!((slots_in_use(), slot()), (1, mine));
    });
}

#[test]
fn sleepers_that_are_gone_are_passed_over() {
    let (_turn, _watchdog) = turn("sleepers_that_are_gone_are_passed_over");
    sleepers_that_are_gone();
}

/// Whom the lock would be handed: a child that does not pass them over hands it to nobody. In a process of its own, whose
/// parameters say so.
#[test]
fn sleepers_that_are_gone_are_not_handed_the_lock() {
    const TEST: &str = "sleepers_that_are_gone_are_not_handed_the_lock";
    if Threads.patience().turns == 0 {
        let _watchdog = Watchdog::arm(TEST, Duration::from_secs(60));
        return sleepers_that_are_gone();
    }
    let (_turn, _watchdog) = turn(TEST);
    let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
    let output = command.args([TEST, "--exact"]).env(ENVIRONMENT_VARIABLE, "turns=0").output().expect("it starts");
    assert!(output.status.success(), "{output:?}");
}

/// Waiters of all kinds: on their way to the lock, spinning, lying down, asleep, for a lock that is released now and then.
#[test]
fn waiters_that_are_gone_do_not_matter_wherever_they_were() {
    let (_turn, _watchdog) = turn("waiters_that_are_gone_do_not_matter_wherever_they_were");
    let lock = Lock::new();
    let is_over = AtomicBool::new(false);
    let fork_now_and_then = || {
        for round in 0..60_u64 {
            acquire(&lock);
            // From not at all to long enough that all sleep.
            let (start, step) = (Instant::now(), round % 20);
            while start.elapsed() < Duration::from_micros(step * step * 10) {
                std::hint::spin_loop();
            }
            let child = catch_unwind(AssertUnwindSafe(|| {
                in_child(20, || {
                    release(&lock);
                    works(&lock);
                    // At worst all waiters were in a queue, or could have been.
                    assert!(slots_in_use() <= WAITERS + 1);
                });
            }));
            release(&lock);
            child?;
        }
        Ok(())
    };
    let result = std::thread::scope(|s| {
        for _ in 0..WAITERS {
            s.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    acquire(&lock);
                    release(&lock);
                }
            });
        }
        let result = fork_now_and_then();
        is_over.store(true, Ordering::Relaxed);
        result
    });
    result.unwrap_or_else(|panic| resume_unwind(panic));
}

/// Without anything to do for a child, one that forks again and again would run out of slots.
#[test]
fn slots_of_threads_that_did_not_wait_are_free_in_the_child() {
    let (_turn, _watchdog) = turn("slots_of_threads_that_did_not_wait_are_free_in_the_child");
    let in_step = std::sync::Barrier::new(WAITERS + 1);
    std::thread::scope(|s| {
        let have_slot = || {
            slot();
            in_step.wait();
            in_step.wait();
        };
        let threads = [(); WAITERS].map(|()| s.spawn(have_slot));
        in_step.wait();
        let before = slots_in_use();
        // Nothing may panic before they are let go: they would be waited for.
        let child = catch_unwind(|| in_child(20, || assert_eq!((slots_in_use(), slot(), slots_in_use()), (0, 0, 1))));
        in_step.wait();
        assert_eq!((before, child.is_ok()), (WAITERS, true));
        threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
    });
}
