//! Sleeping and waking through `Machine::wait` and `Machine::kick`. Feature `portable` tests the other form.

#![cfg(unix)]

#[path = "support/watchdog.rs"]
mod watchdog;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use qspinlock::Machine;
use qspinlock::atomic::AtomicCell;
use qspinlock::machine::{Access, Cell, ConstCell};
use qspinlock::queue::Cpu;
use qspinlock::threads::Threads;
use watchdog::Watchdog;

const LOOK: Access = Access::acquire("test.look", "test.tell");
const TELL: Access = Access::release("test.tell", "test.look");

fn me() -> Cpu {
    Threads.here().expect("there are slots")
}

fn guarded(test: &'static str) -> Watchdog {
    Watchdog::arm(test, Duration::from_secs(60))
}

/// A thread that sleeps while the cell is 0, until kicked or until a deadline; and how often it woke.
struct Sleeper {
    cpu: Cpu,
    thread: std::thread::JoinHandle<u32>,
    #[cfg(target_os = "linux")]
    tid: i32,
}

impl Sleeper {
    fn on(cell: &'static AtomicCell, until: Option<u64>) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            #[cfg(target_os = "linux")]
            // SAFETY: has no preconditions.
            let tid = unsafe { libc::gettid() };
            #[cfg(not(target_os = "linux"))]
            let tid = 0;
            tell.send((me(), tid)).expect("somebody waits for it");
            let mut wakes = 0;
            while cell.load(LOOK) == 0 {
                Threads.wait(cell, 0, LOOK, until);
                wakes += 1;
            }
            wakes
        });
        let (cpu, _tid) = told.recv().expect("it starts");
        Self {
            cpu,
            thread,
            #[cfg(target_os = "linux")]
            tid: _tid,
        }
    }

    /// Waits until the thread sleeps, as far as that can be seen.
    fn asleep(&self) {
        #[cfg(target_os = "linux")]
        loop {
            let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", self.tid)).expect("it runs");
            // After the name, which is in brackets and may hold anything.
            if stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('S')) {
                break;
            }
            std::thread::yield_now();
        }
        #[cfg(not(target_os = "linux"))]
        std::thread::sleep(Duration::from_millis(100));
    }

    /// How often it woke.
    fn wakes(self) -> u32 {
        self.thread.join().expect("it does not panic")
    }
}

#[test]
fn a_kick_before_the_wait_ends_it() {
    let _watchdog = guarded("a_kick_before_the_wait_ends_it");
    let cell = AtomicCell::ZERO;
    Threads.kick(me());
    Threads.wait(&cell, 0, LOOK, None);
}

#[test]
fn a_kick_ends_a_sleep() {
    static CELL: AtomicCell = AtomicCell::ZERO;
    let _watchdog = guarded("a_kick_ends_a_sleep");
    let sleeper = Sleeper::on(&CELL, None);
    sleeper.asleep();
    CELL.store(1, TELL);
    Threads.kick(sleeper.cpu);
    assert!(sleeper.wakes() > 0);
}

/// Two kicks before a sleep end that one, and not the next as well.
#[test]
fn one_kick_is_one_wake() {
    let _watchdog = guarded("one_kick_is_one_wake");
    let cell = AtomicCell::ZERO;
    // A wait may end for no reason, but not always.
    let slept = (0..10).any(|_| {
        Threads.kick(me());
        Threads.kick(me());
        Threads.wait(&cell, 0, LOOK, None);
        let until = Threads.now() + 5_000_000;
        Threads.wait(&cell, 0, LOOK, Some(until));
        Threads.now() >= until
    });
    assert!(slept, "a kick ended more than one sleep, each time");
}

#[test]
fn a_cell_that_has_changed_is_not_slept_on() {
    let _watchdog = guarded("a_cell_that_has_changed_is_not_slept_on");
    let cell = AtomicCell::ZERO;
    cell.store(1, TELL);
    Threads.wait(&cell, 0, LOOK, None);
}

#[test]
fn a_deadline_ends_a_sleep() {
    let _watchdog = guarded("a_deadline_ends_a_sleep");
    let cell = AtomicCell::ZERO;
    for ahead in [1, 1000, 1_000_000, 20_000_000] {
        Threads.wait(&cell, 0, LOOK, Some(Threads.now() + ahead));
    }
    // Long past.
    for until in [0, 1, Threads.now() / 2, Threads.now() - 1, Threads.now()] {
        Threads.wait(&cell, 0, LOOK, Some(until));
    }
}

