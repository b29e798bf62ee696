//! A test that hangs must fail, and say which one it was.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Ends the process when the test that holds it takes too long. Disarmed by dropping it.
pub(crate) struct Watchdog(#[expect(dead_code, reason = "dropping it is the message")] Sender<()>);

impl Watchdog {
    /// `limit` is far more than the test needs, also on a busy machine: it is there for hangs.
    pub(crate) fn arm(test: &'static str, limit: Duration) -> Self {
        let (alive, watched) = channel();
        std::thread::spawn(move || {
            if watched.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                // A lock that hangs cannot be unwound: its threads would be joined for ever.
                eprintln!("watchdog: {test} did not end within {limit:?}");
                std::process::abort();
            }
        });
        Self(alive)
    }
}
