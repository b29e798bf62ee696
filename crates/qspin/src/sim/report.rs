//! The report as a page.

use maud::{Markup, PreEscaped, html};
use plotters::style::RGBColor;
use qspinlock_vm::time::run::LockKind;

use super::plan::Plan;
use super::row::{Group, Row};
use super::table;
use crate::draw::{self, Curve, Tail, Upwards, without_zeros};
use crate::failure::Failure;
use crate::page::{self, swatch};
use crate::ui::{digits, nanos, si};

/// By the name: the engine may learn more locks.
fn colour(lock: LockKind) -> RGBColor {
    match lock.name() {
        "native" => RGBColor(20, 170, 215),
        "numa" => RGBColor(37, 99, 235),
        "paravirt" => RGBColor(20, 90, 140),
        "parking" => RGBColor(110, 130, 220),
        "resilient" => RGBColor(0, 110, 90),
        "test-and-set" => RGBColor(124, 168, 255),
        "tas" => RGBColor(209, 73, 82),
        "ttas" => RGBColor(234, 120, 20),
        "ticket" => RGBColor(110, 170, 40),
        "mcs" => RGBColor(140, 90, 210),
        _ => RGBColor(128, 134, 142),
    }
}

fn locks(groups: &[Group]) -> Vec<LockKind> {
    groups.first().map_or_else(Vec::new, |group| group.rows.iter().map(|row| row.lock).collect())
}

/// A curve for each lock over the count of CPUs.
fn curves(
    groups: &[Group],
    pick: fn(&Row) -> f64,
    upwards: Upwards,
    label: fn(f64) -> String,
) -> Result<Option<String>, Failure> {
    let curve = |lock| Curve {
        ink: colour(lock),
        width: 2,
        points: groups
            .iter()
            .flat_map(|group| &group.rows)
            .filter(|row| row.lock == lock)
            .map(|row| (f64::from(row.cpus), pick(row)))
            .collect(),
    };
    let curves: Vec<_> = locks(groups).into_iter().map(curve).collect();
    draw::curves((920, 420), "CPUs", &curves, upwards, &label)
}

/// Throughput over the count of CPUs. `None` with fewer than two counts.
pub(super) fn throughput(groups: &[Group]) -> Result<Option<String>, Failure> {
    curves(groups, |row| row.throughput.max(1.0), Upwards::Logarithmic, |v| without_zeros(&si(v)))
}

fn share(v: f64) -> String {
    format!("{:.0} %", v * 100.0)
}

pub(super) fn page(plan: &Plan, groups: &[Group]) -> Result<String, Failure> {
    let most = groups.iter().flat_map(|g| &g.rows).map(|row| row.domain_fairness).fold(1.5, f64::max);
    let charts = [
        ("Throughput", "Acquisitions a second of all CPUs together.", throughput(groups)?),
        (
            "Fairness per CPU",
            "Acquisitions of the busier half of the CPUs, of all: 50 % is fair, 100 % starves the others.",
            curves(groups, |row| row.fairness, Upwards::Linear(0.45, 1.0), share)?,
        ),
        (
            "Fairness per domain",
            "Acquisitions of the busiest domain to an even share: 1 is fair.",
            curves(groups, |row| row.domain_fairness, Upwards::Linear(0.9, most * 1.05), digits)?,
        ),
        (
            "Local hand-offs",
            "Hand-offs to a CPU of the same domain, of all.",
            curves(groups, |row| row.local, Upwards::Linear(0.0, 1.0), share)?,
        ),
        (
            "Wait, p99.9",
            "One wait in a thousand is longer.",
            curves(groups, |row| row.p999.max(1.0), Upwards::Logarithmic, |v| without_zeros(&nanos(v)))?,
        ),
    ];
    let body = html! {
        header {
            h1 { "qspin sim" }
            p.lead { (plan.model.about) }
            @for line in plan.to_string().lines().skip(1) { p.note { (line) } }
            p.note { "Simulated, not measured: docs/simulator.md says what it may be believed for." }
        }
        p.legend { @for lock in locks(groups) { (swatch(colour(lock), lock.name())) } }
        @for (title, what, chart) in &charts {
            @if let Some(chart) = chart {
                h2 { (title) }
                p.note { (what) }
                figure.wide { (PreEscaped(chart)) }
            }
        }
        h2 { "How long CPUs wait" }
        p.note { "Ring: median. Small dot: p99. Large dot: p99.9, also at the right. Bar: the longest wait. Logarithmic." }
        (tails(groups)?)
        h2 { "Every figure" }
        @for group in groups { (figures(group, plan.overcommit.is_some())) }
        h2 { "Where the costs come from" }
        dl { @for (key, source) in &plan.model.sources { dt { (key) } dd { (source) } } }
    };
    Ok(page::page("qspin sim", &body))
}

fn tails(groups: &[Group]) -> Result<Markup, Failure> {
    let mut charts = Vec::new();
    for group in groups.iter().filter(|group| group.cpus > 1) {
        let tails = group.rows.iter().map(|row| Tail {
            label: row.lock.name(),
            ink: colour(row.lock),
            bold: row.lock.is_ours(),
            p50: row.p50,
            p99: row.p99,
            p999: row.p999,
            max: row.max,
        });
        charts.push((group.title(), draw::tails(&tails.collect::<Vec<_>>())?));
    }
    Ok(html! {
        div.grid { @for (title, chart) in &charts { figure { figcaption { (title) } (PreEscaped(chart)) } } }
    })
}

fn figures(group: &Group, overcommitted: bool) -> Markup {
    let columns = table::COLUMNS.len() + if overcommitted { table::PREEMPTIONS.len() } else { 0 };
    html! {
        h3 { (group.title()) }
        div.scroll { table {
            thead { tr {
                th { "lock" }
                @for title in table::COLUMNS.iter().chain(&table::PREEMPTIONS).take(columns) { th.figure { (title) } }
            } }
            tbody {
                @for row in &group.rows {
                    tr { td { (row.lock) } @for figure in table::figures(row).iter().take(columns) { td.figure { (figure) } } }
                }
            }
        } }
    }
}
