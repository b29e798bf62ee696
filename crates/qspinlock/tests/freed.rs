//! Locks that are gone as soon as they are released: the next owner, who is the last, frees the lock while the one
//! before is still in its unlock, at the first instruction after which that is possible. The unlock must not touch the
//! lock from there on, not even to look.
//!
//! The lock lies in a page of its own that is mapped twice: the threads use one mapping, which the last owner closes,
//! and this test watches the lock through the other.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "support/stepping.rs"]
mod stepping;
#[path = "support/watchdog.rs"]
mod watchdog;
#[path = "support/watched.rs"]
mod watched;

use std::convert::Infallible;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qspinlock::atomic::AtomicCell;
use qspinlock::machine::ConstCell;
use qspinlock::slowpath::{Native, Parking, ParkingExact, Patience, SlowPath, TestAndSet};
use qspinlock::word::LockWord;
use qspinlock::{Machine, RawSpinLock};
use watchdog::Watchdog;
use watched::{SLEEPS_AT_ONCE, Watched};

const PAGE: usize = 4096;

/// The mapping that the threads use, by address; and the lock word in the other one.
static USED: AtomicUsize = AtomicUsize::new(0);
static SEEN: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
static MACHINE: AtomicPtr<Watched> = AtomicPtr::new(ptr::null_mut());
/// The lock is freed; it was in the middle of the unlock; how often it was touched afterwards.
static FREED: AtomicBool = AtomicBool::new(false);
static IN_TIME: AtomicBool = AtomicBool::new(false);
static TOUCHES: AtomicU32 = AtomicU32::new(0);

fn turn(test: &'static str) -> (MutexGuard<'static, ()>, Watchdog) {
    static TURN: Mutex<()> = Mutex::new(());
    (TURN.lock().unwrap_or_else(PoisonError::into_inner), Watchdog::arm(test, Duration::from_secs(60)))
}

/// Maps the page twice, and notices who touches it when it is closed.
fn map() {
    // SAFETY: new mappings of a new file; a zeroed action with a handler of the right type.
    unsafe {
        let file = libc::memfd_create(c"lock".as_ptr(), 0);
        assert!(file >= 0 && libc::ftruncate(file, PAGE as i64) == 0);
        let [used, seen] = [(); 2]
            .map(|()| libc::mmap(ptr::null_mut(), PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file, 0));
        assert!(used != libc::MAP_FAILED && seen != libc::MAP_FAILED);
        libc::close(file);
        USED.store(used.expose_provenance(), SeqCst);
        SEEN.store(seen.cast(), SeqCst);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = touched as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut()), 0);
    }
}

fn protect(how: libc::c_int) -> bool {
    // SAFETY: our own page.
    unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(USED.load(SeqCst)), PAGE, how) == 0 }
}

/// A touch is noted, and then goes through, so that the test ends.
extern "C" fn touched(_: i32, info: *const libc::siginfo_t, _: *const c_void) {
    // SAFETY: the kernel passes a live `siginfo_t`, for a signal that has an address.
    let at = unsafe { (*info).si_addr() } as usize;
    if at.wrapping_sub(USED.load(SeqCst)) < PAGE && protect(libc::PROT_READ | libc::PROT_WRITE) {
        TOUCHES.fetch_add(1, SeqCst);
    } else {
        // Somebody else's fault: it happens again, and ends the process.
        // SAFETY: no memory is involved.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
    }
}

fn word() -> u32 {
    // SAFETY: mapped for as long as the process.
    unsafe { &*SEEN.load(SeqCst) }.load(SeqCst)
}

/// In the middle of the unlock: as soon as the waiter can have the lock, it gets the time to free it.
fn step() -> bool {
    // SAFETY: `touches` keeps the machine for longer than the unlock takes.
    let machine = unsafe { &*MACHINE.load(SeqCst) };
    let is_released = word() & 0xff != 1 || machine.handed_over.load(SeqCst) > 0;
    // A sleeper that has not been kicked yet comes only if its sleep has an end.
    let comes = machine.endless.load(SeqCst) == 0 || machine.kicks.load(SeqCst) > 0;
    if is_released && comes {
        while !FREED.load(SeqCst) {
            std::thread::yield_now();
        }
        IN_TIME.store(true, SeqCst);
    }
    true
}

/// How a waiter waits, so that a test knows when it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// In a loop that leaves no trace.
    Somehow,
    /// With one of these bits set in the word.
    Shown(u32),
    Asleep,
}

const PENDING: Waits = Waits::Shown(1 << 8);
const ASKING: Waits = Waits::Shown(1 << 9);

