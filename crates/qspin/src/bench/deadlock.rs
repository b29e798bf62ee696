//! How soon a lock that fails says so, and what others notice of that.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qspinlock::resilient::Mutex;
use qspinlock::slowpath::{Chosen, Fallible, Native, Numa, Paravirt, TestAndSet};
use qspinlock::threads::Threads;

use super::machine::{Line, allowed_cpus, pin};
use super::verdict::{median, quantile};
use crate::locks::LockName;

/// Nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) median: f64,
    pub(super) p99: f64,
    pub(super) longest: f64,
    pub(super) count: usize,
}

impl Times {
    fn of(found: Vec<f64>) -> Option<Self> {
        let at = |q| quantile(found.clone(), q);
        Some(Self { median: at(0.5)?, p99: at(0.99)?, longest: at(1.0)?, count: found.len() })
    }
}

/// What was found of a lock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlocks {
    pub(super) lock: LockName,
    /// From the second `lock` to its error.
    pub(super) again: Times,
    /// From the `lock` that closes a circle to the first error, with two threads.
    pub(super) pair: Times,
    /// The same, with eight.
    pub(super) ring: Times,
    /// From the end of a limit of 1 ms to the error, when the owner has gone without unlocking.
    pub(super) overshoot: Times,
    /// Throughput of a thread that has its lock to itself, while others close circles all the time, to that while they
    /// wait for as long, without one; and how often that was compared.
    pub(super) bystander: Option<(f64, usize)>,
}

/// Measures those of the locks that can fail.
pub(super) fn measure(locks: impl Iterator<Item = LockName>, quick: bool) -> Vec<Deadlocks> {
    let one = |lock| match lock {
        LockName::Resilient => of::<Chosen>(lock, quick),
        LockName::ResilientNative => of::<Native>(lock, quick),
        LockName::ResilientNuma => of::<Numa>(lock, quick),
        LockName::ResilientParavirt => of::<Paravirt>(lock, quick),
        LockName::ResilientTestAndSet => of::<TestAndSet>(lock, quick),
        _ => None,
    };
    locks.filter_map(one).collect()
}

type Lock<S> = Mutex<Threads, S, u64>;

fn of<S: Fallible<Threads> + 'static>(lock: LockName, quick: bool) -> Option<Deadlocks> {
    let rounds = if quick { 40 } else { 300 };
    Some(Deadlocks {
        lock,
        again: Times::of(again::<S>(100 * rounds))?,
        pair: Times::of((0..rounds).filter_map(|_| circle::<S>(2)).collect())?,
        ring: Times::of((0..rounds / 4).filter_map(|_| circle::<S>(8)).collect())?,
        overshoot: Times::of(overshoot::<S>(rounds))?,
        bystander: bystander::<S>(if quick { 4 } else { 15 }),
    })
}

/// The clock is read once for many of them.
fn again<S: Fallible<Threads> + 'static>(rounds: usize) -> Vec<f64> {
    const EACH: u32 = 20;
    let lock = Lock::<S>::new(0);
    let _guard = lock.lock();
    let one = |_| {
        let start = Instant::now();
        for _ in 0..EACH {
            assert!(black_box(&lock).lock().is_err(), "this thread holds it");
        }
        start.elapsed().as_nanos() as f64 / f64::from(EACH)
    };
    (0..rounds / EACH as usize).map(one).collect()
}

