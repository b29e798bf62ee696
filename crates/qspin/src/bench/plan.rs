//! What is to be measured: the cells, how often, for how long.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::programs;
use crate::locks::LockName;

/// A situation that a lock can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scenario {
    /// One thread, the lock's line in its cache: nothing but lock and unlock
    AloneHot,
    /// Two CPUs in turn, never at the same time: each finds the lock's line in the other's cache
    AloneCold,
    /// A thread on each of several CPUs, sections and think times of several lengths
    Contended,
    /// Threads that the scheduler places, up to many more than there are CPUs
    Oversubscribed,
    /// A shared hash map, four gets to one put
    Map,
    /// A program: threads that answer requests allocate from one talc heap
    Allocator,
    /// A program: jobs through a bounded channel of futures-intrusive
    Channel,
}

impl Scenario {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::AloneHot => "alone-hot",
            Self::AloneCold => "alone-cold",
            Self::Contended => "contended",
            Self::Oversubscribed => "oversubscribed",
            Self::Map => "map",
            Self::Allocator => "allocator",
            Self::Channel => "channel",
        }
    }

    /// A program of others, which needs a lock that it can be built on.
    pub(super) const fn is_program(self) -> bool {
        matches!(self, Self::Allocator | Self::Channel)
    }

    /// Two CPUs take part, so their distance matters.
    pub(super) const fn has_placement(self) -> bool {
        !matches!(self, Self::AloneHot)
    }
}

/// A scenario with its parameters. One lock, in one cell, in one round, is a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Cell {
    pub(super) scenario: Scenario,
    pub(super) threads: usize,
    pub(super) section_ns: Option<u32>,
    /// The mean: each think time is drawn from half of it to one and a half times it.
    pub(super) think_ns: Option<u32>,
}

impl Cell {
    pub(super) const fn new(scenario: Scenario, threads: usize) -> Self {
        Self { scenario, threads, section_ns: None, think_ns: None }
    }

    pub(super) const fn times(self, section_ns: u32, think_ns: u32) -> Self {
        Self { section_ns: Some(section_ns), think_ns: Some(think_ns), ..self }
    }

    /// Each thread stays on a CPU of its own.
    pub(super) const fn is_pinned(&self, cpus: usize) -> bool {
        !matches!(self.scenario, Scenario::Oversubscribed) && self.threads <= cpus
    }

    /// More threads than CPUs as programs have them, which also do something else than lock.
    pub(super) fn is_crowd(&self) -> bool {
        matches!(self.scenario, Scenario::Oversubscribed) && self.think_ns != Some(0)
    }

    /// Whether a slice in this round tells anything about `lock`. With more threads than CPUs a lock that only spins
    /// is as slow in each round as in the first. A program is run with locks that somebody would give it.
    pub(super) fn tells(&self, lock: LockName, round: u32, cpus: usize) -> bool {
        if self.scenario.is_program() {
            return programs::are_used_with(lock);
        }
        if lock.is_form_of_another() && !self.shows_forms() {
            return false;
        }
        self.threads <= cpus || lock.sleeps() || round == 0
    }

    /// Where the price of a slow path that was chosen when the program started can be seen: where little else is done.
    fn shows_forms(&self) -> bool {
        match self.scenario {
            Scenario::AloneHot => true,
            Scenario::Contended => self.threads == 2 && self.think_ns == Some(0),
            Scenario::Oversubscribed => self.is_crowd() && self.threads == 8,
            _ => false,
        }
    }

    /// How long a slice of this cell lasts, where an ordinary one lasts `slice`.
    pub(super) fn length(&self, slice: Duration) -> Duration {
        match self.scenario {
            // The same few cycles over and over: the median settles fast.
            Scenario::AloneHot | Scenario::AloneCold => slice / 2,
            // Who got how much, and who waited longest, settles only after each thread has had the CPU many times.
            Scenario::Oversubscribed if self.is_crowd() => slice * 8,
            Scenario::Oversubscribed | Scenario::Allocator | Scenario::Channel => slice * 2,
            Scenario::Contended | Scenario::Map => slice,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scenario.name())?;
        if self.scenario != Scenario::AloneHot && self.scenario != Scenario::AloneCold {
            write!(f, " {} threads", self.threads)?;
        }
        if let Some(section) = self.section_ns {
            write!(f, ", section {section} ns")?;
        }
        if let Some(think) = self.think_ns {
            write!(f, ", think {think} ns")?;
        }
        Ok(())
    }
}

