//! The CPUs, as the locks see them.
//!
//! # Sleep, and why no kick is missed
//! A kick is an interrupt of its own, which does nothing but come; [`wait`](Kernel::wait) is a look at the cell and a
//! halt.
//!
//! ```text
//!   waiter   interrupts off ---> cell still as it was? ---> `sti; hlt` ---> (handler) ---> goes on
//!   kicker                            changes the cell ---> interrupt to the waiter
//! ```
//!
//! * *The cell has changed before the look*: the look sees it, and there is no halt. The kick comes later, for nothing.
//! * *It changes after the look*: the interrupt is sent after that. Interrupts are off from before the look, so it
//!   stays pending until `sti`; and the instruction after `sti` is still protected, so it is taken in the `hlt`, and
//!   ends it. With a handler that could run between look and halt it would be used up there.
//! * *In an interrupt handler, or wherever else interrupts are off*, they must stay off, for all but the kick: so the
//!   CPU's priority is raised until only the class of kicks is above it, for the two instructions. The kick's handler
//!   takes no lock, and has a stack of its own. Some hypervisors wake a CPU that has halted with interrupts off; no
//!   real CPU does.
//! * *An NMI between `sti` and `hlt`* ends the protection of `sti` when it returns. So its handler, if it finds the CPU
//!   there, has it go on behind the `hlt` ([`cpu::halt_address`]): the waiter looks again.
//! * *In an NMI* no interrupt comes: it returns at once, and the waiter spins. A handler that waits on top of an
//!   interrupted wait, and uses up its kick, is no trouble: it was an interrupt, so it has ended that halt; who was
//!   interrupted between look and halt cannot have been, but by an NMI, which takes no kick.
//! * *A wait with an end* arms this CPU's timer. With interrupts off no timer comes, so it does not sleep.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use qspinlock::atomic::reports::AtomicPlace;
use qspinlock::atomic::{
    AtomicCell, AtomicName, AtomicRecord, full_fence, signal_fence, spin_until, spin_until_for, spin_until_mine,
    spin_until_mine_for,
};
use qspinlock::machine::{Access, Budget, Cell, Event};
use qspinlock::queue::{Cpu, Slot};
use qspinlock::resilient::Recorder;
use qspinlock::select::{Beneath, cpuid};
use qspinlock::slowpath::{Locality, Patience};
use qspinlock::{GlobalMachine, Machine};

use crate::percpu::{self, CPUS};
use crate::tables::vector;
use crate::{apic, clock, cpu};

static SLOTS: [Slot<AtomicCell>; CPUS] = [const { Slot::new() }; CPUS];

/// The CPUs of this computer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel;

// SAFETY: no two CPUs have the same number; nothing moves from one to another; interrupts run to their end on top of
// what they interrupted; each CPU has one slot, in a static; the awaits return what they loaded.
unsafe impl Machine for Kernel {
    type Cell = AtomicCell;

    #[inline]
    fn here(&self) -> Option<Cpu> {
        Cpu::new(percpu::mine().number.get()).filter(|cpu| cpu.index() < CPUS)
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
        spin_until_for(cell, access, budget, clock::now, done)
    }

