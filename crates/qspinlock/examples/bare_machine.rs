//! A mutex for a kernel: what its author writes, without `std`, an allocator or an operating system.
//!
//! Build it with
//! `cargo build -p qspinlock --example bare_machine --no-default-features --features lock_api`.
//!
//! # Interrupts
//! A lock that interrupt handlers take as well must be taken with interrupts off, *before* waiting and not only while
//! it is held: a handler that waits behind the very context it interrupted waits for ever. Locks that no handler takes
//! may be waited for with interrupts on; each nested context, up to four, waits on a node of its own.
//!
//! A context must stay on its CPU while it waits, so preemption is off in [`Mutex::lock`](lock_api::Mutex::lock) at the
//! latest. Here that is the caller's business; a kernel would wrap the guard, or the machine's [`here`](Machine::here).

#![no_std]

use qspinlock::atomic::{AtomicCell, full_fence, signal_fence, spin_until, spin_until_for, spin_until_mine};
use qspinlock::lock_api;
use qspinlock::machine::{Access, Budget};
use qspinlock::queue::{Cpu, Slot};
use qspinlock::{GlobalMachine, Machine, RawSpinLock};

/// CPUs that this kernel supports. 128 bytes of nodes for each.
pub const CPUS: usize = 64;

unsafe extern "Rust" {
    /// The number of the CPU that runs this, below [`CPUS`]: a read of a per-CPU register. The kernel defines it.
    safe fn kernel_cpu_number() -> u32;

    /// Nanoseconds since the start. The kernel defines it.
    safe fn kernel_nanoseconds() -> u64;
}

static SLOTS: [Slot<AtomicCell>; CPUS] = [const { Slot::new() }; CPUS];

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
}

impl GlobalMachine for BareMachine {
    const MACHINE: Self = Self;
}

/// The kernel's mutex: 4 bytes beside the data, served in the order of arrival.
pub type Mutex<T> = lock_api::Mutex<RawSpinLock<BareMachine>, T>;

/// Unlocks a [`Mutex`] when dropped.
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawSpinLock<BareMachine>, T>;

static FRAMES: Mutex<u32> = Mutex::new(0);

/// What the rest of the kernel sees of it: a counter that any CPU may add to.
pub fn count_frame() -> u32 {
    let mut frames = FRAMES.lock();
    *frames += 1;
    *frames
}