/// One unlock while another thread waits, which frees the lock. How often the unlock touched it afterwards.
fn touches<S: SlowPath<Watched, Error = Infallible> + 'static>(patience: Patience, waits: Waits) -> u32 {
    if USED.load(SeqCst) == 0 {
        map();
    }
    assert!(protect(libc::PROT_READ | libc::PROT_WRITE));
    stepping::on_each_instruction(step);
    let machine = Watched::new(patience);
    MACHINE.store((&raw const machine).cast_mut(), SeqCst);
    FREED.store(false, SeqCst);
    IN_TIME.store(false, SeqCst);
    TOUCHES.store(0, SeqCst);
    let lock = ptr::with_exposed_provenance_mut::<RawSpinLock<Watched, S>>(USED.load(SeqCst));
    // SAFETY: a page of its own, which stays, though it may be closed: whoever uses it then is what this test is about.
    let lock = unsafe {
        lock.write(RawSpinLock::from_cell(AtomicCell::ZERO));
        &*lock
    };
    let Ok(()) = lock.acquire_on(&machine);
    std::thread::scope(|s| {
        s.spawn(|| {
            let Ok(()) = lock.acquire_on(&machine);
            // SAFETY: acquired above.
            unsafe { lock.release_on(&machine) };
            assert!(protect(libc::PROT_NONE));
            FREED.store(true, SeqCst);
        });
        match waits {
            Waits::Somehow => std::thread::sleep(Duration::from_millis(2)),
            Waits::Shown(bits) => wait_until(|| word() & bits != 0),
            Waits::Asleep => wait_until(|| machine.sleeps.load(SeqCst) > 0),
        }
        // SAFETY: acquired above.
        stepping::stepped(|| unsafe { lock.release_on(&machine) });
    });
    assert!(IN_TIME.load(SeqCst), "{}: it was freed after the unlock, where nothing is shown", S::NAME);
    TOUCHES.load(SeqCst)
}

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

const SPINS: Patience = Patience { spin: u32::MAX, ..Patience::DEFAULT };
const STAYS_IN_THE_LANE: Patience = Patience { lane: u32::MAX, ask_after: 0, ..SLEEPS_AT_ONCE };
const IS_HANDED_THE_LOCK: Patience = Patience { turns: 0, ..SLEEPS_AT_ONCE };

#[test]
fn spinning_locks_are_not_touched_after_their_release() {
    let _turn = turn("spinning_locks_are_not_touched_after_their_release");
    assert_eq!(touches::<Native>(Patience::DEFAULT, PENDING), 0);
    assert_eq!(touches::<TestAndSet>(Patience::DEFAULT, Waits::Somehow), 0);
}

fn sleeping_lock<S: SlowPath<Watched, Error = Infallible> + 'static>() {
    assert_eq!(touches::<S>(SPINS, Waits::Somehow), 0, "to a waiter that spins");
    assert_eq!(touches::<S>(STAYS_IN_THE_LANE, ASKING), 0, "granted to the waiter in the lane");
    assert_eq!(touches::<S>(SLEEPS_AT_ONCE, Waits::Asleep), 0, "to a sleeper that it wakes");
    assert_eq!(touches::<S>(IS_HANDED_THE_LOCK, Waits::Asleep), 0, "handed to a sleeper");
}

#[test]
fn parking_is_not_touched_after_its_release() {
    let _turn = turn("parking_is_not_touched_after_its_release");
    sleeping_lock::<Parking>();
}

#[test]
fn parking_exact_is_not_touched_after_its_release() {
    let _turn = turn("parking_exact_is_not_touched_after_its_release");
    sleeping_lock::<ParkingExact>();
}

/// `Parking`, whose unlock has a last look at the lock.
struct LooksBack;

// SAFETY: as `Parking`, which it calls.
unsafe impl<M: Machine> SlowPath<M> for LooksBack {
    type Error = Infallible;
    const NAME: &'static str = "looks-back";

    fn acquire(m: &M, word: &LockWord<M::Cell>) -> Result<(), Infallible> {
        Parking::acquire(m, word)
    }

    fn try_acquire(word: &LockWord<M::Cell>) -> bool {
        <Parking as SlowPath<M>>::try_acquire(word)
    }

    fn release(m: &M, word: &LockWord<M::Cell>) {
        Parking::release(m, word);
        std::hint::black_box(word.peek());
    }
}

#[test]
fn a_look_after_the_release_is_noticed() {
    let _turn = turn("a_look_after_the_release_is_noticed");
    assert!(touches::<LooksBack>(SPINS, Waits::Somehow) > 0);
    assert!(touches::<LooksBack>(SLEEPS_AT_ONCE, Waits::Asleep) > 0);
}