/// Every thread holds a lock and wants the next one's. When all but one wait, that one closes the circle.
fn circle<S: Fallible<Threads> + 'static>(threads: usize) -> Option<f64> {
    // Until all the others wait, asleep or not.
    const SETTLE: Duration = Duration::from_millis(3);
    let locks: Vec<_> = (0..threads).map(|_| Lock::<S>::new(0)).collect();
    let (all, epoch) = (Barrier::new(threads), Instant::now());
    let (closed, first) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let now = || epoch.elapsed().as_nanos() as u64;
    thread::scope(|s| {
        for n in 0..threads {
            let (locks, all, closed, first) = (&locks, &all, &closed, &first);
            s.spawn(move || {
                let mine = locks[n].lock();
                all.wait();
                if n == 0 {
                    thread::sleep(SETTLE);
                    closed.store(now(), Ordering::Relaxed);
                }
                // Long enough that an error by time is not taken for a quick one.
                let next = locks[(n + 1) % threads].lock_within(Duration::from_secs(5));
                if next.is_err() {
                    first.fetch_min(now(), Ordering::Relaxed);
                }
                drop((next, mine));
            });
        }
    });
    first.into_inner().checked_sub(closed.into_inner()).map(|ns| ns as f64)
}

fn overshoot<S: Fallible<Threads> + 'static>(rounds: usize) -> Vec<f64> {
    const LIMIT: Duration = Duration::from_millis(1);
    let lock = Lock::<S>::new(0);
    // Held, by a thread that ends.
    thread::scope(|s| {
        s.spawn(|| std::mem::forget(lock.lock()));
    });
    let one = |_| {
        let start = Instant::now();
        assert!(lock.lock_within(LIMIT).is_err(), "it is never released");
        start.elapsed().saturating_sub(LIMIT).as_nanos() as f64
    };
    (0..rounds).map(one).collect()
}

/// With fewer than two CPUs there is no bystander.
fn bystander<S: Fallible<Threads> + 'static>(rounds: usize) -> Option<(f64, usize)> {
    const SLICE: Duration = Duration::from_millis(40);
    let &[here, there, ..] = &allowed_cpus()[..] else { return None };
    let locks: [_; 2] = std::array::from_fn(|_| Lock::<S>::new(0));
    /// About as long as a wait that ends with a circle being found. Who spins takes something from the other thread of its
    /// core, whatever it spins for: that is not what is measured.
    const WAIT: Duration = Duration::from_micros(10);
    /// What the two others are to do: wait for a lock that nobody releases, close a circle, or end.
    const REST: u32 = 0;
    const CLOSE: u32 = 1;
    const END: u32 = 2;
    let (wanted, agreed) = (AtomicU32::new(REST), AtomicU32::new(REST));
    // On a line of its own: who waits for what lies beside it would take that away.
    let (all, own, held) = (Barrier::new(2), Line(Lock::<S>::new(0)), Lock::<S>::new(0));
    let guard = held.lock();
    let mut ratios = Vec::new();
    thread::scope(|s| {
        for n in 0..2 {
            let (locks, held, wanted, agreed, all) = (&locks, &held, &wanted, &agreed, &all);
            s.spawn(move || {
                pin(there);
                loop {
                    if n == 0 {
                        agreed.store(wanted.load(Ordering::Relaxed), Ordering::Relaxed);
                    }
                    all.wait();
                    let circle = match agreed.load(Ordering::Relaxed) {
                        END => break,
                        what => what == CLOSE,
                    };
                    let first = circle.then(|| locks[n].lock());
                    all.wait();
                    let second = if circle { locks[1 - n].lock() } else { held.lock_within(WAIT) };
                    drop((second, first));
                }
            });
        }
        s.spawn(|| {
            pin(here);
            let throughput = |what| {
                wanted.store(what, Ordering::Relaxed);
                let (start, mut count) = (Instant::now(), 0_u32);
                while start.elapsed() < SLICE {
                    for _ in 0..100 {
                        *own.0.lock().expect("nobody else knows it") += 1;
                    }
                    count += 1;
                }
                f64::from(count) / start.elapsed().as_secs_f64()
            };
            for _ in 0..rounds {
                let quiet = throughput(REST);
                ratios.push(throughput(CLOSE) / quiet);
            }
            wanted.store(END, Ordering::Relaxed);
        });
    });
    drop(guard);
    Some((median(ratios)?, rounds))
}
