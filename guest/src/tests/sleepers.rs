//! Waiters that halt, and are woken: is ever one forgotten?
//!
//! The first CPU holds the lock until all others are asleep, and releases it; before the next round each of them must
//! have had it. Nothing else wakes them: no timer ticks, and NMIs, where they come, find a CPU in its halt or just
//! before it, which is where a wake-up could be lost.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use qspinlock::slowpath::{Paravirt, Parking};

use super::Settings;
use super::kit::{self, Barrier, Expect, Irq, Lock, Numbers, Plain, locks};
use crate::console::println;
use crate::{clock, interrupts, percpu, smp};

/// Those that do not fall asleep in this time are not waited for: on a busy host a CPU may not run for long.
const AWAKE: u64 = 1_000_000_000;

/// However short a phase is.
const ROUNDS_AT_LEAST: u64 = 5;

struct Kind {
    name: &'static str,
    lock: &'static dyn Lock,
    /// NMIs come all the time.
    nmis: bool,
}

static KINDS: &[Kind] = &[
    Kind {
        name: "paravirt",
        lock: {
            let [lock] = locks![Plain<Paravirt>];
            lock
        },
        nmis: false,
    },
    Kind {
        name: "paravirt, NMIs",
        lock: {
            let [lock] = locks![Plain<Paravirt>];
            lock
        },
        nmis: true,
    },
    Kind {
        name: "paravirt, interrupts off",
        lock: {
            let [lock] = locks![Irq<Paravirt>];
            lock
        },
        nmis: false,
    },
    Kind {
        name: "paravirt, interrupts off, NMIs",
        lock: {
            let [lock] = locks![Irq<Paravirt>];
            lock
        },
        nmis: true,
    },
    // Its naps end by a timer as well.
    Kind {
        name: "parking",
        lock: {
            let [lock] = locks![Plain<Parking>];
            lock
        },
        nmis: true,
    },
];

static KIND: AtomicPtr<Kind> = AtomicPtr::new(core::ptr::null_mut());
static END: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
static BARRIER: Barrier = Barrier::new();
/// How often each CPU has had the lock.
static HAD: Numbers = Numbers::new();
static ROUNDS: AtomicU64 = AtomicU64::new(0);
/// Rounds in which all slept.
static ASLEEP: AtomicU64 = AtomicU64::new(0);

fn kind() -> &'static Kind {
    // SAFETY: set to one of the list before anybody asks.
    unsafe { &*KIND.load(Ordering::Relaxed) }
}

fn halts(number: usize) -> u64 {
    percpu::of(number).halts().load(Ordering::Relaxed)
}

fn work(number: usize) {
    let (all, lock) = (smp::count(), kind().lock);
    while BARRIER.wait(all) && !STOP.load(Ordering::Relaxed) {
        if number == 0 {
            hold(lock, all);
        } else {
            // Only then: the first CPU has it.
            BARRIER.wait(all);
            lock.lock();
            HAD.add(number, 1);
            kit::progress();
            lock.unlock();
        }
    }
}

/// One round of the first CPU.
fn hold(lock: &dyn Lock, all: usize) {
    let mut awake = [0; percpu::CPUS];
    smp::all().for_each(|number| awake[number] = halts(number));
    lock.lock();
    BARRIER.wait(all);
    let late = clock::now() + AWAKE;
    let is_asleep = |number: usize| halts(number) != awake[number];
    let poke = || {
        if kind().nmis {
            smp::all().skip(1).for_each(kit::nmi);
            clock::pause_for(5_000);
        }
    };
    while !smp::all().skip(1).all(is_asleep) && clock::now() < late {
        poke();
        kit::show_progress(ROUNDS.load(Ordering::Relaxed));
    }
    ASLEEP.fetch_add(u64::from(smp::all().skip(1).all(is_asleep)), Ordering::Relaxed);
    lock.unlock();
    let round = ROUNDS.fetch_add(1, Ordering::Relaxed) + 1;
    // No more NMIs: each ends a halt, and would make up for a kick that was lost.
    let woken = || smp::all().skip(1).all(|number| HAD.get(number) == round);
    let ok = kit::wait_until("until all have had the lock", woken);
    if !ok {
        for number in smp::all().skip(1).filter(|number| HAD.get(*number) != round) {
            println!("guest: {}: CPU {number} was not woken", kind().name);
        }
    }
    let is_over = round >= ROUNDS_AT_LEAST && clock::now() > END.load(Ordering::Relaxed);
    STOP.store(!ok || is_over, Ordering::Relaxed);
}

pub(crate) fn run(settings: &Settings) -> bool {
    if smp::count() < 2 {
        println!("guest: sleepers: nobody to wait for on one CPU");
        return true;
    }
    // That it comes is all.
    interrupts::ON_NMI.set(None);
    KINDS.iter().all(|kind| run_kind(kind, settings))
}

fn run_kind(kind: &'static Kind, settings: &Settings) -> bool {
    KIND.store(core::ptr::from_ref(kind).cast_mut(), Ordering::Relaxed);
    HAD.clear();
    ROUNDS.store(0, Ordering::Relaxed);
    ASLEEP.store(0, Ordering::Relaxed);
    STOP.store(false, Ordering::Relaxed);
    END.store(clock::now() + settings.phase, Ordering::Relaxed);
    if !kit::on_all(kind.name, work) {
        kit::give_up();
        return false;
    }
    let (rounds, asleep) = (ROUNDS.load(Ordering::Relaxed), ASLEEP.load(Ordering::Relaxed));
    println!("guest: {}: {rounds} rounds, all asleep in {asleep}", kind.name);
    let mut expect = Expect::of(kind.name);
    expect.that(HAD.sum() == rounds * (smp::count() as u64 - 1), "not all have had the lock in each round");
    expect.that(asleep > 0, "they were never all asleep");
    expect.passed
}
