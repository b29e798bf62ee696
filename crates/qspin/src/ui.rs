//! What the commands show: one progress bar, one kind of table, few colours.
//!
//! Results go to standard output, progress to standard error. Colours and the bar appear only on a terminal, so a
//! pipe or a log gets plain text.

use std::fmt;
use std::io::{ErrorKind, Write};

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, LineStyle, Table, TableStyle};
use indicatif::{ProgressBar, ProgressStyle};

/// A bar of `steps` steps on standard error; hidden when that is not a terminal.
pub(crate) fn progress(steps: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{bar:30.cyan/dim} {pos}/{len} {elapsed} (left {eta}) {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸━"));
    bar
}

/// For what has no known end: a line on standard error that turns, with the time so far and a message; hidden when that is
/// not a terminal.
pub(crate) fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner:.cyan} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

/// `print!`, for a standard output that may fail.
macro_rules! say {
    ($($text:tt)*) => { crate::ui::write_out(format_args!($($text)*)) };
}

/// `println!`, for a standard output that may fail.
macro_rules! sayln {
    () => { crate::ui::write_out(format_args!("\n")) };
    ($($text:tt)*) => { crate::ui::write_out(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {say, sayln};

/// Writes to standard output. A reader that has gone has seen what it wanted; with anything else in the way the command ends
/// here, since what it found would be lost.
pub(crate) fn write_out(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            eprintln!("qspin: cannot write to standard output: {error}");
            std::process::exit(1);
        }
    }
}

/// How a table cell is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Bad,
    Warn,
    Dim,
    Strong,
}

/// A left-aligned table cell.
pub(crate) fn text(content: impl ToString, tone: Tone) -> Cell {
    let cell = Cell::new(content);
    match tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Bad => cell.fg(Color::Red),
        Tone::Warn => cell.fg(Color::Yellow),
        Tone::Dim => cell.add_attribute(Attribute::Dim),
        Tone::Strong => cell.add_attribute(Attribute::Bold),
    }
}

/// A right-aligned table cell, for figures.
pub(crate) fn figure(content: impl ToString, tone: Tone) -> Cell {
    text(content, tone).set_alignment(CellAlignment::Right)
}

/// An empty table: columns of text, then columns of figures; a rule below the header, no other lines.
pub(crate) fn table(texts: &[&str], figures: &[&str]) -> Table {
    const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    let mut table = Table::new();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled);
    let left = texts.iter().map(|title| text(title, Tone::Strong));
    let right = figures.iter().map(|title| figure(title, Tone::Strong));
    table.set_header(left.chain(right).collect::<Vec<_>>());
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table
}

/// A heading on standard output.
pub(crate) fn heading(title: &str) -> String {
    console::style(title).bold().to_string()
}

/// `text` on standard output, coloured as `tone`.
pub(crate) fn paint(text: &str, tone: Tone) -> String {
    let styled = console::style(text);
    match tone {
        Tone::Plain => styled,
        Tone::Good => styled.green(),
        Tone::Bad => styled.red(),
        Tone::Warn => styled.yellow(),
        Tone::Dim => styled.dim(),
        Tone::Strong => styled.bold(),
    }
    .to_string()
}

/// Three significant digits and a unit: `12.3 M`.
pub(crate) fn si(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, " G"),
        v if v >= 1e6 => (value / 1e6, " M"),
        v if v >= 1e3 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    format!("{}{unit}", digits(scaled))
}

/// A time in nanoseconds with the unit that suits it: `1.70 us`.
pub(crate) fn nanos(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, "s"),
        v if v >= 1e6 => (value / 1e6, "ms"),
        v if v >= 1e3 => (value / 1e3, "us"),
        _ => (value, "ns"),
    };
    format!("{} {unit}", digits(scaled))
}

/// Three significant digits, as far as that is a matter of decimals.
pub(crate) fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        assert_eq!(si(12_345_678.0), "12.3 M");
        assert_eq!(si(999.0), "999");
        assert_eq!(si(0.5), "0.50");
        assert_eq!(nanos(1_700.0), "1.70 us");
        assert_eq!(nanos(99.96), "100 ns");
        assert_eq!(nanos(2e9), "2.00 s");
    }
}
