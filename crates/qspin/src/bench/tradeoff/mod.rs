//! What throughput costs in waiting: one parameter of `parking` is turned at a time, the others left as they are.
//!
//! The host moves the CPUs while this is measured, so a point is a pair of ratios: to parking_lot's throughput and to
//! its waits, in the slice of it that came nearest in time with the CPUs as far apart; the median over the rounds.

mod chart;
mod show;

use qspinlock::slowpath::Patience;

use super::Plan;
use super::noise::Noise;
use super::plan::{Cell, Scenario, Size};
use super::row::{Placement, Row};
use super::session::{Entry, Outcome};
use super::table::rounds_done;
use super::verdict::median;
use crate::failure::Failure;
use crate::locks::LockName;

/// A parameter to turn.
struct Knob {
    name: &'static str,
    /// In what order a reader should meet it.
    values: &'static [u32],
    set: fn(u32) -> Patience,
    get: fn(&Patience) -> u32,
}

const DEFAULT: Patience = Patience::DEFAULT;

/// The values besides the default.
const KNOBS: [Knob; 4] = [
    Knob {
        name: "spin",
        values: &[0, 100, 250, 1000, 2000, 5000],
        set: |spin| Patience { spin, ..DEFAULT },
        get: |p| p.spin,
    },
    Knob { name: "yields", values: &[0, 1, 4, 8, 16], set: |yields| Patience { yields, ..DEFAULT }, get: |p| p.yields },
    Knob {
        name: "lane",
        values: &[0, 1000, 2000, 20_000, 100_000],
        set: |lane| Patience { lane, ..DEFAULT },
        get: |p| p.lane,
    },
    Knob {
        name: "ask_after",
        values: &[100, 300, 1500, 5000, 20_000],
        set: |ask_after| Patience { ask_after, ..DEFAULT },
        get: |p| p.ask_after,
    },
];

/// As the environment has it. All four are named, so that a setting is the same whatever the defaults become.
fn setting(patience: &Patience) -> String {
    let all: Vec<_> = KNOBS.iter().map(|knob| format!("{}={}", knob.name, (knob.get)(patience))).collect();
    all.join(",")
}

/// Against which a ratio is taken.
const BASE: LockName = LockName::ParkingLot;
/// So many others are measured before it is measured again: the machine must be the same for all.
const BASE_EVERY: usize = 4;

/// Two threads at their worst, and many as programs have them.
pub(super) fn plan(quick: bool, cpus: usize) -> Result<Plan, Failure> {
    let crowd =
        Cell::new(Scenario::Oversubscribed, 32).times(super::plan::CROWD_SECTION_NS, super::plan::CROWD_THINK_NS);
    let pair = Cell::new(Scenario::Contended, 2).times(50, 0);
    let (cells, left_out) = if cpus < 2 {
        (vec![crowd], vec!["two threads, which need two CPUs (see `taskset -p $$`)".to_owned()])
    } else {
        (vec![pair, crowd], Vec::new())
    };
    let mut settings = vec![setting(&DEFAULT)];
    settings.extend(KNOBS.iter().flat_map(|knob| knob.values.iter().map(|&value| setting(&(knob.set)(value)))));
    let set = settings.into_iter().map(|s| Entry { lock: LockName::Parking, setting: Some(s) });
    let others: Vec<Entry> = set.chain([LockName::Std.into()]).collect();
    let entries = others.chunks(BASE_EVERY).flat_map(|few| few.iter().cloned().chain([BASE.into()])).collect();
    let size = if quick {
        Size { rounds: 2, slice_s: 0.06, limit_s: 85.0 }
    } else {
        Size { rounds: 7, slice_s: 0.25, limit_s: 9.7 * 60.0 }
    };
    Ok(Plan { cells, left_out, entries, size, every_round: true })
}

/// Throughput and waits, to those of [`BASE`].
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    throughput: f64,
    wait: f64,
    rounds: usize,
}

