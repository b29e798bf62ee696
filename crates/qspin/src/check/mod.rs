//! `qspin check`: every execution of the lock code under a weak memory, and the audit of its orderings.

mod audit;
mod report;
mod seed;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use qspinlock_vm::check::{Handler, Lock, Outcome, Scenario, Search, Sorting, Usage, Verdict, Waiting};

use crate::failure::Failure;
use crate::files::JsonLines;
use crate::ui;
use seed::Seed;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  qspin check                                 the queued lock, 3 CPUs, 2 acquisitions each
  qspin check --lock native --cpus 4 --acquires 1
  qspin check --cpus 2 --interrupts 1 --handler same
  qspin check --lock parking-exact --acquires 1 --waiting sleepers
  qspin check --lock numa --domains 2 --sorting whim --waiting queue --acquires 1
                                              two memory nodes: who may be passed, and for how long
  qspin check --cpus 2 --usage leaving        waiters that give up
  qspin check --cpus 2 --acquires 1 --usage circle
                                              resilient locks in a deadlock: every error is true
  qspin check --all                           the whole matrix of scenarios
  qspin check --weaken                        weaken every ordering; something must break
  qspin check --replay SEED                   follow a failing execution again

Every execution within the bounds is explored, under C11 release/acquire with relaxed accesses, release sequences
and SC fences. Not modelled: load buffering, and accesses of mixed sizes.
A limit that is reached is 'not finished', and exit code 1: it never passes.")]
pub(crate) struct Args {
    /// The slow path; may be given more than once [default: native, or all with --all and --weaken]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    lock: Vec<Lock>,
    /// CPUs that contend
    #[arg(long, value_name = "N", default_value_t = 3)]
    cpus: usize,
    /// Acquisitions by each
    #[arg(long, value_name = "N", default_value_t = 2)]
    acquires: usize,
    /// Memory domains that the CPUs are spread over
    #[arg(long, value_name = "N", default_value_t = 1)]
    domains: u32,
    /// Interrupts that may arrive on each CPU, before any access
    #[arg(long, value_name = "N", default_value_t = 0)]
    interrupts: u8,
    /// What an interrupt does: take another lock, or try the same
    #[arg(long, value_enum, default_value_t = HandlerArg::Other)]
    handler: HandlerArg,
    /// CPUs, the last ones, that have no queue node
    #[arg(long, value_name = "N", default_value_t = 0)]
    nodeless: usize,
    /// Of numa: heads set waiters of other domains aside, for as long as they may (always); or do so or not, and bring
    /// them back or not, as they like (whim)
    #[arg(long, value_name = "always|whim", default_value = "always")]
    sorting: Sorting,
    /// Of numa: CPUs, the last ones, whose waiters are urgent
    #[arg(long, value_name = "N", default_value_t = 0)]
    urgent: usize,
    /// Where waiters sleep, what they do before: all, one spins in the lane, or they sleep at once. Of numa: all, or
    /// nobody takes the lane (queue)
    #[arg(long, value_name = "all|lane|sleepers|queue", default_value = "all")]
    waiting: Waiting,
    /// What is done with the lock: nothing special; guards are released by another CPU (moved); the last one frees it
    /// (freed); the last CPU gives up at any time (leaving), or all do (hasty), or look after a lock that stays free
    /// (rescued), or all but the first, behind which they may all queue at once (crowd); it is resilient, and: nothing (resilient), is taken twice (again), each CPU wants its lock and the
    /// next one (circle; once: with one look for it), or two in the same order (ordered)
    #[arg(long, value_name = "USAGE", default_value = "plain")]
    usage: Usage,
    /// Give up a scenario after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    budget: u64,
    /// Give up a scenario when the process takes so much memory
    #[arg(long, value_name = "MIB", default_value_t = 8192)]
    memory: usize,
    /// Explore only executions with so many preemptions; the verdict says so
    #[arg(long, value_name = "N")]
    preemptions: Option<u8>,
    /// Explore the whole matrix of scenarios
    #[arg(long, conflicts_with_all = ["replay", "weaken"])]
    all: bool,
    /// With --all: the scenarios that take minutes as well (5x1, 3x3, 3x2 with interrupts; 3x2 with sleepers)
    #[arg(long, requires = "all")]
    deep: bool,
    /// Weaken every ordered access a step at a time: something must break
    #[arg(long, conflicts_with = "replay")]
    weaken: bool,
    /// With --weaken: print the table of orderings as Markdown, as it stands in the documentation
    #[arg(long, requires = "weaken")]
    markdown: bool,
    /// Follow an execution that failed before
    #[arg(long, value_name = "SEED")]
    replay: Option<String>,
    /// Write the results to a file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum HandlerArg {
    /// Takes and releases another lock
    Other,
    /// Tries the same lock
    Same,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if let Some(seed) = &args.replay {
        return replay(seed);
    }
    let json = args.json.as_deref().map(JsonLines::create).transpose()?;
    if args.weaken {
        return audit::run(&locks(args), &search(args), args.markdown, json);
    }
    let scenarios =
        if args.all { locks(args).iter().flat_map(|&l| matrix(l, args.deep)).collect() } else { single(args) };
    for scenario in &scenarios {
        scenario.validate().map_err(Failure::usage)?;
    }
    explore_all(&scenarios, &search(args), json)
}

