//! `qspin bench`: the locks, in the situations that matter, beside those people use today.

mod alone;
mod cell;
mod child;
mod clock;
mod crowd;
mod deadlock;
mod figures;
mod machine;
mod map;
mod memory;
mod noise;
mod plan;
mod plot;
mod programs;
mod report;
mod row;
mod session;
mod start;
mod stats;
mod table;
mod tradeoff;
mod verdict;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;

use self::clock::Clock;
use self::noise::Watch;
use self::plan::{Cell, Scenario};
use self::session::{Entry, Session};
use crate::failure::Failure;
use crate::files;
use crate::locks::LockName;

const MOST_THREADS: u64 = 1024;

const EXAMPLES: &str = "\
Examples:
  qspin bench --quick                          all locks, all scenarios, in little more than a minute
  qspin bench --report bench.html              the full run, up to 25 minutes, and a page to look at
  qspin bench --lock native,mcs,spin-ticket --scenario contended
  qspin bench --scenario oversubscribed --threads 4,16 --rounds 3 --json rows.jsonl
  qspin bench --trade-off --report tradeoff.html

Throughput and waits are compared within a round and for the same distance between the CPUs, which a
virtual machine's host may change at any time. Run it on an idle machine, and trust what repeats.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Shorter slices, fewer rounds and thread counts: done within 90 s
    #[arg(long)]
    quick: bool,

    /// Locks to measure, each in every round [default: all that are of use, those that only spin just once where threads outnumber CPUs]
    #[arg(long = "lock", value_name = "NAME", value_delimiter = ',')]
    locks: Vec<LockName>,

    /// Scenarios to measure [default: all]
    #[arg(long = "scenario", value_name = "NAME", value_delimiter = ',')]
    scenarios: Vec<Scenario>,

    /// Thread counts for all but alone-hot and alone-cold, 1 to 1024 [default: 2; oversubscribed 4 to 64, map 1 to 32, programs 2 to 32]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..=MOST_THREADS))]
    threads: Vec<u64>,

    /// Times that every lock is measured in every cell [default: 11, quick 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,

    /// Length of a slice, one lock in one cell in one round, above 0 and up to 60 s; oversubscribed: 8 times that
    /// [default: 0.25, quick 0.06]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<f64>,

    /// A slice that takes so much longer than it should is killed and reported
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    kill_after: f64,

    /// Seed of think times and map keys
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Show what the lock counted of itself: how often it queued, slept, was woken. Needs a build with --features stats
    #[arg(long)]
    stats: bool,

    /// Write each row to FILE as a line of JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a page with charts to FILE
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,

    /// Instead: turn one knob of `parking` at a time, and show what throughput costs in waiting
    #[arg(long, conflicts_with_all = ["locks", "scenarios", "threads", "stats"])]
    trade_off: bool,

    /// Write the chart of --trade-off alone to FILE
    #[arg(long, value_name = "FILE.svg", requires = "trade_off")]
    svg: Option<PathBuf>,

    /// For qspin's own use: measure one slice
    #[arg(long, hide = true, value_name = "ORDER")]
    child: Option<String>,

    /// For tests: the slices of this lock hang
    #[arg(long, hide = true, value_name = "NAME")]
    test_hang: Option<LockName>,
}

/// A time in seconds that makes sense here.
fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "a number of seconds, above 0 and up to 60, such as 0.25".to_owned())?;
    if value > 0.0 && value <= 60.0 { Ok(value) } else { Err("it must be above 0 and at most 60 seconds".to_owned()) }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if let Some(order) = &args.child {
        return child::obey(order);
    }
    if args.stats {
        stats::need()?;
    }
    // Before anything is measured: what was measured for minutes must not be lost to a wrong path.
    let Files { json, report, svg } = files(args)?;

    let clock = Clock::calibrate();
    let allowed = machine::allowed_cpus();
    let cpus = machine::placing_order(&allowed);
    let plan = if args.trade_off { tradeoff::plan(args.quick, cpus.len())? } else { plan(args, cpus.len())? };
    let (session, left_out) = session(args, plan, clock, cpus)?;
    announce(&session, &left_out);
    let mut watch = Watch::start();
    let outcome = session.run(&mut watch, json)?;
    let compared = outcome.compared();
    if args.trade_off {
        let noise = watch.finish(&outcome, &[]);
        let facts = machine::describe(clock, &allowed);
        let found = tradeoff::Found::of(&compared, &outcome, &noise, session.rounds)?;
        if let Some(file) = report {
            files::fill(file, &found.page(&facts), "the report")?;
        }
        if let Some(file) = svg {
            files::fill(file, &found.svg, "the chart")?;
        }
        show(&found.text())?;
        return verdict_on(&outcome);
    }
    let groups = verdict::groups(&compared);
    let noise = watch.finish(&outcome, &groups);
    let starts = session.entries.iter().any(|entry| entry.lock == LockName::Chosen);
    let deadlocks = deadlock::measure(session.entries.iter().map(|entry| entry.lock), args.quick);
    let figures = figures::figures(&compared, starts.then(start::measure).flatten(), &deadlocks);
    let events = stats::per_thousand(&groups, &compared);
    if let Some(file) = report {
        let facts = machine::describe(clock, &allowed);
        let page = report::page(&report::Contents {
            facts: &facts,
            groups: &groups,
            outcome: &outcome,
            noise: &noise,
            figures: &figures,
            events: &events,
            planned_rounds: session.rounds,
        })?;
        files::fill(file, &page, "the report")?;
    }
    show(&table::text(&groups, &outcome, &noise, &figures, &events, session.rounds))?;
    verdict_on(&outcome)
}

