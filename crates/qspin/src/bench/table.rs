//! The results on standard output: every cell, then who wins, then what to quote.

use super::figures::Block;
use super::noise::Noise;
use super::row::Wait;
use super::session::Outcome;
use super::stats::PerThousand;
use super::verdict::{Group, OURS};
use crate::locks::LockName;
use crate::ui::{self, Tone, digits, figure, nanos, paint, si};

/// Ratios nearer to 1 than this are called a draw: rounds differ by as much.
const DRAW: f64 = 0.05;

/// Everything, as text.
pub(super) fn text(
    groups: &[Group],
    outcome: &Outcome,
    noise: &Noise,
    figures: &[Block],
    events: &[PerThousand],
    planned_rounds: u32,
) -> String {
    let mut parts: Vec<String> =
        groups.iter().map(|group| format!("{}\n{}\n", ui::heading(&headline(group)), cell_table(group))).collect();
    if groups.iter().any(|g| g.ours_to(OURS).is_some()) {
        parts.push(ui::heading(&format!("Throughput of {OURS} to each (above 1: {OURS} is faster)")));
        parts.push(format!("{}\n", verdict_table(groups)));
    }
    parts.extend(outcome.lost.iter().map(|lost| format!("{} {lost}", paint("no row:", Tone::Bad))));
    parts.extend(outcome.violated.iter().map(|broken| format!("{} {broken}", paint("broken:", Tone::Bad))));
    parts.push(ui::heading("Noise"));
    let tone = if noise.is_quiet() { Tone::Plain } else { Tone::Warn };
    let sentences = noise.sentences().into_iter().chain(rounds_done(outcome, planned_rounds));
    parts.extend(sentences.map(|sentence| format!("  {}", paint(&sentence, tone))));
    parts.push(format!("\n{}", ui::heading("Figures")));
    for block in figures {
        parts.push(format!("  {}\n{}", block.title, figures_table(block)));
    }
    if !events.is_empty() {
        parts.push(format!("\n{}", ui::heading("Events in 1000 acquisitions")));
        parts.extend(events.iter().map(PerThousand::text));
    }
    parts.join("\n") + "\n"
}

/// What is to be said if the time was up before the plan was done.
pub(super) fn rounds_done(outcome: &Outcome, planned: u32) -> Option<String> {
    outcome.out_of_time.then(|| {
        format!("The time was up in round {} of {planned}: the machine was slower than planned for.", outcome.rounds)
    })
}

/// Who wins this cell, in words.
pub(super) fn headline(group: &Group) -> String {
    let title = group.title();
    let Some(winner) = group.winner() else { return title };
    if group.locks.len() < 2 {
        return title;
    }
    match winner.ours_to_it {
        Some(_) if winner.lock == OURS => format!("{title}: {OURS} wins"),
        Some(ratio) if tone(ratio) == Tone::Plain => format!("{title}: {} and {OURS} draw", winner.lock),
        Some(ratio) if ratio > 0.0 => format!("{title}: {} wins, {}x {OURS}", winner.lock, digits(1.0 / ratio)),
        _ => format!("{title}: {} wins", winner.lock),
    }
}

/// How a ratio of ours to theirs is meant.
pub(super) fn tone(ratio: f64) -> Tone {
    match ratio {
        r if r > 1.0 + DRAW => Tone::Good,
        r if r < 1.0 - DRAW => Tone::Bad,
        _ => Tone::Plain,
    }
}

/// A ratio, legible also when it is tiny: `1/40`.
pub(super) fn ratio_text(ratio: f64) -> String {
    if ratio > 0.0 && ratio < 0.095 { format!("1/{}", digits(1.0 / ratio)) } else { digits(ratio) }
}

