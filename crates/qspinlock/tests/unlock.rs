//! The unlock of `parking` is a look and a store. Here a waiter lies down and falls asleep between any two instructions
//! of it, and must have the lock all the same: its first sleeps are short.
//!
//! The same with endless sleeps shows that this is what helps, and that the test would notice; and `parking-exact`,
//! whose unlock is one step, needs no help.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "support/stepping.rs"]
mod stepping;
#[path = "support/watchdog.rs"]
mod watchdog;
#[path = "support/watched.rs"]
mod watched;

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qspinlock::RawSpinLock;
use qspinlock::atomic::AtomicCell;
use qspinlock::machine::ConstCell;
use qspinlock::slowpath::{Parking, ParkingExact, Patience, SlowPath};
use watchdog::Watchdog;
use watched::{SLEEPS_AT_ONCE, Watched};

/// Instructions until the waiter comes.
static STEPS_LEFT: AtomicU32 = AtomicU32::new(0);
/// The waiter may come; it has the lock.
static COME: AtomicBool = AtomicBool::new(false);
static SERVED: AtomicBool = AtomicBool::new(false);
/// Rounds in which a sleeper lay down again in the middle of the unlock.
static LAY_AGAIN: AtomicU32 = AtomicU32::new(0);
/// The machine of the round.
static MACHINE: AtomicPtr<Watched> = AtomicPtr::new(std::ptr::null_mut());

fn turn(test: &'static str) -> (MutexGuard<'static, ()>, Watchdog) {
    static TURN: Mutex<()> = Mutex::new(());
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), Watchdog::arm(test, Duration::from_secs(120)))
}

/// In the middle of the unlock: holds it up until the waiter sleeps, or has the lock.
fn step() -> bool {
    if STEPS_LEFT.fetch_sub(1, SeqCst) > 1 {
        return true;
    }
    // SAFETY: who steps through an unlock keeps the machine for longer.
    let machine = unsafe { &*MACHINE.load(SeqCst) };
    if machine.restless.load(SeqCst) {
        // Lets it lie down again, if it has been told to get up.
        for _ in 0..30 {
            std::thread::yield_now();
        }
        LAY_AGAIN.fetch_add(u32::from(machine.queued.load(SeqCst) > 1), SeqCst);
        return false;
    }
    COME.store(true, SeqCst);
    while machine.sleeps.load(SeqCst) == 0 && !SERVED.load(SeqCst) {
        std::thread::yield_now();
    }
    // It has announced its sleep; let it fall asleep.
    std::thread::sleep(Duration::from_micros(200));
    false
}

/// What became of the waiter.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Nobody would ever have woken it, had not somebody else used the lock.
    is_lost: bool,
    /// It woke by itself and found the lock free.
    has_missed: bool,
}

/// One unlock, held up after so many instructions. `None` if it took fewer.
fn round<S: SlowPath<Watched, Error = std::convert::Infallible>>(patience: Patience, steps: u32) -> Option<Seen> {
    let machine = Watched::new(patience);
    let lock = RawSpinLock::<Watched, S>::from_cell(AtomicCell::ZERO);
    MACHINE.store((&raw const machine).cast_mut(), SeqCst);
    COME.store(false, SeqCst);
    SERVED.store(false, SeqCst);
    STEPS_LEFT.store(steps, SeqCst);
    let Ok(()) = lock.acquire_on(&machine);
    let is_lost = std::thread::scope(|s| {
        s.spawn(|| {
            while !COME.load(SeqCst) {
                std::thread::yield_now();
            }
            let Ok(()) = lock.acquire_on(&machine);
            SERVED.store(true, SeqCst);
            // SAFETY: acquired above.
            unsafe { lock.release_on(&machine) };
        });
        // SAFETY: acquired above.
        stepping::stepped(|| unsafe { lock.release_on(&machine) });
        COME.store(true, SeqCst);
        loop {
            if SERVED.load(SeqCst) {
                return false;
            }
            let sleeps_for_ever = machine.endless.load(SeqCst) > machine.over.load(SeqCst);
            if sleeps_for_ever && machine.kicks.load(SeqCst) == 0 && !lock.is_taken() {
                // The next unlock finds it.
                let Ok(()) = lock.acquire_on(&machine);
                // SAFETY: acquired above.
                unsafe { lock.release_on(&machine) };
                return true;
            }
            std::thread::yield_now();
        }
    });
    // It counts down to 0 when it is reached.
    (STEPS_LEFT.load(SeqCst) == 0).then(|| Seen { is_lost, has_missed: machine.missed.load(SeqCst) > 0 })
}

