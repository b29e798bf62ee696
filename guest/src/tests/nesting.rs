//! Interrupts that wait within one another, deeper than there are queue nodes.
//!
//! The first CPU holds seven locks. On each of the others the task waits for the first one; an interrupt comes in the
//! middle of that and waits for the second; within that one comes another, and so on; in the innermost an NMI waits for
//! the last. Four of them have nodes. Then the locks are released, in one order or the other, and all must end, each
//! with its lock.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use qspinlock::slowpath::{Chosen, Native, Numa, Paravirt, Parking, TestAndSet};

use super::Settings;
use super::kit::{self, Barrier, Expect, Lock, Numbers, Plain, locks};
use crate::console::println;
use crate::percpu::{self, CPUS};
use crate::{clock, interrupts, smp, tables};

/// One for each level: the task, five interrupts, an NMI.
const LEVELS: usize = 7;

struct Kind {
    name: &'static str,
    locks: [&'static dyn Lock; LEVELS],
    /// Whether its waiters queue.
    queues: bool,
}

macro_rules! kinds {
    ($($name:literal $slow_path:ident $queues:literal,)*) => {
        &[$(Kind {
            name: $name,
            locks: locks![
                Plain<$slow_path>, Plain<$slow_path>, Plain<$slow_path>, Plain<$slow_path>, Plain<$slow_path>,
                Plain<$slow_path>, Plain<$slow_path>
            ],
            queues: $queues,
        }),*]
    };
}

static KINDS: &[Kind] = kinds! {
    "native" Native true,
    "numa" Numa true,
    "paravirt" Paravirt true,
    "parking" Parking true,
    "test-and-set" TestAndSet false,
    // Whatever that is.
    "chosen" Chosen false,
};

static KIND: AtomicPtr<Kind> = AtomicPtr::new(core::ptr::null_mut());
static OUTERMOST_FIRST: AtomicBool = AtomicBool::new(false);
static FAILED: AtomicBool = AtomicBool::new(false);
static BARRIER: Barrier = Barrier::new();

/// How deep each CPU is: so many wait, or are about to.
static DEPTH: Numbers = Numbers::new();
/// How many of them have had their lock.
static HAD: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];

/// What each lock protects.
struct Protected([UnsafeCell<u64>; LEVELS]);

// SAFETY: accessed by the owner of the lock; whether there is one at a time is what is tested.
unsafe impl Sync for Protected {}

static COUNTED: Protected = Protected([const { UnsafeCell::new(0) }; LEVELS]);

fn kind() -> &'static Kind {
    // SAFETY: set to one of the list before anybody asks.
    unsafe { &*KIND.load(Ordering::Relaxed) }
}

/// One level deeper: waits for its lock.
fn descend() {
    let number = kit::here();
    let level = DEPTH.get(number) as usize;
    DEPTH.set(number, level as u64 + 1);
    kit::progress();
    let lock = kind().locks[level];
    lock.lock();
    let count = &COUNTED.0[level];
    // SAFETY: see `Protected`.
    unsafe { count.get().write_volatile(count.get().read_volatile() + 1) };
    lock.unlock();
    HAD[number].fetch_add(1, Ordering::Relaxed);
    kit::progress();
}

fn on_call() {
    // The call that has this CPU work comes before there is anything to interrupt.
    if DEPTH.get(kit::here()) > 0 {
        // SAFETY: a handler of that vector; five within one another.
        unsafe { tables::with_interrupts_on(descend) };
    }
}

fn work(number: usize) {
    let all = smp::count();
    BARRIER.wait(all);
    if number > 0 {
        descend();
        BARRIER.wait(all);
        return;
    }
    let others = || smp::all().skip(1);
    for level in 0..LEVELS {
        let deep = || others().all(|number| DEPTH.get(number) == level as u64 + 1);
        if !kit::wait_until("until all wait at the next level", deep) {
            FAILED.store(true, Ordering::Relaxed);
        }
        // They are about to wait: give them the time to.
        clock::pause_for(1_000_000);
        match level + 2 {
            LEVELS => others().for_each(kit::nmi),
            ..LEVELS => others().for_each(kit::call),
            _ => {}
        }
    }
    let release = |level: usize| {
        kind().locks[level].unlock();
        clock::pause_for(200_000);
    };
    if OUTERMOST_FIRST.load(Ordering::Relaxed) {
        (0..LEVELS).for_each(release)
    } else {
        (0..LEVELS).rev().for_each(release)
    }
    BARRIER.wait(all);
}

pub(crate) fn run(settings: &Settings) -> bool {
    if smp::count() < 2 {
        println!("guest: nesting: nobody to wait for on one CPU");
        return true;
    }
    interrupts::ON_CALL.set(Some(on_call));
    interrupts::ON_NMI.set(Some(descend));
    let passed = KINDS.iter().all(|kind| run_kind(kind, settings));
    interrupts::ON_CALL.set(None);
    interrupts::ON_NMI.set(None);
    passed
}

fn run_kind(kind: &'static Kind, settings: &Settings) -> bool {
    let without_node =
        || smp::all().map(|number| percpu::of(number).without_node().load(Ordering::Relaxed)).sum::<u64>();
    let before = without_node();
    KIND.store(core::ptr::from_ref(kind).cast_mut(), Ordering::Relaxed);
    let end = clock::now() + settings.phase;
    let (mut rounds, mut had) = (0, 0);
    while rounds < 4 || clock::now() < end {
        OUTERMOST_FIRST.store(rounds % 2 == 1, Ordering::Relaxed);
        DEPTH.clear();
        for lock in kind.locks {
            lock.lock();
        }
        if !kit::on_all(kind.name, work) {
            kit::give_up();
            return false;
        }
        rounds += 1;
    }
    for count in &HAD {
        had += count.swap(0, Ordering::Relaxed);
    }
    let without = without_node() - before;
    println!("guest: {}: {rounds} rounds, {had} waits, {without} of them without a node", kind.name);
    let mut expect = Expect::of(kind.name);
    expect.that(!FAILED.load(Ordering::Relaxed), "not all levels were reached");
    let each = rounds * (smp::count() as u64 - 1);
    expect.that(had == each * LEVELS as u64, "not all have had their lock");
    for count in &COUNTED.0 {
        // SAFETY: nobody works any more.
        let counted = unsafe { count.get().replace(0) };
        expect.that(counted == each, "the number under a lock is not that of its owners");
    }
    // Three levels too many, unless one waits beside the queue for another reason: the first has no need of a node
    // where it has the lane to itself.
    expect.that(!kind.queues || without > 0, "nobody was without a node");
    expect.passed
}
