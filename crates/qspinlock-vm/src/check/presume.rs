//! What a search presumes of cells, so that it need not tell states apart by what nobody will ever read. Whoever does
//! what was presumed that nobody does makes the search begin anew, presuming less: so nothing is lost.
//!
//! * **Informed.** Most cells are handed from one CPU to the next by way of another cell. Whoever touches such a cell
//!   knows its last write, so it has one value to read and one place to write to, and who knows how much of what came
//!   before makes no difference. Of older writes it is kept only that they are older.
//! * **Buried.** What a queue node holds when its level has been given back will be overwritten before it is read.

use std::collections::{HashMap, HashSet};

use super::machine::CellInfo;

/// All CPUs, as bits.
pub(super) const EVERYBODY: u8 = u8::MAX;

/// CPUs that may touch a cell without knowing its last write, as it is presumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ignorant {
    Nobody,
    /// The CPU whose node it is in.
    Owner,
    Anybody,
}

/// By kind of cell: nodes are alike, so what one of them shows is held of all.
#[derive(Default)]
pub(super) struct Presumed {
    ignorant: HashMap<String, Ignorant>,
    /// Kinds of cells of nodes that are read although nobody has written them since the node was last given back.
    unburied: HashSet<String>,
}

fn kind(info: &CellInfo) -> &str {
    match info.node {
        Some(_) => info.name.split_once('.').map_or("", |(_, what)| what),
        None => &info.name,
    }
}

impl Presumed {
    /// Who may touch this cell without knowing its last write, as bits.
    pub(super) fn ignorant(&self, info: &CellInfo) -> u8 {
        if info.plain || info.private_to.is_some() {
            // They have no history.
            return EVERYBODY;
        }
        match (self.ignorant.get(kind(info)).unwrap_or(&Ignorant::Nobody), info.node) {
            (Ignorant::Nobody, _) => 0,
            (Ignorant::Owner, Some((owner, _))) => 1 << owner,
            _ => EVERYBODY,
        }
    }

    /// This CPU touches the cell without knowing.
    pub(super) fn was_ignorant(&mut self, info: &CellInfo, cpu: usize) {
        let who = if info.node.is_some_and(|(owner, _)| owner == cpu) && self.ignorant(info) == 0 {
            Ignorant::Owner
        } else {
            Ignorant::Anybody
        };
        self.ignorant.insert(kind(info).to_owned(), who);
    }

    /// Whether the cell means nothing while its node is out of use.
    pub(super) fn is_buried(&self, info: &CellInfo) -> bool {
        info.node.is_some() && self.ignorant(info) != EVERYBODY && !self.unburied.contains(kind(info))
    }

    /// The cell is read, and nobody has written it since its node was given back.
    pub(super) fn was_read(&mut self, info: &CellInfo) {
        self.unburied.insert(kind(info).to_owned());
    }
}
