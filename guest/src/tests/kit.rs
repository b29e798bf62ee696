//! What several tests need: locks of all kinds, CPUs that wait for each other, and an end for what hangs.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use qspinlock::RawSpinLock;
use qspinlock::lock_api::{GuardNoSend, RawMutex};

use crate::console::println;
use crate::percpu::{self, CPUS};
use crate::{apic, clock, cpu, interrupts, smp};

/// Without a change for so long a lock is hung, and not slow. Nanoseconds.
pub(crate) const HUNG: u64 = 20_000_000_000;

/// A lock of some kind, for who does not care of which.
pub(crate) trait Lock: Sync {
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

/// A lock that tasks take.
pub(crate) type Plain<S> = RawSpinLock<crate::machine::Kernel, S>;
/// One that interrupts take as well.
pub(crate) type Irq<S> = crate::irq::RawIrq<Plain<S>>;

/// `&[&dyn Lock]`, of one kind each.
macro_rules! locks {
    ($($kind:ty),* $(,)?) => {
        [$({
            static LOCK: $kind = <$kind as qspinlock::lock_api::RawMutex>::INIT;
            &LOCK as &'static dyn $crate::tests::kit::Lock
        }),*]
    };
}
pub(crate) use locks;

/// One number for each CPU, on a line of its own. Its own CPU writes it.
#[repr(align(128))]
struct Line(AtomicU64);

/// Numbers, one for each CPU.
pub(crate) struct Numbers([Line; CPUS]);

impl Numbers {
    pub(crate) const fn new() -> Self {
        Self([const { Line(AtomicU64::new(0)) }; CPUS])
    }

    pub(crate) fn get(&self, number: usize) -> u64 {
        self.0[number].0.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, number: usize, value: u64) {
        self.0[number].0.store(value, Ordering::Release);
    }

    /// By the CPU with that number, and no handler of it.
    pub(crate) fn add(&self, number: usize, more: u64) {
        self.set(number, self.get(number) + more);
    }

    pub(crate) fn sum(&self) -> u64 {
        (0..CPUS).map(|number| self.get(number)).sum()
    }

    pub(crate) fn clear(&self) {
        (0..CPUS).for_each(|number| self.set(number, 0));
    }
}

/// What has been done so far, by any: while it changes nothing hangs.
static PROGRESS: AtomicU64 = AtomicU64::new(0);
/// When the next line of progress is due, nanoseconds.
static NEXT_LINE: AtomicU64 = AtomicU64::new(0);
/// Somebody has given up; nobody waits any more.
static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// Something has been done.
pub(crate) fn progress() {
    PROGRESS.fetch_add(1, Ordering::Relaxed);
}

/// Tells the host that the kernel is alive, once in a second.
pub(crate) fn show_progress(progress: u64) {
    let now = clock::now();
    let next = NEXT_LINE.load(Ordering::Relaxed);
    if now >= next
        && NEXT_LINE.compare_exchange(next, now + 1_000_000_000, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    {
        println!("guest: progress {progress}");
    }
}

/// Waits until something is so; says that it waits, and gives up when nothing has been done for too long. False then.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> bool {
    let mut last = (PROGRESS.load(Ordering::Relaxed), clock::now());
    while !is_so() {
        if GIVEN_UP.load(Ordering::Relaxed) {
            return false;
        }
        let (progress, now) = (PROGRESS.load(Ordering::Relaxed), clock::now());
        if progress != last.0 {
            last = (progress, now);
        }
        if now - last.1 > HUNG {
            if !GIVEN_UP.swap(true, Ordering::Relaxed) {
                println!("guest: CPU {} waits in vain: {what}", percpu::mine().number.get());
            }
            return false;
        }
        show_progress(progress);
        cpu::relax();
    }
    true
}

/// Has all CPUs run a function. False if that does not end, or if [`wait_until`] has given up; where the others are is
/// shown then, and nothing else can be run afterwards.
pub(crate) fn on_all(name: &str, what: fn(usize)) -> bool {
    let mut last = (PROGRESS.load(Ordering::Relaxed), clock::now());
    let finished = smp::on_all(what, || {
        let (progress, now) = (PROGRESS.load(Ordering::Relaxed), clock::now());
        if progress != last.0 {
            last = (progress, now);
        }
        show_progress(progress);
        now - last.1 < HUNG
    });
    if !finished {
        println!("guest: {name}: hung: nothing has been done for {} s", HUNG / 1_000_000_000);
        interrupts::report();
    }
    finished && !GIVEN_UP.load(Ordering::Relaxed)
}

/// Whether a test has hung: others would hang as well.
pub(crate) fn is_given_up() -> bool {
    GIVEN_UP.load(Ordering::Relaxed)
}

/// Nothing else can be run.
pub(crate) fn give_up() {
    GIVEN_UP.store(true, Ordering::Relaxed);
}

/// CPUs that wait until all have come.
pub(crate) struct Barrier {
    come: AtomicU32,
}

impl Barrier {
    pub(crate) const fn new() -> Self {
        Self { come: AtomicU32::new(0) }
    }

    /// False if they do not.
    pub(crate) fn wait(&self, of: usize) -> bool {
        let of = of as u32;
        let round = self.come.fetch_add(1, Ordering::AcqRel) / of;
        progress();
        wait_until("for the others", || self.come.load(Ordering::Acquire) / of != round)
    }
}

/// Sends this CPU an interrupt.
pub(crate) fn call(number: usize) {
    apic::send(percpu::of(number).apic_id().load(Ordering::Relaxed), crate::tables::vector::CALL);
}

/// Sends a CPU an NMI.
pub(crate) fn nmi(number: usize) {
    apic::send_nmi(percpu::of(number).apic_id().load(Ordering::Relaxed));
}

/// Number of the CPU that asks.
pub(crate) fn here() -> usize {
    percpu::mine().number.get() as usize
}

/// Things that a test expects, and says if they are not so.
pub(crate) struct Expect<'a> {
    name: &'a str,
    pub(crate) passed: bool,
}

impl<'a> Expect<'a> {
    pub(crate) fn of(name: &'a str) -> Self {
        Self { name, passed: true }
    }

    pub(crate) fn that(&mut self, ok: bool, otherwise: &str) {
        if !ok {
            println!("guest: {}: {otherwise}", self.name);
            self.passed = false;
        }
    }
}
