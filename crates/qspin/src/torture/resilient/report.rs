//! What a run has shown, mode by mode.

use std::time::Duration;

use serde::Serialize;

use super::super::warden;
use super::super::witness::{self, Locality};
use super::stage::{Shown, Trouble};
use super::subject::Subject;
use crate::ui::{self, Tone, figure, text};

#[derive(Serialize)]
pub(super) struct Report {
    lock: &'static str,
    outcome: Outcome,
    /// Why it is not "passed".
    message: Option<String>,
    seconds: f64,
    cpus: usize,
    /// Repeats the choices of the threads, not their schedule.
    seed: u64,
    /// Of the whole process.
    stops: u64,
    acquisitions: u64,
    deadlocks: u64,
    timed_out: u64,
    waits_without_node: u64,
    /// Of a lock that looks at domains.
    locality: Option<Locality>,
    modes: Vec<ModeReport>,
    /// Modes that had no turn, after one that failed.
    not_run: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Passed,
    ExclusionFailed,
    /// An error was wrong, or missing; or something was left.
    Wrong,
    NoProgress,
    Panicked,
    NotRun,
}

#[derive(Serialize)]
struct ModeReport {
    mode: String,
    seconds: f64,
    threads: usize,
    rounds: u64,
    acquisitions: u64,
    tries_failed: u64,
    deadlocks: u64,
    timed_out: u64,
    waits_without_node: u64,
    locks_left_behind: u64,
    handlers: u64,
    deepest: u32,
    longest_wait_us: f64,
    detection: Option<Detection>,
}

/// From the moment at which the deadlock was there until somebody was told.
#[derive(Serialize)]
struct Detection {
    count: u64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

impl ModeReport {
    fn new(shown: &Shown) -> Self {
        let us = |nanos: u64| nanos as f64 / 1e3;
        let found = &shown.found;
        Self {
            mode: shown.mode.to_string(),
            seconds: shown.took.as_secs_f64(),
            threads: shown.threads,
            rounds: shown.rounds,
            acquisitions: shown.acquired,
            tries_failed: shown.tries_failed,
            deadlocks: shown.deadlocks,
            timed_out: shown.timed_out,
            waits_without_node: shown.without_node,
            locks_left_behind: shown.left_behind,
            handlers: shown.handlers,
            deepest: shown.deepest,
            longest_wait_us: us(shown.longest_wait),
            detection: (!found.is_empty()).then(|| Detection {
                count: found.len(),
                p50_us: us(found.value_at_quantile(0.5)),
                p99_us: us(found.value_at_quantile(0.99)),
                max_us: us(found.max()),
            }),
        }
    }
}

impl Report {
    pub(super) fn new(subject: Subject, seed: u64, took: Duration, shown: &[Shown], not_run: Vec<String>) -> Self {
        let sum = |field: fn(&Shown) -> u64| shown.iter().map(field).sum();
        let trouble = shown.iter().find_map(|shown| shown.trouble.as_ref().map(|trouble| (shown.mode, trouble)));
        let (outcome, what) = match trouble {
            None => (Outcome::Passed, None),
            Some((_, Trouble::Overlap(what))) => (Outcome::ExclusionFailed, Some(format!("exclusion failed: {what}"))),
            Some((_, Trouble::Fault(what))) => (Outcome::Wrong, Some(what.clone())),
            Some((_, Trouble::Hung(what))) => (Outcome::NoProgress, Some(format!("no progress: {what}"))),
            Some((_, Trouble::Panicked)) => (Outcome::Panicked, Some("a thread panicked".into())),
            Some((_, Trouble::NoThread(what))) => (Outcome::NotRun, Some(format!("{what}; ask for fewer"))),
        };
        Self {
            lock: subject.name(),
            outcome,
            message: trouble.zip(what).map(|((mode, _), what)| format!("{}: {mode}: {what}", subject.name())),
            seconds: took.as_secs_f64(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            seed,
            stops: warden::times_stopped(),
            acquisitions: sum(|shown| shown.acquired),
            deadlocks: sum(|shown| shown.deadlocks),
            timed_out: sum(|shown| shown.timed_out),
            waits_without_node: sum(|shown| shown.without_node),
            locality: witness::seen(subject.looks_at_domains()),
            modes: shown.iter().map(ModeReport::new).collect(),
            not_run,
        }
    }

    /// What went wrong.
    pub(super) fn failure(&self) -> Option<&str> {
        self.message.as_deref()
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data")
    }

    pub(super) fn to_text(&self) -> String {
        let mut modes = ui::table(
            &["mode"],
            &["threads", "rounds", "taken", "deadlocks", "time-outs", "found in: p50", "p99", "max", "longest wait"],
        );
        let us = |us: f64| ui::nanos(us * 1e3);
        for mode in &self.modes {
            let found = |value: fn(&Detection) -> f64| mode.detection.as_ref().map_or("-".into(), |d| us(value(d)));
            let figures = [
                mode.threads.to_string(),
                ui::si(mode.rounds as f64),
                ui::si(mode.acquisitions as f64),
                ui::si(mode.deadlocks as f64),
                ui::si(mode.timed_out as f64),
                found(|d| d.p50_us),
                found(|d| d.p99_us),
                found(|d| d.max_us),
                us(mode.longest_wait_us),
            ];
            let cells = figures.into_iter().map(|value| figure(value, Tone::Plain));
            modes.add_row(std::iter::once(text(&mode.mode, Tone::Strong)).chain(cells));
        }
        let mut table = ui::table(&["resilient", self.lock], &[]);
        let mut row = |what: &str, value: String, tone: Tone| {
            table.add_row(vec![text(what, Tone::Dim), text(value, tone)]);
        };
        row("run", format!("{:.1} s on {} CPUs, seed {}", self.seconds, self.cpus, self.seed), Tone::Plain);
        let per_second = ui::si(self.acquisitions as f64 / self.seconds);
        row("locks taken", format!("{} ({per_second}/s)", self.acquisitions), Tone::Plain);
        row("errors", format!("{} deadlocks, {} time-outs", self.deadlocks, self.timed_out), Tone::Plain);
        let handlers: u64 = self.modes.iter().map(|mode| mode.handlers).sum();
        let deepest = self.modes.iter().map(|mode| mode.deepest).max().unwrap_or(0);
        row("handlers", format!("{handlers} run, up to {deepest} nested"), Tone::Plain);
        row("waits without node", self.waits_without_node.to_string(), Tone::Plain);
        row("all threads", format!("stopped {} times", self.stops), Tone::Plain);
        if let Some(locality) = &self.locality {
            row("domains", locality.to_text(), Tone::Plain);
        }
        if !self.not_run.is_empty() {
            row("not run", self.not_run.join(", "), Tone::Warn);
        }
        match &self.message {
            None => {
                row("verdict", "passed: each error was true, none was missing, nothing was left".into(), Tone::Good)
            }
            Some(message) => row("verdict", message.clone(), Tone::Bad),
        }
        format!("{modes}\n\n{table}\n")
    }
}
