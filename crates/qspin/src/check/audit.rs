//! `qspin check --weaken`: what breaks if an ordering is weakened, as a table.

use qspinlock::machine::Ordering;
use qspinlock_vm::check::{Fate, Finding, Lock, Scenario, Search, Usage, Waiting, audit};

use super::report::property;
use crate::failure::Failure;
use crate::files::JsonLines;
use crate::ui::{self, Tone};

/// Weakenings that break nothing in any scenario that is small enough to be explored completely. The documentation of the
/// orderings says why each is wrong all the same. Exactly these: one that comes to be shown has to go.
const ARGUED: &[(&str, Ordering)] = &[
    ("leaving.abandon", Ordering::Relaxed),
    ("leaving.follow", Ordering::Release),
    ("leaving.hand-on", Ordering::Acquire),
    ("leaving.promote", Ordering::Relaxed),
    ("leaving.vacate", Ordering::Relaxed),
    ("node.reserve", Ordering::Relaxed),
    ("record.hold", Ordering::Relaxed),
    ("record.push", Ordering::Relaxed),
    ("record.pushed", Ordering::Relaxed),
    ("record.remove", Ordering::Relaxed),
    ("record.see", Ordering::Relaxed),
    ("record.seen-wait", Ordering::Relaxed),
    ("record.wait", Ordering::Relaxed),
    ("record.want", Ordering::Relaxed),
    ("resilient.fence", Ordering::Relaxed),
    ("turn.promote", Ordering::Relaxed),
    ("watch.over", Ordering::Relaxed),
    ("word.claim-bringing-back", Ordering::Acquire),
    ("word.release-slow", Ordering::Relaxed),
    ("word.seen-now", Ordering::Relaxed),
];

fn is_argued(finding: &Finding) -> bool {
    ARGUED.contains(&(finding.access.name, finding.weakened))
}

pub(super) fn run(locks: &[Lock], search: &Search, markdown: bool, json: Option<JsonLines>) -> Result<(), Failure> {
    let bar = ui::progress(0);
    let mut json = json;
    let (mut survivors, mut shown) = (Vec::new(), Vec::new());
    for &lock in locks {
        // Three CPUs that do all that sleepers may are most of the time, and show no ordering that fewer do not. If one
        // came to be needed by them alone, it would survive here and fail the audit.
        let is_small = |s: &Scenario| !lock.sleeps() || s.cpus == 2 || s.waiting == Waiting::Sleepers;
        let scenarios: Vec<_> = super::matrix(lock, false).into_iter().filter(is_small).filter(is_audited).collect();
        // Four CPUs in a queue have many states, and two preemptions show what they show.
        let preemptions = search.preemptions.or(if lock.sorts() { Some(2) } else { None });
        let search = Search { preemptions, ..search.clone() };
        let findings = audit(&scenarios, &search, |done, of| {
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
            let (name, weakened) = (finding.access.name, finding.weakened);
            match finding.fate {
                Fate::Caught { .. } if is_argued(&finding) => {
                    shown.push(format!("{name} {weakened:?} of {}", lock.name()))
                }
                Fate::Caught { .. } => {}
                Fate::Survived if is_argued(&finding) => {}
                _ => survivors.push(format!("{name} {weakened:?} of {}", lock.name())),
            }
        }
    }
    bar.finish_and_clear();
    if !survivors.is_empty() {
        let list = survivors.join(", ");
        return Err(Failure::failed(format!(
            "nothing broke when these were weakened: {list}. Relax them, or say why not"
        )));
    }
    if !shown.is_empty() {
        let list = shown.join(", ");
        return Err(Failure::failed(format!("these are said to be argued only, and something broke: {list}")));
    }
    Ok(())
}

/// Of waiters that give up and of resilient locks, what can be explored once for each access in little time.
fn is_audited(scenario: &Scenario) -> bool {
    let Scenario { lock, cpus, acquires, usage, interrupts, nodeless, .. } = *scenario;
    if lock.sorts() {
        // To set somebody aside takes three that queue; what somebody had in its node before, that each comes twice; and
        // who else comes is a fourth. Who may leave is audited with native.
        let is_short = interrupts == 0 && scenario.urgent == 0;
        let are_few = cpus < 4 && cpus * acquires <= 4;
        return usage == Usage::Plain && is_short && (are_few || scenario.waiting == Waiting::Queue && nodeless == 0);
    }
    if usage.may_leave() {
        let is_small = cpus == 2 && interrupts == 0 && nodeless == 0;
        // Where they have no queue, or give it up to the owner, once is enough.
        return is_small
            && match lock {
                Lock::Native | Lock::Numa => true,
                Lock::Paravirt => acquires == 1 || usage == Usage::Rescued,
                Lock::Parking | Lock::ParkingExact | Lock::TestAndSet => acquires == 1,
            };
    }
    // Records are the same whatever the waiters do: where they do least, there are the fewest states.
    !usage.is_resilient() || lock == Lock::TestAndSet
}

/// What breaks, and where.
fn fate(finding: &Finding) -> (String, String) {
    match &finding.fate {
        Fate::Caught { what, scenario, .. } => (property(what).to_owned(), scenario.to_string()),
        Fate::Survived if is_argued(finding) => ("argued, not shown".to_owned(), String::new()),
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
