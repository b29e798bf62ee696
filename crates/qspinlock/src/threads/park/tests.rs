//! What happens between the swap of the token and the sleep, which is where `holds` is called.

#![allow(unsafe_code, reason = "installs a signal handler")]

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::*;
use crate::machine::ConstCell;

/// Runs something that sleeps and may not wake.
fn ends(what: impl FnOnce() + Send + 'static) {
    let (done, ended) = channel();
    let thread = std::thread::spawn(move || {
        what();
        let _ = done.send(());
    });
    let result = ended.recv_timeout(Duration::from_secs(30));
    assert_ne!(result, Err(RecvTimeoutError::Timeout), "it sleeps through a kick");
    thread.join().expect("it does not panic");
}

#[test]
fn a_kick_between_look_and_sleep_is_not_slept_through() {
    ends(|| {
        let token = AtomicCell::ZERO;
        let kicked = || {
            kick(&token);
            true
        };
        sleep(&token, kicked, None);
        assert_eq!(token.as_atomic().load(Ordering::Relaxed), EMPTY, "and it is used up");
    });
}

/// A handler sleeps where its thread is between its look and its sleep, and uses up the kick that was meant for the
/// thread. Nobody kicks again.
#[test]
fn only_the_outermost_may_clear_a_sticky_event() {
    static TOKEN: AtomicCell = AtomicCell::ZERO;
    static HANDLED: AtomicBool = AtomicBool::new(false);

    extern "C" fn handler(_: i32) {
        // The kick is for the interrupted thread; whoever gives it has no way to know who will find it.
        let kicked = || {
            kick(&TOKEN);
            true
        };
        sleep(&TOKEN, kicked, None);
        HANDLED.store(true, Ordering::Relaxed);
    }

    ends(|| {
        // SAFETY: the handler does what a handler may: no mutex is held where it runs.
        unsafe { libc::signal(libc::SIGUSR2, handler as *const () as libc::sighandler_t) };
        let interrupted = || {
            // SAFETY: raises a signal that has a handler, which has run when this returns.
            unsafe { libc::raise(libc::SIGUSR2) };
            true
        };
        sleep(&TOKEN, interrupted, None);
        assert!(HANDLED.load(Ordering::Relaxed));
    });
}

/// The same, three deep: nobody but the innermost is kicked.
#[test]
fn every_level_of_handlers_wakes_for_one_kick_that_the_innermost_used_up() {
    fn nested(token: &AtomicCell, depth: u32) {
        let interrupted = || {
            match depth {
                0 => kick(token),
                _ => nested(token, depth - 1),
            }
            true
        };
        sleep(token, interrupted, None);
    }
    let token = AtomicCell::ZERO;
    ends(move || nested(&token, 3));
}

#[test]
fn a_kick_is_kept_for_one_sleep() {
    ends(|| {
        let token = AtomicCell::ZERO;
        kick(&token);
        kick(&token);
        sleep(&token, || unreachable!("there is a kick, so it does not even look"), None);
        let mut looked = false;
        let look = || {
            looked = true;
            false
        };
        sleep(&token, look, None);
        assert!(looked, "two kicks end one sleep, so the next one looks");
    });
}