/// The locks that were asked for; all, if none was and a matrix is wanted.
fn locks(args: &Args) -> Vec<Lock> {
    match args.lock[..] {
        [] if args.all || args.weaken => Lock::ALL.to_vec(),
        [] => vec![Lock::Native],
        ref given => given.to_vec(),
    }
}

fn single(args: &Args) -> Vec<Scenario> {
    let handler = match args.handler {
        HandlerArg::Other => Handler::Other,
        HandlerArg::Same => Handler::Same,
    };
    let scenario = |lock| Scenario {
        domains: args.domains,
        nodeless: args.nodeless,
        sorting: args.sorting,
        urgent: args.urgent,
        waiting: args.waiting,
        usage: args.usage,
        ..Scenario::new(lock, args.cpus, args.acquires).interrupted(args.interrupts, handler)
    };
    locks(args).into_iter().map(scenario).collect()
}

/// What is explored of every lock. The smallest that shows each kind of failure comes first.
fn matrix(lock: Lock, deep: bool) -> Vec<Scenario> {
    let mut scenarios = matrix_of_plain(lock, deep);
    scenarios.extend(matrix_of_leaving(lock, deep));
    scenarios.extend(matrix_of_resilient(lock));
    scenarios
}

/// Waiters that give up.
fn matrix_of_leaving(lock: Lock, deep: bool) -> Vec<Scenario> {
    let domains = if lock == Lock::Numa { 2 } else { 1 };
    let bare = |size: (usize, usize), usage| Scenario {
        domains,
        ..Scenario::new(lock, size.0, size.1).used(usage).waiting(Waiting::Sleepers)
    };
    let mut scenarios = Vec::new();
    for usage in [Usage::Leaving, Usage::Hasty, Usage::Rescued] {
        scenarios.push(bare((2, 1), usage));
        scenarios.push(bare((2, 2), usage));
        if !lock.sleeps() {
            scenarios.push(bare((3, 1), usage));
            scenarios.extend([Handler::Other, Handler::Same].map(|h| bare((2, 1), usage).interrupted(1, h)));
            scenarios.push(Scenario { nodeless: 1, ..bare((3, 1), usage) });
        }
    }
    if deep && lock == Lock::Native {
        scenarios.push(bare((3, 2), Usage::Leaving));
    }
    if lock == Lock::Numa {
        scenarios.push(bare((3, 1), Usage::Crowd));
        if deep {
            // Only a head with two behind it sets somebody aside.
            scenarios.push(bare((4, 1), Usage::Crowd));
        }
    }
    scenarios
}

/// Resilient locks, where a deadlock is an error.
fn matrix_of_resilient(lock: Lock) -> Vec<Scenario> {
    if !matches!(lock, Lock::Native | Lock::Numa | Lock::TestAndSet | Lock::ParkingExact) {
        return Vec::new();
    }
    let domains = if lock == Lock::Numa { 2 } else { 1 };
    let bare = |cpus, acquires, usage| Scenario {
        domains,
        ..Scenario::new(lock, cpus, acquires).used(usage).waiting(Waiting::Sleepers)
    };
    vec![
        bare(1, 1, Usage::Again),
        bare(2, 2, Usage::Again),
        bare(2, 1, Usage::Circle),
        bare(2, 1, Usage::Once),
        bare(2, 1, Usage::Ordered),
        bare(1, 1, Usage::Alone).interrupted(1, Handler::Same),
    ]
}

