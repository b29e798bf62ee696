//! The report as a page.

use maud::{Markup, PreEscaped, html};

use super::figures::{Block, Goal};
use super::noise::Noise;
use super::plan::{self, Scenario};
use super::plot;
use super::session::Outcome;
use super::stats::{self, PerThousand};
use super::table::{compact, headline, peers, ratio_text, rounds_done, tone};
use super::verdict::{Group, OURS, Summary};
use crate::failure::Failure;
use crate::locks::LockName;
use crate::page::swatch;
use crate::ui::{Tone, digits, nanos, si};

/// Everything that the page shows.
pub(super) struct Contents<'a> {
    pub(super) facts: &'a [(&'static str, String)],
    pub(super) groups: &'a [Group],
    pub(super) outcome: &'a Outcome,
    pub(super) noise: &'a Noise,
    pub(super) figures: &'a [Block],
    pub(super) events: &'a [PerThousand],
    pub(super) planned_rounds: u32,
}

/// The whole page.
pub(super) fn page(contents: &Contents<'_>) -> Result<String, Failure> {
    let Contents { facts, groups, outcome, noise, figures, events, planned_rounds } = contents;
    let body = html! {
        header {
            h1 { "qspin bench" }
            p.lead { (verdict_in_words(groups)) }
            p.note {
                (outcome.rows.len()) " slices in " (outcome.rounds) " rounds, " (format!("{:.0}", noise.seconds)) " s. "
                "Ratios are medians over pairs of slices from the same round with the CPUs equally far apart."
            }
        }
        @if !noise.is_quiet() {
            p.warning { "Others used this machine at the same time: read the section on noise before any figure." }
        }
        @if !outcome.violated.is_empty() || !outcome.lost.is_empty() { (failures(outcome)) }
        h2 { "Figures" }
        div.cards { @for block in *figures { (card(block)) } }
        h2 { "Throughput of " (OURS) " to each peer" }
        p.note { "Cells read: scenario, threads, section/think in ns, distance of the CPUs. Green: " (OURS) " is at least 5 % faster; red: slower." }
        (verdict_table(groups))
        (bars(groups)?)
        (curve(groups)?)
        (waits(groups)?)
        @if !events.is_empty() {
            h2 { "Events in 1000 acquisitions" }
            @for table in *events { (counted(table)) }
        }
        h2 { "Machine" }
        dl { @for (what, value) in *facts { dt { (what) } dd { (value) } } }
        h2 { "Noise" }
        ul { @for sentence in noise.sentences().iter().chain(&rounds_done(outcome, *planned_rounds)) { li { (sentence) } } }
        h2 { "Every cell" }
        @for group in *groups { (cell(group)) }
    };
    Ok(crate::page::page("qspin bench", &body))
}

/// How many comparisons ours won, lost and drew.
fn verdict_in_words(groups: &[Group]) -> String {
    let against = |peers: &[LockName]| {
        let ratios: Vec<f64> = groups.iter().flat_map(|g| peers.iter().filter_map(|&p| g.ours_to(p))).collect();
        let count = |wanted| ratios.iter().filter(|&&r| tone(r) == wanted).count();
        (ratios.len(), count(Tone::Good), count(Tone::Bad))
    };
    let (fair, unfair): (Vec<_>, Vec<_>) =
        LockName::working().filter(|&lock| lock != OURS).partition(|lock| lock.is_fair());
    let sentence = |kind: &str, peers: &[LockName]| match against(peers) {
        (0, ..) => String::new(),
        (all, won, lost) => {
            format!("Against {kind} locks {OURS} is faster in {won} of {all} comparisons, slower in {lost}. ")
        }
    };
    let text = sentence("fair", &fair) + &sentence("unfair", &unfair);
    if text.is_empty() { format!("Nothing to compare {OURS} with.") } else { text }
}

fn failures(outcome: &Outcome) -> Markup {
    html! {
        div.failures {
            strong { "Not all went well" }
            ul {
                @for violated in &outcome.violated { li { (violated) } }
                @for lost in &outcome.lost { li { (lost) } }
            }
        }
    }
}

fn card(block: &Block) -> Markup {
    html! {
        section.card {
            h3 { (block.title) }
            table {
                @for figure in &block.figures {
                    tr {
                        td { (figure.what) }
                        td.figure { (figure.value) }
                        @match figure.goal {
                            Some(goal) => td class=(goal_class(goal)) { (goal) },
                            None => td {},
                        }
                    }
                }
            }
        }
    }
}

/// The style class of a ratio.
fn class(ratio: f64) -> &'static str {
    match tone(ratio) {
        Tone::Good => "good",
        Tone::Bad => "bad",
        _ => "even",
    }
}