pub(super) const SECTIONS_NS: [u32; 3] = [0, 50, 500];
pub(super) const THINKS_NS: [u32; 3] = [0, 100, 1000];
/// A short section, and enough else to do that some of many threads usually think.
pub(super) const CROWD_SECTION_NS: u32 = 100;
pub(super) const CROWD_THINK_NS: u32 = 1000;
/// The same without anything else to do: one thread after another takes the lock again before others can.
const STORM_SECTION_NS: u32 = 50;
const STORM_THREADS: usize = 8;
const MAP_THINK_NS: u32 = 100;
/// What a request or a job is besides its memory or its way through the queue.
const PROGRAM_THINK_NS: u32 = 500;

/// Slices shorter than this say nothing about who got how much and who waited longest: with so many threads some have
/// hardly run.
pub(super) const SHORTEST_FOR_FAIRNESS_S: f64 = 2.0;

/// The size of a run that is not told one.
pub(super) struct Size {
    pub(super) rounds: u32,
    pub(super) slice_s: f64,
    /// Not a slice more after so long.
    pub(super) limit_s: f64,
}

pub(super) const QUICK: Size = Size { rounds: 4, slice_s: 0.06, limit_s: 85.0 };
pub(super) const FULL: Size = Size { rounds: 11, slice_s: 0.25, limit_s: 24.7 * 60.0 };

/// The cells of a run, and what had to be left out, in words.
pub(super) struct Cells {
    pub(super) cells: Vec<Cell>,
    pub(super) left_out: Vec<String>,
}

/// The cells for these scenarios on a machine with `cpus` CPUs for us.
pub(super) fn cells(scenarios: &[Scenario], threads: Option<&[usize]>, quick: bool, cpus: usize) -> Cells {
    let mut cells = Vec::new();
    let mut left_out = Vec::new();
    for &scenario in scenarios {
        let counts = threads.map_or_else(|| default_threads(scenario, quick), <[usize]>::to_vec);
        match scenario {
            Scenario::AloneHot => cells.push(Cell::new(scenario, 1)),
            Scenario::AloneCold if cpus < 2 => left_out.push("alone-cold needs two CPUs".to_owned()),
            Scenario::AloneCold => cells.push(Cell::new(scenario, 2)),
            Scenario::Contended => {
                for count in counts {
                    if count > cpus {
                        left_out.push(format!(
                            "contended with {count} threads needs {count} CPUs; more threads than CPUs is scenario oversubscribed"
                        ));
                        continue;
                    }
                    let grid = SECTIONS_NS.iter().flat_map(|&s| THINKS_NS.iter().map(move |&t| (s, t)));
                    cells.extend(grid.map(|(s, t)| Cell::new(scenario, count).times(s, t)));
                }
            }
            Scenario::Oversubscribed => {
                cells.extend(counts.iter().map(|&n| Cell::new(scenario, n).times(CROWD_SECTION_NS, CROWD_THINK_NS)));
                let storms = threads.map_or_else(|| vec![STORM_THREADS], <[usize]>::to_vec);
                cells.extend(storms.into_iter().map(|n| Cell::new(scenario, n).times(STORM_SECTION_NS, 0)));
            }
            Scenario::Allocator | Scenario::Channel => {
                let fewest = if scenario == Scenario::Channel { 2 } else { 1 };
                if counts.iter().any(|&n| n < fewest) {
                    left_out.push("channel with 1 thread: one offers and another takes".to_owned());
                }
                let cell = |n| Cell { think_ns: Some(PROGRAM_THINK_NS), ..Cell::new(scenario, n) };
                cells.extend(counts.into_iter().filter(|&n| n >= fewest).map(cell));
            }
            Scenario::Map => {
                let cell = |&n| Cell { think_ns: Some(MAP_THINK_NS), ..Cell::new(scenario, n) };
                cells.extend(counts.iter().map(cell));
            }
        }
    }
    if quick && threads.is_none() {
        if scenarios.contains(&Scenario::Oversubscribed) {
            left_out.push("oversubscribed with 4, 16 and 32 threads (the full run has them)".to_owned());
        }
        if scenarios.contains(&Scenario::Map) {
            left_out.push("map with 32 threads (the full run has it)".to_owned());
        }
        if scenarios.iter().any(|s| s.is_program()) {
            left_out.push("programs with 2 and 32 threads (the full run has them)".to_owned());
        }
    }
    if cpus < 2 && !left_out.is_empty() {
        left_out.push("this process may use one CPU only (see `taskset -p $$`)".to_owned());
    }
    Cells { cells, left_out }
}