/// Every instruction of an unlock: how many there are, waiters lost, waiters that woke by themselves.
fn at_every_instruction<S: SlowPath<Watched, Error = std::convert::Infallible>>(patience: Patience) -> [usize; 3] {
    stepping::on_each_instruction(step);
    let seen: Vec<Seen> = (1..).map_while(|steps| round::<S>(patience, steps)).collect();
    let count = |what: fn(&Seen) -> bool| seen.iter().filter(|seen| what(seen)).count();
    let result = [seen.len(), count(|seen| seen.is_lost), count(|seen| seen.has_missed)];
    println!("{}: instructions, lost, woke by themselves: {result:?}", S::NAME);
    assert!(seen.len() > 5, "the unlock was hardly interrupted");
    result
}

#[test]
fn a_waiter_that_falls_asleep_at_any_instruction_of_an_unlock_is_served() {
    let _turn = turn("a_waiter_that_falls_asleep_at_any_instruction_of_an_unlock_is_served");
    let [_, lost, missed] = at_every_instruction::<Parking>(SLEEPS_AT_ONCE);
    assert_eq!(lost, 0);
    assert!(missed > 0, "no waiter came between look and store");
}

#[test]
fn without_naps_it_would_sleep_for_ever() {
    let _turn = turn("without_naps_it_would_sleep_for_ever");
    let endless = Patience { nap: 0, nap_behind: 0, ..SLEEPS_AT_ONCE };
    let [all, lost, _] = at_every_instruction::<Parking>(endless);
    assert!(lost > 0, "the place between look and store was not found");
    assert!(lost < all, "before the look, and after the store, nothing is lost");
}

#[test]
fn an_unlock_in_one_step_needs_no_naps() {
    let _turn = turn("an_unlock_in_one_step_needs_no_naps");
    let [_, lost, missed] = at_every_instruction::<ParkingExact>(SLEEPS_AT_ONCE);
    assert_eq!((lost, missed), (0, 0));
}

/// One unlock that finds a sleeper, which is wide awake: told to get up, it sees the lock still held and lies down again,
/// behind the owner's back. Whether it is lost then; `None` if the unlock took fewer instructions.
fn lies_down_again<S: SlowPath<Watched, Error = std::convert::Infallible>>(steps: u32) -> Option<bool> {
    let endless = Patience { nap: 0, nap_behind: 0, poll: 0, turns: u32::MAX, ..SLEEPS_AT_ONCE };
    let machine = Watched::new(endless);
    machine.restless.store(true, SeqCst);
    let lock = RawSpinLock::<Watched, S>::from_cell(AtomicCell::ZERO);
    MACHINE.store((&raw const machine).cast_mut(), SeqCst);
    SERVED.store(false, SeqCst);
    STEPS_LEFT.store(steps, SeqCst);
    let Ok(()) = lock.acquire_on(&machine);
    let is_lost = std::thread::scope(|s| {
        s.spawn(|| {
            let Ok(()) = lock.acquire_on(&machine);
            SERVED.store(true, SeqCst);
            // SAFETY: acquired above.
            unsafe { lock.release_on(&machine) };
        });
        while machine.queued.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        // SAFETY: acquired above.
        stepping::stepped(|| unsafe { lock.release_on(&machine) });
        // All kicks are done. They end one sleep at most; who then sleeps again does so for ever.
        let ended = machine.kicks.load(SeqCst).min(1);
        machine.restless.store(false, SeqCst);
        while !SERVED.load(SeqCst) {
            if machine.sleeps.load(SeqCst) > ended {
                // The next unlock finds it.
                let Ok(()) = lock.acquire_on(&machine);
                // SAFETY: acquired above.
                unsafe { lock.release_on(&machine) };
                return true;
            }
            std::thread::yield_now();
        }
        false
    });
    (STEPS_LEFT.load(SeqCst) == 0).then_some(is_lost)
}

#[test]
fn who_lies_down_again_behind_the_owners_back_is_not_lost() {
    let _turn = turn("who_lies_down_again_behind_the_owners_back_is_not_lost");
    stepping::on_each_instruction(step);
    LAY_AGAIN.store(0, SeqCst);
    // Some instructions stand for their neighbours. And while it is stepped through, an unlock may find somebody new at
    // each of its tries: no further than twice what it takes at best.
    let lost: Vec<bool> = (1..2_000).step_by(23).map_while(lies_down_again::<ParkingExact>).collect();
    let lay_again = LAY_AGAIN.load(SeqCst);
    println!("{} places, lay down again at {lay_again} of them", lost.len());
    assert!(lay_again > 0, "the place between telling and releasing was not found");
    assert_eq!(lost.iter().filter(|&&is_lost| is_lost).count(), 0);
}
