//! `qspin torture`: everything that a lock has to stand, at once, and two questions: was there ever more than one in
//! a critical section, and did everybody get on?

mod cpus;
mod freed;
mod naps;
mod planted;
mod progress;
mod random;
mod report;
mod resilient;
mod run;
mod section;
mod sent;
mod signals;
mod subject;
mod supervisor;
mod warden;
mod witness;
mod worker;

pub(crate) use self::resilient::philosophers;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use self::cpus::Profile;
use self::report::Report;
use self::run::{Recipe, Run};
use self::subject::Subject;
use crate::failure::Failure;
use crate::locks::{Contender, LockJob};
use crate::ui;
use qspinlock::threads::Domains;

const EXAMPLES: &str = "\
Examples:
  qspin torture                              ten seconds of everything for the queued lock
  qspin torture --lock test-and-set -s 60    a minute, another lock
  qspin torture --threads 64 --no-churn      many waiters that stay
  qspin torture -l parking --profile crowd   64 threads on 2 CPUs
  qspin torture --lock broken                see that a broken lock is caught
  qspin torture --resilient -l parking       deadlocks, dead owners, waiters that give up
  qspin torture --resilient --mode ring:16   circles of sixteen threads
  qspin torture --resilient -l numa --domains 2
                                             the same, where near waiters come first
  qspin torture --resilient --mode crowd --acquisitions 100000000
                                             a hundred million locks, and no error that is not true

Exit codes: 0 held, 1 exclusion, progress or an error failed, 2 wrong usage.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The lock
    #[arg(short, long, value_name = "NAME", default_value = "native", help = lock_help())]
    lock: String,

    /// Torture the resilient lock with that slow path: what it reports, and what it leaves
    #[arg(long, conflicts_with_all = PLAIN)]
    resilient: bool,

    /// Ways to torture a resilient lock, each for its part of the time: aa (the same lock again, also in signal handlers),
    /// abba, three, ring:N (circles), dead (an owner that is gone), handoff (waiters that give up beside others), many
    /// (more than is recorded), order (released in any order), signals, wild (the same, with circles), dying (threads that
    /// end), crowd (no circle can be), all
    #[arg(long, value_name = "MODE,...", value_delimiter = ',', default_value = "all", requires = "resilient")]
    mode: Vec<resilient::Wanted>,

    /// Let the crowd go on until so many locks were taken, however long that is
    #[arg(long, value_name = "N", requires = "resilient", value_parser = clap::value_parser!(u64).range(1..))]
    acquisitions: Option<u64>,

    /// Pretend that the threads are in so many domains, and look for far waiters each time (QSPINLOCK_NUMA, where that is set,
    /// says how often). For numa, and what is chosen if that is numa
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(Domains::MOST)))]
    domains: Option<u32>,

    /// How long
    #[arg(short, long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// Threads and CPUs that go together; --threads and --cpus win
    #[arg(short, long, value_name = "NAME")]
    profile: Option<Profile>,

    /// Run on so many of the CPUs that this process may use [default: all]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65536))]
    cpus: Option<u64>,

    /// Worker threads at a time, up to 1024 [default: twice the CPUs, at least 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: Option<u64>,

    /// Repeat the choices of an earlier run (its schedule cannot be repeated)
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Send no signals: no handlers that wait, or hold up who they interrupt, and no naps
    #[arg(long)]
    no_signals: bool,

    /// Put no thread to sleep for 1 to 20 ms while it holds, waits or unlocks
    #[arg(long)]
    no_naps: bool,

    /// Let no lulls come, in which nobody takes a lock who might find what was lost
    #[arg(long)]
    no_lulls: bool,

    /// Never stop the whole process
    #[arg(long)]
    no_stops: bool,

    /// Let threads live as long as the run
    #[arg(long)]
    no_churn: bool,

    /// Never take a lock while holding another
    #[arg(long)]
    no_nesting: bool,

    /// Never merely try
    #[arg(long)]
    no_trylock: bool,

    /// Never wait with a time limit
    #[arg(long)]
    no_timed: bool,

    /// Use no locks that are freed as soon as they are released
    #[arg(long)]
    no_freed: bool,

    /// Never release a lock on another thread than took it
    #[arg(long)]
    no_sending: bool,

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

