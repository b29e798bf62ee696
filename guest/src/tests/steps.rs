//! An interrupt that wants the lock of what it has interrupted, at every instruction of an acquire and of a release.
//!
//! A CPU goes through both step by step. After each instruction the handler, which nothing can mask, locks the same
//! lock: it gets it, if it is free, or is told that its own CPU holds it. It never hangs, and nobody loses the lock.
//! First alone; then with two other CPUs that want the lock as well, so that the interrupted one is anywhere in the
//! queue. And by NMIs, at full speed: how long it takes to be told.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use qspinlock::LockErrorKind;

use super::Settings;
use super::failing::{KINDS, Kind};
use super::kit::{self, Expect, Numbers};
use crate::console::println;
use crate::{clock, cpu, interrupts, smp};

/// Steps of one acquire and release; then it goes on at full speed.
const STEPS: u32 = 3000;
/// How long the handler waits for others. Nanoseconds.
const SHORT: u64 = 50_000;
/// How long who was interrupted waits, which is to be long enough.
const LONG: u64 = kit::HUNG;

/// Where the interrupted one is.
const OUTSIDE: u32 = 0;
const BETWEEN: u32 = 1;
const WITHIN: u32 = 2;

static KIND: AtomicPtr<Kind> = AtomicPtr::new(core::ptr::null_mut());
static PLACE: AtomicU32 = AtomicU32::new(OUTSIDE);
static CONTENDED: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);
static END: AtomicU64 = AtomicU64::new(0);

static LEFT: AtomicU32 = AtomicU32::new(0);
/// What the handler has been told.
static HAD: AtomicU64 = AtomicU64::new(0);
static DEADLOCKS: AtomicU64 = AtomicU64::new(0);
static LATE: AtomicU64 = AtomicU64::new(0);
/// What cannot be true.
static FALSE: AtomicU64 = AtomicU64::new(0);
/// Sections of tasks; and how many have failed.
static SECTIONS: Numbers = Numbers::new();
static FAILED: AtomicU64 = AtomicU64::new(0);
/// The longest until a deadlock was told, in NMIs. Nanoseconds; and the sum.
static WORST: AtomicU64 = AtomicU64::new(0);
static TOLD_IN: AtomicU64 = AtomicU64::new(0);

fn kind() -> &'static Kind {
    // SAFETY: set to one of the list before anybody asks.
    unsafe { &*KIND.load(Ordering::Relaxed) }
}

/// What the interrupt does.
fn intrude() {
    let place = PLACE.load(Ordering::Relaxed);
    let before = clock::now();
    let result = kind().locks[0].section(SHORT, &mut || ());
    let took = clock::now() - before;
    kit::progress();
    let is_false = match result.map_err(|error| error.kind()) {
        Ok(()) => {
            HAD.fetch_add(1, Ordering::Relaxed);
            place == WITHIN
        }
        Err(LockErrorKind::Deadlock) => {
            DEADLOCKS.fetch_add(1, Ordering::Relaxed);
            TOLD_IN.fetch_add(took, Ordering::Relaxed);
            WORST.fetch_max(took, Ordering::Relaxed);
            place == OUTSIDE
        }
        // The others', or nobody's.
        Err(_) => {
            LATE.fetch_add(1, Ordering::Relaxed);
            place == WITHIN || !CONTENDED.load(Ordering::Relaxed)
        }
    };
    FALSE.fetch_add(u64::from(is_false), Ordering::Relaxed);
}

fn on_step() {
    intrude();
    if LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        interrupts::step_no_more();
    }
}

/// A section that may be interrupted anywhere.
fn interrupted_section(number: usize) {
    PLACE.store(BETWEEN, Ordering::Relaxed);
    let result = kind().locks[0].section(LONG, &mut || {
        PLACE.store(WITHIN, Ordering::Relaxed);
        (0..5).for_each(|_| cpu::relax());
        PLACE.store(BETWEEN, Ordering::Relaxed);
    });
    PLACE.store(OUTSIDE, Ordering::Relaxed);
    note(number, result.is_ok());
}

fn note(number: usize, ok: bool) {
    if ok {
        SECTIONS.add(number, 1);
    } else {
        FAILED.fetch_add(1, Ordering::Relaxed);
    }
    kit::progress();
}

/// Which CPU is interrupted.
fn victim() -> usize {
    usize::from(smp::count() > 1)
}

