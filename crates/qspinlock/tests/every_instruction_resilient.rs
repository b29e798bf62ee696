//! A signal at every single instruction of a resilient lock: of taking it, of releasing it, and of a try that fails.
//! The handler wants the same lock, and another one.
//!
//! Of the same lock: it gets it, or is told of a deadlock. It never waits until its time is over, as nobody but the
//! context that it has interrupted has to do with the lock.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "support/stepping.rs"]
mod stepping;
#[path = "support/watchdog.rs"]
mod watchdog;

use std::sync::atomic::{AtomicU32, Ordering};

use std::time::Duration;

use qspinlock::slowpath::{Fallible, Native, Paravirt, Parking, ParkingExact, TestAndSet};
use qspinlock::threads::{Threads, slots_in_use};
use qspinlock::{LockErrorKind, RawResilientLock};
use watchdog::Watchdog;

/// What the handler does with the lock that the stepped code is about, and with another one.
trait Stepped: Fallible<Threads> + 'static {
    fn lock() -> &'static RawResilientLock<Threads, Self>
    where
        Self: Sized;
    fn other() -> &'static RawResilientLock<Threads, Self>
    where
        Self: Sized;
}

macro_rules! stepped {
    ($($slow_path:ty),*) => {$(
        impl Stepped for $slow_path {
            fn lock() -> &'static RawResilientLock<Threads, Self> {
                static LOCK: RawResilientLock<Threads, $slow_path> = RawResilientLock::new();
                &LOCK
            }

            fn other() -> &'static RawResilientLock<Threads, Self> {
                static OTHER: RawResilientLock<Threads, $slow_path> = RawResilientLock::new();
                &OTHER
            }
        }
    )*};
}

stepped!(Native, Parking, ParkingExact, Paravirt, TestAndSet);

/// Instructions after which the handler has run.
static STEPS: AtomicU32 = AtomicU32::new(0);
/// What it came to: how often it had the lock, was told of a deadlock, and was wrong.
static TAKEN: AtomicU32 = AtomicU32::new(0);
static TOLD: AtomicU32 = AtomicU32::new(0);
static WRONG: AtomicU32 = AtomicU32::new(0);
/// Which of the handlers.
static CHOSEN: AtomicU32 = AtomicU32::new(0);

fn handler<S: Stepped>() {
    match S::lock().acquire_within_on(&Threads, 2_000_000_000) {
        Ok(()) => {
            TAKEN.fetch_add(1, Ordering::Relaxed);
            // SAFETY: acquired above.
            let released = unsafe { S::lock().release_on(&Threads) };
            WRONG.fetch_add(u32::from(released.is_err()), Ordering::Relaxed);
        }
        Err(error) if error.kind() == LockErrorKind::Deadlock => drop(TOLD.fetch_add(1, Ordering::Relaxed)),
        Err(_) => drop(WRONG.fetch_add(1, Ordering::Relaxed)),
    }
    // Nobody has to do with this one.
    match S::other().acquire_on(&Threads) {
        // SAFETY: acquired above.
        Ok(()) => drop(unsafe { S::other().release_on(&Threads) }),
        Err(_) => drop(WRONG.fetch_add(1, Ordering::Relaxed)),
    }
}

const HANDLERS: [fn(); 5] =
    [handler::<Native>, handler::<Parking>, handler::<ParkingExact>, handler::<Paravirt>, handler::<TestAndSet>];

fn step() -> bool {
    STEPS.fetch_add(1, Ordering::Relaxed);
    HANDLERS[CHOSEN.load(Ordering::Relaxed) as usize]();
    true
}

/// Runs some code with the handler after each of its instructions, of which there are so many.
fn at_every_instruction(code: impl FnOnce()) -> u32 {
    STEPS.store(0, Ordering::Relaxed);
    stepping::stepped(code);
    STEPS.load(Ordering::Relaxed)
}

fn acquire<S: Stepped>() {
    assert!(S::lock().acquire_on(&Threads).is_ok());
}

fn release<S: Stepped>() {
    // SAFETY: every caller has acquired it.
    assert!(unsafe { S::lock().release_on(&Threads) }.is_ok());
}

fn nothing_is_recorded<S: Stepped>() {
    // SAFETY: this thread does not hold it.
    assert!(unsafe { S::lock().release_on(&Threads) }.is_err());
}

fn everywhere<S: Stepped>(chosen: u32) {
    CHOSEN.store(chosen, Ordering::Relaxed);
    let counts = [&TAKEN, &TOLD, &WRONG];
    counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    let taking = at_every_instruction(acquire::<S>);
    let failing = at_every_instruction(|| assert!(S::lock().acquire_on(&Threads).is_err()));
    let releasing = at_every_instruction(release::<S>);
    nothing_is_recorded::<S>();
    let [taken, told, wrong] = counts.map(|count| count.load(Ordering::Relaxed));
    println!("{}: {taking} + {failing} + {releasing} instructions, {taken} taken, {told} told", S::NAME);
    assert_eq!(wrong, 0, "{}: told what is not so", S::NAME);
    assert_eq!(taken + told, taking + releasing + failing);
    // In the middle of each of them it changes from one to the other.
    assert!(taken > 20 && told > failing, "{taken} taken, {told} told");
    assert!(!S::lock().is_taken() && !S::other().is_taken());
}

/// One test, as there is one handler.
#[test]
fn trap_18_a_handler_wants_the_lock_at_every_instruction() {
    let _watchdog = Watchdog::arm("trap_18_a_handler_wants_the_lock_at_every_instruction", Duration::from_secs(300));
    stepping::on_each_instruction(step);
    std::thread::spawn(|| {
        everywhere::<Native>(0);
        everywhere::<Parking>(1);
        everywhere::<ParkingExact>(2);
        everywhere::<Paravirt>(3);
        everywhere::<TestAndSet>(4);
    })
    .join()
    .expect("it is so");
    assert_eq!(slots_in_use(), 0, "a slot is lost");
}
