//! Machines as TOML files: read, checked, and refused with the line.
//!
//! A file says where the CPUs are (`[shape]`), what an access costs that the CPU's own cache serves (`[own]`), what one
//! costs that another's serves (`[transfer.DISTANCE]`), and where the numbers come from (`[sources]`). Times are in `cycles`
//! or in `ns`, as `unit` says. Who has measured only how long a modified line takes from CPU to CPU says `derive = true`: the
//! rest then follows by the ratios of a machine that is known completely.

mod costs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use toml::Spanned;

use self::costs::{Own, Table, Unit};
use super::model::{Distance, Model, Shape};

/// CPUs that a machine may have.
pub const MAX_CPUS: u32 = 4096;

/// Why a file describes no machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The line that is to blame, from 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
    /// What would be right.
    pub right: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}; {}", self.line, self.what, self.right)
    }
}

impl std::error::Error for FileError {}

/// What is wrong, before it is known in which line: bytes of the text.
struct Wrong {
    at: usize,
    what: String,
    right: String,
}

impl Wrong {
    fn at<T>(place: &Spanned<T>, what: impl Into<String>, right: impl Into<String>) -> Self {
        Self { at: place.span().start, what: what.into(), right: right.into() }
    }

    fn in_line_of(self, text: &str) -> FileError {
        let line = text.bytes().take(self.at).filter(|&byte| byte == b'\n').count() + 1;
        FileError { line, what: self.what, right: self.right }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Spanned<String>,
    about: String,
    mhz: Spanned<i64>,
    unit: Unit,
    #[serde(default)]
    derive: bool,
    shape: Spanned<ShapeTable>,
    own: Own,
    transfer: Spanned<BTreeMap<Spanned<String>, Table>>,
    #[serde(default)]
    sources: BTreeMap<Spanned<String>, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShapeTable {
    sockets: Spanned<i64>,
    l3s: Spanned<i64>,
    cores: Spanned<i64>,
    smt: Spanned<i64>,
    hops: Option<Spanned<Vec<Spanned<Vec<i64>>>>>,
}

impl Model {
    /// The machine that a file describes.
    ///
    /// # Errors
    /// It is no TOML, has a key that is not known or lacks one that is needed, or what it says makes no sense.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        toml::from_str::<File>(text)
            .map_err(|error| unreadable(&error))
            .and_then(|file| file.model())
            .map_err(|wrong| wrong.in_line_of(text))
    }
}

/// What the parser says: it knows what it expected where a key or a type is wrong.
fn unreadable(error: &toml::de::Error) -> Wrong {
    let message = error.message().replace('\n', ", ");
    let (what, right) = match message.split_once(", expected ") {
        Some((what, expected)) if expected != "nothing" => (what.to_owned(), format!("expected is {expected}")),
        _ if message.starts_with("missing field") => {
            (message, "docs/simulator.md says what a machine file needs".to_owned())
        }
        _ => (message, "it must be TOML as the built-in machines are".to_owned()),
    };
    Wrong { at: error.span().map_or(0, |span| span.start), what, right }
}

impl File {
    fn model(self) -> Result<Model, Wrong> {
        if self.name.get_ref().trim().is_empty() {
            return Err(Wrong::at(&self.name, "`name` is empty", "a machine needs a name"));
        }
        let mhz = within("mhz", &self.mhz, 1, 100_000)?;
        let shape = shape(&self.shape)?;
        let own = self.own.costs(self.unit, mhz)?;
        let mut sources: Vec<_> =
            self.sources.iter().map(|(key, source)| (key.get_ref().clone(), source.clone())).collect();
        let mut tables = Vec::new();
        for (name, table) in self.transfer.get_ref() {
            let distance = distance(name)?;
            tables.push((distance, name, table));
        }
        tables.sort_by_key(|&(distance, ..)| distance);
        complete(&self.transfer, &tables, &distances(&shape))?;
        let mut transfers = Vec::new();
        for &(distance, name, table) in &tables {
            let (transfer, derived) = table.costs(name, distance, self.derive, self.unit, mhz)?;
            if let Some(derived) = derived {
                sources.push((format!("transfer.{distance}"), derived));
            }
            transfers.push((distance, transfer));
        }
        costs::increase(&tables)?;
        for key in self.sources.keys() {
            names_a_number(key, &transfers)?;
        }
        Ok(Model { name: self.name.into_inner(), about: self.about, mhz, shape, own, transfers, sources })
    }
}

/// A whole number within bounds.
fn within(key: &str, value: &Spanned<i64>, least: u32, most: u32) -> Result<u32, Wrong> {
    let given = *value.get_ref();
    u32::try_from(given)
        .ok()
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| Wrong::at(value, format!("`{key}` is {given}"), format!("it must be from {least} to {most}")))
}

fn shape(table: &Spanned<ShapeTable>) -> Result<Shape, Wrong> {
    let given = table.get_ref();
    let count = |key: &str, value| within(key, value, 1, MAX_CPUS);
    let sockets = count("shape.sockets", &given.sockets)?;
    let (l3s, cores) = (count("shape.l3s", &given.l3s)?, count("shape.cores", &given.cores)?);
    let smt = count("shape.smt", &given.smt)?;
    let cpus = [sockets, l3s, cores, smt].iter().map(|&n| u128::from(n)).product::<u128>();
    if cpus > u128::from(MAX_CPUS) {
        return Err(Wrong::at(table, format!("the machine has {cpus} CPUs"), format!("{MAX_CPUS} are the most")));
    }
    let hops = match &given.hops {
        Some(hops) => links(sockets, hops)?,
        None if sockets == 1 => vec![vec![0]],
        None => {
            let right = format!("{sockets} sockets need {sockets} rows of links between them");
            return Err(Wrong::at(table, "`shape.hops` is missing", right));
        }
    };
    Ok(Shape { sockets, l3s, cores, smt, hops })
}

