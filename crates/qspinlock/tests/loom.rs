//! Every execution of two CPUs under C11's memory model, with loom.
//!
//! Exploration is full (no preemption bound), so what passes here holds for two CPUs that take the lock so often. More
//! CPUs are out of loom's reach: it starves a third spinner.
//!
//! Each model counts, over all its executions, which paths the walk took, and fails if one that it names was not taken.

#[path = "support/watchdog.rs"]
mod watchdog;

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU32;
use qspinlock::machine::{Access, Budget, Cell, Event};
use qspinlock::queue::{Cpu, Node, Slot};
use qspinlock::slowpath::{Flavour, Native, SlowPath, walk};
use qspinlock::word::LockWord;
use qspinlock::{Machine, RawSpinLock};
use watchdog::Watchdog;

/// The word's pending bit, restated, so that the cell can watch it.
const PENDING: u32 = 1 << 8;

/// What is wrong with a world, to see that its model notices.
#[derive(Clone, Copy, Default)]
struct Planted {
    /// The access of this name is relaxed.
    weak: Option<&'static str>,
    /// The pending bit is set by a fetch-or, also when somebody queues.
    fetch_or_pending: bool,
}

struct LoomCell {
    value: AtomicU32,
    planted: Planted,
}

impl LoomCell {
    fn new(planted: Planted) -> Self {
        Self { value: AtomicU32::new(0), planted }
    }

    fn order(&self, access: Access) -> Ordering {
        if self.planted.weak == Some(access.name) { Ordering::Relaxed } else { access.order }
    }

    /// Only an owner is there when a waiter takes the pending lane. A cell that is no lock word never sets the bit: its
    /// values are small.
    fn watch(old: u32, new: u32) {
        let pending_set = old & PENDING == 0 && new & PENDING != 0;
        assert!(!pending_set || old == 1, "stray pending bit: {old:#x} -> {new:#x}");
    }
}

// SAFETY: each method is one loom operation, or loom's compare-and-swap in a loop; a planted bug makes a test fail, and
// the data that such a lock fails to protect is a loom cell, which reports the race instead of having it.
unsafe impl Cell for LoomCell {
    fn load(&self, access: Access) -> u32 {
        self.value.load(self.order(access))
    }

    fn store(&self, value: u32, access: Access) {
        self.value.store(value, self.order(access));
    }

    fn cas(&self, old: u32, new: u32, access: Access) -> Result<u32, u32> {
        if self.planted.fetch_or_pending && access.name == "word.pend" {
            let found = self.value.fetch_or(PENDING, self.order(access));
            Self::watch(found, found | PENDING);
            return if found == old { Ok(found) } else { Err(found) };
        }
        let result = self.value.compare_exchange(old, new, self.order(access), Ordering::Relaxed);
        if result.is_ok() {
            Self::watch(old, new);
        }
        result
    }

    fn update(&self, access: Access, f: impl Fn(u32) -> Option<u32>) -> Result<u32, u32> {
        let mut seen = self.value.load(Ordering::Relaxed);
        while let Some(new) = f(seen) {
            match self.value.compare_exchange(seen, new, self.order(access), Ordering::Relaxed) {
                Ok(old) => {
                    Self::watch(old, new);
                    return Ok(old);
                }
                Err(now) => seen = now,
            }
        }
        Err(seen)
    }
}

/// How often each event was counted, over all executions of a model. Outside loom, so it adds no step.
#[derive(Default)]
struct Tally([AtomicU64; 8]);

impl Tally {
    fn of(&self, event: Event) -> u64 {
        self.0[event as usize].load(Ordering::Relaxed)
    }
}

struct World {
    slots: [Slot<LoomCell>; 2],
    tally: Arc<Tally>,
}

impl World {
    fn new(planted: Planted, tally: Arc<Tally>) -> Self {
        let cell = || LoomCell::new(planted);
        let slot = || {
            Slot::from_cells(cell(), cell(), std::array::from_fn(|_| Node::from_cells(cell(), cell(), cell(), cell())))
        };
        Self { slots: [slot(), slot()], tally }
    }
}

struct LoomMachine {
    cpu: Option<Cpu>,
    world: Arc<World>,
}

// SAFETY: each thread of a model has a number of its own; slots live in the world; the awaits return what they loaded.
unsafe impl Machine for LoomMachine {
    type Cell = LoomCell;

    fn here(&self) -> Option<Cpu> {
        self.cpu
    }

    fn slot(&self, cpu: Cpu) -> &Slot<LoomCell> {
        &self.world.slots[cpu.index()]
    }

