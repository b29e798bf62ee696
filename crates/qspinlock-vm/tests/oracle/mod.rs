//! Two independent judges of small programs, the checker and the axioms, and what they judge.

pub(crate) mod axioms;
pub(crate) mod checked;
pub(crate) mod program;
pub(crate) mod watchdog;

use std::collections::BTreeSet;
use std::fmt;

/// The last values of registers and cells, by name.
pub(crate) type Final = Vec<(String, u32)>;

/// What a program may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behaviour {
    /// How it may end.
    pub(crate) finals: BTreeSet<Final>,
    /// It may come to stand at awaits for ever.
    pub(crate) hangs: bool,
    /// It may touch plain data from two threads with no order between.
    pub(crate) races: bool,
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for end in &self.finals {
            let values: Vec<String> = end.iter().map(|(name, value)| format!("{name}={value}")).collect();
            write!(f, "{{{}}} ", values.join(" "))?;
        }
        f.write_str(if self.hangs { "hangs " } else { "" })?;
        f.write_str(if self.races { "races" } else { "" })
    }
}
