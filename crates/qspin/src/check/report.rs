//! What `qspin check` prints and writes.

use comfy_table::Table;
use qspinlock_vm::check::{Outcome, Scenario, Verdict};

use super::seed::Seed;
use crate::failure::Failure;
use crate::files::JsonLines;
use crate::ui::{self, Tone};

/// The table of scenarios.
pub(super) struct Rows(Table);

impl Default for Rows {
    fn default() -> Self {
        Self(ui::table(&["scenario", "verdict"], &["states", "steps", "time"]))
    }
}

impl Rows {
    pub(super) fn add(&mut self, scenario: &Scenario, outcome: &Outcome) {
        let verdict = match &outcome.verdict {
            Verdict::Holds => ui::text("holds", Tone::Good),
            Verdict::Broken(broken) => ui::text(property(&broken.what), Tone::Bad),
            Verdict::Unfinished(_) => ui::text("not finished", Tone::Warn),
        };
        self.0.add_row([
            ui::text(scenario, Tone::Plain),
            verdict,
            ui::figure(outcome.states, Tone::Plain),
            ui::figure(outcome.steps, Tone::Plain),
            ui::figure(ui::nanos(outcome.time.as_nanos() as f64), Tone::Plain),
        ]);
    }

    /// The table, and what its verdicts hold for.
    pub(super) fn table(&self, preemptions: Option<u8>) -> String {
        let bound = preemptions.map_or(String::new(), |n| format!("\nOnly executions with at most {n} preemptions."));
        format!("{}{bound}", self.0)
    }
}

/// The first word of a failure: the property that it breaks.
pub(super) fn property(what: &str) -> &str {
    what.split(':').next().unwrap_or(what)
}

/// What broke, along which execution, and how to see it again; or how far an unfinished one came.
pub(super) fn failure(scenario: &Scenario, outcome: &Outcome, seed: Option<&Seed>) {
    ui::sayln!("\n{}", ui::heading(&scenario.to_string()));
    match &outcome.verdict {
        Verdict::Broken(broken) => {
            ui::sayln!("{}\n\n{}", ui::paint(&broken.what, Tone::Bad), broken.trace);
            if let Some(seed) = seed {
                ui::sayln!("again: qspin check --replay {seed}");
            }
        }
        Verdict::Unfinished(why) => {
            let text = format!("not finished: {why}, at {} states; none of them fails", outcome.states);
            ui::sayln!("{}", ui::paint(&text, Tone::Warn));
            ui::sayln!("fewer CPUs or acquisitions, --preemptions, or larger --budget and --memory may help");
        }
        Verdict::Holds => {}
    }
}

/// The line of a scenario.
pub(super) fn row(
    json: &mut JsonLines,
    scenario: &Scenario,
    outcome: &Outcome,
    seed: Option<&Seed>,
) -> Result<(), Failure> {
    let (verdict, detail) = match &outcome.verdict {
        Verdict::Holds => ("holds", None),
        Verdict::Broken(broken) => ("broken", Some(broken.what.as_str())),
        Verdict::Unfinished(why) => ("unfinished", Some(*why)),
    };
    json.write(&serde_json::json!({
        "lock": scenario.lock.name(),
        "cpus": scenario.cpus,
        "acquires": scenario.acquires,
        "domains": scenario.domains,
        "interrupts": scenario.interrupts,
        "scenario": scenario.to_string(),
        "verdict": verdict,
        "detail": detail,
        "states": outcome.states,
        "steps": outcome.steps,
        "seconds": outcome.time.as_secs_f64(),
        "seed": seed.map(ToString::to_string),
    }))
}
