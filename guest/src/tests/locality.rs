//! How often a lock stays on its memory node when it passes from one CPU to another: in the order of arrival, and with
//! near waiters first. In each round all queue while the first CPU holds the lock, by turns from each node; so in the order
//! of arrival it would hardly ever stay.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use qspinlock::slowpath::{Locality, Native, Numa};

use super::Settings;
use super::kit::{self, Barrier, Expect, Lock, Plain, locks};
use crate::console::println;
use crate::percpu::CPUS;
use crate::{clock, machine, percpu, smp};

const ROUNDS: u32 = 5;
/// So long one has to queue, once it has said that it is about to. Nanoseconds.
const QUEUES_IN: u64 = 1_000_000;
/// So long the lock is held. A head looks at the queue while it waits, and must be there for that: where many virtual CPUs
/// share few, it may not come to run before a short section is over, and then takes the lock as it finds the queue.
/// Nanoseconds.
const SECTION: u64 = 4_000_000;

struct Kind {
    name: &'static str,
    lock: &'static dyn Lock,
}

static KINDS: [Kind; 2] = [
    Kind {
        name: "native",
        lock: {
            let [lock] = locks![Plain<Native>];
            lock
        },
    },
    Kind {
        name: "numa",
        lock: {
            let [lock] = locks![Plain<Numa>];
            lock
        },
    },
];

/// What the lock protects: who had it last, and how it was passed on.
#[derive(Clone, Copy, Debug)]
struct Passed {
    cpu: u32,
    node: u32,
    near: u64,
    far: u64,
}

const NOBODY: Passed = Passed { cpu: u32::MAX, node: u32::MAX, near: 0, far: 0 };

struct Protected(UnsafeCell<Passed>);

// SAFETY: accessed by the owner of the lock, and by the first CPU when nobody works.
unsafe impl Sync for Protected {}

static PASSED: Protected = Protected(UnsafeCell::new(NOBODY));
static KIND: AtomicPtr<Kind> = AtomicPtr::new(core::ptr::null_mut());

/// Whose turn it is to queue, and how many have come.
static TURN: AtomicUsize = AtomicUsize::new(0);
static COME: AtomicUsize = AtomicUsize::new(0);
static BARRIER: Barrier = Barrier::new();

/// One of each node, then the next of each.
fn order() -> impl Iterator<Item = usize> {
    let rank = |number: usize| (1..number).filter(|other| smp::node_of(*other) == smp::node_of(number)).count();
    (0..CPUS).flat_map(move |at| smp::all().skip(1).filter(move |number| rank(*number) == at))
}

fn work(number: usize) {
    // SAFETY: set to one of the list before anybody asks.
    let lock = unsafe { (*KIND.load(Ordering::Relaxed)).lock };
    let all = smp::count();
    for _ in 0..ROUNDS {
        if number == 0 {
            lock.lock();
            // SAFETY: see `Protected`.
            unsafe { (*PASSED.0.get()).cpu = NOBODY.cpu };
            COME.store(0, Ordering::Relaxed);
            BARRIER.wait(all);
            for (come, next) in order().enumerate() {
                TURN.store(next, Ordering::Release);
                kit::wait_until("until the next one queues", || COME.load(Ordering::Acquire) == come + 1);
                clock::pause_for(QUEUES_IN);
            }
            lock.unlock();
        } else {
            BARRIER.wait(all);
            kit::wait_until("until it is its turn", || TURN.load(Ordering::Acquire) == number);
            COME.fetch_add(1, Ordering::AcqRel);
            lock.lock();
            // SAFETY: see `Protected`.
            let passed = unsafe { &mut *PASSED.0.get() };
            let node = percpu::mine().node.get();
            if passed.cpu != NOBODY.cpu {
                passed.near += u64::from(passed.node == node);
                passed.far += u64::from(passed.node != node);
            }
            (passed.cpu, passed.node) = (number as u32, node);
            kit::progress();
            clock::pause_for(SECTION);
            lock.unlock();
        }
        BARRIER.wait(all);
        TURN.store(0, Ordering::Relaxed);
        BARRIER.wait(all);
    }
}

/// Of a thousand hand-offs, those that can stay near: all but one from each node to the next.
fn at_most() -> u64 {
    let workers = || smp::all().skip(1);
    let is_first =
        |number: &usize| !workers().take_while(|n| n != number).any(|n| smp::node_of(n) == smp::node_of(*number));
    let (all, nodes) = (workers().count() as u64, workers().filter(is_first).count() as u64);
    (all - nodes) * 1000 / (all - 1)
}

/// Of a thousand hand-offs to another CPU, those that would stay near if it was any CPU.
fn by_chance() -> u64 {
    let node = |number| smp::node_of(number);
    let pairs = || smp::all().skip(1).flat_map(|a| smp::all().skip(1).map(move |b| (a, b))).filter(|(a, b)| a != b);
    let near = pairs().filter(|(a, b)| node(*a) == node(*b)).count();
    near as u64 * 1000 / pairs().count().max(1) as u64
}

pub(crate) fn run(_: &Settings) -> bool {
    let nodes = smp::all().map(smp::node_of).max().unwrap_or(0) + 1;
    if nodes < 2 || smp::count() < 4 {
        println!("guest: locality: takes two nodes and four CPUs");
        return true;
    }
    let before = machine::set_locality(Locality { threshold: 4_000_000_000, one_in: 1 });
    let mut shares = [(0, 0); KINDS.len()];
    for (kind, share) in KINDS.iter().zip(&mut shares) {
        KIND.store(core::ptr::from_ref(kind).cast_mut(), Ordering::Relaxed);
        // SAFETY: nobody works.
        unsafe { PASSED.0.get().write(NOBODY) };
        if !kit::on_all(kind.name, work) {
            kit::give_up();
            return false;
        }
        // SAFETY: nobody works any more.
        let passed = unsafe { PASSED.0.get().read() };
        let all = passed.near + passed.far;
        *share = (passed.near * 1000 / all.max(1), all);
        println!("guest: figure hand-offs-on-the-node {} {} of 1000, of {all}", kind.name, share.0);
    }
    machine::set_locality(before);
    let [(in_order, _), (share, all)] = shares;
    if in_order >= at_most() {
        println!("guest: locality: in the order of arrival it stays as often as it can, with so few CPUs on a node");
        return true;
    }
    let by_chance = by_chance();
    println!("guest: locality: {by_chance} of 1000 by chance on {nodes} nodes");
    let mut expect = Expect::of("locality");
    expect.that(all > 0 && share > in_order.max(by_chance), "near waiters did not come first");
    expect.passed
}
