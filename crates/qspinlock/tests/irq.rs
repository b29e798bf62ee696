//! Guards that keep interrupts off, on pretend CPUs: each thread is one.

use std::cell::Cell;

use qspinlock::RawMutex;
use qspinlock::irq::{Count, Interrupts, IrqSafe, Masked};
use qspinlock::lock_api;

std::thread_local! {
    static ON: Cell<bool> = const { Cell::new(true) };
    static COUNT: &'static Count = Box::leak(Box::new(Count::NONE));
    /// What is done when something reaches into this CPU.
    static STEP: Cell<fn()> = const { Cell::new(|| ()) };
}

#[derive(Debug)]
struct Pretend;

// SAFETY: nothing interrupts a thread, and each has its own count.
unsafe impl Interrupts for Pretend {
    fn off() -> bool {
        STEP.get()();
        let were_on = ON.replace(false);
        STEP.get()();
        were_on
    }

    unsafe fn on() {
        STEP.get()();
        assert_eq!(COUNT.with(|count| count.get()), 0, "a handler begins with none");
        assert!(!ON.replace(true), "turned on where they are on");
    }

    fn count() -> &'static Count {
        STEP.get()();
        COUNT.with(|count| *count)
    }
}

type Off = Masked<Pretend>;
type IrqMutex<T> = lock_api::Mutex<IrqSafe<RawMutex, Pretend>, T>;

fn state() -> (bool, u32) {
    (ON.get(), COUNT.with(|count| count.get()))
}

/// Where they were off they stay off, and the other way round; so each test begins with both.
fn on_and_off(test: impl Fn(bool)) {
    for were_on in [true, false] {
        ON.set(were_on);
        test(were_on);
        assert_eq!(state(), (were_on, 0));
    }
    ON.set(true);
}

#[test]
fn guards_nest() {
    on_and_off(|_| {
        let guards: Vec<_> = (1..100).map(|n| (Off::new(), assert_eq!(state(), (false, n)))).collect();
        for (n, guard) in guards.into_iter().enumerate().rev() {
            assert_eq!(state(), (false, n as u32 + 1));
            drop(guard);
        }
    });
}

#[test]
fn guards_end_in_any_order() {
    const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let locks = [0, 1].map(IrqMutex::new);
    for order in ORDERS {
        on_and_off(|were_on| {
            let (mut one, mut other, mut masked) = (Some(locks[0].lock()), locks[1].try_lock(), Some(Off::new()));
            assert!(one.is_some() && other.is_some() && locks[0].is_locked());
            for (ended, which) in order.into_iter().enumerate() {
                assert_eq!(state(), (false, 3 - ended as u32));
                match which {
                    0 => drop(one.take()),
                    1 => drop(other.take()),
                    _ => drop(masked.take()),
                }
            }
            assert_eq!(state(), (were_on, 0));
            assert!(!locks[0].is_locked() && !locks[1].is_locked());
        });
    }
}

#[test]
fn a_try_that_fails_leaves_no_trace() {
    let lock = IrqMutex::new(());
    on_and_off(|were_on| {
        let held = lock.lock();
        assert!(lock.try_lock().is_none());
        assert_eq!(state(), (false, 1));
        std::thread::scope(|s| {
            // Another CPU.
            s.spawn(|| {
                ON.set(were_on);
                assert!(lock.try_lock().is_none());
                assert_eq!(state(), (were_on, 0));
            });
        });
        drop(held);
    });
}

#[test]
fn interrupts_stay_off_while_a_lock_changes_hands() {
    let lock = IrqMutex::new(0);
    on_and_off(|_| {
        let mut guard = lock.lock();
        lock_api::MutexGuard::bump(&mut guard);
        assert_eq!(state(), (false, 1));
        lock_api::MutexGuard::unlocked(&mut guard, || assert_eq!(state().1, 0));
        assert_eq!(state(), (false, 1));
        lock_api::MutexGuard::unlock_fair(guard);
    });
}

/// An NMI comes at each call that this CPU makes of the machine, and does the same itself.
#[test]
fn an_nmi_between_two_calls_changes_nothing() {
    fn nmi() {
        // None within one; and interrupts are off in it.
        let step = STEP.replace(|| ());
        let (were_on, count) = (ON.replace(false), COUNT.with(|count| count.get()));
        {
            let _one = Off::new();
            let _other = Off::new();
            assert_eq!(state(), (false, count + 2));
        }
        assert_eq!(state(), (false, count));
        ON.set(were_on);
        STEP.set(step);
    }
    on_and_off(|_| {
        STEP.set(nmi);
        let one = Off::new();
        let other = Off::new();
        drop(one);
        assert_eq!(state(), (false, 1));
        drop(other);
        STEP.set(|| ());
    });
}

/// The same, at each instruction: also between the steps that are no calls.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod each_instruction {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::time::Duration;

    use qspinlock::irq::{Count, Interrupts, Masked};

    use super::stepping;
    use super::watchdog::Watchdog;

    static ON: AtomicBool = AtomicBool::new(true);
    static COUNT: Count = Count::NONE;
    static STEPS: AtomicU32 = AtomicU32::new(0);
    /// NMIs that saw something else than whoever they interrupted.
    static WRONG: AtomicU32 = AtomicU32::new(0);

    #[derive(Debug)]
    struct OnlyCpu;

    // SAFETY: one thread uses it; its signal handler is its NMI.
    unsafe impl Interrupts for OnlyCpu {
        fn off() -> bool {
            let were_on = ON.load(Ordering::Relaxed);
            ON.store(false, Ordering::Relaxed);
            were_on
        }

        unsafe fn on() {
            ON.store(true, Ordering::Relaxed);
        }

        fn count() -> &'static Count {
            &COUNT
        }
    }

    fn nmi() -> bool {
        STEPS.fetch_add(1, Ordering::Relaxed);
        let were_on = ON.swap(false, Ordering::Relaxed);
        let count = COUNT.get();
        drop(Masked::<OnlyCpu>::new());
        if COUNT.get() != count || ON.swap(were_on, Ordering::Relaxed) {
            WRONG.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    #[test]
    fn an_nmi_may_come_at_each() {
        let _watchdog = Watchdog::arm("an_nmi_may_come_at_each", Duration::from_secs(120));
        stepping::on_each_instruction(nmi);
        for were_on in [true, false] {
            ON.store(were_on, Ordering::Relaxed);
            let seen = stepping::stepped(|| {
                let one = Masked::<OnlyCpu>::new();
                let other = Masked::<OnlyCpu>::new();
                let within = (ON.load(Ordering::Relaxed), COUNT.get());
                drop(one);
                let last = (ON.load(Ordering::Relaxed), COUNT.get());
                drop(other);
                (within, last)
            });
            assert_eq!(seen, ((false, 2), (false, 1)));
            assert_eq!((ON.load(Ordering::Relaxed), COUNT.get()), (were_on, 0));
        }
        assert_eq!(WRONG.load(Ordering::Relaxed), 0);
        assert!(STEPS.load(Ordering::Relaxed) > 20);
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "support/stepping.rs"]
mod stepping;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "support/watchdog.rs"]
mod watchdog;
