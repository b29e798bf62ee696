//! A stack of its own to run lock code on, which can be put aside and taken up again, any number of times.
//!
//! A virtual CPU that stands at an operation is the live part of its stack: copy those bytes away, and it can be
//! continued from there with one answer after another. Equal bytes are equal futures, so they also tell states apart.
//! That holds since the code under test keeps no state but in cells and locals, and all CPUs take turns on one stack,
//! so that addresses agree.

use std::cell::Cell;
use std::panic::Location;

use qspinlock::machine::{Access, Ordering};

use super::automaton::issue;
use super::op::{Answer, CellId, Kind, Op};

/// Bytes of the stack. Lock code needs a few hundred; a panic with its text, some thousands.
const SIZE: usize = 256 * 1024;

/// Bytes cleared below a taken-up stack, so that frames to come find zeros and not what an earlier run left.
const CLEARED: usize = 8 * 1024;

/// Keeps the stack aligned.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code, reason = "written through pointers")] [u8; 64]);

pub(crate) struct Fiber {
    stack: Box<[Line]>,
    /// The stack pointer of whoever does not run now: of the explorer while the fiber runs, and the other way round.
    other: Cell<usize>,
}

impl Fiber {
    pub(crate) fn new() -> Self {
        Self { stack: vec![Line([0; 64]); SIZE / 64].into_boxed_slice(), other: Cell::new(0) }
    }

    fn top(&self) -> usize {
        self.stack.as_ptr_range().end as usize
    }

    /// Empties the stack, so that the next switch calls `entry`, which never returns.
    pub(crate) fn start(&self, entry: extern "C" fn() -> !) {
        // What `switch` pops: six registers and the address it returns to; above it a zero, where the unwinder stops.
        let frame = [0, 0, 0, 0, 0, 0, entry as usize, 0];
        self.restore(&frame.map(usize::to_ne_bytes).concat());
    }

    /// The live part of the stack, while the fiber is put aside.
    pub(crate) fn live(&self) -> &[u8] {
        let sp = self.other.get();
        // SAFETY: the fiber stopped with this stack pointer, which lies in its stack, and nothing runs on it now.
        unsafe { std::slice::from_raw_parts(sp as *const u8, self.top() - sp) }
    }

    /// How much of the live part is the checker's own, from its lower end to where lock code last called [`enter`].
    pub(crate) fn own(&self) -> usize {
        ENTERED.get().saturating_sub(self.other.get())
    }

    /// Takes up a stack that `live` returned before.
    pub(crate) fn restore(&self, live: &[u8]) {
        let sp = self.top() - live.len();
        // SAFETY: the bytes fit, by what `live` returns; below them is room, since the fiber stood at a shallow call.
        unsafe {
            std::ptr::write_bytes((sp - CLEARED) as *mut u8, 0, CLEARED);
            std::ptr::copy_nonoverlapping(live.as_ptr(), sp as *mut u8, live.len());
        }
        self.other.set(sp);
    }

    /// Goes to whoever does not run now. Returns when that one switches back.
    pub(crate) fn switch(&self) {
        // SAFETY: `other` is a stack pointer that this function saved, or the frame that `start` made.
        unsafe { switch(self.other.as_ptr()) }
    }
}

/// Saves the callee-saved registers and the stack pointer, swaps the latter with `*other`, and restores the former.
#[unsafe(naked)]
unsafe extern "C" fn switch(other: *mut usize) {
    core::arch::naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rax, [rdi]",
        "mov [rdi], rsp",
        "mov rsp, rax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

thread_local! {
    /// The stack pointer when lock code last entered the checker.
    static ENTERED: Cell<usize> = const { Cell::new(0) };
}

/// Lock code calls the checker.
///
/// All that is live in lock code is above this frame, or in the six registers that it saves. The checker's own frames
/// below hold what earlier calls left there, and must not tell states apart: [`Fiber::own`] says where they end.
///
/// Everything comes in registers, or as a constant on the stack: what the caller kept in its frame for us to point at
/// would still lie there when it means nothing any more.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn enter(
    tag: usize,
    a: usize,
    b: usize,
    rest: usize,
    name: *const u8,
    pairs: *const u8,
    site: &'static Location<'static>,
) -> Answer {
    core::arch::naked_asm!(
        "mov r10, [rsp + 8]",
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rax, rsp",
        // Alignment, then the eighth argument and the seventh.
        "push rax",
        "push rax",
        "push r10",
        "call {entered}",
        "add rsp, 24",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        entered = sym entered,
    )
}

/// Calls [`enter`].
#[inline(always)]
pub(crate) fn ask_on_fiber(op: Op) -> Answer {
    let Access { name, order, pairs } = op.access;
    let [tag, a, b] = op.kind.pack();
    let order = ORDERS.iter().position(|&o| o == order).unwrap_or_default();
    let rest = usize::from(op.cell) | order << 16 | name.len() << 24 | pairs.len() << 40;
    // SAFETY: `entered` takes the words apart as they are put together here.
    unsafe { enter(tag, a, b, rest, name.as_ptr(), pairs.as_ptr(), op.site) }
}

const ORDERS: [Ordering; 5] =
    [Ordering::Relaxed, Ordering::Acquire, Ordering::Release, Ordering::AcqRel, Ordering::SeqCst];

#[allow(clippy::too_many_arguments, reason = "those of `enter`, and its stack pointer")]
extern "C" fn entered(
    tag: usize,
    a: usize,
    b: usize,
    rest: usize,
    name: *const u8,
    pairs: *const u8,
    site: &'static Location<'static>,
    sp: usize,
) -> Answer {
    // SAFETY: `ask_on_fiber` made these words of static strings, whose lengths it put in `rest`.
    let text = |start, length| unsafe { str::from_utf8_unchecked(std::slice::from_raw_parts(start, length)) };
    let access = Access {
        name: text(name, rest >> 24 & 0xffff),
        order: ORDERS[rest >> 16 & 0xff],
        pairs: text(pairs, rest >> 40),
    };
    let op = Op { kind: Kind::unpack([tag, a, b]), cell: rest as CellId, access, site };
    issue(op, || ENTERED.set(sp))
}
