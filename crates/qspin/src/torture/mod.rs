//! `qspin torture`: everything that a lock has to stand, at once, and two questions: was there ever more than one in
//! a critical section, and did everybody get on?

mod progress;
mod report;
mod run;
mod section;
mod signals;
mod subject;
mod supervisor;
mod worker;

use std::io::Write;
use std::time::{Duration, SystemTime};

use self::report::Report;
use self::run::{Recipe, Run};
use self::subject::Subject;
use crate::failure::Failure;
use crate::locks::{Contender, LockJob};
use crate::ui;

const EXAMPLES: &str = "\
Examples:
  qspin torture                              ten seconds of everything for the queued lock
  qspin torture --lock test-and-set -s 60    a minute, another lock
  qspin torture --threads 64 --no-churn      many waiters that stay
  qspin torture --lock broken                see that a broken lock is caught

Exit codes: 0 held, 1 exclusion or progress failed, 2 wrong usage.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The lock
    #[arg(short, long, value_name = "NAME", default_value = "native", help = lock_help())]
    lock: Subject,

    /// How long
    #[arg(short, long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// Worker threads at a time, up to 1024 [default: twice the CPUs]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: Option<u64>,

    /// Repeat the choices of an earlier run (its schedule cannot be repeated)
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Send no signals: no handlers that wait, or hold up who they interrupt
    #[arg(long)]
    no_signals: bool,

    /// Let threads live as long as the run
    #[arg(long)]
    no_churn: bool,

    /// Never take a lock while holding another
    #[arg(long)]
    no_nesting: bool,

    /// Never merely try
    #[arg(long)]
    no_trylock: bool,

    /// The longest of the rare long holds; 0, none
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=1000))]
    long_hold_ms: u64,

    /// Ask for progress when nobody has taken a lock for so many seconds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    stall_seconds: u64,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn lock_help() -> String {
    let names: Vec<_> = crate::locks::LockName::ALL.iter().map(|lock| lock.name()).collect();
    format!("The lock: {}", names.join(", "))
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    args.lock.with_type(Torture(args))
}

struct Torture<'a>(&'a Args);

impl LockJob for Torture<'_> {
    type Output = Result<(), Failure>;

    fn run<L: Contender>(self) -> Self::Output {
        torture::<L>(self.0)
    }
}

fn torture<L: Contender>(args: &Args) -> Result<(), Failure> {
    let recipe = recipe(args);
    // From here on in every thread: only workers ask for signals.
    signals::block();
    signals::install::<L>().map_err(|error| Failure::failed(format!("cannot install signal handlers: {error}")))?;
    let run: &'static Run<L> = Box::leak(Box::new(Run::new(recipe)));
    let bar = ui::progress(args.seconds * 1000);
    let seen = supervisor::supervise(run, args.seconds, Duration::from_secs(args.stall_seconds), &bar);
    bar.finish_and_clear();

    let stuck = !seen.left.is_empty();
    if stuck {
        leave_if_reporting_hangs();
    }
    let report = Report::new(args.lock, run, seen, args.stall_seconds);
    print!("{}", if args.json { report.to_json() + "\n" } else { report.to_text() });
    let result = report.failure().map_or(Ok(()), |message| Err(Failure::failed(message)));
    if stuck {
        if let Err(failure) = &result {
            eprintln!("qspin: {failure}");
        }
        let _ = std::io::stdout().flush();
        // SAFETY: no memory is involved. Not `exit`: it would run exit hooks beside threads that never end.
        unsafe { libc::_exit(i32::from(result.is_err())) };
    }
    result
}

fn recipe(args: &Args) -> Recipe {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64);
    Recipe {
        threads: args.threads.map_or((2 * cpus).min(1024), |n| n as usize),
        seed: args.seed.unwrap_or_else(clock),
        signals: !args.no_signals,
        handlers_wait: !args.no_signals && args.lock.may_wait_in_handlers(),
        churn: !args.no_churn,
        nesting: !args.no_nesting,
        trylock: !args.no_trylock,
        long_hold_ns: args.long_hold_ms * 1_000_000,
    }
}

/// A stuck handler may have interrupted its thread inside the allocator, which the report needs too.
fn leave_if_reporting_hangs() {
    extern "C" fn leave(_: libc::c_int) {
        const LAST_WORDS: &[u8] = b"qspin: no progress, and a thread is stuck where the report cannot be made\n";
        // SAFETY: a live buffer; both calls are allowed in a handler.
        unsafe {
            libc::write(2, LAST_WORDS.as_ptr().cast(), LAST_WORDS.len());
            libc::_exit(1);
        }
    }
    // SAFETY: the handler is of the right type, and does only what a handler may.
    unsafe {
        libc::signal(libc::SIGALRM, leave as *const () as usize);
        libc::alarm(5);
    }
}
