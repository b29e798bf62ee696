//! The process that watches over the one that is tortured: stops all of it now and then, as job control, a debugger or a
//! frozen container does, and tells how it ended, whatever happened to it.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::random::Random;
use crate::failure::Failure;

/// Between two looks whether the run has ended.
const TICK: Duration = Duration::from_millis(10);

/// Time from one stop to the next, and how long one lasts, at most.
const APART_MS: u64 = 250;
const LONGEST_MS: u64 = 50;

/// How often this process was continued.
static CONTINUED: AtomicU64 = AtomicU64::new(0);

pub(super) fn times_stopped() -> u64 {
    CONTINUED.load(Relaxed)
}

/// Runs `torture` in a process of its own. Stops it now and then if there is a `seed`.
pub(super) fn watch(seed: Option<u64>, torture: impl FnOnce() -> Result<(), Failure>) -> Result<ExitCode, Failure> {
    let warden = rustix::process::getpid();
    // SAFETY: this process has one thread, so that the child may do whatever it could.
    match unsafe { libc::fork() } {
        -1 => Err(Failure::failed(format!("cannot fork: {}", std::io::Error::last_os_error()))),
        0 => {
            // Who is stopped cannot notice that nobody is left to continue it.
            let armed = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            if armed.is_err() || rustix::process::getppid() != Some(warden) {
                return Err(Failure::failed("the process that watches the torture is gone"));
            }
            count_continues();
            torture().map(|()| ExitCode::SUCCESS)
        }
        child => guard(Pid::from_raw(child).expect("a child has a number"), seed.map(Random::new)),
    }
}

fn guard(child: Pid, random: Option<Random>) -> Result<ExitCode, Failure> {
    let failed = |what: &str, error| Failure::failed(format!("cannot {what} the tortured process: {error}"));
    let in_ms = |most| Duration::from_millis(random.as_ref().map_or(most, |random| 1 + random.below(most)));
    let mut next_stop = Instant::now() + in_ms(APART_MS);
    loop {
        match waitpid(Some(child), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => return ended(status),
            Ok(None) => {}
            Err(error) => return Err(failed("wait for", error)),
        }
        sleep(TICK);
        if random.is_some() && Instant::now() >= next_stop {
            // It is not waited for yet, so the number is still its own, even if it has ended.
            kill_process(child, Signal::STOP).map_err(|error| failed("stop", error))?;
            sleep(in_ms(LONGEST_MS));
            kill_process(child, Signal::CONT).map_err(|error| failed("continue", error))?;
            next_stop = Instant::now() + in_ms(APART_MS);
        }
    }
}

/// What became of it. Its exit code says all: it has told the rest itself.
fn ended(status: WaitStatus) -> Result<ExitCode, Failure> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        (None, signal) => Err(Failure::failed(format!(
            "the tortured process was killed by signal {}; there is no report",
            signal.unwrap_or_default()
        ))),
    }
}

fn count_continues() {
    extern "C" fn continued(_: libc::c_int) {
        CONTINUED.fetch_add(1, Relaxed);
    }
    // SAFETY: all zeros is a valid `sigaction`; the handler is of the right type, and does only what a handler may.
    // That it can fail matters to a figure in the report and to nothing else.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = continued as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGCONT, &raw const action, std::ptr::null_mut());
    }
}
