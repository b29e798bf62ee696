//! The probe as text.

use comfy_table::{ContentArrangement, Table};

use super::cpulist::CpuList;
use super::facts::{Known, Waiters};
use super::transfer::{FEW_CPUS, Pair};
use super::{Choices, Probe};
use crate::ui::{self, Tone, figure, text};

const UNKNOWN: &str = "unknown";

pub(super) fn to_text(probe: &Probe) -> String {
    let mut shown = format!("{}\n", machine(probe));
    if let Some(pairs) = &probe.line_transfer {
        shown.push_str(&format!("\n{}\n", matrix(pairs)));
    }
    shown.push_str(&format!("\n{}\n", facts(&probe.facts)));
    shown.push_str(&format!("\n{}\n", choices(&probe.choices, "this process", "a kernel here")));
    if let Some(patched) = &probe.patched {
        shown.push_str(&format!("\ncode of the locks in this process: {}\n", patched.text));
    }
    for warning in &probe.warnings {
        shown.push_str(&format!("\n{} {warning}", ui::paint("warning:", Tone::Warn)));
    }
    if !probe.warnings.is_empty() {
        shown.push('\n');
    }
    shown
}

fn or_unknown<T: ToString>(value: Option<T>) -> String {
    value.map_or(UNKNOWN.into(), |value| value.to_string())
}

/// How many, and which.
fn cpus(list: Option<&CpuList>) -> String {
    match list {
        Some(list) if list.len() > 0 => format!("{} ({list})", list.len()),
        other => or_unknown(other),
    }
}

fn machine(probe: &Probe) -> Table {
    let mut table = ui::table(&["machine", ""], &[]);
    let mut row = |what: &str, value: String| {
        let tone = if value == UNKNOWN { Tone::Dim } else { Tone::Plain };
        table.add_row(vec![text(what, Tone::Dim), text(value, tone)]);
    };
    row("model", or_unknown(probe.model.as_ref()));
    row("CPUs online", cpus(probe.cpus.online.as_ref()));
    if probe.cpus.offline.as_ref().is_some_and(|offline| offline.len() > 0) {
        row("CPUs offline", cpus(probe.cpus.offline.as_ref()));
    }
    match &probe.nodes {
        None => row("memory nodes", UNKNOWN.into()),
        Some(nodes) => {
            row("memory nodes", nodes.len().to_string());
            for node in nodes {
                let memory =
                    node.memory_kib.map_or(UNKNOWN.into(), |kib| format!("{:.1} GiB", kib as f64 / 1_048_576.0));
                let distances = node.distances.as_ref().filter(|_| nodes.len() > 1).map_or(String::new(), |d| {
                    format!(", distances {}", d.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))
                });
                let value = format!("CPUs {}, memory {memory}{distances}", or_unknown(node.cpus.as_ref()));
                row(&format!("  node {}", node.node), value);
            }
        }
    }
    match &probe.l3_domains {
        None => row("L3 domains", UNKNOWN.into()),
        Some(domains) => {
            let lists: Vec<_> = domains.iter().map(|domain| format!("[{domain}]")).collect();
            row("L3 domains", format!("{}: {}", domains.len(), lists.join(" ")));
        }
    }
    row("domains of locks", probe.lock_domains.to_text());
    row("hypervisor", probe.hypervisor.describe());
    let tsc = &probe.tsc;
    let speed = tsc.mhz.map(|mhz| format!("{mhz:.1} MHz ({})", tsc.mhz_from.unwrap_or(UNKNOWN)));
    row("TSC", or_unknown(speed));
    row("TSC invariant", or_unknown(tsc.invariant.map(|yes| if yes { "yes" } else { "no" })));
    let process = &probe.process;
    row("affinity", cpus(process.affinity.as_ref()));
    let none = "no limit";
    let cgroup = process.cgroup.as_ref();
    row("cgroup CPUs", or_unknown(cgroup.map(|c| c.cpuset.as_ref().map_or(none.into(), |set| cpus(Some(set))))));
    let quota = cgroup.map(|c| match (c.quota_cpus, &c.quota_from) {
        (Some(cpus), Some(from)) => format!("{cpus:.2} CPUs' time ({from})"),
        _ => none.into(),
    });
    row("cgroup quota", or_unknown(quota));
    row("usable CPUs", cpus(process.usable.as_ref()));
    if probe.line_transfer.is_none() {
        let many = process.usable.as_ref().is_some_and(|usable| usable.len() > FEW_CPUS);
        row("line transfer", if many { "not measured: many CPUs; ask with --full" } else { "not measured" }.into());
    }
    table
}

/// Medians above the diagonal, the least below it.
fn matrix(pairs: &[Pair]) -> Table {
    let cpus: CpuList = pairs.iter().flat_map(|pair| pair.cpus).collect();
    let titles: Vec<_> = cpus.as_slice().iter().map(|cpu| format!("CPU {cpu}")).collect();
    let mut table =
        ui::table(&["line, one way, ns: median \\ least"], &titles.iter().map(String::as_str).collect::<Vec<_>>());
    for (&row, title) in cpus.as_slice().iter().zip(&titles) {
        let cells = cpus.as_slice().iter().map(|&column| {
            let pair = pairs.iter().find(|p| p.cpus == [row.min(column), row.max(column)]);
            let value = pair.map(|pair| if row < column { pair.median_ns } else { pair.least_ns });
            match value {
                None => figure("", Tone::Plain),
                Some(None) => figure("?", Tone::Dim),
                Some(Some(ns)) => figure(format!("{ns:.0}"), Tone::Plain),
            }
        });
        table.add_row(std::iter::once(text(title, Tone::Strong)).chain(cells).collect::<Vec<_>>());
    }
    table
}

/// What the choices are made from.
pub(super) fn facts(known: &Known) -> Table {
    let mut table = ui::table(&["facts", "process", "kernel"], &[]);
    let both = |value: fn(&Waiters) -> String| [&known.process, &known.kernel].map(value);
    let beneath = known.beneath();
    let rows = [
        ("CPUs that wait", both(|who| or_unknown(who.cpus))),
        ("domains", both(|who| or_unknown(who.domains))),
        ("beneath", [beneath.clone(), beneath]),
        ("wishes", both(|who| who.wishes.map_or("none".into(), |wishes| wishes.to_string()))),
    ];
    for (what, values) in rows {
        let tone = |value: &String| if value == UNKNOWN { Tone::Dim } else { Tone::Plain };
        let cells = values.into_iter().map(|value| text(value.clone(), tone(&value)));
        table.add_row(std::iter::once(text(what, Tone::Dim)).chain(cells).collect::<Vec<_>>());
    }
    table
}

pub(super) fn choices(choices: &Choices, process: &str, kernel: &str) -> Table {
    let mut table = ui::table(&["lock for", "slow path", "because"], &[]);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(100);
    for (who, chosen) in [(process, &choices.process), (kernel, &choices.kernel)] {
        table.add_row(vec![
            text(who, Tone::Plain),
            text(chosen.slow_path, Tone::Good),
            text(chosen.reason, Tone::Plain),
        ]);
    }
    table
}
