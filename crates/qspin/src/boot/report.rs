//! What came of the boots: as a table, as JSON, and of each that was not well its log.

use std::fmt::Write;
use std::time::Duration;

use comfy_table::Table;
use qspinlock::select::Reason;
use serde_json::{Value, json};

use super::accel::Accel;
use super::log::Log;
use super::once::{Boot, End};
use super::plan::Planned;
use crate::ui::{self, Tone, figure, nanos, text};

/// Lines of a log that a report shows.
const SHOWN: usize = 30;
/// Reports of failures that are shown in full.
const FAILURES: usize = 3;

/// What came of one planned boot, each time that it was made.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    pub(super) planned: &'a Planned,
    boots: u64,
    failures: Vec<String>,
    failed: u64,
    last: Log,
    chosen: Vec<f64>,
    choosing: Vec<f64>,
    took: Vec<f64>,
}

impl<'a> Outcome<'a> {
    pub(super) fn new(planned: &'a Planned) -> Self {
        let (chosen, choosing, took) = (Vec::new(), Vec::new(), Vec::new());
        Self { planned, boots: 0, failures: Vec::new(), failed: 0, last: Log::default(), chosen, choosing, took }
    }

    /// One boot more. Returns what is wrong with it.
    pub(super) fn add(&mut self, boot: &Boot, accel: Accel) -> Vec<String> {
        let wrong = self.planned.wrong(boot);
        self.boots += 1;
        if !wrong.is_empty() {
            self.failed += 1;
            if self.failures.len() < FAILURES {
                self.failures.push(failure(self.planned, self.boots, boot, accel, &wrong));
            }
        }
        let nanos = |micros: Option<u64>| micros.map(|micros| micros as f64 * 1e3);
        self.chosen.extend(nanos(boot.log.chosen_us));
        self.choosing.extend(nanos(boot.log.choosing_us));
        self.took.push(boot.took.as_nanos() as f64);
        // Shown is the last boot; the lines are in the report of a failure.
        self.last = Log { lines: Default::default(), ..boot.log.clone() };
        wrong
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    pub(super) fn boots(&self) -> u64 {
        self.boots
    }

    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }
}

/// One that was not as it must be, and how to see it again.
fn failure(planned: &Planned, round: u64, boot: &Boot, accel: Accel, wrong: &[String]) -> String {
    let Planned { name, machine, .. } = planned;
    let mut text = ui::heading(&format!("{name}, boot {round}: {}", boot.end.name()));
    let mut add = |line: &str, mark: &str| {
        let _ = write!(text, "\n  {mark}{line}");
    };
    wrong.iter().for_each(|wrong| add(wrong, ""));
    let append = machine.append.replace('\'', "'\\''");
    let (accel, cpus, nodes) = (accel.name(), machine.cpus, machine.nodes);
    add(&format!("qspin boot --accel {accel} --cpus {cpus} --nodes {nodes} --append '{append}'"), "again: ");
    boot.log.tail(SHOWN).for_each(|line| add(line, "| "));
    boot.complaints.lines().for_each(|line| add(line, "QEMU | "));
    text
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// The name of a reason: the sentences are too long for a table.
fn short(reason: &str) -> String {
    let known = Reason::ALL.iter().find(|known| known.text() == reason);
    known.map_or_else(|| reason.to_owned(), |known| format!("{known:?}"))
}

pub(super) fn table(outcomes: &[Outcome<'_>]) -> Table {
    let repeated = outcomes.iter().any(|outcome| outcome.boots > 1);
    let mut figures = vec!["CPUs/nodes", "chosen after"];
    if repeated {
        figures.push("at most");
    }
    figures.extend(["choosing", "boot"]);
    let mut table = ui::table(&["boot", "beneath", "chosen", "because", ""], &figures);
    for outcome in outcomes {
        let unknown = || "?".to_owned();
        let choice = outcome.last.choice.as_ref();
        let (verdict, tone) = match outcome.failed {
            0 => ("as it must be".to_owned(), Tone::Good),
            failed if repeated => (format!("WRONG {failed} times"), Tone::Bad),
            _ => ("WRONG".to_owned(), Tone::Bad),
        };
        let time = |value: Option<f64>| figure(value.map_or_else(unknown, nanos), Tone::Plain);
        let machine = &outcome.planned.machine;
        let mut cells = vec![
            text(&outcome.planned.name, Tone::Strong),
            text(outcome.last.beneath.clone().unwrap_or_else(unknown), Tone::Plain),
            text(choice.map_or_else(unknown, |(kind, _)| kind.name().to_owned()), Tone::Plain),
            text(choice.map_or_else(unknown, |(_, reason)| short(reason)), Tone::Plain),
            text(verdict, tone),
            figure(format!("{}/{}", machine.cpus, machine.nodes), Tone::Plain),
            time(median(&outcome.chosen)),
        ];
        if repeated {
            cells.push(time(outcome.chosen.iter().copied().reduce(f64::max)));
        }
        cells.extend([time(median(&outcome.choosing)), time(median(&outcome.took))]);
        table.add_row(cells);
    }
    table
}

/// What the kernel measured.
pub(super) fn figures(log: &Log) -> Option<Table> {
    let mut table = ui::table(&["figure"], &["value", ""]);
    for (name, value) in &log.figures {
        table.add_row([text(name, Tone::Plain), figure(value.value, Tone::Plain), text(&value.unit, Tone::Plain)]);
    }
    (!log.figures.is_empty()).then_some(table)
}

/// The end of a boot whose log was shown.
pub(super) fn summary(boot: &Boot) -> String {
    let end = match boot.end {
        End::Passed => ui::paint("passed", Tone::Good),
        ref other => ui::paint(&other.to_string(), Tone::Bad),
    };
    let mut text = format!("{end}, {}", seconds(boot.took));
    if let (Some((kind, _)), Some(after)) = (&boot.log.choice, boot.log.chosen_us) {
        let _ = write!(text, "; {} chosen {} after the start", kind.name(), nanos(after as f64 * 1e3));
    }
    text
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// A boot as a JSON object.
pub(super) fn json(planned: &Planned, round: u64, boot: &Boot, accel: Accel, wrong: &[String]) -> Value {
    let log = &boot.log;
    let figures =
        log.figures.iter().map(|(name, figure)| (name.clone(), json!({ "value": figure.value, "unit": figure.unit })));
    let expected = planned.row.map(
        |row| json!({ "beneath": row.beneath.name(), "slow_path": row.chosen.name(), "reason": row.reason.text() }),
    );
    json!({
        "boot": planned.name,
        "round": round,
        "cpus": planned.machine.cpus,
        "nodes": planned.machine.nodes,
        "append": planned.machine.append,
        "accel": accel.name(),
        "end": boot.end.name(),
        "ok": wrong.is_empty(),
        "wrong": wrong,
        "expected": expected,
        "beneath": log.beneath,
        "slow_path": log.choice.as_ref().map(|(kind, _)| kind.name()),
        "reason": log.choice.as_ref().map(|(_, reason)| reason),
        "code": log.code,
        "chosen_us": log.chosen_us,
        "choosing_us": log.choosing_us,
        "cpus_up": log.up.map(|(cpus, _)| cpus),
        "nodes_up": log.up.map(|(_, nodes)| nodes),
        "tests": log.tests,
        "figures": figures.collect::<serde_json::Map<_, _>>(),
        "seconds": boot.took.as_secs_f64(),
        "log": log.lines,
        "qemu": boot.complaints.lines().collect::<Vec<_>>(),
    })
}
