//! A stack of its own to run lock code on, which can be put aside and taken up again, any number of times.
//!
//! A virtual CPU that stands at an operation is the live part of its stack: copy those bytes away, and it can be
//! continued from there with one answer after another. Equal bytes are equal futures, so they also tell states apart.
//! That holds since the code under test keeps no state but in cells and locals, and all CPUs take turns on one stack,
//! so that addresses agree.

use std::cell::Cell;

/// Bytes of the stack. Lock code needs a few hundred; a panic with its text, some thousands.
const SIZE: usize = 256 * 1024;

/// Bytes cleared below a taken-up stack, so that frames to come find zeros and not what an earlier run left.
const CLEARED: usize = 8 * 1024;

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

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
