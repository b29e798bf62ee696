//! The measuring itself: round after round, cell after cell, the locks in turn.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::{Duration, Instant};

use super::cell::Order;
use super::child::{Lost, spawn};
use super::clock::Clock;
use super::noise::{Meter, Watch};
use super::plan::{Cell, Scenario};
use super::programs;
use super::row::Row;
use crate::failure::Failure;
use crate::locks::LockName;
use crate::ui;

/// Who is measured: a lock, and how it is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) lock: LockName,
    /// What its process finds in [`SETTING`]. `None`: whatever this one was started with.
    pub(super) setting: Option<String>,
}

/// The variable of the environment that sets the lock whose waiters sleep.
pub(super) const SETTING: &str = qspinlock::threads::ENVIRONMENT_VARIABLE;

impl From<LockName> for Entry {
    fn from(lock: LockName) -> Self {
        Self { lock, setting: None }
    }
}

/// What to do.
pub(super) struct Session {
    pub(super) cells: Vec<Cell>,
    pub(super) entries: Vec<Entry>,
    pub(super) rounds: u32,
    pub(super) slice: Duration,
    pub(super) seed: u64,
    /// Each lock in every round, also where the first round said it all.
    pub(super) every_round: bool,
    /// Count what the locks do.
    pub(super) stats: bool,
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
    /// Slices run again since other processes took their CPUs.
    pub(super) repeated: usize,
}

impl Session {
    /// About how long it takes: the slices, and what comes with each (a process, two probes).
    pub(super) fn estimate(&self) -> Duration {
        const OVERHEAD: Duration = Duration::from_millis(20);
        self.turns().iter().map(|turn| turn.cell.length(self.slice) + OVERHEAD).sum()
    }

