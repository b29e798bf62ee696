//! A child of a `fork`, in which something is tried.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `child` in a child process, which has one thread, and waits for its end. An alarm ends one that hangs.
pub(crate) fn in_child(most_seconds: u32, child: impl FnOnce()) {
    // SAFETY: the child does what it can do after a fork: glibc's allocator works there, and so do threads.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        // SAFETY: no preconditions.
        unsafe { libc::alarm(most_seconds) };
        let is_well = catch_unwind(AssertUnwindSafe(child)).is_ok();
        // SAFETY: no preconditions. Nothing of the parent's is run at this exit.
        unsafe { libc::_exit(if is_well { 0 } else { 101 }) };
    }
    let mut status = 0;
    // SAFETY: `status` is live.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_ne!((libc::WIFSIGNALED(status), libc::WTERMSIG(status)), (true, libc::SIGALRM), "the child hangs");
    assert_eq!(status, 0, "the child failed");
}