    fn until(&self, cell: &LoomCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        loop {
            let seen = cell.load(access);
            if done(seen) {
                return seen;
            }
            loom::thread::yield_now();
        }
    }

    fn until_for(&self, cell: &LoomCell, access: Access, _: Budget, done: impl Fn(u32) -> bool) -> Result<u32, u32> {
        // One look: the contract lets a checker give up at any time.
        let seen = cell.load(access);
        if done(seen) { Ok(seen) } else { Err(seen) }
    }

    fn fence(&self, access: Access) {
        loom::sync::atomic::fence(access.order);
    }

    // Nothing interrupts a loom thread.
    fn signal_fence(&self) {}

    fn now(&self) -> u64 {
        0
    }

    fn count(&self, event: Event) {
        self.world.tally.0[event as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// The walk without its pending lane: every waiter queues, so two CPUs suffice to hand off.
struct QueueOnly;

impl Flavour<LoomMachine> for QueueOnly {
    type Error = Infallible;
    type Baton = ();
    const PENDING_LANE: bool = false;
}

// SAFETY: the walk returns when it has claimed the byte, and this flavour changes none of its waits.
unsafe impl SlowPath<LoomMachine> for QueueOnly {
    type Error = Infallible;
    const NAME: &'static str = "queue-only";

    fn acquire(m: &LoomMachine, word: &LockWord<LoomCell>) -> Result<(), Infallible> {
        walk::<_, Self>(m, word)
    }
}

/// What the CPUs of a model do.
#[derive(Clone, Copy)]
struct Plan {
    /// How often each CPU takes the lock.
    rounds: [u32; 2],
    /// The first CPU holds the lock when they start.
    held_first: bool,
}

const RACE: Plan = Plan { rounds: [1, 1], held_first: false };
const WAIT: Plan = Plan { rounds: [1, 1], held_first: true };
const AGAIN: Plan = Plan { rounds: [2, 1], held_first: false };
const TWICE: Plan = Plan { rounds: [2, 2], held_first: false };

struct Shared<S: SlowPath<LoomMachine>> {
    lock: RawSpinLock<LoomMachine, S>,
    /// Plain memory: loom reports every pair of accesses that the lock fails to order.
    sections: UnsafeCell<u32>,
}

// SAFETY: that accesses to `sections` exclude each other is what the models find out.
unsafe impl<S: SlowPath<LoomMachine>> Sync for Shared<S> {}
// SAFETY: as above.
unsafe impl<S: SlowPath<LoomMachine>> Send for Shared<S> {}

impl<S: SlowPath<LoomMachine, Error = Infallible> + 'static> Shared<S> {
    fn section(&self, m: &LoomMachine) {
        let Ok(()) = self.lock.acquire_on(m);
        self.write();
        // SAFETY: acquired above.
        unsafe { self.lock.release_on(m) };
    }

    fn write(&self) {
        // SAFETY: the pointer is live; exclusion is what is tested.
        self.sections.with_mut(|n| unsafe { *n += 1 });
    }
}

/// No bound on preemptions.
const FULL: Option<usize> = None;

/// Explores all executions of a plan with at most so many preemptions each.
fn explore<S: SlowPath<LoomMachine, Error = Infallible> + 'static>(
    plan: Plan,
    preemptions: Option<usize>,
    planted: Planted,
) -> Arc<Tally> {
    let tally = Arc::new(Tally::default());
    let counted = tally.clone();
    let executions = Arc::new(AtomicU64::new(0));
    let counter = executions.clone();
    let start = std::time::Instant::now();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        let world = Arc::new(World::new(planted, counted.clone()));
        let shared = Arc::new(Shared::<S> {
            lock: RawSpinLock::from_cell(LoomCell::new(planted)),
            sections: UnsafeCell::new(0),
        });
        let machine = |cpu| LoomMachine { cpu: Cpu::new(cpu), world: world.clone() };
        let (first, second) = (machine(0), machine(1));
        if plan.held_first {
            assert!(shared.lock.try_acquire_on(&first));
        }
        let other = shared.clone();
        let second = loom::thread::spawn(move || (0..plan.rounds[1]).for_each(|_| other.section(&second)));
        let mut sections = plan.rounds[0] + plan.rounds[1];
        if plan.held_first {
            sections += 1;
            shared.write();
            // SAFETY: acquired above.
            unsafe { shared.lock.release_on(&first) };
        }
        (0..plan.rounds[0]).for_each(|_| shared.section(&first));
        second.join().expect("a section does not panic");
        assert!(!shared.lock.is_taken(), "a trace is left in the word: {:?}", shared.lock);
        // SAFETY: the CPUs are joined.
        assert_eq!(shared.sections.with(|n| unsafe { *n }), sections);
    });
    println!("{} executions of {} in {:?}", executions.load(Ordering::Relaxed), S::NAME, start.elapsed());
    tally
}

