//! One boot: started, listened to, and ended if it does not end.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::log::{Heard, Log};

/// Exit codes of QEMU when the kernel has had its say.
const PASSED: i32 = 33;
const FAILED: i32 = 35;
const BROKEN: i32 = 37;

/// A line without an end is cut here.
const LONGEST: u64 = 4096;
/// Of QEMU's own complaints.
const MOST_COMPLAINTS: usize = 64 << 10;
/// Altogether a boot may last so many times as long as it may be without progress.
const ALTOGETHER: u32 = 10;
/// KVM could not go on with a CPU. QEMU stops the machine then, and waits for somebody to look at it.
const STUCK: &str = "KVM internal error";

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All was well.
    Passed,
    /// A test failed.
    Failed,
    /// A panic, or an exception that nobody expected.
    Broken,
    /// The machine reset itself: an exception while there was nobody for exceptions.
    Reset,
    /// Killed: no progress for so long.
    Hung(Duration),
    /// Killed: it got on, but was not through after so long.
    Slow(Duration),
    /// QEMU ended, or stopped the machine, and not because the kernel said so.
    Qemu(String),
}

impl End {
    /// One word, for programs.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Broken => "broken",
            Self::Reset => "reset",
            Self::Hung(_) => "hung",
            Self::Slow(_) => "slow",
            Self::Qemu(_) => "qemu",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed => f.write_str("failed: a test did, see its lines"),
            Self::Broken => f.write_str("broken: the kernel panicked, see its last line"),
            Self::Reset => f.write_str("reset: the machine began anew (a triple fault)"),
            Self::Hung(limit) => write!(f, "hung: no progress for {} s (--timeout)", limit.as_secs()),
            Self::Slow(limit) => {
                write!(f, "slow: it got on, but was not through after {} s (ten times --timeout)", limit.as_secs())
            }
            Self::Qemu(why) => write!(f, "QEMU: {why}"),
        }
    }
}

/// A boot that has ended.
#[derive(Clone, Debug)]
pub(super) struct Boot {
    pub(super) end: End,
    pub(super) log: Log,
    /// What QEMU itself had to say.
    pub(super) complaints: String,
    pub(super) took: Duration,
}

/// What comes from a boot while it lasts.
enum News {
    Line(String),
    Stuck,
    /// The serial port is closed.
    End,
}

/// Boots, and calls `listen` with each line of the log, and with none when the counter of progress was heard.
pub(super) fn boot(
    command: &mut Command,
    limit: Duration,
    mut listen: impl FnMut(&Log, Option<&str>),
) -> std::io::Result<Boot> {
    let start = Instant::now();
    let mut child = command.spawn()?;
    let (news, complaints) = listeners(&mut child);
    let mut log = Log::default();
    let all = start + limit * ALTOGETHER;
    let mut quiet = start + limit;
    let killed = loop {
        if Instant::now() >= all {
            break Some(End::Slow(limit * ALTOGETHER));
        }
        match news.recv_timeout(quiet.min(all).saturating_duration_since(Instant::now())) {
            Ok(News::Line(line)) => {
                let heard = log.take(&line);
                if heard != Heard::NoProgress {
                    quiet = Instant::now() + limit;
                } else if Instant::now() >= quiet {
                    break Some(End::Hung(limit));
                }
                listen(&log, (heard == Heard::Line).then_some(&line));
            }
            Ok(News::Stuck) => break Some(End::Qemu(format!("{STUCK}: this host's KVM cannot run the kernel"))),
            Ok(News::End) | Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) if quiet <= all => break Some(End::Hung(limit)),
            Err(RecvTimeoutError::Timeout) => {}
        }
    };
    let status = finish(&mut child, killed.is_none().then_some(limit))?;
    // So that whoever reads the serial port does not wait to be heard.
    drop(news);
    let complaints = complaints.join().unwrap_or_default();
    let end = killed.unwrap_or_else(|| judge(status, &log, &complaints));
    Ok(Boot { end, log, complaints, took: start.elapsed() })
}

/// Waits for QEMU's end; if it takes longer than that, or at once, by force.
fn finish(child: &mut Child, patience: Option<Duration>) -> std::io::Result<ExitStatus> {
    let until = patience.map(|patience| Instant::now() + patience);
    while until.is_some_and(|until| Instant::now() < until) {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(1));
    }
    // It may have ended this very moment: then there is nothing left to kill.
    let _ = child.kill();
    child.wait()
}

fn judge(status: ExitStatus, log: &Log, complaints: &str) -> End {
    match (status.code(), log.passed) {
        (Some(PASSED), Some(true)) => End::Passed,
        (Some(FAILED), Some(false)) => End::Failed,
        (Some(BROKEN), _) => End::Broken,
        (Some(code @ (PASSED | FAILED)), _) => {
            End::Qemu(format!("exit code {code}, which is not what the kernel said last; is the log complete?"))
        }
        (Some(0), _) => End::Reset,
        _ => {
            let why = complaints.lines().find(|line| !line.is_empty() && !line.contains("warning:"));
            End::Qemu(format!("{status}{}", why.map_or(String::new(), |why| format!(": {why}"))))
        }
    }
}

/// What QEMU writes to its two outputs: news, and in the end its complaints.
fn listeners(child: &mut Child) -> (Receiver<News>, thread::JoinHandle<String>) {
    // With room for few: a kernel that says the same for ever waits for who listens.
    let (tell, news) = mpsc::sync_channel(1024);
    let also_tell = tell.clone();
    let mut errors = BufReader::new(child.stderr.take().expect("piped"));
    let mut port = BufReader::new(child.stdout.take().expect("piped"));
    thread::spawn(move || {
        while let Some(line) = line(&mut port) {
            if tell.send(News::Line(line)).is_err() {
                return;
            }
        }
        let _ = tell.send(News::End);
    });
    let complaints = thread::spawn(move || {
        let mut text = String::new();
        while let Some(line) = line(&mut errors) {
            if line.starts_with(STUCK) {
                let _ = also_tell.send(News::Stuck);
            }
            if text.len() < MOST_COMPLAINTS {
                text.push_str(&line);
                text.push('\n');
            }
        }
        text
    });
    (news, complaints)
}

/// The next line, or a part of one that has no end. What is no text is shown as such.
fn line(from: &mut impl BufRead) -> Option<String> {
    let mut bytes = Vec::new();
    // A pipe that breaks has ended.
    let read = from.by_ref().take(LONGEST).read_until(b'\n', &mut bytes).ok()?;
    (read > 0).then(|| String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned())
}