/// What turning one knob does, from its least value to its largest.
struct Curve {
    knob: &'static str,
    points: Vec<(u32, Point)>,
}

/// One cell under the placement that most of its slices had.
struct Panel {
    cell: Cell,
    placement: Option<Placement>,
    /// Slices too short to say who waited longest.
    is_short: bool,
    default: Option<Point>,
    std: Option<Point>,
    curves: Vec<Curve>,
}

impl Panel {
    fn title(&self) -> String {
        let place = self.placement.map_or_else(String::new, |p| format!("; {}", p.name()));
        format!("{}{place}", self.cell)
    }

    /// What is told of the waits: of two threads the tail, of many who waited longest.
    fn wait(&self) -> &'static str {
        if self.cell.is_crowd() { "worst wait" } else { "p99.9" }
    }

    fn wait_of(cell: Cell, row: &Row) -> Option<f64> {
        row.wait_ns.map(|wait| if cell.is_crowd() { wait.max } else { wait.p999 })
    }
}

fn panels(rows: &[Row]) -> Vec<Panel> {
    let mut cells: Vec<Cell> = rows.iter().map(Row::cell).collect();
    super::dedup(&mut cells);
    cells.into_iter().map(|cell| panel(cell, rows)).collect()
}

fn panel(cell: Cell, rows: &[Row]) -> Panel {
    let under =
        |placement| rows.iter().filter(|row| row.cell() == cell && row.placement == placement).collect::<Vec<_>>();
    let comparable = |&placement: &Option<Placement>| pairs(&under(placement), |row| row.lock != BASE).len();
    let usual = [None, Some(Placement::Near), Some(Placement::Far)].into_iter().max_by_key(comparable).flatten();
    let here = under(usual);
    let point =
        |lock, setting: Option<String>| point(cell, &pairs(&here, |row| row.lock == lock && row.setting == setting));
    let parking = |patience: &Patience| point(LockName::Parking, Some(setting(patience)));
    let curve = |knob: &Knob| {
        let mut values = knob.values.to_vec();
        values.push((knob.get)(&DEFAULT));
        values.sort_unstable();
        let points = values.into_iter().filter_map(|value| Some((value, parking(&(knob.set)(value))?)));
        Curve { knob: knob.name, points: points.collect() }
    };
    Panel {
        cell,
        placement: usual,
        is_short: cell.is_crowd() && here.iter().any(|row| row.slice_s < super::plan::SHORTEST_FOR_FAIRNESS_S),
        default: parking(&DEFAULT),
        std: point(LockName::Std, None),
        curves: KNOBS.iter().map(curve).collect(),
    }
}

/// Each slice of `which`, and the one of [`BASE`] in its round that came nearest before or after it. `rows` are in the
/// order in which they were measured.
fn pairs<'a>(rows: &[&'a Row], which: impl Fn(&Row) -> bool) -> Vec<(&'a Row, &'a Row)> {
    let nearest = |(index, own): (usize, &&'a Row)| {
        let bases = rows.iter().enumerate().filter(|(_, row)| row.lock == BASE && row.round == own.round);
        Some((*own, *bases.min_by_key(|(at, _)| at.abs_diff(index))?.1))
    };
    rows.iter().enumerate().filter(|(_, row)| which(row)).filter_map(nearest).collect()
}

fn point(cell: Cell, pairs: &[(&Row, &Row)]) -> Option<Point> {
    let ratios = |figure: &dyn Fn(&Row) -> Option<f64>| {
        let ratio = |(own, base): &(&Row, &Row)| Some(figure(own)? / figure(base).filter(|&v| v > 0.0)?);
        median(pairs.iter().filter_map(ratio).collect())
    };
    let throughput = ratios(&|row| Some(row.ops_per_s))?;
    let wait = ratios(&|row| Panel::wait_of(cell, row))?;
    Some(Point { throughput, wait, rounds: pairs.len() })
}

