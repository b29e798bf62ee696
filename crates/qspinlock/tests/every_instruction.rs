//! A signal handler that takes a contended lock, at every single instruction of a thread's first contended acquire.
//!
//! The acquire is stepped through; in one run after another, one step later each time, the handler waits for a lock of
//! its own. It so falls between any two steps of claiming a slot, taking a level, initialising a node and queueing it.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "support/queue_only.rs"]
mod queue_only;
#[path = "support/stepping.rs"]
mod stepping;
#[path = "support/watchdog.rs"]
mod watchdog;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use qspinlock::RawSpinLock;
use qspinlock::threads::{Threads, slots_in_use, waits_without_node};
use queue_only::QueueOnly;
use watchdog::Watchdog;

type Lock = RawSpinLock<Threads, QueueOnly>;

static OUTER: Lock = Lock::new();
static INNER: Lock = Lock::new();
/// Steps until the handler takes its lock.
static STEPS_LEFT: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

fn section(lock: &Lock, inside: impl FnOnce()) {
    let Ok(()) = lock.acquire_on(&Threads);
    inside();
    // SAFETY: acquired above.
    unsafe { lock.release_on(&Threads) };
}

/// Makes sure that whoever takes the lock finds it held.
fn hold_until_contended(lock: &Lock) {
    while !STOP.load(Ordering::Relaxed) {
        section(lock, || {
            while !lock.is_contended() && !STOP.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
        });
    }
}

fn step() -> bool {
    let goes_on = STEPS_LEFT.fetch_sub(1, Ordering::Relaxed) != 1;
    if !goes_on {
        section(&INNER, || ());
    }
    goes_on
}

/// One thread's first contended acquire, interrupted after so many instructions. False if it took fewer.
fn interrupted_after(steps: u32) -> bool {
    STEPS_LEFT.store(steps, Ordering::Relaxed);
    let thread = std::thread::spawn(|| {
        let Ok(()) = stepping::stepped(|| OUTER.acquire_on(&Threads));
        // SAFETY: acquired above.
        unsafe { OUTER.release_on(&Threads) };
    });
    thread.join().expect("the thread ends");
    // It wraps below 0 when it was reached.
    STEPS_LEFT.load(Ordering::Relaxed) as i32 <= 0
}

#[test]
fn a_handler_may_wait_at_every_instruction_of_an_acquire() {
    let _watchdog = Watchdog::arm("a_handler_may_wait_at_every_instruction_of_an_acquire", Duration::from_secs(120));
    stepping::on_each_instruction(step);
    let (mut instructions, mut leaked) = (0, None);
    std::thread::scope(|s| {
        let holders = [&OUTER, &INNER].map(|lock| s.spawn(|| hold_until_contended(lock)));
        // The acquire's length varies, since it spins; its end is not worth hours on a slow machine.
        let end = Instant::now() + Duration::from_secs(8);
        while leaked.is_none() && Instant::now() < end && interrupted_after(instructions + 1) {
            instructions += 1;
            // The two who hold the locks may have a slot each. The thread is gone, its slots must be as well.
            if slots_in_use() > 2 {
                leaked = Some(instructions);
            }
        }
        STOP.store(true, Ordering::Relaxed);
        // A scope does not wait for exit hooks; joining does.
        holders.into_iter().for_each(|holder| holder.join().expect("a holder ends"));
    });
    println!("{instructions} instructions");
    assert_eq!(leaked, None, "a slot is lost when the handler comes after so many instructions");
    assert!(instructions > 50, "the acquire was hardly interrupted: {instructions}");
    assert_eq!((slots_in_use(), waits_without_node()), (0, 0));
    assert!(!OUTER.is_taken() && !INNER.is_taken());
}
