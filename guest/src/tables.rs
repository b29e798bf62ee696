//! The CPU's tables: segments, the stacks of interrupts, and where each vector leads.
//!
//! Every vector has a gate, and every gate a stack of its own kind: the `core` of the host's target was compiled for
//! user space, where what is below the stack pointer stays. So an interrupt never pushes onto the stack that it
//! interrupts; and two that may interrupt each other never share one.

use core::arch::{asm, global_asm};

use crate::cpu::Shared;
use crate::percpu::CPUS;

global_asm!(include_str!("stubs.s"), options(att_syntax));

const CODE: u16 = 0x18;
const DATA: u16 = 0x10;
const TASK: u16 = 0x20;

/// Of an interrupt stack.
const STACK: usize = 32 << 10;
/// What one interrupt takes of it, where interrupts of a kind come within one another.
const DEEPER: u64 = 4 << 10;

/// The vectors that are used.
pub(crate) mod vector {
    pub(crate) const DEBUG: u8 = 1;
    pub(crate) const NMI: u8 = 2;
    pub(crate) const DOUBLE_FAULT: u8 = 8;
    pub(crate) const PAGE_FAULT: u8 = 14;
    pub(crate) const MACHINE_CHECK: u8 = 18;
    pub(crate) const TIMER: u8 = 0x40;
    pub(crate) const CALL: u8 = 0x50;
    pub(crate) const STOP: u8 = 0x51;
    /// In the highest class of priorities, so that all others can be held back.
    pub(crate) const KICK: u8 = 0xf0;
    pub(crate) const SPURIOUS: u8 = 0xff;
}

/// A stack for each kind of interrupt that may come within another one. From 1: 0 is "stay on this one".
const STACKS: usize = 7;

const fn stack_of(number: u8) -> u8 {
    match number {
        vector::NMI => 1,
        vector::DOUBLE_FAULT => 2,
        vector::MACHINE_CHECK => 3,
        0..32 => 4,
        vector::TIMER => 5,
        vector::KICK => 6,
        _ => 7,
    }
}

#[repr(C, packed(4))]
struct TaskState {
    reserved: u32,
    stacks: [u64; 3],
    reserved2: u64,
    interrupt_stacks: [u64; STACKS],
    reserved3: u64,
    reserved4: u16,
    ports: u16,
}

#[repr(C, align(16))]
struct Stack([u8; STACK]);

/// Of one CPU.
#[repr(C, align(64))]
struct Own {
    segments: [u64; 6],
    task: TaskState,
    stacks: [Stack; STACKS],
}

const SEGMENTS: [u64; 6] = [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00af_9b00_0000_ffff, 0, 0];

// Zeroes, and the rest is filled in by `load`: so the file is not megabytes larger.
static OWN: [Shared<core::mem::MaybeUninit<Own>>; CPUS] =
    [const { Shared::new(core::mem::MaybeUninit::zeroed()) }; CPUS];

#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    low: u16,
    segment: u16,
    stack: u8,
    kind: u8,
    middle: u16,
    high: u32,
    reserved: u32,
}

#[repr(C, align(16))]
struct Gates([Gate; 256]);

static GATES: Shared<Gates> =
    Shared::new(Gates([Gate { low: 0, segment: 0, stack: 0, kind: 0, middle: 0, high: 0, reserved: 0 }; 256]));

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

unsafe extern "C" {
    static interrupt_stubs: Shared<u8>;
}

/// Fills the gates. By the first CPU, before any other runs.
///
/// # Safety
/// Once, with interrupts off.
pub(crate) unsafe fn fill_gates() {
    // SAFETY: the address of a symbol; and the caller's, for the gates.
    let (stubs, gates) = unsafe { ((&raw const interrupt_stubs).addr(), &mut *GATES.get()) };
    for (number, gate) in gates.0.iter_mut().enumerate() {
        let stub = stubs + 16 * number;
        *gate = Gate {
            low: stub as u16,
            segment: CODE,
            stack: stack_of(number as u8),
            // An interrupt gate: others stay off. Present.
            kind: 0x8e,
            middle: (stub >> 16) as u16,
            high: (stub as u64 >> 32) as u32,
            reserved: 0,
        };
    }
}

/// Gives this CPU its tables. It has to [enter](crate::percpu::enter) before: NMIs may come from now on.
///
/// # Safety
/// Once for each number, with interrupts off, by the CPU that will have it.
pub(crate) unsafe fn load(number: usize) {
    // SAFETY: the caller's: nobody else has this one.
    let own = unsafe { (*OWN[number].get()).assume_init_mut() };
    own.segments = SEGMENTS;
    own.task.ports = size_of::<TaskState>() as u16;
    let mut tops = [0; STACKS];
    for (top, stack) in tops.iter_mut().zip(&own.stacks) {
        *top = core::ptr::from_ref(stack).addr() as u64 + STACK as u64;
    }
    own.task.interrupt_stacks = tops;
    let task = (&raw const own.task).addr() as u64;
    let limit = size_of::<TaskState>() as u64 - 1;
    own.segments[4] = limit | (task & 0xff_ffff) << 16 | 0x89 << 40 | (task >> 24 & 0xff) << 56;
    own.segments[5] = task >> 32;
    let segments = Pointer { limit: size_of_val(&own.segments) as u16 - 1, base: own.segments.as_ptr().addr() as u64 };
    let gates = Pointer { limit: size_of::<Gates>() as u16 - 1, base: GATES.get().addr() as u64 };
    // SAFETY: they live for ever; the code segment is what it was.
    unsafe {
        asm!(
            "lgdt [{segments}]",
            "mov ds, {data:e}",
            "mov es, {data:e}",
            "mov ss, {data:e}",
            "lea {scratch}, [rip + 2f]",
            "push {code}",
            "push {scratch}",
            "retfq",
            "2:",
            "ltr {task:x}",
            "lidt [{gates}]",
            segments = in(reg) &raw const segments,
            gates = in(reg) &raw const gates,
            data = in(reg) u32::from(DATA),
            code = in(reg) u64::from(CODE),
            task = in(reg) TASK,
            scratch = out(reg) _,
        );
    }
}

/// Runs something with interrupts on in a handler of [`vector::CALL`]. Another one that comes meanwhile must not begin
/// where the stack of this one does, so it begins further down.
///
/// # Safety
/// By such a handler, with interrupts off; they are when it returns. No more than seven of them within one another.
pub(crate) unsafe fn with_interrupts_on<R>(what: impl FnOnce() -> R) -> R {
    let number = crate::percpu::mine().number.get() as usize;
    // SAFETY: this CPU's own; the CPU reads it when an interrupt comes, and none comes now.
    let top = unsafe {
        let own = (*OWN[number].get()).as_mut_ptr();
        (&raw mut (*own).task.interrupt_stacks).cast::<u64>().add(stack_of(vector::CALL) as usize - 1)
    };
    // SAFETY: the same. A stack of that kind has room for it.
    unsafe {
        top.write_unaligned(top.read_unaligned() - DEEPER);
        crate::cpu::interrupts_on();
        let result = what();
        crate::cpu::interrupts_off();
        top.write_unaligned(top.read_unaligned() + DEEPER);
        result
    }
}