fn default_threads(scenario: Scenario, quick: bool) -> Vec<usize> {
    match scenario {
        Scenario::AloneHot => vec![1],
        Scenario::AloneCold | Scenario::Contended => vec![2],
        Scenario::Oversubscribed if quick => vec![8, 64],
        Scenario::Oversubscribed => vec![4, 8, 16, 32, 64],
        Scenario::Map if quick => vec![1, 2, 8],
        Scenario::Map => vec![1, 2, 8, 32],
        Scenario::Allocator | Scenario::Channel if quick => vec![8],
        Scenario::Allocator | Scenario::Channel => vec![2, 8, 32],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cpu_leaves_cells_out_and_says_so() {
        let plan = cells(Scenario::value_variants(), None, false, 1);
        assert!(plan.cells.iter().all(|c| !matches!(c.scenario, Scenario::AloneCold | Scenario::Contended)));
        assert!(plan.left_out.iter().any(|m| m.starts_with("contended")));
        assert!(plan.left_out.iter().any(|m| m.starts_with("alone-cold")));
    }

    #[test]
    fn two_cpus_get_everything() {
        let plan = cells(Scenario::value_variants(), None, false, 2);
        assert_eq!(plan.left_out, Vec::<String>::new());
        assert_eq!(plan.cells.iter().filter(|c| c.scenario == Scenario::Contended).count(), 9);
        let mut unique = plan.cells.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), plan.cells.len());
    }

    #[test]
    fn a_full_run_measures_crowds_for_long_enough() {
        let plan = cells(&[Scenario::Oversubscribed], None, false, 2);
        let crowds: Vec<_> = plan.cells.iter().filter(|c| c.is_crowd()).collect();
        assert_eq!(crowds.iter().map(|c| c.threads).collect::<Vec<_>>(), [4, 8, 16, 32, 64]);
        let slice = Duration::from_secs_f64(FULL.slice_s);
        assert!(crowds.iter().all(|c| c.length(slice).as_secs_f64() >= SHORTEST_FOR_FAIRNESS_S));
    }

    #[test]
    fn the_forms_of_a_lock_are_measured_where_they_differ() {
        let told = |scenario, lock| {
            let cells = cells(&[scenario], None, true, 2).cells;
            cells.into_iter().filter(|cell| cell.tells(lock, 1, 2)).count()
        };
        for lock in [LockName::Chosen, LockName::ChosenByLoad] {
            assert_eq!(told(Scenario::AloneHot, lock), 1);
            assert_eq!(told(Scenario::Contended, lock), SECTIONS_NS.len());
            assert_eq!(told(Scenario::Oversubscribed, lock), 1);
            assert_eq!(told(Scenario::Map, lock) + told(Scenario::Channel, lock), 0);
        }
        assert_eq!(told(Scenario::Contended, LockName::Paravirt), SECTIONS_NS.len() * THINKS_NS.len());
    }

    #[test]
    fn a_lock_that_spins_meets_a_crowd_once() {
        let crowd = cells(&[Scenario::Oversubscribed], None, true, 2).cells[0];
        assert!(crowd.tells(LockName::Mcs, 0, 2) && !crowd.tells(LockName::Mcs, 1, 2));
        assert!(crowd.tells(LockName::Mcs, 1, crowd.threads));
        assert!(crowd.tells(LockName::Parking, 1, 2));
    }
}
