//! The machines that are built in.

use super::file::FileError;
use super::model::Model;

/// Name and text of each; the one that runs by default first.
const FILES: [(&str, &str); 10] = [
    ("haswell-4s", include_str!("../../machines/haswell-4s.toml")),
    ("broadwell-2s", include_str!("../../machines/broadwell-2s.toml")),
    ("cascadelake-2s", include_str!("../../machines/cascadelake-2s.toml")),
    ("icelake-2s", include_str!("../../machines/icelake-2s.toml")),
    ("epyc-7742", include_str!("../../machines/epyc-7742.toml")),
    ("epyc-7r13", include_str!("../../machines/epyc-7r13.toml")),
    ("kunpeng-920", include_str!("../../machines/kunpeng-920.toml")),
    ("graviton-3", include_str!("../../machines/graviton-3.toml")),
    ("sosp13-xeon", include_str!("../../machines/sosp13-xeon.toml")),
    ("sosp13-opteron", include_str!("../../machines/sosp13-opteron.toml")),
];

/// The built-in machine that a simulation runs on if none is named: that of the published figures of compact NUMA-aware locks.
pub const DEFAULT: &str = "haswell-4s";

impl Model {
    /// The built-in machine of this name.
    #[must_use]
    pub fn built_in(name: &str) -> Option<Self> {
        Self::text_of(name).map(|text| sound(name, Self::parse(text)))
    }

    /// The file of the built-in machine of this name: something to begin one's own from.
    #[must_use]
    pub fn text_of(name: &str) -> Option<&'static str> {
        FILES.iter().find(|(known, _)| *known == name).map(|&(_, text)| text)
    }

    /// All built-in machines.
    #[must_use]
    pub fn built_ins() -> Vec<Self> {
        FILES.iter().map(|(name, text)| sound(name, Self::parse(text))).collect()
    }
}

/// Tests parse them all.
fn sound(name: &str, parsed: Result<Model, FileError>) -> Model {
    parsed.unwrap_or_else(|error| panic!("the built-in machine {name} has a mistake in {error}"))
}
