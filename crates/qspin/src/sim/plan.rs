//! What is simulated: on which machine, which locks, with how many CPUs.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use qspinlock_vm::time::model::{Domain, Model};
use qspinlock_vm::time::run::{self, LockKind, Outcome, Overcommit, RunError, Setup, Span, Until};

use super::Args;
use super::row::{Group, Row};
use crate::failure::Failure;
use crate::ui;

pub(super) struct Plan {
    pub(super) model: Model,
    pub(super) locks: Vec<LockKind>,
    pub(super) cpus: Vec<u32>,
    pub(super) seeds: u32,
    pub(super) overcommit: Option<(f64, Overcommit)>,
    /// What all runs have in common.
    pub(super) common: Setup,
}

/// The machine of this name, or in this file.
fn machine(name: &str) -> Result<Model, Failure> {
    if let Some(model) = Model::built_in(name) {
        return Ok(model);
    }
    let text = std::fs::read_to_string(name).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => unknown(name),
        _ => Failure::usage(format!("cannot read {name}: {error}")),
    })?;
    Model::parse(&text).map_err(|error| Failure::usage(format!("{name}, {error}")))
}

pub(super) fn unknown(name: &str) -> Failure {
    let known: Vec<_> = Model::built_ins().into_iter().map(|model| model.name).collect();
    Failure::usage(format!("'{name}' is neither a built-in machine nor a file; built in are {}", known.join(", ")))
}

/// The locks that are shown if none is named: the library's that spin, then those for reference.
fn usual() -> Vec<LockKind> {
    ["native", "numa", "test-and-set", "ticket", "mcs"].iter().filter_map(|name| name.parse().ok()).collect()
}

pub(super) fn plan(args: &Args) -> Result<Plan, Failure> {
    let model = machine(&args.machine)?;
    let all = model.shape.cpus();
    let mut locks = if args.locks.is_empty() { usual() } else { args.locks.clone() };
    let mut cpus = args.cpus.clone();
    if cpus.is_empty() {
        cpus.extend((0..12).map(|power| 1 << power).take_while(|&n| n < all));
        cpus.push(all);
    }
    cpus.sort_unstable();
    cpus.dedup();
    let mut seen = Vec::new();
    locks.retain(|lock| {
        !seen.contains(lock) && {
            seen.push(*lock);
            true
        }
    });
    let base = Overcommit::on(1);
    let overcommit = args.overcommit.map(|ratio| {
        let slice = args.slice.unwrap_or(base.slice);
        (
            ratio,
            Overcommit { slice, kick: args.kick.unwrap_or(base.kick), wake: args.wake.unwrap_or(base.wake), ..base },
        )
    });
    let base = Setup::new(locks[0], 1);
    let common = Setup {
        placement: args.placement(),
        section: Span::Nanos(args.section),
        think: Span::Nanos(args.think),
        lines: args.lines,
        until: Until::Acquisitions(args.acquisitions),
        domain: args.domain(),
        threshold: args.threshold,
        ..base
    };
    let plan = Plan { model, locks, cpus, seeds: args.seeds, overcommit, common };
    plan.fits()?;
    if args.svg.is_some() && plan.cpus.len() < 2 {
        return Err(Failure::usage("--svg draws curves: give --cpus two counts at least"));
    }
    Ok(plan)
}

impl Plan {
    /// Refuses what the machine has not, before anything runs.
    fn fits(&self) -> Result<(), Failure> {
        let all = self.model.shape.cpus();
        for &cpus in &self.cpus {
            let physical = self.overcommit(cpus).map_or(cpus, |o| o.physical);
            if cpus == 0 {
                return Err(Failure::usage("--cpus 0: at least 1 contends"));
            }
            if physical > all {
                let more = if self.overcommit.is_some() { "a larger --overcommit" } else { "--overcommit" };
                let name = &self.model.name;
                let text = format!("--cpus {cpus}: {name} has {all} CPUs; more virtual CPUs need {more}");
                return Err(Failure::usage(text));
            }
        }
        Ok(())
    }