/// The links between sockets: a square, symmetric, and 0 where a socket meets itself.
fn links(sockets: u32, rows: &Spanned<Vec<Spanned<Vec<i64>>>>) -> Result<Vec<Vec<u8>>, Wrong> {
    let size = sockets as usize;
    let given = rows.get_ref();
    if given.len() != size {
        let what = format!("`shape.hops` has {} rows", given.len());
        return Err(Wrong::at(rows, what, format!("each of the {size} sockets needs one")));
    }
    for (from, row) in given.iter().enumerate() {
        if row.get_ref().len() != size {
            let what = format!("row {from} of `shape.hops` has {} numbers", row.get_ref().len());
            return Err(Wrong::at(row, what, format!("each of the {size} sockets needs one")));
        }
        for (to, &hops) in row.get_ref().iter().enumerate() {
            let what = format!("socket {from} is {hops} hops from socket {to}");
            match hops {
                0 if from == to => {}
                _ if from == to => return Err(Wrong::at(row, what, "a socket is 0 hops from itself")),
                1..=255 => {}
                _ => return Err(Wrong::at(row, what, "two sockets are 1 to 255 hops apart")),
            }
        }
    }
    for (from, row) in given.iter().enumerate() {
        for (to, &there) in row.get_ref().iter().enumerate().take(from) {
            let back = given[to].get_ref()[from];
            if there != back {
                let what = format!("socket {from} is {there} hops from socket {to}, which is {back} from it");
                return Err(Wrong::at(row, what, "`shape.hops` must be symmetric"));
            }
        }
    }
    Ok(given.iter().map(|row| row.get_ref().iter().map(|&hops| hops as u8).collect()).collect())
}

/// The distance that a table of `[transfer]` is for, by the name that it is shown with.
fn distance(name: &Spanned<String>) -> Result<Distance, Wrong> {
    let hops = |text: &str| text.split_once(' ').filter(|(_, unit)| ["hop", "hops"].contains(unit))?.0.parse().ok();
    match name.get_ref().as_str() {
        "core" => Ok(Distance::Core),
        "l3" => Ok(Distance::L3),
        "socket" => Ok(Distance::Socket),
        other => hops(other).filter(|&n| n > 0).map(Distance::Hops).ok_or_else(|| {
            Wrong::at(
                name,
                format!("`{other}` is no distance"),
                "known are core, l3, socket, \"1 hop\", \"2 hops\" ...",
            )
        }),
    }
}

/// The distances that occur between two CPUs.
fn distances(shape: &Shape) -> BTreeSet<Distance> {
    let mut found = BTreeSet::new();
    found.extend((shape.smt > 1).then_some(Distance::Core));
    found.extend((shape.cores > 1).then_some(Distance::L3));
    found.extend((shape.l3s > 1).then_some(Distance::Socket));
    found.extend(shape.hops.iter().flatten().filter(|&&hops| hops > 0).map(|&hops| Distance::Hops(hops)));
    found
}

/// Every distance of the shape has its costs, and no other.
fn complete<T>(
    section: &Spanned<T>,
    tables: &[(Distance, &Spanned<String>, &Table)],
    needed: &BTreeSet<Distance>,
) -> Result<(), Wrong> {
    for (index, (distance, name, _)) in tables.iter().enumerate() {
        if !needed.contains(distance) {
            let what = format!("no two CPUs of this shape are `{distance}` from each other");
            return Err(Wrong::at(name, what, "leave the table out, or correct the shape"));
        }
        if index > 0 && tables[index - 1].0 == *distance {
            return Err(Wrong::at(name, format!("`{distance}` has two tables"), "each distance has one"));
        }
    }
    match needed.iter().find(|distance| tables.iter().all(|(known, ..)| known != *distance)) {
        Some(missing) => {
            let what = format!("no costs are given for the distance `{missing}`");
            Err(Wrong::at(section, what, format!("add [transfer.\"{missing}\"]")))
        }
        None => Ok(()),
    }
}

/// A source is that of a number, of a table, or of one column of `[transfer]`.
fn names_a_number(key: &Spanned<String>, transfers: &[(Distance, super::model::Transfer)]) -> Result<(), Wrong> {
    let shape = ["sockets", "l3s", "cores", "smt", "hops"].map(|field| format!("shape.{field}"));
    let own = Own::FIELDS.map(|field| format!("own.{field}"));
    let columns = Table::FIELDS.map(|field| format!("transfer.{field}"));
    let by_distance = transfers.iter().flat_map(|(distance, _)| {
        let table = format!("transfer.{distance}");
        Table::FIELDS.map(|field| format!("{table}.{field}")).into_iter().chain([table])
    });
    let tables = ["mhz", "shape", "own", "transfer"].map(str::to_owned);
    let mut known = tables.into_iter().chain(shape).chain(own).chain(columns).chain(by_distance);
    if known.any(|known| known == *key.get_ref()) {
        return Ok(());
    }
    let what = format!("`{}` is the source of nothing in this file", key.get_ref());
    Err(Wrong::at(
        key,
        what,
        "a source is for `mhz`, `shape`, `own.load`, `transfer.l3`, `transfer.l3.load_shared` and so on",
    ))
}
