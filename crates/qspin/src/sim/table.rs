//! The results on standard output.

use comfy_table::Table;
use qspinlock_vm::time::model::Model;

use super::row::{Group, Row};
use crate::ui::{self, Tone, digits, figure, nanos, si};

/// Ratios nearer to 1 than this are a draw: seeds differ by as much.
const DRAW: f64 = 0.03;

pub(super) fn machines(all: &[Model]) -> Table {
    let mut table = ui::table(&["machine", "what"], &["CPUs", "sockets", "L3s", "far / near"]);
    for model in all {
        let atomic = |end: Option<&(_, qspinlock_vm::time::model::Transfer)>| end.map_or(1, |(_, t)| t.atomic_modified);
        let cores = || model.transfers.iter().filter(|(d, _)| *d != qspinlock_vm::time::model::Distance::Core);
        let far = f64::from(atomic(cores().next_back())) / f64::from(atomic(cores().next()));
        table.add_row(vec![
            ui::text(&model.name, Tone::Strong),
            ui::text(&model.about, Tone::Plain),
            figure(model.shape.cpus(), Tone::Plain),
            figure(model.shape.sockets, Tone::Plain),
            figure(model.shape.sockets * model.shape.l3s, Tone::Plain),
            figure(digits(far), Tone::Plain),
        ]);
    }
    table
}

pub(super) const COLUMNS: [&str; 8] =
    ["ops/s", "to the first", "fairness", "busiest domain", "local hand-offs", "wait p50", "p99.9", "max"];
pub(super) const PREEMPTIONS: [&str; 2] = ["holder preempted", "next preempted"];

/// The figures of a row, in the order of [`COLUMNS`], then [`PREEMPTIONS`].
pub(super) fn figures(row: &Row) -> [String; 10] {
    [
        si(row.throughput),
        digits(row.ratio),
        format!("{:.3}", row.fairness),
        format!("{:.2}x", row.domain_fairness),
        format!("{:.0} %", row.local * 100.0),
        nanos(row.p50),
        nanos(row.p999),
        nanos(row.max),
        si(row.holder_preemptions),
        si(row.next_waiter_preemptions),
    ]
}

pub(super) fn tone(ratio: f64) -> Tone {
    match ratio {
        r if r > 1.0 + DRAW => Tone::Good,
        r if r < 1.0 - DRAW => Tone::Bad,
        _ => Tone::Plain,
    }
}

pub(super) fn of(group: &Group, overcommitted: bool) -> Table {
    let columns: Vec<_> =
        COLUMNS.into_iter().chain(overcommitted.then_some(PREEMPTIONS).into_iter().flatten()).collect();
    let mut table = ui::table(&["lock"], &columns);
    for row in &group.rows {
        let mut cells = vec![ui::text(row.lock, if row.lock.is_ours() { Tone::Strong } else { Tone::Plain })];
        for (index, text) in figures(row).into_iter().take(columns.len()).enumerate() {
            cells.push(figure(text, if index == 1 { tone(row.ratio) } else { Tone::Plain }));
        }
        table.add_row(cells);
    }
    table
}