fn matrix_of_plain(lock: Lock, deep: bool) -> Vec<Scenario> {
    if lock.sleeps() {
        return matrix_of_sleepers(lock, deep);
    }
    if lock.halts() {
        return matrix_of_halting(lock, deep);
    }
    let bare = |(cpus, acquires)| Scenario::new(lock, cpus, acquires);
    let mut scenarios: Vec<_> = [(2, 1), (2, 2), (3, 1), (4, 1), (3, 2)].map(bare).to_vec();
    for handler in [Handler::Other, Handler::Same] {
        scenarios.extend([(2, 1), (2, 2)].map(|size| bare(size).interrupted(1, handler)));
        if deep || !lock.sorts() {
            scenarios.push(bare((3, 1)).interrupted(1, handler));
        }
    }
    scenarios.push(bare((2, 1)).interrupted(2, Handler::Other));
    scenarios.push(Scenario { nodeless: 1, ..bare((3, 1)) });
    if lock.sorts() {
        scenarios.extend(matrix_of_domains(lock, deep));
    }
    if deep {
        scenarios.extend([(5, 1), (3, 3)].map(bare));
        scenarios.push(bare((3, 2)).interrupted(1, Handler::Other));
    }
    scenarios
}

/// CPUs of one domain, of two and of one each. To set a waiter aside takes three that queue, so most have no lane.
fn matrix_of_domains(lock: Lock, deep: bool) -> Vec<Scenario> {
    use Sorting::{Always, Whim};
    let spread = |(cpus, acquires), domains, sorting| Scenario::new(lock, cpus, acquires).spread(domains, sorting);
    let queued = |size, domains, sorting| spread(size, domains, sorting).waiting(Waiting::Queue);
    let urgent = |scenario| Scenario { urgent: 1, ..scenario };
    let mut scenarios = vec![
        spread((3, 1), 2, Always),
        queued((3, 1), 2, Whim),
        queued((3, 1), 3, Whim),
        urgent(queued((3, 1), 2, Whim)),
        queued((2, 1), 2, Whim).interrupted(1, Handler::Same),
        Scenario { nodeless: 1, ..queued((4, 1), 2, Always) },
        queued((3, 2), 2, Always),
        queued((4, 1), 2, Whim),
    ];
    if deep {
        scenarios.extend([spread((4, 1), 2, Whim), spread((3, 2), 2, Whim)]);
        scenarios.extend([1, 2, 3].map(|domains| queued((3, 2), domains, Whim)));
        scenarios.extend([(3, 2), (4, 1)].map(|size| urgent(queued(size, 2, Whim))));
        scenarios.extend([Handler::Other, Handler::Same].map(|h| queued((3, 1), 2, Always).interrupted(1, h)));
        scenarios.push(queued((4, 2), 2, Always));
    }
    scenarios
}

/// The same, where waiters sleep: a waiter does more, so more CPUs are explored with waiters that do less.
fn matrix_of_sleepers(lock: Lock, deep: bool) -> Vec<Scenario> {
    use Waiting::{All, Lane, Sleepers};
    let bare = |(cpus, acquires, waiting)| Scenario::new(lock, cpus, acquires).waiting(waiting);
    let sizes =
        [(2, 1, Sleepers), (2, 2, Sleepers), (2, 1, All), (2, 2, All), (3, 1, Sleepers), (3, 1, Lane), (3, 1, All)];
    let mut scenarios: Vec<_> = sizes.map(bare).to_vec();
    scenarios.push(bare((2, 1, Sleepers)).interrupted(1, Handler::Other));
    scenarios.extend([(2, 1, All), (2, 2, Sleepers)].map(|size| bare(size).interrupted(1, Handler::Same)));
    scenarios.push(Scenario { nodeless: 1, ..bare((2, 1, All)) });
    scenarios.push(Scenario { nodeless: 1, ..bare((3, 1, Sleepers)) });
    if deep {
        scenarios.push(bare((3, 2, Sleepers)));
    }
    scenarios
}

