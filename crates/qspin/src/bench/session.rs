//! The measuring itself: round after round, cell after cell, the locks in turn.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::{Duration, Instant};

use super::cell::Order;
use super::child::{Lost, spawn};
use super::clock::Clock;
use super::noise::Watch;
use super::plan::{Cell, Scenario};
use super::row::Row;
use crate::failure::Failure;
use crate::locks::LockName;
use crate::ui;

/// What to do.
pub(super) struct Session {
    pub(super) cells: Vec<Cell>,
    pub(super) locks: Vec<LockName>,
    pub(super) rounds: u32,
    pub(super) slice: Duration,
    pub(super) seed: u64,
    pub(super) kill_after: Duration,
    /// No slice begins or lasts beyond this.
    pub(super) limit: Option<Duration>,
    pub(super) clock: Clock,
    pub(super) cpus: Vec<usize>,
    /// Whose slices hang, in tests.
    pub(super) hang: Option<LockName>,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) rows: Vec<Row>,
    /// Slices without a row, each with its reason and what to do.
    pub(super) lost: Vec<String>,
    /// Rows whose lock let two threads in.
    pub(super) violated: Vec<String>,
    /// Rounds begun.
    pub(super) rounds: u32,
    pub(super) out_of_time: bool,
}

impl Session {
    pub(super) fn slices(&self) -> u64 {
        u64::from(self.rounds) * self.in_a_round().count() as u64
    }

    /// About how long it takes: the slices, and what comes with each (a process, two probes).
    pub(super) fn estimate(&self) -> Duration {
        const OVERHEAD: Duration = Duration::from_millis(20);
        self.in_a_round().map(|(cell, _)| cell.length(self.slice) + OVERHEAD).sum::<Duration>() * self.rounds
    }

    fn in_a_round(&self) -> impl Iterator<Item = (Cell, LockName)> {
        let pairs = self.cells.iter().flat_map(|&cell| self.locks.iter().map(move |&lock| (cell, lock)));
        pairs.filter(|&(cell, lock)| fits(cell, lock))
    }

    /// Measures. Each row goes to `json` as soon as it is there, so that whatever happens it is not lost.
    pub(super) fn run(&self, watch: &mut Watch, json: Option<File>) -> Result<Outcome, Failure> {
        let begun = Instant::now();
        let mut json = json.map(BufWriter::new);
        let mut outcome = Outcome::default();
        // Tried once and lost: not again, it would only take its kill time in each round.
        let mut given_up: Vec<(Cell, LockName)> = Vec::new();
        let bar = ui::progress(self.slices());
        'rounds: for round in 0..self.rounds {
            watch.sample();
            for (place, &cell) in self.cells.iter().enumerate() {
                // Rotated, so that nobody always comes after the same one, or first.
                let shift = (round as usize + place) % self.locks.len();
                for &lock in self.locks[shift..].iter().chain(&self.locks[..shift]) {
                    if !fits(cell, lock) {
                        continue;
                    }
                    let left = self.limit.map(|limit| limit.saturating_sub(begun.elapsed()));
                    let length = cell.length(self.slice);
                    if left.is_some_and(|left| left < length + Duration::from_millis(100)) {
                        outcome.out_of_time = true;
                        break 'rounds;
                    }
                    outcome.rounds = round + 1;
                    bar.set_message(format!("{lock}: {cell}"));
                    if !given_up.contains(&(cell, lock)) {
                        let allowance = length + self.kill_after;
                        match self.slice(lock, cell, round, allowance.min(left.unwrap_or(allowance)), &mut json)? {
                            Ok(row) => outcome.keep(row),
                            // Not its fault: the whole run has no more time to give.
                            Err(Lost::TimedOut(_)) if left.is_some_and(|left| left < allowance) => {
                                outcome.out_of_time = true;
                                break 'rounds;
                            }
                            Err(lost) => {
                                outcome.lost.push(explain(&lost, lock, cell, round, self.cpus.len()));
                                given_up.push((cell, lock));
                            }
                        }
                    }
                    bar.inc(1);
                }
            }
        }
        bar.finish_and_clear();
        Ok(outcome)
    }

    /// One slice. Fails only if its row cannot be written.
    fn slice(
        &self,
        lock: LockName,
        cell: Cell,
        round: u32,
        kill_after: Duration,
        json: &mut Option<BufWriter<File>>,
    ) -> Result<Result<Row, Lost>, Failure> {
        let order = Order {
            lock,
            cell,
            round,
            // Another sequence in each round, the same for all locks.
            seed: self.seed.wrapping_add(u64::from(round)),
            slice_s: cell.length(self.slice).as_secs_f64(),
            clock: self.clock,
            cpus: self.cpus.clone(),
            hang: self.hang == Some(lock),
        };
        let row = spawn(&order, kill_after);
        if let (Some(json), Ok(row)) = (json, &row) {
            let write = serde_json::to_string(row).map_err(std::io::Error::from);
            let done = write.and_then(|line| writeln!(json, "{line}")).and_then(|()| json.flush());
            done.map_err(|e| Failure::failed(format!("cannot write the JSON file: {e}; free some space and repeat")))?;
        }
        Ok(row)
    }
}

impl Outcome {
    fn keep(&mut self, row: Row) {
        if row.excluded_ok == Some(false) {
            self.violated.push(format!("{} let two threads in at once: {}, round {}", row.lock, row.cell(), row.round));
        }
        self.rows.push(row);
    }
}

/// A lock that does not exclude would corrupt the map, and say nothing by it that the counters do not say.
fn fits(cell: Cell, lock: LockName) -> bool {
    cell.scenario != Scenario::Map || lock != LockName::Broken
}

fn explain(lost: &Lost, lock: LockName, cell: Cell, round: u32, cpus: usize) -> String {
    match lost {
        Lost::TimedOut(after) => {
            let advice = if cell.threads > cpus {
                "with more threads than CPUs a pure spin lock can collapse; fewer --threads, or a longer --kill-after"
            } else {
                "the machine may be overloaded; repeat, or give it a longer --kill-after"
            };
            format!(
                "{lock}: {cell}, round {round}: killed after {:.1} s without an answer ({advice})",
                after.as_secs_f64()
            )
        }
        Lost::Died(why) => {
            format!(
                "{lock}: {cell}, round {round}: its process failed: {why} (repeat it alone: --lock {lock} --scenario {})",
                cell.scenario.name()
            )
        }
    }
}
