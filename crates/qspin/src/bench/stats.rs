//! What the lock counts of itself, by the kernel's names: how often it queued, slept, was woken for nothing.
//!
//! Counting costs a little, so a build counts only if it is made to (`--features stats`), and other figures of such a
//! build are not to be quoted.

use serde::{Deserialize, Serialize};

use super::row::Row;
use super::verdict::Group;
use crate::failure::Failure;
use crate::locks::LockName;
use crate::ui::{self, Tone, digits, figure};

/// Where counts come from.
trait Counters {
    /// Each counter since the process began, by name. `None`: this build does not count.
    fn read(&self) -> Option<Vec<(String, u64)>>;
}

/// The library's own.
struct Library;

impl Counters for Library {
    #[cfg(feature = "stats")]
    fn read(&self) -> Option<Vec<(String, u64)>> {
        Some(qspinlock::stats::snapshot().iter().map(|(_, name, count)| (name.to_owned(), count)).collect())
    }

    #[cfg(not(feature = "stats"))]
    fn read(&self) -> Option<Vec<(String, u64)>> {
        None
    }
}

/// What happened during one slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Events {
    pub(super) acquisitions: u64,
    pub(super) counts: Vec<(String, u64)>,
}

/// Says how to build so that there is something to show.
pub(super) fn need() -> Result<(), Failure> {
    if Library.read().is_some() {
        return Ok(());
    }
    Err(Failure::usage(
        "this build does not count: `cargo run --release --features stats -- bench --stats` builds one that does",
    ))
}

/// Counts what happens from its creation on.
pub(super) struct Tally(Vec<(String, u64)>);

impl Tally {
    /// `None`: this build does not count.
    pub(super) fn begin() -> Option<Self> {
        Library.read().map(Self)
    }

    /// During so many acquisitions.
    pub(super) fn end(self, acquisitions: u64) -> Option<Events> {
        Some(Events { acquisitions, counts: since(&self.0, Library.read()?) })
    }
}

/// What was added to each counter. One that was not there before began at 0.
fn since(before: &[(String, u64)], now: Vec<(String, u64)>) -> Vec<(String, u64)> {
    let earlier = |name: &str| before.iter().find(|(n, _)| n == name).map_or(0, |&(_, count)| count);
    let added = |(name, count): (String, u64)| {
        let count = count.saturating_sub(earlier(&name));
        (name, count)
    };
    now.into_iter().map(added).collect()
}

/// Events in a thousand acquisitions: a column for each that happened at all, a row for each lock that counts.
pub(super) struct PerThousand {
    pub(super) title: String,
    pub(super) events: Vec<String>,
    pub(super) locks: Vec<(LockName, Vec<f64>)>,
}

/// One for each group in which anything was counted.
pub(super) fn per_thousand(groups: &[Group], rows: &[Row]) -> Vec<PerThousand> {
    groups.iter().filter_map(|group| of_group(group, rows)).collect()
}

fn of_group(group: &Group, rows: &[Row]) -> Option<PerThousand> {
    let here = |row: &&Row| row.cell() == group.cell && row.placement == group.placement;
    let sums: Vec<(LockName, Events)> = group
        .locks
        .iter()
        .filter_map(|s| {
            let counted = rows.iter().filter(here).filter(|row| row.lock == s.lock).filter_map(|r| r.events.as_ref());
            Some((s.lock, counted.cloned().reduce(add)?))
        })
        // The other locks count nothing, here or elsewhere.
        .filter(|(_, sum)| sum.acquisitions > 0 && sum.counts.iter().any(|&(_, count)| count > 0))
        .collect();
    let mut events: Vec<String> = Vec::new();
    for (name, count) in sums.iter().flat_map(|(_, sum)| &sum.counts) {
        if *count > 0 && !events.contains(name) {
            events.push(name.clone());
        }
    }
    let rates = |sum: &Events| {
        let count = |name: &String| sum.counts.iter().find(|(n, _)| n == name).map_or(0, |&(_, count)| count);
        events.iter().map(|name| count(name) as f64 * 1000.0 / sum.acquisitions as f64).collect()
    };
    let locks: Vec<_> = sums.iter().map(|(lock, sum)| (*lock, rates(sum))).collect();
    (!locks.is_empty()).then(|| PerThousand { title: group.title(), events, locks })
}

fn add(mut sum: Events, other: Events) -> Events {
    sum.acquisitions += other.acquisitions;
    for (name, count) in other.counts {
        match sum.counts.iter_mut().find(|(n, _)| *n == name) {
            Some((_, total)) => *total += count,
            None => sum.counts.push((name, count)),
        }
    }
    sum
}

/// A rate that is not 0 does not look like 0.
pub(super) fn rate(value: f64) -> String {
    match value {
        0.0 => "-".to_owned(),
        v if v < 0.01 => format!("{v:.0e}"),
        v => digits(v),
    }
}

impl PerThousand {
    pub(super) fn text(&self) -> String {
        let names: Vec<&str> = self.events.iter().map(String::as_str).collect();
        let mut table = ui::table(&["lock"], &names);
        for (lock, rates) in &self.locks {
            let cells = rates.iter().map(|&value| figure(rate(value), Tone::Plain));
            table.add_row([ui::text(lock, Tone::Plain)].into_iter().chain(cells).collect::<Vec<_>>());
        }
        format!("  {}\n{table}\n", self.title)
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::Placement;
    use super::super::verdict::{groups, tests::row};
    use super::*;

    fn counted(lock: LockName, round: u32, acquisitions: u64, counts: &[(&str, u64)]) -> Row {
        let counts = counts.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
        Row { events: Some(Events { acquisitions, counts }), ..row(lock, round, Placement::Near, 1.0) }
    }

    #[test]
    fn only_what_a_slice_added_is_its_own() {
        let owned = |counts: &[(&str, u64)]| counts.iter().map(|&(n, c)| (n.to_owned(), c)).collect::<Vec<_>>();
        let added = since(&owned(&[("a", 5), ("b", 1)]), owned(&[("a", 7), ("b", 1), ("c", 4)]));
        assert_eq!(added, owned(&[("a", 2), ("b", 0), ("c", 4)]));
    }

    #[test]
    fn rounds_add_up_and_what_never_happened_has_no_column() {
        let rows = [
            counted(LockName::Parking, 0, 1000, &[("lock_slowpath", 10), ("pv_wait_head", 0), ("lock_no_node", 0)]),
            counted(LockName::Parking, 1, 3000, &[("lock_slowpath", 10), ("pv_wait_head", 4), ("lock_no_node", 0)]),
            counted(LockName::Std, 0, 1000, &[("lock_slowpath", 0)]),
        ];
        let tables = per_thousand(&groups(&rows), &rows);
        assert_eq!(tables.len(), 1);
        assert_eq!(tables[0].events, ["lock_slowpath", "pv_wait_head"]);
        assert_eq!(tables[0].locks, [(LockName::Parking, vec![5.0, 1.0])]);
        let text = tables[0].text();
        assert!(text.contains("pv_wait_head") && text.contains("5.00") && text.contains("contended"), "{text}");
    }

    #[test]
    fn a_small_rate_is_not_none() {
        assert_eq!([rate(0.0), rate(0.002), rate(12.34)], ["-", "2e-3", "12.3"]);
    }

    #[test]
    fn rows_without_counts_have_no_table() {
        let rows = [row(LockName::Parking, 0, Placement::Near, 1.0)];
        assert!(per_thousand(&groups(&rows), &rows).is_empty());
    }
}
