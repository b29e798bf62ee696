//! What counts as near for the locks of this process, as the library itself finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use qspinlock::threads::{self, TopologyError, read_domains};
use serde::Serialize;

use super::cpulist::CpuList;

#[derive(Serialize)]
pub(super) struct Domains {
    /// As in QSPINLOCK_DOMAIN.
    unit: String,
    /// How many there are. `None`: not known, so there is one.
    found: Option<u32>,
    /// Why not.
    problem: Option<String>,
    #[serde(skip)]
    is_senseless: bool,
    #[serde(skip)]
    by_cpu: Option<BTreeMap<u32, u32>>,
}

impl Domains {
    pub(super) fn find(root: &Path) -> Self {
        let unit = threads::topology().domains;
        let text = unit.to_string();
        if let threads::Domains::Pretended(n) = unit {
            return Self { unit: text, found: Some(n), problem: None, is_senseless: false, by_cpu: None };
        }
        let mut by_cpu = BTreeMap::new();
        let read = read_domains(&root.to_string_lossy(), unit, |cpu, domain| _ = by_cpu.insert(cpu, domain));
        match read {
            Ok(()) => {
                let found = by_cpu.values().collect::<BTreeSet<_>>().len() as u32;
                Self { unit: text, found: Some(found), problem: None, is_senseless: false, by_cpu: Some(by_cpu) }
            }
            Err(error) => Self {
                unit: text,
                found: None,
                problem: Some(error.to_string()),
                is_senseless: !matches!(error, TopologyError::Missing(_)),
                by_cpu: None,
            },
        }
    }

    /// Of these CPUs. `None`: not known.
    pub(super) fn of(&self, cpus: &CpuList) -> Option<u32> {
        match &self.by_cpu {
            None => self.found,
            Some(by_cpu) => {
                let domains: BTreeSet<_> = cpus.as_slice().iter().filter_map(|cpu| by_cpu.get(cpu)).collect();
                Some(domains.len().max(1) as u32)
            }
        }
    }

    /// What is wrong with the files, not merely missing.
    pub(super) fn warning(&self) -> Option<String> {
        let problem = self.problem.as_ref().filter(|_| self.is_senseless)?;
        Some(format!("{problem}; locks take all CPUs to be in one domain"))
    }

    pub(super) fn to_text(&self) -> String {
        match (self.found, &self.problem) {
            (Some(found), _) => format!("{found} (by {})", self.unit),
            (None, Some(why)) => format!("taken for one (by {}): {why}", self.unit),
            (None, None) => format!("taken for one (by {})", self.unit),
        }
    }
}
