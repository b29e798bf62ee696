//! `fork`: in the child the calling thread is the only one, and what the others were about is left as it was.
//!
//! The child sees to the slots of the others before `fork` returns there, see `slots::ghosts`. It neither allocates nor
//! locks: a child may be made at any time, also in a signal handler. What it cannot do is said in
//! [`Threads`](super::Threads#fork).

#[cfg(unix)]
pub(super) use unix::arm;

/// Nothing to do where nothing forks.
#[cfg(not(unix))]
pub(super) fn arm() {}

#[cfg(unix)]
#[allow(unsafe_code, reason = "the pthread interface, and a constructor")]
mod unix {
    use core::ffi::c_int;
    use core::sync::atomic::{AtomicBool, Ordering};

    type Handler = Option<unsafe extern "C" fn()>;

    unsafe extern "C" {
        // On some systems `libc` does not have it.
        fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> c_int;
    }

    static IS_ARMED: AtomicBool = AtomicBool::new(false);

    /// Sees to it that a child is looked after. Called when a thread claims its first slot, which may be in a signal
    /// handler; registering may allocate, so where there are constructors one has done it before.
    #[inline]
    pub(in super::super) fn arm() {
        // Miri does not fork, nor know the function.
        if !cfg!(miri) && !IS_ARMED.swap(true, Ordering::Relaxed) {
            // SAFETY: a function for as long as the program. If there is no memory for it, children have fewer slots, and
            // nothing else is to be done about it.
            unsafe { pthread_atfork(None, None, Some(child)) };
        }
    }

    extern "C" fn child() {
        super::super::park::others_are_gone();
        super::super::slots::others_are_gone();
        #[cfg(any(target_os = "linux", target_os = "android"))]
        crate::patch::others_are_gone();
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    extern "C" fn at_start() {
        arm();
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[used]
    // SAFETY: the section holds pointers to functions that the loader calls, with arguments that this one ignores.
    #[unsafe(link_section = ".init_array")]
    static AT_START: extern "C" fn() = at_start;
}