fn verdict_table(groups: &[Group]) -> Markup {
    let peers = peers(groups);
    html! {
        div.scroll { table.verdict {
            thead { tr { th { "cell" } th { "fastest" } @for peer in &peers { th.figure { (peer) } } } }
            tbody {
                @for group in groups {
                    tr {
                        td { (compact(group)) }
                        td { @if let Some(winner) = group.winner() { (winner.lock) } }
                        @for &peer in &peers {
                            @match group.ours_to(peer) {
                                Some(ratio) => td.figure.(class(ratio)) { (ratio_text(ratio)) },
                                None => td.figure { "-" },
                            }
                        }
                    }
                }
            }
        } }
    }
}

fn bars(groups: &[Group]) -> Result<Markup, Failure> {
    let mut charts = Vec::new();
    for peer in peers(groups) {
        charts.push((peer, plot::ratio_bars(groups, peer)?));
    }
    Ok(html! {
        div.grid {
            @for (peer, chart) in &charts {
                figure { figcaption { (OURS) " / " (peer) } (PreEscaped(chart)) }
            }
        }
    })
}

fn curve(groups: &[Group]) -> Result<Markup, Failure> {
    let Some(chart) = plot::threads_curve(groups)? else { return Ok(html! {}) };
    let (placement, crowd) = plot::usual_crowd(groups);
    let present = |lock: &&LockName| crowd.iter().any(|g| g.locks.iter().any(|s| s.lock == **lock));
    Ok(html! {
        h2 { "Throughput against threads" }
        p.note {
            "Acquisitions a second of all threads together; section " (plan::CROWD_SECTION_NS) " ns, think " (plan::CROWD_THINK_NS) " ns"
            @if let Some(placement) = placement { "; CPUs " (placement.name()) } ". Both axes are logarithmic."
        }
        figure.wide {
            (PreEscaped(chart))
            p.legend { @for lock in LockName::ALL.iter().filter(present) { (swatch(plot::colour(*lock), lock.name())) } }
        }
    })
}

/// The tails of two threads that do nothing but contend, under each placement.
fn waits(groups: &[Group]) -> Result<Markup, Failure> {
    let wanted = |g: &&Group| g.cell.scenario == Scenario::Contended && g.cell.think_ns == Some(0);
    let mut charts = Vec::new();
    for group in groups.iter().filter(wanted) {
        charts.push((group.title(), plot::tails(group)?));
    }
    if charts.is_empty() {
        return Ok(html! {});
    }
    Ok(html! {
        h2 { "How long threads wait" }
        p.note { "Ring: median. Small dot: p99. Large dot: p99.9, also at the right. Bar: the longest wait. Logarithmic." }
        div.grid { @for (title, chart) in &charts { figure { figcaption { (title) } (PreEscaped(chart)) } } }
    })
}

fn counted(table: &PerThousand) -> Markup {
    html! {
        p.note { (table.title) }
        div.scroll { table {
            thead { tr { th { "lock" } @for name in &table.events { th.figure { (name) } } } }
            tbody {
                @for (lock, rates) in &table.locks {
                    tr { td { (lock) } @for &value in rates { td.figure { (stats::rate(value)) } } }
                }
            }
        } }
    }
}

fn cell(group: &Group) -> Markup {
    html! {
        details {
            summary { (headline(group)) }
            div.scroll { table {
                thead { tr {
                    th { "lock" }
                    th.figure { (OURS) " to it" }
                    @for title in ["cycles a pair", "ops/s", "spread", "fairness", "Jain", "p50", "p99", "p99.9", "max", "CPU/op", "rounds"] {
                        th.figure { (title) }
                    }
                } }
                tbody { @for summary in group.ranked() { (line(summary)) } }
            } }
        }
    }
}

fn line(s: &Summary) -> Markup {
    let maybe = |value: Option<f64>, show: fn(f64) -> String| value.map_or_else(|| "-".to_owned(), show);
    let share = |v: f64| format!("{v:.3}");
    let wait = s.wait_ns;
    html! {
        tr.ours[s.lock == OURS] {
            td { (s.lock) }
            @match s.ours_to_it.filter(|_| s.lock != OURS) {
                Some(ratio) => td.figure.(class(ratio)) { (ratio_text(ratio)) },
                None => td.figure { "-" },
            }
            td.figure { (maybe(s.cycles_per_pair, digits)) }
            td.figure { (si(s.ops_per_s)) }
            td.figure { (maybe(s.spread_pct, |v| format!("{v:.0} %"))) }
            td.figure { (maybe(s.fairness, share)) }
            td.figure { (maybe(s.jain, share)) }
            td.figure { (maybe(wait.map(|w| w.p50), nanos)) }
            td.figure { (maybe(wait.map(|w| w.p99), nanos)) }
            td.figure { (maybe(wait.map(|w| w.p999), nanos)) }
            td.figure { (maybe(wait.map(|w| w.max), nanos)) }
            td.figure { (maybe(s.cpu_ns_per_op, nanos)) }
            td.figure { (s.rounds) }
        }
    }
}

fn goal_class(goal: Goal) -> &'static str {
    match goal {
        Goal::AimReached => "good",
        Goal::BoundKept => "",
        Goal::BoundBroken => "bad",
    }
}
