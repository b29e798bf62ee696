//! `qspin demo deadlock`: philosophers, each with one fork in hand, ask for the next one's. One at least is told, puts its fork
//! down, and all eat.

use std::fmt;
use std::process::ExitCode;
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use qspinlock::LockError;
use qspinlock::resilient::Report;
use serde::Serialize;

use super::subject::{self, Job, Resilient, Subject};
use crate::failure::Failure;
use crate::ui::{self, Tone, figure, text};

const EXAMPLES: &str = "\
Examples:
  qspin demo deadlock                  five threads, each waits for the next one's lock
  qspin demo deadlock --threads 2      the shortest circle of more than one
  qspin demo deadlock -l parking       waiters that sleep
  qspin demo deadlock --json           for programs

Exit codes: 0 the deadlock was reported and all went on, 1 it was not, 2 wrong usage.";

/// How long a thread waits at most. A deadlock is told long before.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Threads, and locks
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=128))]
    threads: u64,

    #[arg(short, long, value_name = "NAME", default_value = "chosen", help = lock_help())]
    lock: String,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn lock_help() -> String {
    format!("The lock: {}", subject::names())
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let subject: Subject = args.lock.parse().map_err(Failure::usage)?;
    let table = subject.with_type(Dinner { threads: args.threads as usize, subject })?;
    if args.json {
        ui::sayln!("{}", serde_json::to_string_pretty(&table).expect("plain data"));
    } else {
        ui::say!("{table}");
    }
    table.failure().map_or(Ok(ExitCode::SUCCESS), |message| Err(Failure::failed(message)))
}

struct Dinner {
    threads: usize,
    subject: Subject,
}

/// How a thread fared.
#[derive(Serialize)]
struct Fared {
    thread: usize,
    holds: usize,
    wants: usize,
    /// It was told of a deadlock, and has released its lock.
    gave_up: bool,
    timed_out: bool,
    /// From the moment at which the last of them had asked.
    told_after_us: Option<f64>,
    /// It had both locks in the end.
    had_both: bool,
}

#[derive(Serialize)]
struct Table {
    lock: &'static str,
    threads: usize,
    /// Until the first was told.
    told_after_us: Option<f64>,
    /// Until all had had both locks.
    all_done_after_us: f64,
    circle: usize,
    report: Option<String>,
    each: Vec<Fared>,
}

impl Job for Dinner {
    type Output = Result<Table, Failure>;

    fn run<R: Resilient>(self) -> Self::Output {
        let Self { threads, subject } = self;
        let forks: Vec<R> = (0..threads).map(|_| R::new()).collect();
        let (all_hold, first_told) = (Barrier::new(threads), Mutex::new(None));
        let asked: Vec<Mutex<Option<Instant>>> = (0..threads).map(|_| Mutex::new(None)).collect();
        let dine = |n: usize| {
            let (mine, next) = (&forks[n], &forks[(n + 1) % threads]);
            let first = mine.lock_within(LIMIT);
            // Also one that has failed: the others wait for it here.
            all_hold.wait();
            let first = first.map_err(|error| Failure::failed(error.to_string()))?;
            *lock(&asked[n]) = Some(Instant::now());
            let answer = next.lock_within(LIMIT).map(drop);
            drop(first);
            let told = answer.err().map(|error| (Instant::now(), error));
            if let Some((at, error)) = told {
                let mut first = lock(&first_told);
                if first.is_none_or(|(before, _): (Instant, Report)| at < before) {
                    *first = error.report().map(|report| (at, report)).or(*first);
                }
            }
            let had_both = told.is_none() || try_again(mine, next);
            Ok((told, had_both, Instant::now()))
        };
        let ended: Vec<Result<_, Failure>> = thread::scope(|scope| {
            let dine = &dine;
            let all: Vec<_> = (0..threads).map(|n| scope.spawn(move || dine(n))).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_| Err(Failure::failed("a thread panicked")))
            };
            all.into_iter().map(join).collect()
        });
        let ended = ended.into_iter().collect::<Result<Vec<_>, _>>()?;
        let closed = asked.iter().filter_map(|at| *lock(at)).max().expect("all have asked");
        let us = |at: Instant| at.saturating_duration_since(closed).as_nanos() as f64 / 1e3;
        let is =
            |told: Option<(Instant, LockError)>, kind: fn(LockError) -> bool| told.is_some_and(|told| kind(told.1));
        let first = *lock(&first_told);
        Ok(Table {
            lock: subject.name(),
            threads,
            told_after_us: ended.iter().filter_map(|(told, ..)| told.map(|(at, _)| us(at))).reduce(f64::min),
            all_done_after_us: ended.iter().map(|&(_, _, at)| us(at)).fold(0.0, f64::max),
            circle: first.map_or(0, |(_, report)| report.length()),
            report: first.map(|(_, report)| report.to_string()),
            each: ended
                .iter()
                .enumerate()
                .map(|(n, &(told, had_both, _))| Fared {
                    thread: n,
                    holds: forks[n].address(),
                    wants: forks[(n + 1) % threads].address(),
                    gave_up: is(told, LockError::is_deadlock),
                    timed_out: is(told, LockError::is_timeout),
                    told_after_us: told.map(|(at, _)| us(at)),
                    had_both,
                })
                .collect(),
        })
    }
}

/// Takes both, as often as it takes: the others may still be about to get what they wait for.
fn try_again<R: Resilient>(mine: &R, next: &R) -> bool {
    loop {
        let answer = mine.lock_within(LIMIT).and_then(|_mine| next.lock_within(LIMIT).map(drop));
        match answer {
            Ok(()) => return true,
            Err(error) if error.is_timeout() => return false,
            Err(_) => thread::yield_now(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    fn failure(&self) -> Option<String> {
        let lock = self.lock;
        if self.each.iter().any(|fared| fared.timed_out) {
            Some(format!("{lock}: a thread was told that its time is over, instead of a deadlock"))
        } else if !self.each.iter().any(|fared| fared.gave_up) {
            Some(format!("{lock}: a circle was closed, and nobody was told"))
        } else if !self.each.iter().all(|fared| fared.had_both) {
            Some(format!("{lock}: somebody did not go on"))
        } else {
            None
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = ui::table(&["thread", "holds", "wants", "and so"], &["told after"]);
        for fared in &self.each {
            let (what, tone) = match fared {
                Fared { had_both: false, .. } => ("did not go on", Tone::Bad),
                Fared { timed_out: true, .. } => ("waited in vain, then had both", Tone::Bad),
                Fared { gave_up: true, .. } => ("was told, gave up, had both later", Tone::Warn),
                _ => ("waited, and had both", Tone::Good),
            };
            table.add_row(vec![
                text(fared.thread, Tone::Strong),
                text(format!("{:#x}", fared.holds), Tone::Plain),
                text(format!("{:#x}", fared.wants), Tone::Plain),
                text(what, tone),
                figure(fared.told_after_us.map_or("-".into(), |us| ui::nanos(us * 1e3)), Tone::Plain),
            ]);
        }
        let title = format!("{} threads, each with a lock, ask for the next one's ({})", self.threads, self.lock);
        writeln!(f, "{}\n\n{table}\n", ui::heading(&title))?;
        if let Some(report) = &self.report {
            writeln!(f, "{}\n{report}\n", ui::heading("What the first was told"))?;
        }
        let told = self.told_after_us.map_or("never".into(), |us| ui::nanos(us * 1e3));
        let done = ui::nanos(self.all_done_after_us * 1e3);
        writeln!(
            f,
            "From the moment the circle was closed: the first was told after {told}, all were done after {done}."
        )
    }
}
