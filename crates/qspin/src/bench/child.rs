//! A cell in a process of its own: a lock that collapses, crashes or never ends costs its slice and no more.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::cell::{Order, measure};
use super::row::Row;
use super::session::SETTING;
use crate::failure::Failure;

/// Why there is no row.
#[derive(Debug)]
pub(super) enum Lost {
    /// It was killed after this time.
    TimedOut(Duration),
    /// It ended otherwise than by answering.
    Died(String),
}

/// Runs `order` in a child that is killed after `kill_after`, with the lock set so.
pub(super) fn spawn(order: &Order, setting: Option<&str>, kill_after: Duration) -> Result<Row, Lost> {
    let died = |what: &str, error: &dyn std::fmt::Display| Lost::Died(format!("{what}: {error}"));
    let order = serde_json::to_string(order).map_err(|e| died("cannot write the order", &e))?;
    let own = std::env::current_exe().map_err(|e| died("cannot find this program", &e))?;
    let mut child = Command::new(own)
        .envs(setting.map(|setting| (SETTING, setting)))
        .args(["bench", "--child", &order])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| died("cannot start a child process", &e))?;
    // A thread reads until the child closes its end, that is, ends; so waiting with a limit costs no polling, which
    // would take time from what is measured.
    let (ended, wait_ended) = mpsc::channel();
    let mut stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.as_mut().map_or(Ok(0), |pipe| pipe.read_to_string(&mut text));
        // Nobody listens any more if the time was up.
        let _ = ended.send(());
        read.map(|_| text)
    });
    if wait_ended.recv_timeout(kill_after).is_err() {
        // It may have ended this very moment: then there is nothing left to kill.
        let _ = child.kill();
        let _ = child.wait();
        let _ = reader.join();
        return Err(Lost::TimedOut(kill_after));
    }
    let status = child.wait().map_err(|e| died("cannot wait for it", &e))?;
    let text = reader.join().map_err(|_| Lost::Died("its output could not be read".to_owned()))?;
    if !status.success() {
        let mut complaint = String::new();
        let _ = child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut complaint));
        return Err(died(&status.to_string(), &complaint.trim()));
    }
    let text = text.map_err(|e| died("its output could not be read", &e))?;
    serde_json::from_str(&text).map_err(|e| died("its answer makes no sense", &e))
}

/// The child's side: measures and answers.
pub(super) fn obey(order: &str) -> Result<(), Failure> {
    // Nobody wants the answer of an orphan, and a hung one would stay for ever.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let order: Order = serde_json::from_str(order)
        .map_err(|e| Failure::usage(format!("--child is for qspin's own use; its order makes no sense: {e}")))?;
    let answer = serde_json::to_string(&measure(&order)).map_err(|e| Failure::failed(e.to_string()))?;
    crate::ui::sayln!("{answer}");
    Ok(())
}
