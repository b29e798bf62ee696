//! Call sites that are rewritten while all other CPUs go through them.
//!
//! Sites that follow the choice and sites that look it up do the same, so locks go on working whatever stands there: what
//! is tested is that no CPU ever executes half of the one and half of the other. An emulator hardly ever interrupts a CPU
//! in the middle of a site; so one goes step by step, and is stopped just there.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use qspinlock::patch;

use super::Settings;
use super::kit::{self, Expect, Numbers};
use crate::console::println;
use crate::locks::{IrqMutex, Mutex};
use crate::stop::{self, Live};
use crate::{apic, clock, cpu, interrupts, percpu, smp};

/// However short a phase is.
const SWITCHES_AT_LEAST: u64 = 20;
/// Nanoseconds between two timer interrupts.
const TICK: u64 = 1_000_000;

static PLAIN: Mutex<u64> = Mutex::new(0);
/// Handlers take it as well.
static IRQ: IrqMutex<u64> = IrqMutex::new(0);

static STOP: AtomicBool = AtomicBool::new(false);
static END: AtomicU64 = AtomicU64::new(0);
static TASKS: Numbers = Numbers::new();
static TIMERS: Numbers = Numbers::new();
static SWITCHES: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds of all of them, and of the longest.
static TOOK: AtomicU64 = AtomicU64::new(0);
static WORST: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicBool = AtomicBool::new(false);

/// The first CPU's own: what it has seen.
struct Seen(UnsafeCell<Option<patch::Status>>);

// SAFETY: the first CPU's.
unsafe impl Sync for Seen {}

static SEEN: Seen = Seen(UnsafeCell::new(None));

fn on_timer() {
    if !STOP.load(Ordering::Relaxed) {
        *IRQ.lock() += 1;
        TIMERS.add(kit::here(), 1);
    }
}

fn work(number: usize) {
    if number == 0 {
        switch();
        STOP.store(true, Ordering::Relaxed);
        return;
    }
    let this = percpu::mine();
    this.tick.set(TICK);
    apic::timer_in(TICK);
    while !STOP.load(Ordering::Relaxed) {
        *PLAIN.lock() += 1;
        *IRQ.lock() += 1;
        TASKS.add(number, 1);
        kit::progress();
    }
    this.tick.set(0);
    apic::timer_off();
}

/// Back and forth.
fn switch() {
    let end = END.load(Ordering::Relaxed);
    while SWITCHES.load(Ordering::Relaxed) < SWITCHES_AT_LEAST || clock::now() < end {
        let loosens = SWITCHES.load(Ordering::Relaxed).is_multiple_of(2);
        let before = clock::now();
        let written = if loosens { patch::loosen_with(&mut Live) } else { patch::follow_with(&mut Live) };
        let took = clock::now() - before;
        let status = patch::status();
        let changed = if loosens { status.looking_up } else { status.following };
        if written.is_err() || changed != status.sites {
            // SAFETY: the first CPU's.
            unsafe { *SEEN.0.get() = Some(status) };
            WRONG.store(true, Ordering::Relaxed);
            return;
        }
        SWITCHES.fetch_add(1, Ordering::Relaxed);
        TOOK.fetch_add(took, Ordering::Relaxed);
        WORST.fetch_max(took, Ordering::Relaxed);
        // All go on in between, or it would be one long stop.
        let sections = TASKS.sum();
        kit::wait_until("until somebody has had a lock", || TASKS.sum() != sections);
        clock::pause_for(200_000);
    }
    // As it was; SWITCHES may be odd.
    WRONG.fetch_or(patch::follow_with(&mut Live).is_err(), Ordering::Relaxed);
}

/// How often a CPU is stopped inside of a site.
const STOPS_INSIDE: u32 = 10;
static WANTED: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicBool = AtomicBool::new(false);

fn on_step() {
    if WANTED.load(Ordering::Acquire) && stop::is_inside(interrupts::stepped_to()) {
        WANTED.store(false, Ordering::Relaxed);
        ASKED.store(true, Ordering::Release);
        // The call to stop is pending when this returns, so it is taken before the next instruction.
        kit::wait_until("until all are to stop", stop::is_called);
    }
}

fn work_inside(number: usize) {
    match number {
        0 => {
            for _ in 0..STOPS_INSIDE {
                ASKED.store(false, Ordering::Relaxed);
                WANTED.store(true, Ordering::Release);
                let ok = kit::wait_until("until it is inside of a site", || ASKED.load(Ordering::Acquire))
                    && patch::loosen_with(&mut Live).is_ok()
                    && patch::follow_with(&mut Live).is_ok();
                WRONG.fetch_or(!ok, Ordering::Relaxed);
            }
            STOP.store(true, Ordering::Relaxed);
        }
        1 => {
            while !STOP.load(Ordering::Relaxed) {
                cpu::stepped(|| *PLAIN.lock() += 1);
                TASKS.add(number, 1);
                kit::progress();
            }
        }
        _ => {}
    }
}

fn run_inside() -> bool {
    STOP.store(false, Ordering::Relaxed);
    TASKS.clear();
    let (before, retries) = (*PLAIN.lock(), stop::retries());
    interrupts::ON_STEP.set(Some(on_step));
    let finished = kit::on_all("switch, inside", work_inside);
    interrupts::ON_STEP.set(None);
    if !finished {
        kit::give_up();
        return false;
    }
    let retries = stop::retries() - retries;
    println!("guest: switch, inside: {STOPS_INSIDE} times, {retries} tries more, {} sections", TASKS.sum());
    let mut expect = Expect::of("switch, inside");
    expect.that(!WRONG.load(Ordering::Relaxed), "not all sites were rewritten");
    expect.that(retries > 0, "nobody was inside of a site");
    expect.that(*PLAIN.lock() - before == TASKS.sum(), "a section was lost");
    expect.passed
}

pub(crate) fn run(settings: &Settings) -> bool {
    if smp::count() < 2 {
        println!("guest: switch: takes two CPUs");
        return true;
    }
    interrupts::ON_TIMER.set(Some(on_timer));
    END.store(clock::now() + settings.phase, Ordering::Relaxed);
    let finished = kit::on_all("switch", work);
    interrupts::ON_TIMER.set(None);
    if !finished {
        kit::give_up();
        return false;
    }
    let [switches, took, worst] = [&SWITCHES, &TOOK, &WORST].map(|count| count.load(Ordering::Relaxed));
    let (tasks, timers) = (TASKS.sum(), TIMERS.sum());
    println!(
        "guest: figure live-switch {switches} times, {} us on average, {} us at worst, {} tries more; {} sections meanwhile",
        took / 1000 / switches.max(1),
        worst / 1000,
        stop::retries(),
        2 * tasks + timers
    );
    // SAFETY: the first CPU's.
    if let Some(status) = unsafe { *SEEN.0.get() } {
        println!("guest: switch: {status}");
    }
    let mut expect = Expect::of("switch");
    expect.that(!WRONG.load(Ordering::Relaxed), "not all sites were rewritten");
    expect.that(switches >= SWITCHES_AT_LEAST, "not enough switches");
    expect.that((*PLAIN.lock(), *IRQ.lock()) == (tasks, tasks + timers), "a section was lost");
    expect.that(patch::status().following == patch::status().sites, "sites do not follow in the end");
    expect.that(cpu::interrupts_are_on(), "interrupts did not come back");
    expect.passed && run_inside()
}
