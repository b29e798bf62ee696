//! The kernel example, with threads in the place of CPUs: started under each wish, each in a process of its own, since a
//! system chooses once.

#[path = "../examples/kernel.rs"]
#[allow(unused_attributes, unreachable_pub, reason = "they are for when it is a crate")]
mod kernel;
#[path = "support/watchdog.rs"]
mod watchdog;

use std::cell::{Cell, RefCell};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Barrier, Condvar, Mutex as StdMutex};
use std::time::{Duration, Instant};

use kernel::{
    AwakeMutex, BareMachine, CPUS, FairMutex, IrqMutex, Mutex, MutexGuard, ResilientMutex, count_frame, start_locks,
};
use qspinlock::irq::Count;
use qspinlock::resilient::LockErrorKind;
use qspinlock::select::SlowPathKind;
use qspinlock::{Machine, start};
use watchdog::Watchdog;

const WISH: &str = "QSPINLOCK_TEST_WISH";

std::thread_local!(static CPU: Cell<u32> = const { Cell::new(0) });

#[unsafe(no_mangle)]
fn kernel_cpu_number() -> u32 {
    CPU.get()
}

#[unsafe(no_mangle)]
fn kernel_topology() -> (u32, u32) {
    (CPUS as u32, 1)
}

#[unsafe(no_mangle)]
fn kernel_wish() -> &'static str {
    std::env::var(WISH).unwrap_or_default().leak()
}

#[unsafe(no_mangle)]
fn kernel_nanoseconds() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("it is later").as_nanos() as u64
}

/// What keeps a CPU from halting: a kick that has come.
struct Halt(StdMutex<bool>, Condvar);

/// One more: a CPU that is in no table halts too, if only until some time.
static HALTS: [Halt; CPUS + 1] = [const { Halt(StdMutex::new(false), Condvar::new()) }; CPUS + 1];
static HALTED: AtomicU32 = AtomicU32::new(0);

#[unsafe(no_mangle)]
fn kernel_halt(is_asleep: &dyn Fn() -> bool, until: Option<u64>) {
    let Halt(kicked, woken) = &HALTS[CPU.get() as usize];
    let kicked = kicked.lock().expect("nobody panics");
    if is_asleep() {
        HALTED.fetch_add(1, Ordering::Relaxed);
        let left =
            until.map_or(Duration::MAX, |until| Duration::from_nanos(until.saturating_sub(kernel_nanoseconds())));
        let (mut kicked, _) = woken.wait_timeout_while(kicked, left, |kicked| !*kicked).expect("nobody panics");
        *kicked = false;
    }
}

#[unsafe(no_mangle)]
fn kernel_kick(cpu: u32) {
    let Halt(kicked, woken) = &HALTS[cpu as usize];
    *kicked.lock().expect("nobody panics") = true;
    woken.notify_one();
}

std::thread_local!(static MASKING: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) });

fn note_masking(what: &'static str) {
    MASKING.with_borrow_mut(|masking| masking.push(what));
}

#[unsafe(no_mangle)]
fn kernel_preemption_off() {
    note_masking("preemption off");
}

#[unsafe(no_mangle)]
fn kernel_preemption_on() {
    note_masking("preemption on");
}

#[unsafe(no_mangle)]
fn kernel_interrupts_off() -> bool {
    // They are on where nobody else has turned them off.
    let depth = |masking: &Vec<_>| masking.iter().filter(|what| **what == "interrupts off").count();
    let were_on = MASKING.with_borrow(depth) == 0;
    note_masking("interrupts off");
    were_on
}

#[unsafe(no_mangle)]
unsafe fn kernel_interrupts_on() {
    note_masking("interrupts on");
}

static COUNTS: [Count; CPUS + 1] = [const { Count::NONE }; CPUS + 1];

#[unsafe(no_mangle)]
fn kernel_interrupts_count() -> &'static Count {
    &COUNTS[CPU.get() as usize]
}

/// A file that writes where nobody may: as good as a second mapping.
#[unsafe(no_mangle)]
unsafe fn kernel_write_text(address: usize, code: &[u8]) {
    use std::os::unix::fs::FileExt;
    let memory = std::fs::OpenOptions::new().write(true).open("/proc/self/mem").expect("this process's own memory");
    memory.write_all_at(code, address as u64).expect("code that is there");
}

fn cpus_exclude_each_other() {
    // Two halves that a section makes differ and equal again: two CPUs at once would see them differ.
    static PAIR: Mutex<(u64, u64)> = Mutex::new((0, 0));
    static FAIR: FairMutex<u64> = FairMutex::new(0);
    let end = Instant::now() + Duration::from_millis(300);
    let sections: u64 = std::thread::scope(|s| {
        let cpu = |number| {
            move || {
                CPU.set(number);
                let mut sections = 0;
                while Instant::now() < end {
                    let mut pair: MutexGuard<'_, _> = PAIR.lock();
                    assert_eq!(pair.0, pair.1);
                    pair.0 += 1;
                    std::hint::black_box(&mut *pair);
                    pair.1 += 1;
                    drop(pair);
                    *FAIR.lock() += 1;
                    sections += 1;
                }
                sections
            }
        };
        // The last one has no slot.
        let cpus = [0, 1, CPUS as u32 - 1, CPUS as u32].map(|number| s.spawn(cpu(number)));
        cpus.into_iter().map(|cpu| cpu.join().expect("sections do not panic")).sum()
    });
    assert_eq!((*PAIR.lock(), *FAIR.lock()), ((sections, sections), sections));
    assert_eq!(count_frame() + 1, count_frame());
}