/// What is about to be done, before it takes its time.
fn announce(session: &Session, left_out: &[String]) {
    for what in left_out {
        eprintln!("left out: {what}");
    }
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: its figures mean nothing (cargo run --release)");
    }
    eprintln!(
        "{}, {}, {}: about {:.0} s",
        count(session.cells.len(), "cell"),
        count(session.entries.len(), "contender"),
        count(session.rounds as usize, "round"),
        session.estimate().as_secs_f64().max(1.0)
    );
}

/// What is to be written.
struct Files {
    json: Option<File>,
    report: Option<File>,
    svg: Option<File>,
}

fn files(args: &Args) -> Result<Files, Failure> {
    files::distinct(&[("--json", &args.json), ("--report", &args.report), ("--svg", &args.svg)])?;
    let open = |path: &Option<PathBuf>| path.as_deref().map(files::open).transpose();
    let files = Files { json: open(&args.json)?, report: open(&args.report)?, svg: open(&args.svg)? };
    if let Some(json) = &files.json {
        json.set_len(0).map_err(|e| Failure::failed(format!("cannot empty the JSON file: {e}")))?;
    }
    Ok(files)
}

/// Prints `text`. A reader who has seen enough, as `head` does, is no failure.
fn show(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::failed(format!("cannot print: {e}"))),
        _ => Ok(()),
    }
}

/// Who is to be measured where, and what cannot be had.
struct Plan {
    cells: Vec<Cell>,
    left_out: Vec<String>,
    entries: Vec<Entry>,
    size: plan::Size,
    /// Each in every round, also where the first one tells it all.
    every_round: bool,
}

/// What the command line asks for.
fn plan(args: &Args, cpus: usize) -> Result<Plan, Failure> {
    let mut locks = if args.locks.is_empty() { LockName::usual().collect() } else { args.locks.clone() };
    let mut scenarios =
        if args.scenarios.is_empty() { Scenario::value_variants().to_vec() } else { args.scenarios.clone() };
    let mut threads: Vec<usize> = args.threads.iter().map(|&n| n as usize).collect();
    dedup(&mut locks);
    dedup(&mut scenarios);
    dedup(&mut threads);
    let counts = (!threads.is_empty()).then_some(&threads[..]);
    let plan::Cells { cells, left_out } = plan::cells(&scenarios, counts, args.quick, cpus);
    if cells.is_empty() {
        return Err(Failure::usage(format!("nothing is left to measure: {}", left_out.join("; "))));
    }
    Ok(Plan {
        cells,
        left_out,
        entries: locks.into_iter().map(Entry::from).collect(),
        size: if args.quick { plan::QUICK } else { plan::FULL },
        every_round: !args.locks.is_empty(),
    })
}

/// The session that follows the plan, and what it leaves out.
fn session(args: &Args, plan: Plan, clock: Clock, cpus: Vec<usize>) -> Result<(Session, Vec<String>), Failure> {
    let Plan { cells, mut left_out, entries, size, every_round } = plan;
    // Who sets the sizes knows how long they take.
    let own_sizes = args.rounds.is_some() || args.seconds.is_some();
    let session = Session {
        cells,
        entries,
        rounds: args.rounds.unwrap_or(size.rounds),
        slice: Duration::from_secs_f64(args.seconds.unwrap_or(size.slice_s)),
        every_round,
        stats: args.stats,
        seed: args.seed,
        kill_after: Duration::from_secs_f64(args.kill_after),
        limit: (!own_sizes).then(|| Duration::from_secs_f64(size.limit_s)),
        clock,
        cpus,
        hang: args.test_hang,
    };
    let misfits = session.misfits().into_iter().map(|(scenario, lock)| match scenario {
        Scenario::Allocator | Scenario::Channel => format!("{lock} in {}: it has no lock_api form", scenario.name()),
        _ => format!("{lock} in {}: it would corrupt what it should guard", scenario.name()),
    });
    left_out.extend(misfits);
    if session.is_empty() {
        return Err(Failure::usage(format!("nothing is left to measure: {}", left_out.join("; "))));
    }
    if session.spares_rounds() {
        left_out.push(
            "locks that only spin, where threads outnumber CPUs, after the first round (--lock NAMES measures them in each)"
                .to_owned(),
        );
    }
    Ok((session, left_out))
}

fn count(number: usize, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}

/// Drops what was named before; the order stays.
fn dedup<T: PartialEq>(items: &mut Vec<T>) {
    let mut index = 0;
    while index < items.len() {
        if items[..index].contains(&items[index]) {
            items.remove(index);
        } else {
            index += 1;
        }
    }
}

fn verdict_on(outcome: &session::Outcome) -> Result<(), Failure> {
    let mut complaints = outcome.violated.clone();
    if !outcome.lost.is_empty() {
        complaints.push(format!("{} gave no row; the others are kept", count(outcome.lost.len(), "slice")));
    }
    if complaints.is_empty() { Ok(()) } else { Err(Failure::failed(complaints.join("\nqspin: "))) }
}
