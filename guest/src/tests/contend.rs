//! All CPUs want one lock: is there ever more than one that has it?
//!
//! With tasks alone; and with their timer interrupts, which wait for the same lock, and NMIs, which try it. The first
//! CPU never waits: it tries the lock now and then, and watches. What is counted under the lock is counted by plain
//! reads and writes, so two owners at once lose some.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use qspinlock::RawSpinLock;
use qspinlock::lock_api::{GuardNoSend, RawMutex};
use qspinlock::slowpath::{Chosen, Native, Numa, Paravirt, Parking, TestAndSet};

use super::Settings;
use crate::console::println;
use crate::irq::RawIrq;
use crate::machine::Kernel;
use crate::percpu::{self, CPUS};
use crate::{apic, clock, cpu, interrupts, smp};

/// Without a change for so long a lock is hung, and not slow. Nanoseconds.
const HUNG: u64 = 20_000_000_000;
/// Nanoseconds between two timer interrupts of a CPU.
const TICK: u64 = 2_000_000;

/// A lock of some kind, for who does not care of which.
trait Lock: Sync {
    fn lock(&self);
    fn try_lock(&self) -> bool;
    fn unlock(&self);
}

impl<R: RawMutex<Guard = GuardNoSend> + Sync> Lock for R {
    fn lock(&self) {
        let _held = RawMutex::lock(self);
    }

    fn try_lock(&self) -> bool {
        RawMutex::try_lock(self).is_some()
    }

    fn unlock(&self) {
        // SAFETY: called by its owner alone.
        unsafe { RawMutex::unlock(self, GuardNoSend::new()) };
    }
}

/// A phase: its name, its lock, whether interrupts take it too, and whether somebody must have slept.
struct Phase {
    name: &'static str,
    lock: &'static dyn Lock,
    interrupts: bool,
    sleeps: bool,
}

