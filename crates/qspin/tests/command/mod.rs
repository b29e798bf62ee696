//! Runs `qspin` with a time limit, so that a hang is a failure.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

#[allow(dead_code, reason = "not every command speaks JSON")]
impl Output {
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{self:#?}"))
    }
}

/// Kills the command, and panics, if it has not ended by then.
#[track_caller]
pub(crate) fn qspin(args: &[&str], limit: Duration) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_qspin")).args(args).stdin(Stdio::null()), limit)
}

/// The same for a command with an input or an environment of its own.
#[track_caller]
pub(crate) fn run(command: &mut Command, limit: Duration) -> Output {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary was built for this test");
    // Read meanwhile: a full pipe would stop the command.
    let read = |mut pipe: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).map(|_| text).expect("text")
        })
    };
    let stdout = read(Box::new(child.stdout.take().expect("piped")));
    let stderr = read(Box::new(child.stderr.take().expect("piped")));
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("it is our child") {
            Some(status) => break Some(status),
            None if start.elapsed() > limit => {
                child.kill().expect("it is our child");
                child.wait().expect("it is our child");
                break None;
            }
            None => thread::sleep(Duration::from_millis(10)),
        }
    };
    let output = Output {
        code: status.and_then(|status| status.code()),
        stdout: stdout.join().expect("reader"),
        stderr: stderr.join().expect("reader"),
    };
    assert!(status.is_some(), "{command:?} did not end within {limit:?}\n{output:#?}");
    output
}
