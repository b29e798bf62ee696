//! Locks for a kernel: what its author writes, without `std`, an allocator or an operating system. The page
//! [`qspinlock::kernel`] goes through it.
//!
//! Build it with
//! `cargo build -p qspinlock --example kernel --no-default-features --features lock_api`.

#![no_std]

use core::ops::{Deref, DerefMut};

use qspinlock::atomic::reports::AtomicPlace;
use qspinlock::atomic::{
    AtomicCell, AtomicName, AtomicRecord, full_fence, signal_fence, spin_until, spin_until_for, spin_until_mine,
};
use qspinlock::irq::{Count, Interrupts, Masked};
use qspinlock::lock_api;
use qspinlock::machine::{Access, Budget, Cell};
use qspinlock::patch::{self, Edits, TextWriter};
use qspinlock::queue::{Cpu, Slot};
use qspinlock::resilient::{self, Recorder};
use qspinlock::select::{Beneath, Choice, Facts, Setting, WishError, choose};
use qspinlock::slowpath::{Chosen, Native, Patience};
use qspinlock::start::{self, AdoptError};
use qspinlock::{GlobalMachine, LockError, Machine, RawSpinLock};

/// CPUs that this kernel supports. 128 bytes of nodes for each, and 640 for what it holds of resilient locks.
pub const CPUS: usize = 64;

// What the kernel defines.
unsafe extern "Rust" {
    /// The number of the CPU that runs this, below [`CPUS`]: a read of a per-CPU register.
    safe fn kernel_cpu_number() -> u32;

    /// CPUs that may ever be there, and memory nodes that have any of them, from the firmware's tables.
    safe fn kernel_topology() -> (u32, u32);

    /// What the user wrote behind `qspinlock=` on the command line.
    safe fn kernel_wish() -> &'static str;

    /// Nanoseconds since the start.
    safe fn kernel_nanoseconds() -> u64;

    /// Halts this CPU until an interrupt, or a kick by [`kernel_kick`], has come since `is_asleep` was asked; or until
    /// [`kernel_nanoseconds`] has reached `until`. `is_asleep` is asked once, with interrupts off, and there is no halt if
    /// it says no, nor in an NMI, nor if nothing could end it. Interrupts are as before when it returns.
    safe fn kernel_halt(is_asleep: &dyn Fn() -> bool, until: Option<u64>);

    /// Wakes a CPU that is in [`kernel_halt`], or about to be.
    safe fn kernel_kick(cpu: u32);

    /// Keeps this CPU from switching to another task. Nests.
    safe fn kernel_preemption_off();

    /// Undoes that. If it was the last, and another task is due, switches to it; but not with interrupts off.
    safe fn kernel_preemption_on();

    /// Turns interrupts off. Whether they were on.
    safe fn kernel_interrupts_off() -> bool;

    /// Turns interrupts on.
    fn kernel_interrupts_on();

    /// How many on this CPU want them to be off: among its own data.
    safe fn kernel_interrupts_count() -> &'static Count;

    /// Writes code, by a mapping of its own: the kernel's text stays read-only.
    fn kernel_write_text(address: usize, code: &[u8]);
}

static SLOTS: [Slot<AtomicCell>; CPUS] = [const { Slot::new() }; CPUS];
static RECORDS: [AtomicRecord; CPUS] = [const { AtomicRecord::EMPTY }; CPUS];

/// The CPUs of this computer.
#[derive(Clone, Copy, Debug)]
pub struct BareMachine;

// SAFETY: no two CPUs have the same number; a context keeps its CPU, since preemption is off; interrupts run to their
// end on top of what they interrupted; each CPU has one slot, in a static; the awaits return what they loaded.
unsafe impl Machine for BareMachine {
    type Cell = AtomicCell;

    #[inline]
    fn here(&self) -> Option<Cpu> {
        // A CPU beyond the table has no slot and waits without a node, unfairly: better than a panic in a lock.
        Cpu::new(kernel_cpu_number()).filter(|cpu| cpu.index() < CPUS)
    }

    #[inline]
    fn slot(&self, cpu: Cpu) -> &Slot<AtomicCell> {
        &SLOTS[cpu.index()]
    }

    #[inline]
    fn until(&self, cell: &AtomicCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        spin_until(cell, access, done)
    }

    #[inline]
    fn until_mine(&self, cell: &AtomicCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        spin_until_mine(cell, access, done)
    }

    fn until_for(
        &self,
        cell: &AtomicCell,
        access: Access,
        budget: Budget,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, u32> {
        spin_until_for(cell, access, budget, || self.now(), done)
    }

    #[inline]
    fn fence(&self, access: Access) {
        full_fence(access);
    }

    #[inline]
    fn signal_fence(&self) {
        signal_fence();
    }

    #[inline]
    fn now(&self) -> u64 {
        kernel_nanoseconds()
    }

    fn wait(&self, cell: &AtomicCell, value: u32, access: Access, until: Option<u64>) {
        kernel_halt(&|| cell.load(access) == value, until);
    }

    fn kick(&self, cpu: Cpu) {
        kernel_kick(cpu.index() as u32);
    }

    fn patience(&self) -> Patience {
        Patience::VIRTUAL
    }
}

impl GlobalMachine for BareMachine {
    const MACHINE: Self = Self;
}

// SAFETY: each CPU has one record, in a static, and its number for ever; locks are named by their addresses, which are
// distinct and divisible by 4.
unsafe impl Recorder for BareMachine {
    type Name = AtomicName;
    type Place = AtomicPlace;