    /// All slices in the order in which they are run: the locks follow each other in each cell, so that those which
    /// are compared ran under the same conditions, and the rounds are far apart.
    fn turns(&self) -> Vec<Turn<'_>> {
        let mut turns = Vec::new();
        for round in 0..self.rounds {
            for (place, &cell) in self.cells.iter().enumerate() {
                // Rotated, so that nobody always comes after the same one, or first.
                let shift = (round as usize + place) % self.entries.len();
                let entries = self.entries[shift..].iter().chain(&self.entries[..shift]);
                let wanted = |lock| fits(cell, lock) && (self.every_round || cell.tells(lock, round, self.cpus.len()));
                turns.extend(entries.filter(|entry| wanted(entry.lock)).map(|entry| Turn { entry, cell, round }));
            }
        }
        turns
    }

    /// Locks that were asked for, in cells that they do not fit.
    pub(super) fn misfits(&self) -> Vec<(Scenario, LockName)> {
        let mut misfits = Vec::new();
        for cell in self.cells.iter().filter(|_| self.every_round) {
            for lock in self.entries.iter().map(|entry| entry.lock).filter(|&lock| !fits(*cell, lock)) {
                if !misfits.contains(&(cell.scenario, lock)) {
                    misfits.push((cell.scenario, lock));
                }
            }
        }
        misfits
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns().is_empty()
    }

    /// Some locks are not measured in every round.
    pub(super) fn spares_rounds(&self) -> bool {
        let cpus = self.cpus.len();
        let is_told = |cell: &Cell, lock| cell.tells(lock, 0, cpus) && !cell.tells(lock, 1, cpus);
        let spared = |cell: &Cell| self.entries.iter().any(|entry| is_told(cell, entry.lock));
        !self.every_round && self.rounds > 1 && self.cells.iter().any(spared)
    }

    /// More would not help: where others are always busy, the second try is no better than the first.
    fn most_repeats(&self) -> usize {
        self.cells.len() * self.entries.len() * self.rounds as usize / 4
    }

    /// Measures. Each row goes to `json` as soon as it is there, so that whatever happens it is not lost.
    pub(super) fn run(&self, watch: &mut Watch, json: Option<File>) -> Result<Outcome, Failure> {
        let end = self.limit.map(|limit| Instant::now() + limit);
        let mut json = json.map(BufWriter::new);
        let mut outcome = Outcome::default();
        // Tried once and lost: not again, it would only take its kill time in each round.
        let mut given_up: Vec<(Cell, &Entry)> = Vec::new();
        let turns = self.turns();
        let bar = ui::progress(turns.len() as u64);
        for turn in turns {
            if outcome.rounds != turn.round + 1 {
                outcome.rounds = turn.round + 1;
                watch.sample();
            }
            bar.set_message(format!("{}: {}", turn.entry, turn.cell));
            if !given_up.contains(&(turn.cell, turn.entry)) {
                match self.take(turn, end, &mut outcome) {
                    Ok(row) => {
                        if let Some(json) = &mut json {
                            write_line(json, &row)?;
                        }
                        outcome.keep(row);
                    }
                    Err(NoRow::OutOfTime) => {
                        outcome.out_of_time = true;
                        break;
                    }
                    Err(NoRow::Lost(lost)) => {
                        outcome.lost.push(explain(&lost, turn, self.cpus.len()));
                        given_up.push((turn.cell, turn.entry));
                    }
                }
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(outcome)
    }

    /// One slice; again if others disturbed it, a few times, while there is time.
    fn take(&self, turn: Turn<'_>, end: Option<Instant>, outcome: &mut Outcome) -> Result<Row, NoRow> {
        const TRIES: usize = 3;
        let length = turn.cell.length(self.slice);
        let allowance = length + self.kill_after;
        let order = Order {
            lock: turn.entry.lock,
            cell: turn.cell,
            round: turn.round,
            // Another sequence in each round, the same for all locks.
            seed: self.seed.wrapping_add(u64::from(turn.round)),
            slice_s: length.as_secs_f64(),
            clock: self.clock,
            cpus: self.cpus.clone(),
            stats: self.stats,
            hang: self.hang == Some(turn.entry.lock),
        };
        let mut last = None;
        for _ in 0..TRIES {
            if last.is_some() && outcome.repeated >= self.most_repeats() {
                break;
            }
            let left = end.map_or(allowance, |end| end.saturating_duration_since(Instant::now()));
            if left < length + Duration::from_millis(100) {
                return last.ok_or(NoRow::OutOfTime);
            }
            outcome.repeated += usize::from(last.is_some());
            let meter = Meter::start();
            let setting = turn.entry.setting.as_deref();
            match spawn(&order, setting, allowance.min(left)) {
                Ok(row) if meter.is_disturbed() => last = Some(Row { disturbed: true, ..row }),
                Ok(row) => return Ok(row),
                // Not its fault: the whole run has no more time to give.
                Err(Lost::TimedOut(_)) if left < allowance => return last.ok_or(NoRow::OutOfTime),
                Err(lost) => return Err(NoRow::Lost(lost)),
            }
        }
        last.ok_or(NoRow::OutOfTime)
    }
}

/// One lock, in one cell, in one round.
#[derive(Clone, Copy)]
struct Turn<'a> {
    entry: &'a Entry,
    cell: Cell,
    round: u32,
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.setting {
            Some(setting) => write!(f, "{} ({setting})", self.lock),
            None => self.lock.fmt(f),
        }
    }
}

enum NoRow {
    Lost(Lost),
    OutOfTime,
}

fn write_line(json: &mut BufWriter<File>, row: &Row) -> Result<(), Failure> {
    let line = serde_json::to_string(row).map_err(std::io::Error::from);
    let done = line.and_then(|line| writeln!(json, "{line}")).and_then(|()| json.flush());
    done.map_err(|e| Failure::failed(format!("cannot write the JSON file: {e}; free some space and repeat")))
}

