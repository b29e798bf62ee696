//! All CPUs want one lock: is there ever more than one that has it?
//!
//! With tasks alone; with their timer interrupts, which wait for the same lock, and NMIs, which try it; and with a lock
//! for each of the three kinds, so that an NMI waits on top of a timer that waits on top of a task. The first CPU never
//! waits: it tries the lock now and then, and watches. What is counted under a lock is counted by plain reads and
//! writes, so two owners at once lose some.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use qspinlock::slowpath::{Chosen, Native, Numa, Paravirt, Parking, TestAndSet};

use super::Settings;
use super::kit::{self, Expect, HUNG, Irq, Lock, Plain, locks};
use crate::console::println;
use crate::percpu::{self, CPUS};
use crate::{apic, clock, cpu, interrupts, smp};

/// Nanoseconds between two timer interrupts of a CPU.
const TICK: u64 = 2_000_000;

/// And at least between two rounds of NMIs to all.
const QUIET: u64 = 2_000_000;

/// Who wants a lock.
const TASK: usize = 0;
const TIMER: usize = 1;
const NMI: usize = 2;

/// Who wants which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Tasks alone.
    Tasks,
    /// All the same one; an NMI only tries it.
    All,
    /// Each kind its own.
    Each,
}

/// A phase: its name, its locks, by who wants them, and whether somebody must have slept.
struct Phase {
    name: &'static str,
    locks: [&'static dyn Lock; 3],
    who: Who,
    sleeps: bool,
}

impl Phase {
    /// The number of the lock that somebody wants.
    fn lock_of(&self, by: usize) -> usize {
        if self.who == Who::Each { by } else { 0 }
    }
}

macro_rules! phases {
    ($($name:literal $slow_path:ident $sleeps:literal $sleeps_masked:literal,)*) => {
        &[$(
            Phase { name: $name, locks: { let [a] = locks![Plain<$slow_path>]; [a; 3] }, who: Who::Tasks,
                sleeps: $sleeps },
            Phase { name: concat!($name, ", interrupts"), locks: { let [a] = locks![Irq<$slow_path>]; [a; 3] },
                who: Who::All, sleeps: $sleeps_masked },
            Phase { name: concat!($name, ", a lock each"),
                locks: locks![Plain<$slow_path>, Plain<$slow_path>, Plain<$slow_path>],
                who: Who::Each, sleeps: false },
        )*]
    };
}

static PHASES: &[Phase] = phases! {
    "native" Native false false,
    "numa" Numa false false,
    "paravirt" Paravirt true true,
    // Its sleeps end by a timer, which does not come with interrupts off.
    "parking" Parking true false,
    "test-and-set" TestAndSet false false,
    "chosen" Chosen false false,
};

/// What the lock protects: plain numbers, on lines of their own.
#[repr(align(128))]
struct Protected(UnsafeCell<u64>);

// SAFETY: accessed by the owner of the lock; whether there is one at a time is what is tested.
unsafe impl Sync for Protected {}

/// Of each lock.
static COUNTED: [[Protected; 2]; 3] = [const { [const { Protected(UnsafeCell::new(0)) }; 2] }; 3];
static OWNER: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
/// Times that an owner was not alone.
static INTRUDERS: AtomicU64 = AtomicU64::new(0);

/// How often each CPU had it, by what: its task, its timer interrupt, its NMI.
#[repr(align(128))]
struct Taken([AtomicU64; 3]);

static TAKEN: [Taken; CPUS] = [const { Taken([const { AtomicU64::new(0) }; 3]) }; CPUS];

static PHASE: AtomicPtr<Phase> = AtomicPtr::new(core::ptr::null_mut());
static STOP: AtomicBool = AtomicBool::new(false);
static END: AtomicU64 = AtomicU64::new(0);

fn phase() -> &'static Phase {
    // SAFETY: set to one of the list before anybody asks.
    unsafe { &*PHASE.load(Ordering::Relaxed) }
}