/// What came of it, ready to be shown.
pub(super) struct Found {
    panels: Vec<Panel>,
    notes: Vec<String>,
    pub(super) svg: String,
}

impl Found {
    pub(super) fn of(rows: &[Row], outcome: &Outcome, noise: &Noise, planned: u32) -> Result<Self, Failure> {
        let panels = panels(rows);
        let svg = chart::draw(&panels)?;
        let mut notes = noise.sentences();
        notes.extend(rounds_done(outcome, planned));
        notes.extend(outcome.lost.iter().chain(&outcome.violated).cloned());
        Ok(Self { panels, notes, svg })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::verdict::tests::row;

    fn set(patience: &Patience, round: u32, ops: f64, p999: f64) -> Row {
        Row { setting: Some(setting(patience)), ..tail(LockName::Parking, round, ops, p999) }
    }

    fn tail(lock: LockName, round: u32, ops: f64, p999: f64) -> Row {
        let mut row = row(lock, round, Placement::Near, ops);
        row.wait_ns.as_mut().expect("it has one").p999 = p999;
        row
    }

    #[test]
    fn each_knob_is_turned_alone() {
        let plan = plan(false, 2).expect("two CPUs are enough");
        let settings: Vec<&str> = plan.entries.iter().filter_map(|e| e.setting.as_deref()).collect();
        let mut unique = settings.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), settings.len(), "measured twice");
        let default = setting(&DEFAULT);
        for other in settings.iter().filter(|&&s| s != default) {
            let differ = other.split(',').zip(default.split(',')).filter(|(a, b)| a != b).count();
            assert_eq!(differ, 1, "{other}");
        }
    }

    #[test]
    fn points_are_ratios_within_a_round() {
        let slow = Patience { spin: 0, ..DEFAULT };
        let rows = [
            tail(BASE, 0, 100.0, 10.0),
            set(&DEFAULT, 0, 90.0, 5.0),
            set(&slow, 0, 50.0, 2.0),
            // Another round, on a machine half as fast.
            tail(BASE, 1, 50.0, 20.0),
            set(&DEFAULT, 1, 45.0, 10.0),
            set(&slow, 1, 25.0, 4.0),
            // Nothing to compare it with.
            set(&slow, 2, 1000.0, 1000.0),
        ];
        let panels = panels(&rows);
        assert_eq!(panels.len(), 1);
        let point = |throughput, wait| Point { throughput, wait, rounds: 2 };
        assert_eq!(panels[0].default, Some(point(0.9, 0.5)));
        assert_eq!(panels[0].std, None);
        let spin = &panels[0].curves[0];
        assert_eq!(spin.points, [(0, point(0.5, 0.2)), (DEFAULT.spin, point(0.9, 0.5))]);
        // Near, where nothing is comparable, there are more slices than far; that must not matter.
        let far = |row: &Row| Row { placement: Some(Placement::Far), ..row.clone() };
        let mut moved: Vec<Row> = rows.iter().filter(|row| row.round == 0).map(far).collect();
        moved.extend((0..9).map(|_| set(&slow, 0, 1.0, 1.0)));
        assert_eq!(super::panels(&moved)[0].default, Some(Point { throughput: 0.9, wait: 0.5, rounds: 1 }));
        // The default is a point of every curve.
        assert!(panels[0].curves[1..].iter().all(|curve| curve.points.len() == 1));
    }

    /// The machine becomes half as fast in the middle of a round.
    #[test]
    fn the_base_nearest_in_time_counts() {
        let rows = [
            tail(BASE, 0, 100.0, 10.0),
            tail(LockName::Std, 0, 50.0, 10.0),
            set(&DEFAULT, 0, 50.0, 20.0),
            tail(BASE, 0, 50.0, 20.0),
        ];
        let panel = &panels(&rows)[0];
        assert_eq!(panel.std.map(|p| p.throughput), Some(0.5));
        assert_eq!(panel.default, Some(Point { throughput: 1.0, wait: 1.0, rounds: 1 }));
    }
}
