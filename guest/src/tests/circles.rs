//! CPUs that wait for one another in a circle, and an owner that stalls: each is told, and the others go on.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use qspinlock::LockErrorKind;

use super::Settings;
use super::failing::{KINDS, Kind};
use super::kit::{self, Barrier, Expect};
use crate::console::println;
use crate::{clock, smp};

/// So long nobody waits in these tests.
const LONG: u64 = kit::HUNG;
/// How long is waited for the owner that stalls. Nanoseconds.
const SHORT: u64 = 20_000_000;

static KIND: AtomicPtr<Kind> = AtomicPtr::new(core::ptr::null_mut());
/// CPUs in the circle. 1: one holds, another waits for it.
static LENGTH: AtomicUsize = AtomicUsize::new(0);
static TWO: Barrier = Barrier::new();
static THREE: Barrier = Barrier::new();
static STALLS: AtomicBool = AtomicBool::new(false);

static DEADLOCKS: AtomicU64 = AtomicU64::new(0);
static LATE: AtomicU64 = AtomicU64::new(0);
static HAD: AtomicU64 = AtomicU64::new(0);
/// Reports of a circle of another length.
static OTHERS: AtomicU64 = AtomicU64::new(0);
/// The longest until somebody was told. Nanoseconds.
static WORST: AtomicU64 = AtomicU64::new(0);

fn kind() -> &'static Kind {
    // SAFETY: set to one of the list before anybody asks.
    unsafe { &*KIND.load(Ordering::Relaxed) }
}

fn want(which: usize, limit: u64) {
    let length = LENGTH.load(Ordering::Relaxed);
    let before = clock::now();
    let result = kind().locks[which].section(limit, &mut || ());
    let took = clock::now() - before;
    let count = match result {
        Ok(()) => &HAD,
        Err(error) => {
            WORST.fetch_max(took, Ordering::Relaxed);
            let is_as_long = error.report().is_none_or(|report| report.length() == length);
            OTHERS.fetch_add(u64::from(error.is_deadlock() && !is_as_long), Ordering::Relaxed);
            if error.kind() == LockErrorKind::Deadlock { &DEADLOCKS } else { &LATE }
        }
    };
    count.fetch_add(1, Ordering::Relaxed);
    kit::progress();
}

fn circle(number: usize) {
    let length = LENGTH.load(Ordering::Relaxed);
    let barrier = if length == 2 { &TWO } else { &THREE };
    if !(1..=length).contains(&number) {
        return;
    }
    let held = kind().locks[number - 1].section(LONG, &mut || {
        barrier.wait(length);
        want(number % length, LONG);
    });
    if held.is_err() {
        println!("guest: {}: CPU {number} did not get its first lock", kind().name);
        LATE.fetch_add(1, Ordering::Relaxed);
    }
}

fn stall(number: usize) {
    match number {
        1 => {
            let _ = kind().locks[0].section(LONG, &mut || {
                STALLS.store(true, Ordering::Release);
                kit::wait_until("until somebody is told", || LATE.load(Ordering::Relaxed) > 0);
            });
            STALLS.store(false, Ordering::Release);
        }
        2 => {
            kit::wait_until("until the lock is held", || STALLS.load(Ordering::Acquire));
            want(0, SHORT);
        }
        _ => {}
    }
}

pub(crate) fn run(settings: &Settings) -> bool {
    if smp::count() < 4 {
        println!("guest: circles: takes four CPUs");
        return true;
    }
    KINDS.iter().all(|kind| {
        run_kind(kind, "two", 2, circle, settings)
            && run_kind(kind, "three", 3, circle, settings)
            && run_kind(kind, "a stalled owner", 1, stall, settings)
    })
}

fn run_kind(kind: &'static Kind, how: &str, length: usize, work: fn(usize), settings: &Settings) -> bool {
    KIND.store(core::ptr::from_ref(kind).cast_mut(), Ordering::Relaxed);
    LENGTH.store(length, Ordering::Relaxed);
    for count in [&DEADLOCKS, &HAD, &OTHERS, &WORST] {
        count.store(0, Ordering::Relaxed);
    }
    let end = clock::now() + settings.phase / 4;
    let mut expect = Expect::of(kind.name);
    let (mut rounds, mut late) = (0, 0);
    while rounds < 3 || clock::now() < end {
        LATE.store(0, Ordering::Relaxed);
        let before = DEADLOCKS.load(Ordering::Relaxed);
        if !kit::on_all(kind.name, work) {
            kit::give_up();
            return false;
        }
        rounds += 1;
        late += LATE.load(Ordering::Relaxed);
        let told = DEADLOCKS.load(Ordering::Relaxed) - before;
        expect.that(length == 1 || told > 0, "nobody in the circle was told");
    }
    let [deadlocks, had, worst] = [&DEADLOCKS, &HAD, &WORST].map(|count| count.load(Ordering::Relaxed));
    println!(
        "guest: {}, {how}: {rounds} times, deadlock {deadlocks}, late {late}, had it {had}; told in {} us at worst",
        kind.name,
        worst / 1000
    );
    if length == 1 {
        expect.that((late, deadlocks, had) == (rounds, 0, 0), "who waited for a stalled owner was not told so");
    } else {
        expect.that(late == 0, "a time was over");
        expect.that(OTHERS.load(Ordering::Relaxed) == 0, "a circle of another length was reported");
        expect.that(deadlocks + had == rounds * length as u64, "not all were told or served");
    }
    expect.passed
}