fn maybe(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

fn cell_table(group: &Group) -> comfy_table::Table {
    let alone = group.locks.iter().all(|s| s.wait_ns.is_none());
    let to_it = format!("{OURS} to it");
    let columns: &[&str] = if alone {
        &[&to_it, "cycles a pair", "ops/s", "spread", "rounds"]
    } else {
        &[&to_it, "ops/s", "spread", "fairness", "Jain", "p50", "p99", "p99.9", "max", "CPU/op", "rounds"]
    };
    let mut table = ui::table(&["lock"], columns);
    for s in group.ranked() {
        let name = ui::text(s.lock, if s.lock == OURS { Tone::Strong } else { Tone::Plain });
        let ratio = match s.ours_to_it {
            Some(_) if s.lock == OURS => figure("-", Tone::Plain),
            Some(ratio) => figure(ratio_text(ratio), tone(ratio)),
            None => figure("-", Tone::Plain),
        };
        let plain = |value: String| figure(value, Tone::Plain);
        let spread = plain(maybe(s.spread_pct, |v| format!("{v:.0} %")));
        let rounds = plain(s.rounds.to_string());
        table.add_row(if alone {
            vec![name, ratio, plain(maybe(s.cycles_per_pair, digits)), plain(si(s.ops_per_s)), spread, rounds]
        } else {
            let wait = |pick: &dyn Fn(&Wait) -> f64| plain(maybe(s.wait_ns.as_ref().map(pick), nanos));
            vec![
                name,
                ratio,
                plain(si(s.ops_per_s)),
                spread,
                plain(maybe(s.fairness, |v| format!("{v:.3}"))),
                plain(maybe(s.jain, |v| format!("{v:.3}"))),
                wait(&|w| w.p50),
                wait(&|w| w.p99),
                wait(&|w| w.p999),
                wait(&|w| w.max),
                plain(maybe(s.cpu_ns_per_op, nanos)),
                rounds,
            ]
        });
    }
    table
}

/// The locks that ours is compared with, of those measured.
pub(super) fn peers(groups: &[Group]) -> Vec<LockName> {
    LockName::ALL
        .iter()
        .copied()
        .filter(|&lock| lock != OURS && groups.iter().any(|g| g.ours_to(lock).is_some()))
        .collect()
}

fn verdict_table(groups: &[Group]) -> comfy_table::Table {
    let peers = peers(groups);
    let names: Vec<&str> = peers.iter().map(|lock| short(*lock)).collect();
    let mut table = ui::table(&["cell", "fastest"], &names);
    for group in groups {
        let winner = group.winner().map_or("-", |s| short(s.lock));
        let won = group.winner().is_some_and(|s| s.lock == OURS);
        let mut row =
            vec![ui::text(compact(group), Tone::Plain), ui::text(winner, if won { Tone::Good } else { Tone::Plain })];
        row.extend(peers.iter().map(|&peer| match group.ours_to(peer) {
            Some(ratio) => figure(ratio_text(ratio), tone(ratio)),
            None => figure("-", Tone::Dim),
        }));
        table.add_row(row);
    }
    table
}

/// Names short enough for a column each.
fn short(lock: LockName) -> &'static str {
    match lock {
        LockName::ParkingExact => "exact",
        LockName::ChosenByLoad => "by-load",
        LockName::TestAndSetOurs => "tas",
        LockName::ParkingLot => "p_lot",
        LockName::SpinTicket => "ticket",
        LockName::PthreadMutex => "pt-mutex",
        LockName::PthreadSpin => "pt-spin",
        other => other.name(),
    }
}

/// `contended 2, 50/100, near`.
pub(super) fn compact(group: &Group) -> String {
    let cell = &group.cell;
    let mut text = cell.scenario.name().to_owned();
    if cell.threads != 1 {
        text += &format!(" {}", cell.threads);
    }
    if let (Some(section), Some(think)) = (cell.section_ns, cell.think_ns) {
        text += &format!(", {section}/{think}");
    }
    if let Some(placement) = group.placement {
        text += &format!(", {}", placement.name());
    }
    text
}

fn figures_table(block: &Block) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    for figure in &block.figures {
        let goal = figure.goal.map_or(ui::text("", Tone::Plain), |goal| ui::text(goal, goal.tone()));
        table.add_row(vec![
            ui::text(format!("   {}", figure.what), Tone::Plain),
            ui::text(&figure.value, Tone::Strong),
            goal,
        ]);
    }
    table
}