/// What is only done to plain locks.
const PLAIN: [&str; 10] = [
    "no_signals",
    "no_naps",
    "no_lulls",
    "no_churn",
    "no_nesting",
    "no_trylock",
    "no_timed",
    "no_freed",
    "no_sending",
    "long_hold_ms",
];

fn lock_help() -> String {
    let names: Vec<_> = crate::locks::LockName::ALL.iter().map(|lock| lock.name()).collect();
    format!("The lock: {}; with --resilient: {}", names.join(", "), resilient::names())
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let seed = args.seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64)
    });
    // In this process, which then says so: a mistake of the user's is no failed run.
    let cpus = args.cpus.or(args.profile.map(Profile::cpus));
    let threads = args.threads.or(args.profile.map(Profile::threads)).unwrap_or_else(|| {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        (2 * cpus as u64).clamp(4, 1024)
    });
    cpus.map_or(Ok(()), cpus::restrict)?;
    if args.resilient {
        return resilient::run(args, seed, threads as usize);
    }
    let stops = (!args.no_stops).then_some(seed);
    let subject: Subject = args.lock.parse().map_err(Failure::usage)?;
    if let Some(domains) = args.domains {
        witness::pretend(subject.name(), subject.looks_at_domains(), domains)?;
    }
    warden::watch(stops, || subject.with_type(Torture { args, subject, seed, threads: threads as usize }))
}

struct Torture<'a> {
    args: &'a Args,
    subject: Subject,
    seed: u64,
    threads: usize,
}

impl LockJob for Torture<'_> {
    type Output = Result<(), Failure>;

    fn run<L: Contender>(self) -> Self::Output {
        let recipe = self.recipe::<L>();
        torture::<L>(self.args, self.subject, recipe)
    }
}

fn torture<L: Contender>(args: &Args, subject: Subject, recipe: Recipe) -> Result<(), Failure> {
    // From here on in every thread: only workers ask for signals.
    signals::block();
    signals::install::<L>().map_err(|error| Failure::failed(format!("cannot install signal handlers: {error}")))?;
    let run: &'static Run<L> = Box::leak(Box::new(Run::new(recipe)));
    if recipe.freed {
        run.arena.open().map_err(|error| Failure::failed(format!("cannot reserve pages: {error}")))?;
    }
    let bar = ui::progress(args.seconds * 1000);
    let seen = supervisor::supervise(run, args.seconds, Duration::from_secs(args.stall_seconds), &bar);
    bar.finish_and_clear();

    let stuck = !seen.left.is_empty();
    if stuck {
        leave_if_reporting_hangs();
    }
    let report = Report::new(subject, run, seen, args.stall_seconds);
    ui::say!("{}", if args.json { report.to_json() + "\n" } else { report.to_text() });
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

impl Torture<'_> {
    fn recipe<L: Contender>(&self) -> Recipe {
        let args = self.args;
        Recipe {
            threads: self.threads,
            seed: self.seed,
            signals: !args.no_signals,
            handlers_wait: !args.no_signals && self.subject.may_wait_in_handlers(),
            naps: !args.no_signals && !args.no_naps,
            lulls: !args.no_lulls,
            churn: !args.no_churn,
            nesting: !args.no_nesting,
            trylock: !args.no_trylock,
            timed: !args.no_timed && L::TIMED,
            freed: !args.no_freed,
            sending: !args.no_sending && L::new().by_hand().is_some(),
            long_hold_ns: args.long_hold_ms * 1_000_000,
        }
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