/// A deadline too far away for some clock or type must not be one that is past: then a waiter would never sleep.
#[test]
fn centuries_are_slept_through() {
    const YEAR: u64 = 365 * 24 * 3600 * 1_000_000_000;
    let _watchdog = guarded("centuries_are_slept_through");
    for until in [u64::MAX, u64::MAX - 1, u64::MAX / 2, u64::MAX / 2 + 1, 100 * YEAR, 584 * YEAR, YEAR] {
        let cell: &'static AtomicCell = Box::leak(Box::new(AtomicCell::ZERO));
        let sleeper = Sleeper::on(cell, Some(until));
        sleeper.asleep();
        std::thread::sleep(Duration::from_millis(20));
        cell.store(1, TELL);
        Threads.kick(sleeper.cpu);
        let wakes = sleeper.wakes();
        assert!(wakes < 10, "until {until}: woke {wakes} times");
    }
}

/// Two threads wake each other in turn, without deadlines: one kick lost, and both sleep for ever.
#[test]
fn no_kick_is_lost() {
    const ROUNDS: u32 = 30_000;
    static CELL: AtomicCell = AtomicCell::ZERO;
    static CPUS: [AtomicU32; 2] = [const { AtomicU32::new(u32::MAX) }; 2];
    let _watchdog = guarded("no_kick_is_lost");
    let player = |mine: u32| {
        CPUS[mine as usize].store(me().index() as u32, Ordering::Release);
        let other = loop {
            match CPUS[1 - mine as usize].load(Ordering::Acquire) {
                u32::MAX => std::thread::yield_now(),
                cpu => break Cpu::new(cpu).expect("the number of a CPU"),
            }
        };
        // Turn n is the player's whose number n % 2 is.
        for turn in (mine..ROUNDS).step_by(2) {
            loop {
                match CELL.load(LOOK) {
                    seen if seen == turn => break,
                    seen => Threads.wait(&CELL, seen, LOOK, None),
                }
            }
            // Now and then late, so that the other one sleeps, and now and then not.
            (0..fastrand::u32(0..200)).for_each(|_| std::hint::spin_loop());
            CELL.store(turn + 1, TELL);
            Threads.kick(other);
        }
    };
    std::thread::scope(|s| {
        let players = [0, 1].map(|n| s.spawn(move || player(n)));
        players.into_iter().for_each(|player| player.join().expect("a player ends"));
    });
    assert_eq!(CELL.load(LOOK), ROUNDS);
}

#[test]
fn errno_survives() {
    let _watchdog = guarded("errno_survives");
    let cell = AtomicCell::ZERO;
    let keeps = |what: &str, act: &dyn Fn()| {
        errno::set_errno(errno::Errno(4711));
        act();
        assert_eq!(errno::errno().0, 4711, "{what}");
    };
    keeps("a wait that ends by its deadline", &|| {
        Threads.wait(&cell, 0, LOOK, Some(Threads.now() + 1_000_000));
    });
    keeps("a kick, and a wait that does not sleep", &|| {
        Threads.kick(me());
        Threads.wait(&cell, 0, LOOK, None);
    });
    keeps("a yield", &|| Threads.yield_cpu());
    static CELL: AtomicCell = AtomicCell::ZERO;
    let sleeper = Sleeper::on(&CELL, None);
    sleeper.asleep();
    keeps("a kick that wakes", &|| {
        CELL.store(1, TELL);
        Threads.kick(sleeper.cpu);
    });
    sleeper.wakes();
}

/// A thread sleeps in the system. A handler on top of it uses up the kick that was meant for it, and the system goes on
/// with the interrupted sleep by itself: the thread must wake all the same.
#[cfg(all(target_os = "linux", not(feature = "portable")))]
#[test]
fn a_handler_does_not_use_up_the_kick_of_a_sleep_that_is_resumed() {
    use std::os::unix::thread::JoinHandleExt;
    use std::sync::atomic::AtomicBool;

    static OUTER: AtomicCell = AtomicCell::ZERO;
    static INNER: AtomicCell = AtomicCell::ZERO;
    static INSIDE: AtomicBool = AtomicBool::new(false);
    extern "C" fn handler(_: i32) {
        INSIDE.store(true, Ordering::Relaxed);
        Threads.wait(&INNER, 0, LOOK, None);
    }

    let _watchdog = guarded("a_handler_does_not_use_up_the_kick_of_a_sleep_that_is_resumed");
    // SAFETY: a zeroed action with a handler that does only what a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    let sleeper = Sleeper::on(&OUTER, None);
    sleeper.asleep();
    // SAFETY: the thread is not joined yet.
    assert_eq!(unsafe { libc::pthread_kill(sleeper.thread.as_pthread_t() as _, libc::SIGUSR1) }, 0);
    while !INSIDE.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
    sleeper.asleep();
    // For the thread, but the handler finds it.
    OUTER.store(1, TELL);
    Threads.kick(sleeper.cpu);
    sleeper.wakes();
}
