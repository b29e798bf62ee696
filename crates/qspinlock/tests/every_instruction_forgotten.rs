//! A lock whose guard was forgotten goes, at every single instruction of taking another one; and then a handler comes.
//!
//! What goes empties an entry in the record of its holder, who may be at any step: here that is done by what comes
//! between two instructions, as another thread would do it. The handler then takes a lock, and releases it. What was
//! interrupted must be in the record all the same, under its own place in the source.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "support/stepping.rs"]
mod stepping;
#[path = "support/watchdog.rs"]
mod watchdog;

use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use qspinlock::RawResilientLock;
use qspinlock::slowpath::Native;
use qspinlock::threads::Threads;
use watchdog::Watchdog;

type Lock = RawResilientLock<Threads, Native>;

static OTHER: Lock = Lock::new();

/// Instructions so far, and after which of them it happens.
static STEPS: AtomicU32 = AtomicU32::new(0);
static CHOSEN: AtomicU32 = AtomicU32::new(0);
/// The lock that goes, if one does.
static FORGOTTEN: AtomicPtr<Lock> = AtomicPtr::new(ptr::null_mut());
static WRONG: AtomicU32 = AtomicU32::new(0);

fn step() -> bool {
    let is_chosen = STEPS.fetch_add(1, Relaxed) + 1 == CHOSEN.load(Relaxed);
    if is_chosen {
        let forgotten = FORGOTTEN.load(Relaxed);
        if !forgotten.is_null() {
            // SAFETY: it was leaked for us; nobody else has it now.
            unsafe { (*forgotten).forget_on(&Threads) };
        }
        let is_well = OTHER.acquire_on(&Threads).is_ok()
            // SAFETY: acquired above.
            && unsafe { OTHER.release_on(&Threads) }.is_ok();
        WRONG.fetch_add(u32::from(!is_well), Relaxed);
    }
    !is_chosen
}

/// Takes locks with that happening after an instruction. False if there are not so many.
fn after_instruction(chosen: u32, is_any_forgotten: bool) -> bool {
    let locks = [const { Lock::new() }; 3];
    let forgotten = Box::into_raw(Box::new(Lock::new()));
    if is_any_forgotten {
        // SAFETY: made just now. Its guard is forgotten, in that nobody releases it.
        assert!(unsafe { &*forgotten }.acquire_on(&Threads).is_ok());
        FORGOTTEN.store(forgotten, Relaxed);
    }
    // So that what the last round has left in the record is taken up now, and not in single steps.
    assert!(OTHER.acquire_on(&Threads).is_ok());
    // SAFETY: acquired above.
    assert!(unsafe { OTHER.release_on(&Threads) }.is_ok());
    STEPS.store(0, Relaxed);
    CHOSEN.store(chosen, Relaxed);
    let line = stepping::stepped(|| {
        assert!(locks[0].acquire_on(&Threads).is_ok());
        line!() - 1
    });
    let is_over = STEPS.load(Relaxed) < chosen;
    for lock in &locks[1..] {
        assert!(lock.acquire_on(&Threads).is_ok());
    }
    let error = locks[0].acquire_on(&Threads).expect_err("it is held");
    assert!(error.is_deadlock(), "after instruction {chosen}: {error}");
    let holds_at = error.report().and_then(|report| report.links().next()?.holds_at).map(Location::line);
    assert_eq!(holds_at, Some(line), "after instruction {chosen}");
    for lock in &locks {
        // SAFETY: acquired above.
        assert!(unsafe { lock.release_on(&Threads) }.is_ok(), "after instruction {chosen} a lock was not recorded");
    }
    FORGOTTEN.store(ptr::null_mut(), Relaxed);
    // SAFETY: from a box, above.
    let mut forgotten = unsafe { Box::from_raw(forgotten) };
    forgotten.forget_on(&Threads);
    !is_over
}

/// One test, as there is one handler.
#[test]
fn what_is_being_entered_stays() {
    let _watchdog = Watchdog::arm("what_is_being_entered_stays", Duration::from_secs(100));
    stepping::on_each_instruction(step);
    std::thread::spawn(|| {
        for is_any_forgotten in [false, true] {
            let instructions = (1..).take_while(|&chosen| after_instruction(chosen, is_any_forgotten)).count();
            println!("{instructions} instructions");
            assert!(instructions > 20);
        }
    })
    .join()
    .expect("it is so");
    assert_eq!(WRONG.load(Relaxed), 0, "the handler's own lock was refused");
}
