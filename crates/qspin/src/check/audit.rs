//! `qspin check --weaken`: what breaks if an ordering is weakened, as a table.

use qspinlock_vm::check::{Fate, Finding, Lock, Scenario, Search, Waiting, audit};

use super::report::{JsonLines, property};
use crate::failure::Failure;
use crate::ui::{self, Tone};

pub(super) fn run(locks: &[Lock], search: &Search, markdown: bool, json: Option<JsonLines>) -> Result<(), Failure> {
    let bar = ui::progress(0);
    let mut json = json;
    let mut survivors = Vec::new();
    for &lock in locks {
        // Three CPUs that do all that sleepers may are most of the time, and show no ordering that fewer do not. If one
        // came to be needed by them alone, it would survive here and fail the audit.
        let is_small = |s: &Scenario| !lock.sleeps() || s.cpus == 2 || s.waiting == Waiting::Sleepers;
        // Of those who give up, and of resilient locks, the orderings are not audited yet.
        let is_audited = |s: &Scenario| !s.usage.may_leave() && !s.usage.is_resilient();
        let scenarios: Vec<_> = super::matrix(lock, false).into_iter().filter(is_small).filter(is_audited).collect();
        let findings = audit(&scenarios, search, |done, of| {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
            bar.set_message(lock.name());
        })
        .map_err(Failure::failed)?;
        bar.suspend(|| if markdown { print_markdown(lock, &findings) } else { print_table(lock, &findings) });
        for finding in findings {
            if let Some(json) = &mut json {
                json.write(&object(lock, &finding))?;
            }
            if !matches!(finding.fate, Fate::Caught { .. }) {
                survivors.push(format!("{} of {}", finding.access.name, lock.name()));
            }
        }
    }
    bar.finish_and_clear();
    if survivors.is_empty() {
        Ok(())
    } else {
        let list = survivors.join(", ");
        Err(Failure::failed(format!("nothing broke when these were weakened: {list}. Relax them, or say why not")))
    }
}

/// What breaks, and where.
fn fate(finding: &Finding) -> (String, String) {
    match &finding.fate {
        Fate::Caught { what, scenario, .. } => (property(what).to_owned(), scenario.to_string()),
        Fate::Survived => ("nothing".to_owned(), "any scenario".to_owned()),
        Fate::Unfinished(why) => (format!("not finished: {why}"), String::new()),
    }
}

fn print_table(lock: Lock, findings: &[Finding]) {
    ui::sayln!("{}", ui::heading(lock.name()));
    let mut table = ui::table(&["access", "is", "weakened to", "breaks", "in"], &["states"]);
    for finding in findings {
        let (breaks, scenario) = fate(finding);
        let (tone, states) = match &finding.fate {
            Fate::Caught { states, .. } => (Tone::Good, states.to_string()),
            _ => (Tone::Bad, String::new()),
        };
        table.add_row([
            ui::text(finding.access.name, Tone::Plain),
            ui::text(format!("{:?}", finding.access.order), Tone::Plain),
            ui::text(format!("{:?}", finding.weakened), Tone::Plain),
            ui::text(breaks, tone),
            ui::text(scenario, Tone::Plain),
            ui::figure(states, Tone::Plain),
        ]);
    }
    ui::sayln!("{table}\n");
}

fn print_markdown(lock: Lock, findings: &[Finding]) {
    ui::sayln!("### `{}`\n", lock.name());
    ui::sayln!("| access | ordering | pairs with | weakened to | breaks | in |\n|---|---|---|---|---|---|");
    for finding in findings {
        let (breaks, scenario) = fate(finding);
        let (access, weakened) = (finding.access, finding.weakened);
        ui::sayln!(
            "| `{}` | {:?} | {} | {weakened:?} | {breaks} | {scenario} |",
            access.name,
            access.order,
            access.pairs
        );
    }
    ui::sayln!();
}

fn object(lock: Lock, finding: &Finding) -> serde_json::Value {
    let (breaks, scenario) = fate(finding);
    serde_json::json!({
        "lock": lock.name(),
        "access": finding.access.name,
        "order": format!("{:?}", finding.access.order),
        "weakened": format!("{:?}", finding.weakened),
        "caught": matches!(finding.fate, Fate::Caught { .. }),
        "breaks": breaks,
        "scenario": scenario,
    })
}
