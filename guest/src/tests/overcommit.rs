//! More virtual CPUs than real ones: how much of a lock is left for who waits in line behind a CPU that does not run?
//!
//! A figure for each slow path, not a bound: on an emulator it is the emulator's as well. But those that are made for
//! such machines must go on.

use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use qspinlock::slowpath::{Native, Numa, Paravirt, Parking, TestAndSet};

use super::Settings;
use super::kit::{self, Expect, Lock, Numbers, Plain, locks};
use crate::console::println;
use crate::{clock, cpu, smp};

/// How long each is looked at. The first CPU keeps the time.
const TIME: u64 = 1_000_000_000;
/// Pauses with the lock, and without it.
const SECTION: u32 = 10;
const OUTSIDE: u32 = 20;

struct Kind {
    name: &'static str,
    lock: &'static dyn Lock,
    /// It must get on.
    is_for_this: bool,
}

static KINDS: &[Kind] = &[
    Kind {
        name: "native",
        lock: {
            let [lock] = locks![Plain<Native>];
            lock
        },
        is_for_this: false,
    },
    Kind {
        name: "numa",
        lock: {
            let [lock] = locks![Plain<Numa>];
            lock
        },
        is_for_this: false,
    },
    Kind {
        name: "paravirt",
        lock: {
            let [lock] = locks![Plain<Paravirt>];
            lock
        },
        is_for_this: true,
    },
    Kind {
        name: "parking",
        lock: {
            let [lock] = locks![Plain<Parking>];
            lock
        },
        is_for_this: true,
    },
    Kind {
        name: "test-and-set",
        lock: {
            let [lock] = locks![Plain<TestAndSet>];
            lock
        },
        is_for_this: true,
    },
];

static KIND: AtomicPtr<Kind> = AtomicPtr::new(core::ptr::null_mut());
static STOP: AtomicBool = AtomicBool::new(false);
static HAD: Numbers = Numbers::new();

fn work(number: usize) {
    // SAFETY: set to one of the list before anybody asks.
    let lock = unsafe { (*KIND.load(Ordering::Relaxed)).lock };
    if number == 0 && smp::count() > 1 {
        let end = clock::now() + TIME;
        while clock::now() < end {
            kit::show_progress(HAD.sum());
        }
        STOP.store(true, Ordering::Relaxed);
        return;
    }
    let end = clock::now() + TIME;
    while !STOP.load(Ordering::Relaxed) && (number > 0 || clock::now() < end) {
        lock.lock();
        // What comes after the end is slow to end, and does not count.
        if !STOP.load(Ordering::Relaxed) {
            HAD.add(number, 1);
        }
        (0..SECTION).for_each(|_| cpu::relax());
        lock.unlock();
        kit::progress();
        (0..OUTSIDE).for_each(|_| cpu::relax());
    }
}

pub(crate) fn run(_: &Settings) -> bool {
    KINDS.iter().all(|kind| {
        KIND.store(core::ptr::from_ref(kind).cast_mut(), Ordering::Relaxed);
        STOP.store(false, Ordering::Relaxed);
        HAD.clear();
        if !kit::on_all(kind.name, work) {
            kit::give_up();
            return false;
        }
        let (cpus, all) = (smp::count(), HAD.sum());
        let none = smp::all().skip(1).filter(|number| HAD.get(*number) == 0).count();
        println!(
            "guest: figure overcommit {} {all} acquisitions in {} ms on {cpus} CPUs, {none} of them with none",
            kind.name,
            TIME / 1_000_000
        );
        let mut expect = Expect::of(kind.name);
        expect.that(!kind.is_for_this || all > 10 * cpus as u64, "it has collapsed");
        expect.passed
    })
}
