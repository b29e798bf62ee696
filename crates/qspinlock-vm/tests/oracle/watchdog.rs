//! A test that hangs must fail instead.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Ends the process, with a message, unless it is dropped in time.
pub(crate) struct Watchdog(#[expect(dead_code, reason = "its drop is the message")] Sender<()>);

impl Watchdog {
    pub(crate) fn after(time: Duration, what: &'static str) -> Self {
        let (alive, watched): (Sender<()>, Receiver<()>) = channel();
        std::thread::spawn(move || {
            if watched.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{what}: still running after {time:?}");
                std::process::abort();
            }
        });
        Self(alive)
    }
}