    #[inline]
    fn record(&self, cpu: Cpu) -> &AtomicRecord {
        &RECORDS[cpu.index()]
    }

    fn recorded(&self) -> u32 {
        // Who looks for a deadlock looks at each of these.
        kernel_topology().0.min(CPUS as u32)
    }
}

/// The kernel's mutex: 4 bytes beside the data. How it waits is chosen by [`start_locks`].
pub type Mutex<T> = lock_api::Mutex<RawSpinLock<BareMachine, Chosen>, T>;

/// Unlocks a [`Mutex`] when dropped.
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawSpinLock<BareMachine, Chosen>, T>;

/// A mutex that is served in the order of arrival on every machine.
pub type FairMutex<T> = lock_api::Mutex<RawSpinLock<BareMachine, Native>, T>;

/// A mutex that returns an error where it would hang: for extensions, and for what NMI handlers take.
pub type ResilientMutex<T> = resilient::Mutex<BareMachine, Chosen, T>;

/// The same, for who must not sleep: it spins, whatever was chosen for the others.
pub type AwakeMutex<T> = resilient::Mutex<BareMachine, Native, T>;

/// A resilient mutex for what interrupt handlers take as well.
#[derive(Debug)]
pub struct IrqMutex<T>(ResilientMutex<T>);

impl<T> IrqMutex<T> {
    /// An unlocked mutex.
    pub const fn new(data: T) -> Self {
        Self(ResilientMutex::new(data))
    }

    /// Waits for the lock and takes it, with interrupts off from before that until the guard is dropped.
    ///
    /// # Errors
    /// As for [`resilient::Mutex::lock`]. Interrupts and preemption are as they were, then.
    #[track_caller]
    pub fn lock(&self) -> Result<IrqGuard<'_, T>, LockError> {
        // In this order: preemption is off first, and on last.
        let (preemption, masked) = (NoPreemption::new(), Masked::new());
        Ok(IrqGuard { guard: self.0.lock()?, _masked: masked, _preemption: preemption })
    }
}

/// Unlocks an [`IrqMutex`] when dropped.
#[must_use = "the lock is held only as long as the guard lives"]
pub struct IrqGuard<'a, T> {
    // Dropped in this order, after a failed lock too. With the last two the other way round a task that has become due
    // would be passed over: with interrupts off nothing is switched to, and nobody asks again when they come back.
    guard: resilient::MutexGuard<'a, BareMachine, Chosen, T>,
    _masked: Masked<BareMachine>,
    _preemption: NoPreemption,
}

impl<T> Deref for IrqGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for IrqGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

// SAFETY: the kernel's functions do as they say, and each CPU has a count of its own.
unsafe impl Interrupts for BareMachine {
    #[inline]
    fn off() -> bool {
        kernel_interrupts_off()
    }

    #[inline]
    unsafe fn on() {
        // SAFETY: the caller's.
        unsafe { kernel_interrupts_on() };
    }

    #[inline]
    fn count() -> &'static Count {
        kernel_interrupts_count()
    }
}

/// This CPU keeps its task.
struct NoPreemption;

impl NoPreemption {
    fn new() -> Self {
        kernel_preemption_off();
        Self
    }
}

impl Drop for NoPreemption {
    fn drop(&mut self) {
        kernel_preemption_on();
    }
}

/// How the locks of this kernel were started, to be logged.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// How locks wait, and why.
    pub choice: Choice,
    /// What made no sense on the command line; the choice was made without it.
    pub ignored: Option<WishError>,
    /// Whether call sites follow the choice.
    pub code: patch::Status,
}

/// Chooses how locks wait on this machine. On the first CPU, before the second one starts.
///
/// # Errors
/// If it has been done, or if a lock has been waited for. Locks work all the same.
pub fn start_locks() -> Result<Started, AdoptError> {
    let (cpus, domains) = kernel_topology();
    let mut facts = Facts::new(Setting::Kernel, cpus);
    facts.domains = domains;
    // A slip of the pen must not cost the fitting lock.
    let ignored = kernel_wish().parse().map(|wishes| facts.wishes = wishes).err();
    Beneath::this_machine().note(&mut facts);
    let choice = choose(&facts);
    start::adopt(choice)?;
    let Ok(()) = patch::follow_with(&mut Text);
    Ok(Started { choice, ignored, code: patch::status() })
}

struct Text;

// SAFETY: one CPU runs, with interrupts off, and has been nowhere near these places.
unsafe impl TextWriter for Text {
    type Error = core::convert::Infallible;

    fn write(&mut self, edits: &Edits) -> Result<(), Self::Error> {
        for edit in edits.iter() {
            // SAFETY: the library says that this is code to be changed.
            unsafe { kernel_write_text(edit.address, &edit.code) };
        }
        Ok(())
    }
}

static FRAMES: Mutex<u32> = Mutex::new(0);

/// What the rest of the kernel sees of it: a counter that any CPU may add to.
pub fn count_frame() -> u32 {
    let mut frames = FRAMES.lock();
    *frames += 1;
    *frames
}