/// One that nobody but the owner of the lock can end, so that the others halt.
fn a_long_section() {
    static LONG: Mutex<()> = Mutex::new(());
    let guard = LONG.lock();
    std::thread::scope(|s| {
        for number in 1..4 {
            s.spawn(move || {
                CPU.set(number);
                drop(LONG.lock());
            });
        }
        while HALTED.load(Ordering::Relaxed) < 3 {
            std::thread::yield_now();
        }
        drop(guard);
    });
}

/// What a lock is told of: the same lock again, a circle of two CPUs, an owner that stays, a CPU without a record.
fn errors_instead_of_hangs() {
    static A: ResilientMutex<u32> = ResilientMutex::new(0);
    static B: ResilientMutex<u32> = ResilientMutex::new(0);
    const LONG: Duration = Duration::from_secs(60);
    let held = A.lock().expect("it is free");
    let error = A.lock_within(LONG).expect_err("a handler that interrupts its own lock's holder");
    let report = error.report().expect("nobody has failed since");
    assert_eq!((error.kind(), report.length()), (LockErrorKind::Deadlock, 1), "{report}");
    assert_eq!(report.cpu().map(|cpu| cpu.index()), Some(0), "{report}");

    // Nobody kicks them: each wait ends by the clock. The last CPU has neither a node nor a record.
    std::thread::scope(|s| {
        for number in [1, 2, 3, CPUS as u32] {
            s.spawn(move || {
                CPU.set(number);
                let error = A.lock_within(Duration::from_millis(20)).expect_err("it is held");
                assert_eq!(error.kind(), LockErrorKind::TimedOut);
                drop(B.lock().expect("it is free now and then"));
            });
        }
    });
    drop(held);

    let both_hold_one = Barrier::new(2);
    let told: Vec<_> = std::thread::scope(|s| {
        let cpu = |number, first: &'static ResilientMutex<u32>, second: &'static ResilientMutex<u32>| {
            let both_hold_one = &both_hold_one;
            s.spawn(move || {
                CPU.set(number);
                let held = first.lock().expect("it is free");
                both_hold_one.wait();
                let other = second.lock_within(LONG);
                drop(held);
                other.err().map(|error| error.report().expect("nobody has failed since"))
            })
        };
        let cpus = [cpu(4, &A, &B), cpu(5, &B, &A)];
        cpus.into_iter().filter_map(|cpu| cpu.join().expect("they do not panic")).collect()
    });
    assert!(!told.is_empty());
    for report in told {
        assert_eq!((report.kind(), report.length()), (LockErrorKind::Deadlock, 2), "{report}");
    }
    assert!(!A.is_locked() && !B.is_locked());
}

/// Interrupts come back before preemption does, whether the lock was had or not.
fn masking_is_undone_in_order() {
    static LOCK: IrqMutex<u32> = IrqMutex::new(0);
    MASKING.take();
    let mut guard = LOCK.lock().expect("it is free");
    *guard += 1;
    assert_eq!(MASKING.take(), ["preemption off", "interrupts off"]);
    assert!(LOCK.lock().is_err_and(|error| error.is_deadlock()));
    // Interrupts stay off: the first lock is still held.
    assert_eq!(MASKING.take(), ["preemption off", "interrupts off", "preemption on"]);
    drop(guard);
    assert_eq!(MASKING.take(), ["interrupts on", "preemption on"]);
}

/// Whatever was chosen.
fn some_never_sleep() {
    static LOCK: AwakeMutex<()> = AwakeMutex::new(());
    let halted = HALTED.load(Ordering::Relaxed);
    let held = LOCK.lock().expect("it is free");
    std::thread::scope(|s| {
        for number in 1..4 {
            s.spawn(move || {
                CPU.set(number);
                let error = LOCK.lock_within(Duration::from_millis(20)).expect_err("it is held");
                assert_eq!(error.kind(), LockErrorKind::TimedOut);
            });
        }
    });
    drop(held);
    assert_eq!(HALTED.load(Ordering::Relaxed), halted);
}

#[test]
fn each_wish_is_followed() {
    let _watchdog = Watchdog::arm("each_wish_is_followed", Duration::from_secs(120));
    if let Ok(wish) = std::env::var(WISH) {
        let started = start_locks().expect("the first and only start");
        let (choice, status) = (started.choice, started.code);
        let is_known = SlowPathKind::from_name(&wish).is_some();
        assert_eq!((is_known, is_known), (started.ignored.is_none(), choice.slow_path.name() == wish), "{started:?}");
        assert_eq!(start::decided(), Some(choice.slow_path));
        assert_eq!(status.following, status.sites, "{status}");
        assert_eq!(status.available, status.sites > 0, "{status}");
        cpus_exclude_each_other();
        errors_instead_of_hangs();
        masking_is_undone_in_order();
        some_never_sleep();
        if choice.slow_path == SlowPathKind::Paravirt {
            a_long_section();
        }
        start_locks().expect_err("once is enough");
        assert!(BareMachine.now() > 0 && size_of::<Mutex<()>>() == 4);
        return;
    }
    // The last one is a slip of the pen. A process has chosen before `main`, and nothing else may be chosen beneath the
    // threads of a test; so there it is told the same.
    let slip = (!cfg!(feature = "std")).then_some("paravitr");
    for wish in SlowPathKind::ALL.iter().map(|kind| kind.name()).chain(slip) {
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        child.args(["each_wish_is_followed", "--exact", "--test-threads=1"]).env(WISH, wish).env("QSPINLOCK", wish);
        let output = child.output().expect("the child starts");
        assert!(output.status.success(), "{wish}: {output:?}");
    }
}