/// The same of virtual CPUs, which may steal and sleep early, or sleep at once.
fn matrix_of_halting(lock: Lock, deep: bool) -> Vec<Scenario> {
    use Waiting::{All, Sleepers};
    let bare = |(cpus, acquires, waiting)| Scenario::new(lock, cpus, acquires).waiting(waiting);
    let sizes = [(2, 1, Sleepers), (2, 2, Sleepers), (2, 1, All), (2, 2, All), (3, 1, Sleepers), (3, 1, All)];
    let mut scenarios: Vec<_> = sizes.map(bare).to_vec();
    scenarios.push(bare((2, 1, Sleepers)).interrupted(1, Handler::Other));
    scenarios.extend([(2, 1, All), (2, 2, Sleepers)].map(|size| bare(size).interrupted(1, Handler::Same)));
    scenarios.push(Scenario { nodeless: 1, ..bare((3, 1, All)) });
    scenarios.push(bare((3, 1, All)).used(Usage::Freed));
    scenarios.extend([(3, 1, All), (4, 1, Sleepers)].map(|size| bare(size).used(Usage::Moved)));
    if deep {
        scenarios.extend([(3, 1, Sleepers), (2, 2, All)].map(|size| bare(size).interrupted(1, Handler::Other)));
        scenarios.push(bare((3, 1, Sleepers)).interrupted(1, Handler::Same));
        scenarios.extend([bare((3, 2, Sleepers)), bare((3, 2, Sleepers)).used(Usage::Moved)]);
    }
    scenarios
}

fn search(args: &Args) -> Search {
    Search {
        time: Duration::from_secs(args.budget),
        memory: args.memory << 20,
        preemptions: args.preemptions,
        ..Search::default()
    }
}

fn explore_all(scenarios: &[Scenario], search: &Search, mut json: Option<JsonLines>) -> Result<(), Failure> {
    let mut rows = report::Rows::default();
    let bar = ui::progress(scenarios.len() as u64);
    let mut failed = Vec::new();
    for scenario in scenarios {
        let outcome = watched(&bar, scenario, search);
        bar.inc(1);
        let seed = match &outcome.verdict {
            Verdict::Broken(broken) => Some(Seed::new(scenario, search, &broken.trace.choices)),
            _ => None,
        };
        rows.add(scenario, &outcome);
        if let Some(json) = &mut json {
            report::row(json, scenario, &outcome, seed.as_ref())?;
        }
        if !matches!(outcome.verdict, Verdict::Holds) {
            failed.push((*scenario, outcome, seed));
        }
    }
    bar.finish_and_clear();
    ui::sayln!("{}", rows.table(search.preemptions));
    for (scenario, outcome, seed) in &failed {
        report::failure(scenario, outcome, seed.as_ref());
    }
    match failed.len() {
        0 => Ok(()),
        n => Err(Failure::failed(format!("{n} of {} scenarios did not pass", scenarios.len()))),
    }
}

/// Explores one scenario, while the bar says how far it is.
fn watched(bar: &indicatif::ProgressBar, scenario: &Scenario, search: &Search) -> Outcome {
    let states = Arc::new(AtomicUsize::new(0));
    let search = Search { gauge: Some(states.clone()), ..search.clone() };
    std::thread::scope(|s| {
        let work = s.spawn(|| scenario.explore(&search));
        while !work.is_finished() {
            bar.set_message(format!("{scenario}: {} states", states.load(Ordering::Relaxed)));
            bar.tick();
            // Short scenarios end before anybody could read the bar.
            std::thread::park_timeout(Duration::from_millis(20));
        }
        work.join().expect("the explorer does not panic")
    })
}

fn replay(text: &str) -> Result<(), Failure> {
    let seed: Seed = text.parse().map_err(Failure::usage)?;
    seed.scenario.validate().map_err(Failure::usage)?;
    let (broken, trace) = seed.scenario.replay(&seed.search(), &seed.choices).map_err(Failure::usage)?;
    ui::sayln!("{}{}\n\n{trace}", seed.scenario, seed.weakened_text());
    match broken {
        Some(what) => Err(Failure::failed(what)),
        None => {
            ui::sayln!("nothing is broken along this execution");
            Ok(())
        }
    }
}
