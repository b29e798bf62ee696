//! What the compiler calls to copy and compare memory, where no C library brings it. In assembly: a loop in Rust would
//! be compiled into a call of itself.

use core::arch::{asm, global_asm};

global_asm!(
    ".section .text.mem, \"ax\", @progbits",
    ".global memcpy, memmove, memset, memcmp, bcmp",
    "memcpy:",
    "    movq %rdi, %rax",
    "    movq %rdx, %rcx",
    "    rep movsb",
    "    ret",
    "memmove:",
    "    movq %rdi, %rax",
    "    movq %rdx, %rcx",
    "    movq %rdi, %r8",
    "    subq %rsi, %r8",
    "    cmpq %rdx, %r8",
    // To above where it comes from, by less than its length: from the end.
    "    jb 2f",
    "    rep movsb",
    "    ret",
    "2:  leaq -1(%rdi, %rcx), %rdi",
    "    leaq -1(%rsi, %rcx), %rsi",
    "    std",
    "    rep movsb",
    "    cld",
    "    ret",
    "memset:",
    "    movq %rdi, %r8",
    "    movl %esi, %eax",
    "    movq %rdx, %rcx",
    "    rep stosb",
    "    movq %r8, %rax",
    "    ret",
    "memcmp:",
    "bcmp:",
    "    xorl %eax, %eax",
    "    xorl %r8d, %r8d",
    "    movq %rdx, %rcx",
    // Sets the flags for a length of 0.
    "    cmpq %rdx, %rdx",
    "    repe cmpsb",
    "    je 2f",
    "    movzbl -1(%rdi), %eax",
    "    movzbl -1(%rsi), %r8d",
    "    subl %r8d, %eax",
    "2:  ret",
    options(att_syntax)
);

/// Writes bytes one by one, to where nobody may read a part that is not written yet.
///
/// # Safety
/// As for [`core::ptr::write_volatile`], for each.
pub(crate) unsafe fn write_bytes(to: *mut u8, bytes: &[u8]) {
    for (n, byte) in bytes.iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { to.add(n).write_volatile(*byte) };
    }
    // SAFETY: nothing; the code is not moved across it.
    unsafe { asm!("", options(nostack, preserves_flags)) };
}