impl Outcome {
    /// The rows to compare: those of each cell that nobody disturbed. Unless they are the smaller part of all, or two locks
    /// have no round in common any more: what was asked for is compared, and the page says how many rows are disturbed.
    pub(super) fn compared(&self) -> Vec<Row> {
        fn quiet<'a>(rows: &[&'a Row]) -> Vec<&'a Row> {
            rows.iter().copied().filter(|row| !row.disturbed).collect()
        }
        let mut cells: Vec<Vec<&Row>> = Vec::new();
        for row in &self.rows {
            match cells.iter_mut().find(|rows| rows[0].cell() == row.cell()) {
                Some(rows) => rows.push(row),
                None => cells.push(vec![row]),
            }
        }
        if 2 * cells.iter().map(|rows| quiet(rows).len()).sum::<usize>() >= self.rows.len() {
            for rows in &mut cells {
                let quiet = quiet(rows);
                if encounters(&quiet) == encounters(rows) {
                    *rows = quiet;
                }
            }
        }
        cells.concat().into_iter().cloned().collect()
    }

    fn keep(&mut self, row: Row) {
        if row.excluded_ok == Some(false) {
            self.violated.push(format!("{} let two threads in at once: {}, round {}", row.lock, row.cell(), row.round));
        }
        self.rows.push(row);
    }
}

/// Which locks were measured in one round and one placement, two and two: those that can be compared.
fn encounters<'a>(rows: &[&'a Row]) -> BTreeSet<[(LockName, Option<&'a str>); 2]> {
    let who = |row: &'a Row| (row.lock, row.setting.as_deref());
    let meet = |a: &Row, b: &Row| a.round == b.round && a.placement == b.placement;
    let with = |row| rows.iter().filter(move |other| meet(row, other)).map(move |other| [who(row), who(other)]);
    rows.iter().copied().flat_map(with).collect()
}

/// A lock that does not exclude would corrupt the map, and say nothing by it that the counters do not say.
/// And programs need a lock that they can be built on.
fn fits(cell: Cell, lock: LockName) -> bool {
    match cell.scenario {
        Scenario::Map => lock != LockName::Broken,
        Scenario::Allocator | Scenario::Channel => programs::take(lock),
        _ => true,
    }
}

fn explain(lost: &Lost, turn: Turn<'_>, cpus: usize) -> String {
    let Turn { entry, cell, round } = turn;
    let lock = entry.lock;
    let slice = format!("{entry}: {cell}, round {round}");
    match lost {
        Lost::TimedOut(after) => {
            let advice = if cell.threads > cpus {
                "with more threads than CPUs a pure spin lock can collapse; fewer --threads, or a longer --kill-after"
            } else {
                "the machine may be overloaded; repeat, or give it a longer --kill-after"
            };
            format!("{slice}: killed after {:.1} s without an answer ({advice})", after.as_secs_f64())
        }
        Lost::Died(why) => {
            let scenario = cell.scenario.name();
            format!("{slice}: its process failed: {why} (repeat it alone: --lock {lock} --scenario {scenario})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::row::Placement::Near;
    use crate::bench::verdict::tests::row;

    fn compared(rows: &[(LockName, u32, bool)]) -> Vec<(LockName, u32)> {
        let row = |&(lock, round, disturbed)| Row { disturbed, ..row(lock, round, Near, 1.0) };
        let outcome = Outcome { rows: rows.iter().map(row).collect(), ..Outcome::default() };
        outcome.compared().iter().map(|row| (row.lock, row.round)).collect()
    }

    #[test]
    fn what_others_disturbed_is_compared_only_if_nothing_else_can_be() {
        use LockName::{Native, Std};
        let all = |rows: &[(LockName, u32, bool)]| rows.iter().map(|row| (row.0, row.1)).collect::<Vec<_>>();
        let one = [(Native, 0, false), (Std, 0, false), (Native, 1, true), (Std, 1, false)];
        assert_eq!(compared(&one), [(Native, 0), (Std, 0), (Std, 1)]);
        // Each has a quiet round, and they have none in common.
        let apart = [(Native, 0, true), (Std, 0, false), (Native, 1, false), (Std, 1, true)];
        assert_eq!(compared(&apart), all(&apart));
        let always = [(Native, 0, true), (Std, 0, false), (Native, 1, true), (Std, 1, false)];
        assert_eq!(compared(&always), all(&always));
        let most = [(Native, 0, false), (Std, 0, false), (Native, 1, true), (Std, 1, true), (Native, 2, true)];
        assert_eq!(compared(&most), all(&most));
    }
}
