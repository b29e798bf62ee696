//! Code that runs instruction by instruction: the CPU's trap flag raises `SIGTRAP` after each, and its handler calls a
//! function. The kernel runs the handler itself, and what it calls, at full speed.

use std::arch::asm;
use std::ffi::c_void;
use std::sync::OnceLock;

const TRAP_FLAG: i64 = 0x100;

/// What is done after each instruction. False: no more of them.
static STEP: OnceLock<fn() -> bool> = OnceLock::new();

extern "C" fn trap(_: i32, _: *const libc::siginfo_t, context: *mut c_void) {
    if !STEP.get().is_some_and(|step| step()) {
        // SAFETY: the kernel passes a context, and takes the flags from it when the handler returns.
        unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_EFL as usize] &= !TRAP_FLAG };
    }
}

/// Installs `step`, once for all tests of a process. It may only do what a signal handler may.
pub(crate) fn on_each_instruction(step: fn() -> bool) {
    STEP.get_or_init(|| step);
    // SAFETY: a zeroed action with a handler of the right type.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGTRAP, &raw const action, std::ptr::null_mut()), 0);
    }
}

/// Runs `code` so.
pub(crate) fn stepped<R>(code: impl FnOnce() -> R) -> R {
    // SAFETY: sets the trap flag; the handler is there.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    let result = code();
    // SAFETY: clears it.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
    result
}