/// With the lock, which is released.
fn own(number: usize, by: usize) {
    let which = phase().lock_of(by);
    let name = (number * 4 + by + 1) as u32;
    OWNER[which].store(name, Ordering::Relaxed);
    for Protected(count) in &COUNTED[which] {
        // SAFETY: see `Protected`.
        unsafe { count.get().write_volatile(count.get().read_volatile() + 1) };
    }
    for _ in 0..20 {
        cpu::relax();
    }
    if OWNER[which].load(Ordering::Relaxed) != name {
        INTRUDERS.fetch_add(1, Ordering::Relaxed);
    }
    // Its own alone: before the unlock, so that nobody counts what is not counted yet.
    let taken = &TAKEN[number].0[by];
    taken.store(taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    phase().locks[by].unlock();
}

fn total(by: usize) -> u64 {
    TAKEN.iter().map(|taken| taken.0[by].load(Ordering::Relaxed)).sum()
}

fn progress() -> u64 {
    total(TASK) + total(TIMER) + total(NMI)
}

fn on_timer() {
    // A timer may also be the end of somebody's nap: a lock that is no handler's is none of its business.
    if phase().who != Who::Tasks && !STOP.load(Ordering::Relaxed) {
        phase().locks[TIMER].lock();
        own(kit::here(), TIMER);
    }
}

fn on_nmi() {
    if STOP.load(Ordering::Relaxed) {
        return;
    }
    if phase().who == Who::Each {
        // Only NMIs want it, so it is never this CPU's own.
        phase().locks[NMI].lock();
        own(kit::here(), NMI);
    } else if phase().locks[NMI].try_lock() {
        own(kit::here(), NMI);
    }
}

/// One CPU's part.
fn work(number: usize) {
    if number == 0 && smp::count() > 1 {
        return watch();
    }
    let phase = phase();
    let this = percpu::mine();
    if phase.who != Who::Tasks && number > 0 {
        this.tick.set(TICK);
        apic::timer_in(TICK);
    }
    while !STOP.load(Ordering::Relaxed) && (number > 0 || clock::now() < END.load(Ordering::Relaxed)) {
        phase.locks[TASK].lock();
        own(number, TASK);
        for _ in 0..this_many(number) {
            cpu::relax();
        }
    }
    this.tick.set(0);
    apic::timer_off();
    if !cpu::interrupts_are_on() || this.masks.get() != 0 {
        println!("guest: CPU {number}: interrupts did not come back");
        INTRUDERS.fetch_add(1, Ordering::Relaxed);
    }
}

/// Think times differ, or CPUs would march in step.
fn this_many(number: usize) -> usize {
    number % 3 * 10
}

/// Whether each kind that wants a lock has had it; NMIs that only try may always come too late.
fn all_have_had_it() -> bool {
    let wanted: &[usize] = match phase().who {
        Who::Tasks => &[TASK],
        Who::All => &[TASK, TIMER],
        Who::Each => &[TASK, TIMER, NMI],
    };
    wanted.iter().all(|by| total(*by) > 0)
}

/// The first CPU's part.
fn watch() {
    let mut target = 0;
    let (mut sent, mut next) = (0, 0);
    let end = END.load(Ordering::Relaxed);
    // On a busy host somebody may not have had a turn by then.
    while clock::now() < end || (!all_have_had_it() && clock::now() < end + HUNG) {
        if phase().locks[TASK].try_lock() {
            own(0, TASK);
        }
        match phase().who {
            Who::Tasks => {}
            Who::All => {
                target = target % (smp::count() - 1) + 1;
                kit::nmi(target);
            }
            // All at once, so that they contend; and when those before are done, or nothing else would ever run.
            Who::Each if total(NMI) == sent && clock::now() > next => {
                smp::all().skip(1).for_each(kit::nmi);
                sent += smp::count() as u64 - 1;
                next = clock::now() + QUIET;
            }
            Who::Each => {}
        }
        clock::pause_for(50_000);
        kit::show_progress(progress());
    }
    STOP.store(true, Ordering::Relaxed);
}

pub(crate) fn run(settings: &Settings) -> bool {
    interrupts::ON_TIMER.set(Some(on_timer));
    interrupts::ON_NMI.set(Some(on_nmi));
    let passed = PHASES.iter().all(|phase| run_phase(phase, settings));
    interrupts::ON_TIMER.set(None);
    interrupts::ON_NMI.set(None);
    passed
}

fn sum(of: fn(percpu::Others) -> &'static AtomicU64) -> u64 {
    smp::all().map(|number| of(percpu::of(number)).load(Ordering::Relaxed)).sum()
}

fn run_phase(phase: &'static Phase, settings: &Settings) -> bool {
    TAKEN.iter().flat_map(|taken| &taken.0).for_each(|taken| taken.store(0, Ordering::Relaxed));
    for Protected(count) in COUNTED.as_flattened() {
        // SAFETY: nobody works yet.
        unsafe { count.get().write(0) };
    }
    INTRUDERS.store(0, Ordering::Relaxed);
    STOP.store(false, Ordering::Relaxed);
    let events = || (sum(percpu::Others::halts), sum(percpu::Others::kicks), sum(percpu::Others::without_node));
    let before = events();
    END.store(clock::now() + settings.phase, Ordering::Relaxed);
    PHASE.store(core::ptr::from_ref(phase).cast_mut(), Ordering::Relaxed);

    let mut last = (progress(), clock::now());
    let finished = smp::on_all(work, || {
        let (now, progress) = (clock::now(), progress());
        if progress != last.0 {
            last = (progress, now);
        }
        kit::show_progress(progress);
        now - last.1 < HUNG
    });
    if !finished {
        println!("guest: {}: hung: nobody has had the lock for {} s", phase.name, HUNG / 1_000_000_000);
        interrupts::report();
        kit::give_up();
        return false;
    }
    let after = events();
    let [halts, kicks, without] = [after.0 - before.0, after.1 - before.1, after.2 - before.2];
    println!(
        "guest: {}: {} by tasks, {} by timers, {} by NMIs; {halts} halts, {kicks} kicks, {without} without a node",
        phase.name,
        total(TASK),
        total(TIMER),
        total(NMI),
    );
    let mut expect = Expect::of(phase.name);
    expect.that(INTRUDERS.load(Ordering::Relaxed) == 0, "an owner was not alone");
    for (which, counts) in COUNTED.iter().enumerate() {
        let owners = (TASK..=NMI).filter(|by| phase.lock_of(*by) == which).map(total).sum::<u64>();
        for Protected(count) in counts {
            // SAFETY: nobody works any more.
            let counted = unsafe { count.get().read() };
            expect.that(counted == owners, "the numbers under a lock are not those of its owners");
        }
    }
    let alone = smp::count() == 1;
    expect.that(total(TASK) > 0 && (alone || all_have_had_it()), "some who want the lock never had it");
    // With fewer the next one mostly comes to its turn while it still spins.
    let are_many = smp::count() >= 4;
    expect.that(!are_many || !phase.sleeps || halts > 0, "nobody slept");
    expect.passed
}
