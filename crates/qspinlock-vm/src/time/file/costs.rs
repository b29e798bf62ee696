//! The costs in a machine file: units, and what follows from what was measured.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};
use toml::Spanned;

use super::Wrong;
use crate::time::model::{Distance, OwnCosts, Transfer};

/// More cycles than any access takes.
const MOST: f64 = 1_000_000.0;

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unit {
    Cycles,
    Ns,
}

/// A time in the unit of the file: whole, or with decimals.
#[derive(Clone, Copy)]
pub(super) struct Time(f64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_i64<E>(self, value: i64) -> Result<Time, E> {
                Ok(Time(value as f64))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Time, E> {
                Ok(Time(value))
            }
        }
        from.deserialize_any(Number)
    }
}

/// Cycles, of which there is at least one: nothing is free.
fn cycles(key: &str, time: &Spanned<Time>, unit: Unit, mhz: u32) -> Result<u32, Wrong> {
    let given = time.get_ref().0;
    let cycles = match unit {
        Unit::Cycles => given,
        Unit::Ns => given * f64::from(mhz) / 1000.0,
    };
    let wrong = |right: &str| Err(Wrong::at(time, format!("`{key}` is {given}"), right));
    match cycles {
        c if c.is_nan() || c <= 0.0 => wrong("it must be more than 0"),
        c if c < 0.5 => wrong("it must be a cycle or more"),
        c if c > MOST => wrong("it must be a million cycles at most"),
        c => Ok((c.round() as u32).max(1)),
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Own {
    load: Spanned<Time>,
    store: Spanned<Time>,
    atomic: Spanned<Time>,
    pause: Spanned<Time>,
}

impl Own {
    pub(super) const FIELDS: [&'static str; 4] = ["load", "store", "atomic", "pause"];

    pub(super) fn costs(&self, unit: Unit, mhz: u32) -> Result<OwnCosts, Wrong> {
        Ok(OwnCosts {
            load: cycles("own.load", &self.load, unit, mhz)?,
            store: cycles("own.store", &self.store, unit, mhz)?,
            atomic: cycles("own.atomic", &self.atomic, unit, mhz)?,
            pause: cycles("own.pause", &self.pause, unit, mhz)?,
        })
    }
}

/// `[transfer.DISTANCE]`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    load_modified: Option<Spanned<Time>>,
    load_shared: Option<Spanned<Time>>,
    load_shared_occupies: Option<Spanned<Time>>,
    store_modified: Option<Spanned<Time>>,
    store_shared: Option<Spanned<Time>>,
    atomic_modified: Option<Spanned<Time>>,
    atomic_shared: Option<Spanned<Time>>,
}

/// What stays with a line, beside the others: it is not ordered by distance.
const OCCUPIES: &str = "load_shared_occupies";

impl Table {
    pub(super) const FIELDS: [&'static str; 7] = [
        "load_modified",
        "load_shared",
        OCCUPIES,
        "store_modified",
        "store_shared",
        "atomic_modified",
        "atomic_shared",
    ];

    fn given(&self) -> [&Option<Spanned<Time>>; 7] {
        [
            &self.load_modified,
            &self.load_shared,
            &self.load_shared_occupies,
            &self.store_modified,
            &self.store_shared,
            &self.atomic_modified,
            &self.atomic_shared,
        ]
    }

    /// The costs, and how those came about that the file does not say.
    pub(super) fn costs(
        &self,
        name: &Spanned<String>,
        distance: Distance,
        derive: bool,
        unit: Unit,
        mhz: u32,
    ) -> Result<(Transfer, Option<String>), Wrong> {
        let Some(measured) = &self.atomic_modified else {
            let what = format!("`transfer.{distance}.atomic_modified` is missing");
            return Err(Wrong::at(
                name,
                what,
                "it is how long a modified line takes from CPU to CPU by compare-exchange",
            ));
        };
        let base = cycles(&format!("transfer.{distance}.atomic_modified"), measured, unit, mhz)?;
        let mut derived = Vec::new();
        let mut found = [0; 7];
        for (index, (field, given)) in Self::FIELDS.into_iter().zip(self.given()).enumerate() {
            let key = format!("transfer.{distance}.{field}");
            found[index] = match given {
                Some(time) => cycles(&key, time, unit, mhz)?,
                None if derive => {
                    derived.push(field);
                    by_ratio(base, index, distance)
                }
                None => {
                    let right = "give it, or say `derive = true` to have it follow from `atomic_modified`";
                    return Err(Wrong::at(name, format!("`{key}` is missing"), right));
                }
            };
        }
        let [
            load_modified,
            load_shared,
            load_shared_occupies,
            store_modified,
            store_shared,
            atomic_modified,
            atomic_shared,
        ] = found;
        if load_shared_occupies > load_shared {
            let what =
                format!("a load of a shared line takes {load_shared} cycles and keeps it for {load_shared_occupies}");
            let right = format!("`{OCCUPIES}` is a part of `load_shared`");
            return Err(match (&self.load_shared_occupies, &self.load_shared) {
                (Some(place), _) | (None, Some(place)) => Wrong::at(place, what, right),
                (None, None) => Wrong::at(name, what, right),
            });
        }
        let transfer = Transfer {
            load_modified,
            load_shared,
            load_shared_occupies,
            store_modified,
            store_shared,
            atomic_modified,
            atomic_shared,
        };
        Ok((transfer, (!derived.is_empty()).then(|| explain(&derived, distance))))
    }
}

/// The table of SOSP'13's Xeon, for each field of [`Table`]: within a die, one hop and two hops away.
const XEON: [[u32; 7]; 3] =
    [[109, 44, 44, 115, 116, 120, 113], [289, 223, 120, 320, 318, 324, 312], [400, 334, 120, 431, 428, 430, 423]];

/// Its row that is most like this distance: caches of one socket that are not shared are a hop away.
fn like(distance: Distance) -> usize {
    match distance {
        Distance::Core | Distance::L3 => 0,
        Distance::Socket | Distance::Hops(0 | 1) => 1,
        Distance::Hops(_) => 2,
    }
}

/// A field in the ratio to `atomic_modified` that it has on the Xeon.
fn by_ratio(base: u32, field: usize, distance: Distance) -> u32 {
    let row = XEON[like(distance)];
    let atomic_modified = row[5];
    ((u64::from(base) * u64::from(row[field]) + u64::from(atomic_modified) / 2) / u64::from(atomic_modified)).max(1)
        as u32
}

fn explain(fields: &[&str], distance: Distance) -> String {
    let place = ["within a die", "1 hop away", "2 hops away"][like(distance)];
    format!("derived: {} from atomic_modified by the ratios of SOSP'13's Xeon {place}", fields.join(", "))
}

/// What is farther away takes no less.
pub(super) fn increase(tables: &[(Distance, &Spanned<String>, &Table)]) -> Result<(), Wrong> {
    for (index, field) in Table::FIELDS.into_iter().enumerate().filter(|&(_, field)| field != OCCUPIES) {
        let given = tables.iter().filter_map(|(distance, _, table)| Some((distance, table.given()[index].as_ref()?)));
        let given: Vec<_> = given.collect();
        for pair in given.windows(2) {
            let [(near, less), (far, more)] = pair else { continue };
            if more.get_ref().0 < less.get_ref().0 {
                let (near_time, far_time) = (less.get_ref().0, more.get_ref().0);
                let what = format!("`transfer.{far}.{field}` is {far_time}, less than the {near_time} at `{near}`");
                return Err(Wrong::at(more, what, "what is farther away takes no less"));
            }
        }
    }
    Ok(())
}