macro_rules! phases {
    ($($name:literal $slow_path:ident $sleeps:literal $sleeps_masked:literal,)*) => {
        &[$(
            Phase { name: $name, lock: { static L: RawSpinLock<Kernel, $slow_path> = RawSpinLock::new(); &L },
                interrupts: false, sleeps: $sleeps },
            Phase { name: concat!($name, ", interrupts"), lock: {
                static L: RawIrq<RawSpinLock<Kernel, $slow_path>> = RawIrq::<RawSpinLock<Kernel, $slow_path>>::INIT; &L
            }, interrupts: true, sleeps: $sleeps_masked },
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

static COUNTED: [Protected; 2] = [const { Protected(UnsafeCell::new(0)) }; 2];
static OWNER: AtomicU32 = AtomicU32::new(0);
/// Times that an owner was not alone.
static INTRUDERS: AtomicU64 = AtomicU64::new(0);

/// How often each CPU had it, by what: its task, its timer interrupt, its NMI.
#[repr(align(128))]
struct Taken([AtomicU64; 3]);

const TASK: usize = 0;
const TIMER: usize = 1;
const NMI: usize = 2;
static TAKEN: [Taken; CPUS] = [const { Taken([const { AtomicU64::new(0) }; 3]) }; CPUS];

static PHASE: AtomicPtr<Phase> = AtomicPtr::new(core::ptr::null_mut());
static STOP: AtomicBool = AtomicBool::new(false);
static END: AtomicU64 = AtomicU64::new(0);

fn phase() -> &'static Phase {
    // SAFETY: set to one of the list before anybody asks.
    unsafe { &*PHASE.load(Ordering::Relaxed) }
}

/// With the lock, which is released.
fn own(lock: &dyn Lock, number: usize, by: usize) {
    let name = (number * 4 + by + 1) as u32;
    OWNER.store(name, Ordering::Relaxed);
    for Protected(count) in &COUNTED {
        // SAFETY: see `Protected`.
        unsafe { count.get().write_volatile(count.get().read_volatile() + 1) };
    }
    for _ in 0..20 {
        core::hint::spin_loop();
    }
    if OWNER.load(Ordering::Relaxed) != name {
        INTRUDERS.fetch_add(1, Ordering::Relaxed);
    }
    // Its own alone: before the unlock, so that nobody counts what is not counted yet.
    let taken = &TAKEN[number].0[by];
    taken.store(taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    lock.unlock();
}

fn total(by: usize) -> u64 {
    TAKEN.iter().map(|taken| taken.0[by].load(Ordering::Relaxed)).sum()
}

fn progress() -> u64 {
    total(TASK) + total(TIMER) + total(NMI)
}

fn on_timer() {
    let number = percpu::mine().number.get() as usize;
    // A timer may also be the end of somebody's nap: a lock that is no handler's is none of its business.
    if phase().interrupts && !STOP.load(Ordering::Relaxed) {
        phase().lock.lock();
        own(phase().lock, number, TIMER);
    }
}

fn on_nmi() {
    let number = percpu::mine().number.get() as usize;
    if !STOP.load(Ordering::Relaxed) && phase().lock.try_lock() {
        own(phase().lock, number, NMI);
    }
}

/// One CPU's part.
fn work(number: usize) {
    if number == 0 && smp::count() > 1 {
        return watch();
    }
    let phase = phase();
    let this = percpu::mine();
    if phase.interrupts && number > 0 {
        this.tick.set(TICK);
        apic::timer_in(TICK);
    }
    while !STOP.load(Ordering::Relaxed) && (number > 0 || clock::now() < END.load(Ordering::Relaxed)) {
        phase.lock.lock();
        own(phase.lock, number, TASK);
        for _ in 0..this_many(number) {
            core::hint::spin_loop();
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

/// The first CPU's part.
fn watch() {
    let mut next_line = clock::now() + 1_000_000_000;
    let mut target = 0;
    while clock::now() < END.load(Ordering::Relaxed) {
        if phase().lock.try_lock() {
            own(phase().lock, 0, TASK);
        }
        if phase().interrupts {
            target = target % (smp::count() - 1) + 1;
            apic::send_nmi(percpu::of(target).apic_id().load(Ordering::Relaxed));
        }
        clock::pause_for(50_000);
        if clock::now() > next_line {
            println!("guest: progress {}", progress());
            next_line += 1_000_000_000;
        }
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
    for Protected(count) in &COUNTED {
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
    let mut next_line = 0;
    let finished = smp::on_all(work, || {
        let (now, progress) = (clock::now(), progress());
        if progress != last.0 {
            last = (progress, now);
        }
        if now > next_line {
            println!("guest: progress {progress}");
            next_line = now + 1_000_000_000;
        }
        now - last.1 < HUNG
    });
    if !finished {
        println!("guest: {}: hung: nobody has had the lock for {} s", phase.name, HUNG / 1_000_000_000);
        interrupts::report();
        return false;
    }
    let counted = COUNTED.each_ref().map(|Protected(count)| {
        // SAFETY: nobody works any more.
        unsafe { count.get().read() }
    });
    let intruders = INTRUDERS.load(Ordering::Relaxed);
    let after = events();
    let [halts, kicks, without] = [after.0 - before.0, after.1 - before.1, after.2 - before.2];
    println!(
        "guest: {}: {} by tasks, {} by timers, {} by NMIs; {halts} halts, {kicks} kicks, {without} without a node",
        phase.name,
        total(TASK),
        total(TIMER),
        total(NMI),
    );
    let mut passed = true;
    let mut expect = |ok: bool, what: &str| {
        if !ok {
            println!("guest: {}: {what}", phase.name);
            passed = false;
        }
    };
    expect(intruders == 0, "an owner was not alone");
    expect(counted == [progress(); 2], "the numbers under the lock are not those of its owners");
    expect(total(TASK) > 0, "nobody had the lock");
    let alone = smp::count() == 1;
    expect(alone || !phase.interrupts || total(TIMER) > 0, "no timer had the lock");
    expect(alone || !phase.sleeps || halts > 0, "nobody slept");
    passed
}
