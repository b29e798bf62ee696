//! `qspin torture --resilient`: circles of waiters, owners that never come back, waiters that give up at any moment. Was
//! each error true, was none missing, did each wait end, and was nothing left behind?

mod again;
mod circles;
mod crowd;
mod ends;
mod ground;
mod held;
mod interrupts;
mod judge;
mod mode;
mod nested;
pub(crate) mod philosophers;
mod planted;
mod report;
mod seat;
mod stage;
mod subject;

pub(super) use mode::Wanted;
pub(super) use subject::names;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use self::mode::Mode;
use self::report::Report;
use self::stage::{Enough, Plan, Shown};
use self::subject::{Job, Resilient, Subject};
use super::{Args, signals, warden, witness};
use crate::failure::Failure;
use crate::ui;

/// What is left to be done when the arguments have been read.
struct Torture<'a> {
    args: &'a Args,
    subject: Subject,
    modes: Vec<Mode>,
    seed: u64,
    threads: usize,
}

pub(super) fn run(args: &Args, seed: u64, threads: usize) -> Result<ExitCode, Failure> {
    let subject: Subject = args.lock.parse().map_err(Failure::usage)?;
    let modes = mode::wanted(&args.mode);
    if args.acquisitions.is_some() && !modes.contains(&Mode::Crowd) {
        return Err(Failure::usage("--acquisitions is for --mode crowd, which is not among the modes"));
    }
    if let Some(domains) = args.domains {
        witness::pretend(subject.name(), subject.looks_at_domains(), domains)?;
    }
    let stops = (!args.no_stops).then_some(seed);
    warden::watch(stops, || subject.with_type(Torture { args, subject, modes, seed, threads }))
}

impl Job for Torture<'_> {
    type Output = Result<(), Failure>;

    fn run<R: Resilient>(self) -> Self::Output {
        // From here on in every thread: only workers ask for signals.
        signals::block();
        interrupts::install().map_err(|error| Failure::failed(format!("cannot install signal handlers: {error}")))?;
        let start = Instant::now();
        let bar = ui::progress(self.args.seconds * 1000);
        let mut shown: Vec<Shown> = Vec::new();
        let mut left = self.modes.as_slice();
        while let [mode, rest @ ..] = left {
            left = rest;
            bar.set_message(mode.to_string());
            shown.push(stage::run::<R>(self.plan(*mode), &bar));
            if shown.last().is_some_and(|shown| shown.trouble.is_some()) {
                break;
            }
        }
        bar.finish_and_clear();
        let not_run = left.iter().map(Mode::to_string).collect();
        let report = Report::new(self.subject, self.seed, start.elapsed(), &shown, not_run);
        ui::say!("{}", if self.args.json { report.to_json() + "\n" } else { report.to_text() });
        let result = report.failure().map_or(Ok(()), |message| Err(Failure::failed(message)));
        if shown.iter().any(|shown| shown.is_stuck) {
            if let Err(failure) = &result {
                eprintln!("qspin: {failure}");
            }
            let _ = std::io::stdout().flush();
            // SAFETY: no memory is involved. Not `exit`: it would run exit hooks beside threads that never end.
            unsafe { libc::_exit(1) };
        }
        result
    }
}

impl Torture<'_> {
    fn plan(&self, mode: Mode) -> Plan {
        let each = Duration::from_secs(self.args.seconds) / self.modes.len() as u32;
        let enough = match self.args.acquisitions {
            Some(most) if mode == Mode::Crowd => Enough::Taken(most),
            _ => Enough::After(each),
        };
        Plan {
            mode,
            threads: self.threads,
            seed: self.seed,
            stall: Duration::from_secs(self.args.stall_seconds),
            enough,
        }
    }
}
