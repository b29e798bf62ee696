//! Whether a thread is a real-time one, and numbers drawn for it: what a queue asks that lets some past others.

use core::sync::atomic::{AtomicU32, Ordering};

/// Not asked yet.
const UNKNOWN: u32 = 0;
const ORDINARY: u32 = 1;
const URGENT: u32 = 2;

std::thread_local! {
    // `const` and without a destructor, as the number of a slot: for signal handlers, and at the end of a thread.
    static URGENCY: AtomicU32 = const { AtomicU32::new(UNKNOWN) };
    static DRAWN: AtomicU32 = const { AtomicU32::new(0) };
}

/// Whether the calling thread has a real-time policy, or had when it first waited in such a queue: asked once, by a system
/// call.
#[inline]
pub(super) fn is_urgent() -> bool {
    match URGENCY.with(|urgency| urgency.load(Ordering::Relaxed)) {
        UNKNOWN => ask(),
        urgency => urgency == URGENT,
    }
}

#[cold]
fn ask() -> bool {
    let is_urgent = has_real_time_policy();
    URGENCY.with(|urgency| urgency.store(if is_urgent { URGENT } else { ORDINARY }, Ordering::Relaxed));
    is_urgent
}

#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
fn has_real_time_policy() -> bool {
    let _errno = super::park::Errno::keep();
    // Not the C library's function: musl's always fails, since it speaks of processes.
    // SAFETY: a system call without memory, about the calling thread.
    #[allow(unsafe_code, reason = "a system call")]
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    const RESET_ON_FORK: libc::c_long = 0x4000_0000;
    const DEADLINE: libc::c_long = 6;
    policy >= 0 && [libc::SCHED_FIFO.into(), libc::SCHED_RR.into(), DEADLINE].contains(&(policy & !RESET_ON_FORK))
}

#[cfg(not(all(any(target_os = "linux", target_os = "android"), not(miri))))]
fn has_real_time_policy() -> bool {
    false
}

/// A number below `n`, another one each time. A linear congruential generator; a handler that comes between makes it draw the same number twice, which is no harm.
#[inline]
pub(super) fn choose(n: u32) -> u32 {
    DRAWN.with(|drawn| {
        let last = match drawn.load(Ordering::Relaxed) {
            // Threads do not draw the same numbers: each has its own address here.
            0 => core::ptr::from_ref(drawn).addr() as u32 | 1,
            last => last,
        };
        let next = last.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        drawn.store(next, Ordering::Relaxed);
        // The upper bits are the good ones.
        ((u64::from(next) * u64::from(n)) >> 32) as u32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_drawn_about_as_often() {
        const DRAWS: usize = 128 * 1024;
        let mut drawn = [0; 128];
        (0..DRAWS).for_each(|_| drawn[choose(128) as usize] += 1);
        assert!(drawn.iter().all(|&n| (512..2048).contains(&n)), "{drawn:?}");
        assert!((0..100).all(|_| choose(1) == 0));
    }

    #[test]
    fn threads_draw_different_numbers() {
        let draw = || (0..8).map(|_| choose(u32::MAX)).collect::<Vec<_>>();
        std::thread::scope(|s| {
            let (one, other) = (s.spawn(draw), s.spawn(draw));
            assert_ne!(one.join().expect("it draws"), other.join().expect("it draws"));
        });
    }
}
