//! The same as tables, on the terminal and in a page.

use maud::{Markup, PreEscaped, html};

use super::{Found, Panel, Point};
use crate::ui::{self, Tone, digits, figure};

/// A line of a table: who, with what value, and where that is.
type Line = (String, String, Point);

fn lines(panel: &Panel) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for curve in &panel.curves {
        for &(value, point) in &curve.points {
            let remark = if Some(point) == panel.default { " (as it is)" } else { "" };
            lines.push((curve.knob.to_owned(), format!("{value}{remark}"), point));
        }
    }
    lines.extend(panel.std.map(|point| ("std".to_owned(), String::new(), point)));
    lines
}

/// What must be known before a point is believed.
fn cautions(panel: &Panel) -> impl Iterator<Item = &'static str> {
    let is_empty = panel.default.is_none() && panel.std.is_none();
    let empty = "No slice was comparable: the CPUs moved too often. Repeat it, with more --rounds.";
    let short = "The slices were shorter than 2 s: the worst waits mean nothing.";
    [(is_empty, empty), (panel.is_short, short)].into_iter().filter_map(|(applies, text)| applies.then_some(text))
}

impl Found {
    pub(in crate::bench) fn text(&self) -> String {
        let mut parts = Vec::new();
        for panel in &self.panels {
            parts.push(ui::heading(&format!("{}: to parking_lot's", panel.title())));
            let mut table = ui::table(&["parameter", "value"], &["throughput", panel.wait(), "rounds"]);
            for (name, value, point) in lines(panel) {
                let plain = |text: String| figure(text, Tone::Plain);
                table.add_row(vec![
                    ui::text(name, Tone::Plain),
                    ui::text(value, Tone::Plain),
                    plain(digits(point.throughput)),
                    plain(digits(point.wait)),
                    plain(point.rounds.to_string()),
                ]);
            }
            parts.push(format!("{table}"));
            parts.extend(cautions(panel).map(str::to_owned));
            parts.push(String::new());
        }
        parts.push(ui::heading("Noise"));
        parts.extend(self.notes.iter().map(|note| format!("  {note}")));
        parts.join("\n") + "\n"
    }

    pub(in crate::bench) fn page(&self, facts: &[(&'static str, String)]) -> String {
        let body = html! {
            h1 { "Throughput against waiting" }
            p.lead { "One parameter of parking is turned at a time; the others stay as they are." }
            p.note {
                "Each point is the median, over rounds, of ratios to the slice of parking_lot nearest in time with "
                "the CPUs equally far apart. Up is faster, left is a shorter wait. Numbers are the parameter's value, "
                "times in ns."
            }
            figure.wide { (PreEscaped(&self.svg)) }
            @for panel in &self.panels { (table(panel)) }
            h2 { "Machine" }
            dl { @for (what, value) in facts { dt { (what) } dd { (value) } } }
            h2 { "Noise" }
            ul { @for note in &self.notes { li { (note) } } }
        };
        crate::page::page("qspin bench --trade-off", &body)
    }
}

fn table(panel: &Panel) -> Markup {
    html! {
        h2 { (panel.title()) }
        @for text in cautions(panel) { p.warning { (text) } }
        div.scroll { table {
            thead { tr {
                th { "parameter" } th { "value" } th.figure { "throughput" } th.figure { (panel.wait()) } th.figure { "rounds" }
            } }
            tbody {
                @for (name, value, point) in lines(panel) {
                    tr {
                        td { (name) }
                        td { (value) }
                        td.figure { (digits(point.throughput)) }
                        td.figure { (digits(point.wait)) }
                        td.figure { (point.rounds) }
                    }
                }
            }
        } }
    }
}