fn stepped_work(number: usize) {
    if number == victim() {
        let mut rounds = 0;
        while rounds < 3 || clock::now() < END.load(Ordering::Relaxed) {
            LEFT.store(STEPS, Ordering::Relaxed);
            cpu::stepped(|| interrupted_section(number));
            rounds += 1;
        }
        STOP.store(true, Ordering::Relaxed);
    } else if (2..4).contains(&number) && CONTENDED.load(Ordering::Relaxed) {
        others_work(number);
    }
}

fn others_work(number: usize) {
    while !STOP.load(Ordering::Relaxed) {
        let result = kind().locks[0].section(LONG, &mut || (0..50).for_each(|_| cpu::relax()));
        note(number, result.is_ok());
        (0..100).for_each(|_| cpu::relax());
    }
}

fn nmi_work(number: usize) {
    match number {
        0 => {
            let end = END.load(Ordering::Relaxed);
            // Both answers, on a busy host too.
            let enough = || [&HAD, &DEADLOCKS].iter().all(|count| count.load(Ordering::Relaxed) > 0);
            while clock::now() < end || (!enough() && clock::now() < end + kit::HUNG) {
                kit::nmi(1);
                clock::pause_for(10_000);
                kit::show_progress(DEADLOCKS.load(Ordering::Relaxed));
            }
            STOP.store(true, Ordering::Relaxed);
        }
        1 => {
            while !STOP.load(Ordering::Relaxed) {
                interrupted_section(number);
            }
        }
        _ => {}
    }
}

pub(crate) fn run(settings: &Settings) -> bool {
    interrupts::ON_STEP.set(Some(on_step));
    let alone = KINDS.iter().all(|kind| run_kind(kind, "alone", false, stepped_work, settings));
    // With two others at least.
    let passed = alone
        && (smp::count() < 4 || KINDS.iter().all(|kind| run_kind(kind, "among others", true, stepped_work, settings)));
    interrupts::ON_STEP.set(None);
    passed
}

/// The same by NMIs.
pub(crate) fn run_nmis(settings: &Settings) -> bool {
    if smp::count() < 2 {
        println!("guest: nmis: nobody to send one on one CPU");
        return true;
    }
    interrupts::ON_NMI.set(Some(intrude));
    let passed = KINDS.iter().all(|kind| run_kind(kind, "NMIs", false, nmi_work, settings));
    interrupts::ON_NMI.set(None);
    passed
}

fn run_kind(kind: &'static Kind, how: &str, contended: bool, work: fn(usize), settings: &Settings) -> bool {
    KIND.store(core::ptr::from_ref(kind).cast_mut(), Ordering::Relaxed);
    CONTENDED.store(contended, Ordering::Relaxed);
    STOP.store(false, Ordering::Relaxed);
    for count in [&HAD, &DEADLOCKS, &LATE, &FALSE, &FAILED, &WORST, &TOLD_IN] {
        count.store(0, Ordering::Relaxed);
    }
    SECTIONS.clear();
    let before = kind.locks[0].sections();
    END.store(clock::now() + settings.phase, Ordering::Relaxed);
    if !kit::on_all(kind.name, work) {
        kit::give_up();
        return false;
    }
    let [had, deadlocks, late] = [&HAD, &DEADLOCKS, &LATE].map(|count| count.load(Ordering::Relaxed));
    let sections = SECTIONS.sum();
    println!(
        "guest: {}, {how}: {sections} sections, interrupted {} times: had it {had}, deadlock {deadlocks}, late {late}",
        kind.name,
        had + deadlocks + late
    );
    if how == "NMIs" {
        let (worst, average) = (WORST.load(Ordering::Relaxed), TOLD_IN.load(Ordering::Relaxed) / deadlocks.max(1));
        println!("guest: figure deadlock-told-in-nmi {}: {average} ns on average, {worst} ns at worst", kind.name);
    }
    let mut expect = Expect::of(kind.name);
    expect.that(FALSE.load(Ordering::Relaxed) == 0, "a handler was told what cannot be true");
    expect.that(FAILED.load(Ordering::Relaxed) == 0, "somebody who was interrupted did not get the lock");
    expect.that(had > 0 && deadlocks > 0, "it was never free, or never held");
    let counted = before.and_then(|before| Some(kind.locks[0].sections()? - before));
    expect.that(counted == Some(sections + had), "the number under the lock is not that of its owners");
    expect.passed
}
