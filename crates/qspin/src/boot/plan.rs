//! What is to be booted.

use super::machine::Machine;
use super::matrix::{ROWS, Row};
use super::once::{Boot, End};

/// A boot to make.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) machine: Machine,
    /// What must come of it, if that is known.
    pub(super) row: Option<&'static Row>,
}

impl Planned {
    pub(super) fn one(machine: Machine) -> Self {
        let name = match machine.append.as_str() {
            "" => "the kernel".to_owned(),
            words => words.to_owned(),
        };
        Self { name, machine, row: None }
    }

    pub(super) fn matrix() -> Vec<Self> {
        ROWS.iter().map(|row| Self { name: row.name.to_owned(), machine: row.machine(), row: Some(row) }).collect()
    }

    /// What is not as it must be; nothing, if all is well.
    pub(super) fn wrong(&self, boot: &Boot) -> Vec<String> {
        match self.row {
            Some(row) => row.wrong(boot),
            None if boot.end == End::Passed => Vec::new(),
            None => vec![boot.end.to_string()],
        }
    }
}