    fn until_mine_for(
        &self,
        cell: &AtomicCell,
        access: Access,
        budget: Budget,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, u32> {
        spin_until_mine_for(cell, access, budget, clock::now, done)
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
        clock::now()
    }

    fn wait(&self, cell: &AtomicCell, value: u32, access: Access, until: Option<u64>) {
        let this = percpu::mine();
        if this.in_nmi.get() > 0 {
            return;
        }
        if cpu::interrupts_off() {
            if let Some(until) = until.filter(|_| this.tick.get() == 0) {
                // Where the timer ticks, that ends the halt as well.
                apic::timer_in(until.saturating_sub(clock::now()));
            }
            if cell.load(access) == value {
                this.halts.fetch_add(1, Ordering::Relaxed);
                // SAFETY: they were on.
                unsafe { cpu::interrupts_on_and_halt() };
            } else {
                // SAFETY: they were on.
                unsafe { cpu::interrupts_on() };
            }
        } else if until.is_none() {
            let before = cpu::set_priority(vector::KICK / 16 - 1);
            if cell.load(access) == value {
                this.halts.fetch_add(1, Ordering::Relaxed);
                // SAFETY: only kicks come through, and they take no lock.
                unsafe { cpu::interrupts_on_and_halt() };
                cpu::interrupts_off();
            }
            cpu::set_priority(before);
        }
    }

    fn kick(&self, cpu: Cpu) {
        let target = percpu::of(cpu.index()).apic_id().load(Ordering::Relaxed);
        match KICK.load(Ordering::Relaxed) {
            KICK_VMCALL => hypercall(target, false),
            KICK_VMMCALL => hypercall(target, true),
            _ => apic::send(target, vector::KICK),
        }
    }

    #[inline]
    fn domain(&self) -> u32 {
        percpu::mine().node.get()
    }

    #[inline]
    fn is_urgent(&self) -> bool {
        !cpu::interrupts_are_on()
    }

    fn locality(&self) -> Locality {
        unpack(LOCALITY.load(Ordering::Relaxed))
    }

    fn patience(&self) -> Patience {
        Patience::VIRTUAL
    }

    fn choose(&self, n: u32) -> u32 {
        let random = &percpu::mine().random;
        // An interrupt in between repeats a number, which is as good as any.
        let mut x = random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        random.set(x);
        (((x >> 32) * u64::from(n)) >> 32) as u32
    }

    fn count(&self, event: Event) {
        if event == Event::NoNode {
            percpu::mine().without_node.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl GlobalMachine for Kernel {
    const MACHINE: Self = Self;
}

static RECORDS: [AtomicRecord; CPUS] = [const { AtomicRecord::EMPTY }; CPUS];

// SAFETY: each CPU has one record, in a static, and its number for ever; locks are named by their addresses, which are
// distinct and divisible by 4.
unsafe impl Recorder for Kernel {
    type Name = AtomicName;
    type Place = AtomicPlace;

    #[inline]
    fn record(&self, cpu: Cpu) -> &AtomicRecord {
        &RECORDS[cpu.index()]
    }

    fn recorded(&self) -> u32 {
        crate::smp::expected()
    }
}

/// One word, so that both numbers change together.
static LOCALITY: AtomicU64 = AtomicU64::new(pack(Locality::DEFAULT));

const fn pack(locality: Locality) -> u64 {
    (locality.threshold as u64) << 32 | locality.one_in as u64
}

const fn unpack(word: u64) -> Locality {
    Locality { threshold: (word >> 32) as u32, one_in: word as u32 }
}

/// For how long a lock stays on one node, from now on. Returns what was before.
pub(crate) fn set_locality(locality: Locality) -> Locality {
    unpack(LOCALITY.swap(pack(locality), Ordering::Relaxed))
}

const KICK_INTERRUPT: u8 = 0;
const KICK_VMCALL: u8 = 1;
const KICK_VMMCALL: u8 = 2;
static KICK: AtomicU8 = AtomicU8::new(KICK_INTERRUPT);

/// Kicks by KVM's call, if this machine really offers that; what the command line makes of CPUID does not count.
/// Returns how kicks go.
pub(crate) fn choose_kick() -> &'static str {
    if !Beneath::this_machine().features.wait_kick {
        return "an interrupt";
    }
    let [_, b, c, d] = cpuid(0, 0);
    let is_amd = (b, d, c) == (0x6874_7541, 0x6974_6e65, 0x444d_4163);
    KICK.store(if is_amd { KICK_VMMCALL } else { KICK_VMCALL }, Ordering::Relaxed);
    "KVM's call"
}

/// KVM's call number 5: wakes the virtual CPU with an APIC id, or keeps it from its next halt.
fn hypercall(target: u32, is_amd: bool) {
    const KICK_CPU: u64 = 5;
    // SAFETY: KVM has said that it has this call. RBX, an argument, is the compiler's, and is put back.
    unsafe {
        if is_amd {
            core::arch::asm!("xchg rbx, {f}", "vmmcall", "xchg rbx, {f}", f = inout(reg) 0_u64 => _,
                inout("rax") KICK_CPU => _, in("rcx") u64::from(target), options(nostack));
        } else {
            core::arch::asm!("xchg rbx, {f}", "vmcall", "xchg rbx, {f}", f = inout(reg) 0_u64 => _,
                inout("rax") KICK_CPU => _, in("rcx") u64::from(target), options(nostack));
        }
    }
}
