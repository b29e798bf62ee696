//! A kick at every instruction of a wait: is any of them slept through?
//!
//! The second CPU waits, instruction by instruction. In one run after another, one instruction later each time, the
//! cell changes and the kick comes just there; the wait must end. With interrupts on and with interrupts off.
//!
//! No step ends between `sti` and `hlt`. But an NMI may come there, so NMIs are sent until some do, and find a kick
//! pending when they return.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use qspinlock::Machine;
use qspinlock::atomic::AtomicCell;
use qspinlock::machine::{Access, Cell, ConstCell};
use qspinlock::queue::Cpu;

use super::Settings;
use super::kit::{self, Barrier, Expect, HUNG};
use crate::console::println;
use crate::machine::Kernel;
use crate::{clock, cpu, interrupts, percpu, smp};

const LOOK: Access = Access::acquire("test.look", "the change of the cell");

/// Instead of a step: none, to count them; none, and NMIs.
const COUNT: u32 = 0;
const NMIS: u32 = u32::MAX;
/// So long NMIs are sent for one to come between `sti` and `hlt`. Nanoseconds.
const STORM: u64 = 300_000_000;

static CELL: AtomicCell = AtomicCell::ZERO;
/// Steps until the kick; from 0 on none is wanted.
static LEFT: AtomicU32 = AtomicU32::new(0);
static STEPS: AtomicU32 = AtomicU32::new(0);
/// The waiter has come to the step; the kick has been sent.
static WANTED: AtomicBool = AtomicBool::new(false);
static SENT: AtomicBool = AtomicBool::new(false);
static RETURNED: AtomicBool = AtomicBool::new(false);
static MASKED: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);
static BARRIER: Barrier = Barrier::new();

static MISSED: AtomicU64 = AtomicU64::new(0);
static KICKS: AtomicU64 = AtomicU64::new(0);
/// Of them, those that came between `sti` and `hlt`.
static IN_BETWEEN: AtomicU64 = AtomicU64::new(0);

fn on_step() {
    STEPS.fetch_add(1, Ordering::Relaxed);
    if LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        have_it_sent();
    }
}

fn on_nmi() {
    if interrupts::is_about_to_halt() && !SENT.load(Ordering::Relaxed) {
        IN_BETWEEN.fetch_add(1, Ordering::Relaxed);
        have_it_sent();
    }
}

/// Has the first CPU change the cell and send the kick, which is pending when this returns.
fn have_it_sent() {
    WANTED.store(true, Ordering::Release);
    while !SENT.load(Ordering::Acquire) {
        cpu::relax();
    }
    clock::pause_for(20_000);
}

fn waiter() {
    while BARRIER.wait(2) && !STOP.load(Ordering::Relaxed) {
        if MASKED.load(Ordering::Relaxed) {
            cpu::interrupts_off();
        }
        let wait = || {
            while CELL.load(LOOK) == 0 {
                Kernel.wait(&CELL, 0, LOOK, None);
            }
        };
        if LEFT.load(Ordering::Relaxed) == NMIS {
            wait()
        } else {
            cpu::stepped(wait)
        }
        // SAFETY: they were on.
        unsafe { cpu::interrupts_on() };
        RETURNED.store(true, Ordering::Release);
        BARRIER.wait(2);
    }
}

/// One run: how many steps the waiter went.
fn run_to(step: u32) -> u32 {
    let kick = || {
        CELL.as_atomic().store(1, Ordering::Release);
        Kernel.kick(Cpu::new(1).expect("a small number"));
        SENT.store(true, Ordering::Release);
    };
    CELL.as_atomic().store(0, Ordering::Relaxed);
    LEFT.store(step, Ordering::Relaxed);
    STEPS.store(0, Ordering::Relaxed);
    for flag in [&WANTED, &SENT, &RETURNED] {
        flag.store(false, Ordering::Relaxed);
    }
    let halts = percpu::of(1).halts();
    let before = halts.load(Ordering::Relaxed);
    BARRIER.wait(2);
    match step {
        COUNT => {
            // Until it has been asleep for long.
            kit::wait_until("until it halts", || halts.load(Ordering::Relaxed) != before);
            clock::pause_for(50_000_000);
        }
        NMIS => {
            let enough = clock::now() + STORM;
            while !WANTED.load(Ordering::Acquire) && clock::now() < enough {
                kit::nmi(1);
                clock::pause_for(3_000);
            }
        }
        _ => drop(kit::wait_until("until it has come to the step", || WANTED.load(Ordering::Acquire))),
    }
    let steps = STEPS.load(Ordering::Relaxed);
    kick();
    let late = clock::now() + HUNG / 4;
    while !RETURNED.load(Ordering::Acquire) {
        if clock::now() > late {
            println!("guest: halts: a kick was slept through: after instruction {step}, or where an NMI came");
            MISSED.fetch_add(1, Ordering::Relaxed);
            kick();
            break;
        }
        cpu::relax();
    }
    KICKS.fetch_add(1, Ordering::Relaxed);
    kit::progress();
    BARRIER.wait(2);
    steps
}

fn work(number: usize) {
    match number {
        0 => {
            for masked in [false, true] {
                MASKED.store(masked, Ordering::Relaxed);
                let steps = run_to(COUNT);
                FEWEST.fetch_min(steps, Ordering::Relaxed);
                for step in (1..=steps).chain([NMIS; 5]) {
                    // One is enough to fail, and each takes long.
                    if MISSED.load(Ordering::Relaxed) == 0 {
                        run_to(step);
                    }
                }
            }
            STOP.store(true, Ordering::Relaxed);
            BARRIER.wait(2);
        }
        1 => waiter(),
        _ => {}
    }
}

/// Instructions of a wait, until it sleeps.
static FEWEST: AtomicU32 = AtomicU32::new(u32::MAX);

pub(crate) fn run(_: &Settings) -> bool {
    if smp::count() < 2 {
        println!("guest: halts: nobody to kick on one CPU");
        return true;
    }
    interrupts::ON_STEP.set(Some(on_step));
    interrupts::ON_NMI.set(Some(on_nmi));
    let finished = kit::on_all("halts", work);
    interrupts::ON_STEP.set(None);
    interrupts::ON_NMI.set(None);
    if !finished {
        kit::give_up();
        return false;
    }
    let (kicks, between) = (KICKS.load(Ordering::Relaxed), IN_BETWEEN.load(Ordering::Relaxed));
    println!("guest: halts: {kicks} kicks, one at each instruction, and {between} of them in NMIs between sti and hlt");
    let mut expect = Expect::of("halts");
    expect.that(MISSED.load(Ordering::Relaxed) == 0, "a kick was missed");
    // A look, and what turns interrupts off and on.
    expect.that(FEWEST.load(Ordering::Relaxed) >= 5, "a wait was not gone through step by step");
    expect.passed
}
