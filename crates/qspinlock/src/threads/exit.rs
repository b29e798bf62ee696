//! A hook for the end of a thread.
//!
//! On Unix a `pthread` key: arming one for a thread neither allocates nor locks (for the first keys of a process, in
//! glibc and musl), which a signal handler needs; the destructor of a `thread_local!` is registered through an
//! allocation.

#[cfg(unix)]
pub(super) use unix::arm;

#[cfg(not(unix))]
pub(super) use portable::arm;

#[cfg(unix)]
#[allow(unsafe_code, reason = "the pthread interface")]
mod unix {
    use core::ffi::c_void;
    use core::sync::atomic::{AtomicU64, Ordering};

    /// 0: no key yet. 1: none to be had. Else the key + 2.
    static KEY: AtomicU64 = AtomicU64::new(0);
    const UNAVAILABLE: u64 = 1;

    /// Sees to it that the end of the calling thread is noticed. False if the process has no keys left.
    pub(in super::super) fn arm() -> bool {
        let key = match KEY.load(Ordering::Relaxed) {
            0 => create(),
            key => key,
        };
        if key == UNAVAILABLE {
            return false;
        }
        // SAFETY: the key was created and is never deleted. The value only has to be non-null: it is not followed.
        unsafe { libc::pthread_setspecific((key - 2) as libc::pthread_key_t, &raw const KEY as *const c_void) == 0 }
    }

    #[cold]
    fn create() -> u64 {
        let mut key: libc::pthread_key_t = 0;
        // SAFETY: `key` is live; `ended` is a function for as long as the program (a library that links this one and
        // is unloaded must not be: it holds a static table that other threads wait on).
        let made = unsafe { libc::pthread_key_create(&raw mut key, Some(ended)) } == 0;
        let mine = if made { key as u64 + 2 } else { UNAVAILABLE };
        match KEY.compare_exchange(0, mine, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => mine,
            Err(first) => {
                if made {
                    // SAFETY: nobody has seen this key.
                    unsafe { libc::pthread_key_delete(key) };
                }
                first
            }
        }
    }

    extern "C" fn ended(_: *mut c_void) {
        super::super::slots::thread_ends();
    }
}

#[cfg(not(unix))]
mod portable {
    struct Hook;

    impl Drop for Hook {
        fn drop(&mut self) {
            super::super::slots::thread_ends();
        }
    }

    std::thread_local! {
        static HOOK: Hook = const { Hook };
    }

    /// Sees to it that the end of the calling thread is noticed. False if the thread is past its exit hooks.
    pub(in super::super) fn arm() -> bool {
        HOOK.try_with(|_| ()).is_ok()
    }
}