    /// How so many virtual CPUs are scheduled.
    fn overcommit(&self, cpus: u32) -> Option<Overcommit> {
        let (ratio, common) = self.overcommit?;
        Some(Overcommit { physical: ((f64::from(cpus) / ratio).ceil() as u32).max(1), ..common })
    }

    fn setup(&self, lock: LockKind, cpus: u32, seed: u32) -> Setup {
        Setup { lock, cpus, seed: u64::from(seed), overcommit: self.overcommit(cpus), ..self.common.clone() }
    }

    /// Runs it all, and says how far it is.
    pub(super) fn run(&self) -> Result<Vec<Group>, Failure> {
        let mut setups = Vec::new();
        for &cpus in &self.cpus {
            for &lock in &self.locks {
                setups.extend((1..=self.seeds).map(|seed| self.setup(lock, cpus, seed)));
            }
        }
        let outcomes = run_all(&self.model, &setups)?;
        let mut outcomes = outcomes.chunks(self.seeds as usize);
        let groups = self.cpus.iter().map(|&cpus| {
            let rows = self
                .locks
                .iter()
                .zip(&mut outcomes)
                .map(|(&lock, seeds)| Row::of(lock, cpus, seeds, self.common.domain));
            Group::of(cpus, rows.collect())
        });
        Ok(groups.collect())
    }
}

/// Runs them on the CPUs that there are. Outcomes do not depend on it.
pub(super) fn run_all(model: &Model, setups: &[Setup]) -> Result<Vec<Outcome>, Failure> {
    let bar = ui::progress(setups.len() as u64);
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Result<Outcome, RunError>>>> = setups.iter().map(|_| Mutex::new(None)).collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(setups.len());
    std::thread::scope(|s| {
        for _ in 0..workers {
            s.spawn(|| {
                // The longest come last, and are begun first.
                while let Some(index) = setups.len().checked_sub(next.fetch_add(1, Ordering::Relaxed) + 1) {
                    let setup = &setups[index];
                    bar.set_message(format!("{}, {} CPUs", setup.lock, setup.cpus));
                    let outcome = run::run(model, setup);
                    *done[index].lock().expect("nobody panics with it") = Some(outcome);
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish_and_clear();
    let done = done.into_iter().map(|slot| slot.into_inner().expect("nobody panics with it").expect("all were run"));
    setups
        .iter()
        .zip(done)
        .map(|(setup, outcome)| {
            outcome.map_err(|error| match error {
                RunError::Setup(why) => Failure::usage(why),
                error => Failure::failed(format!("{}, {} CPUs, seed {}: {error}", setup.lock, setup.cpus, setup.seed)),
            })
        })
        .collect()
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { section, think, lines, domain, placement, until, .. } = &self.common;
        let ns = |span: &Span| match span {
            Span::Nanos(ns) => format!("{ns} ns"),
            Span::Cycles(cycles) => format!("{cycles} cycles"),
        };
        let each = match until {
            Until::Acquisitions(n) => format!("{n} acquisitions each"),
            Until::Time(span) => ns(span),
        };
        let unit = match domain {
            Domain::Node => "socket",
            Domain::L3 => "last-level cache",
        };
        writeln!(f, "{}: {}", self.model.name, self.model.about)?;
        write!(f, "section {}, {lines} lines; think {}; {each}, {} seeds; ", ns(section), ns(think), self.seeds)?;
        write!(f, "placement {}; domain: {unit}", format!("{placement:?}").to_lowercase())?;
        if let Some((ratio, over)) = &self.overcommit {
            let [slice, kick, wake] = [over.slice, over.kick, over.wake].map(|ns| ui::nanos(ns as f64));
            write!(f, "\n{ratio} virtual CPUs on each physical one: slice {slice}, kick {kick}, wake-up {wake}")?;
        }
        Ok(())
    }
}