fn watchdog(test: &'static str) -> Watchdog {
    Watchdog::arm(test, Duration::from_secs(300))
}

fn assert_reached(tally: &Tally, paths: &[Event]) {
    for &path in paths {
        assert_ne!(tally.of(path), 0, "no execution reached {path:?}");
    }
}

#[test]
fn pending_lane() {
    let _watchdog = watchdog("pending_lane");
    let tally = explore::<Native>(RACE, FULL, Planted::default());
    assert_reached(&tally, &[Event::Pending]);
    assert_eq!(tally.of(Event::Queued), 0, "two CPUs, each once: the second takes the lane");
}

#[test]
fn queue_behind_a_pending_waiter() {
    let _watchdog = watchdog("queue_behind_a_pending_waiter");
    let tally = explore::<Native>(WAIT, FULL, Planted::default());
    assert_reached(&tally, &[Event::Pending, Event::Queued, Event::SoleHead]);
}

#[test]
fn sole_head_is_tail() {
    let _watchdog = watchdog("sole_head_is_tail");
    let tally = explore::<QueueOnly>(RACE, FULL, Planted::default());
    assert_reached(&tally, &[Event::Queued, Event::SoleHead]);
    assert_eq!(tally.of(Event::SoleHead), tally.of(Event::Queued), "nobody is ever behind the head");
}

#[test]
fn queue_and_hand_off() {
    let _watchdog = watchdog("queue_and_hand_off");
    let tally = explore::<QueueOnly>(WAIT, FULL, Planted::default());
    assert_reached(&tally, &[Event::Queued, Event::SoleHead, Event::HandOff, Event::Bypassed]);
}

#[test]
fn nodes_are_used_again() {
    let _watchdog = watchdog("nodes_are_used_again");
    explore::<Native>(AGAIN, FULL, Planted::default());
    explore::<QueueOnly>(AGAIN, FULL, Planted::default());
}

/// Bounded, unlike the rest: at most three preemptions in an execution. All of them take minutes.
#[test]
fn both_nodes_are_used_again() {
    let _watchdog = watchdog("both_nodes_are_used_again");
    explore::<Native>(TWICE, Some(3), Planted::default());
    explore::<QueueOnly>(TWICE, Some(3), Planted::default());
}

/// There is no stray-pending path: the lane is taken by a swap of the whole word, so a CPU that must queue has set
/// nothing. `LoomCell::watch` looks at every step of every model here; this shows that it would see one.
#[test]
fn stray_pending_bit_cannot_be() {
    let _watchdog = watchdog("stray_pending_bit_cannot_be");
    explore::<Native>(WAIT, FULL, Planted::default());
    let planted = Planted { fetch_or_pending: true, ..Planted::default() };
    let complaint = failure::<Native>(RACE, planted).expect("a fetch-or in place of the swap is noticed");
    assert!(complaint.contains("stray pending bit"), "{complaint}");
}

fn failure<S: SlowPath<LoomMachine, Error = Infallible> + 'static>(plan: Plan, planted: Planted) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| explore::<S>(plan, FULL, planted))).err()?;
    Some(panic.downcast_ref::<String>().cloned().unwrap_or_default())
}

/// The models are sharp enough to tell each ordering of the walk from a relaxed one: those that the model checker of
/// `qspinlock-vm` finds to be needed, by an engine that shares nothing with it.
#[test]
fn weaker_orderings_are_noticed() {
    let _watchdog = watchdog("weaker_orderings_are_noticed");
    fn noticed<S: SlowPath<LoomMachine, Error = Infallible> + 'static>(plan: Plan, name: &'static str) {
        let planted = Planted { weak: Some(name), ..Planted::default() };
        assert!(failure::<S>(plan, planted).is_some(), "relaxed, and not noticed: {name}");
    }
    noticed::<Native>(RACE, "word.release");
    noticed::<Native>(RACE, "word.try");
    noticed::<Native>(RACE, "word.claim-pending");
    noticed::<Native>(WAIT, "word.claim-sole");
    noticed::<QueueOnly>(WAIT, "word.claim-head");
    noticed::<QueueOnly>(WAIT, "tail.exchange");
}
