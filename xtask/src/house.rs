//! The rules of the house that a program can check.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Step;

/// Files of lock algorithms: they know cells and machines, and nothing real.
const ALGORITHMS: &[&str] = &["word.rs", "queue.rs", "raw.rs", "slowpath", "select.rs", "select", "resilient"];

/// What an algorithm must not name, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    ("unsafe {", "unsafe belongs to the machines"),
    ("sync::atomic", "an algorithm knows cells, not atomics"),
    ("Ordering::", "orderings are named accesses"),
    ("SeqCst", "an order over all locations is a fence"),
    ("std::", "an algorithm knows no threads and no clock"),
    ("cfg(loom", "one algorithm, many machines"),
    ("spin_loop", "every wait is a named await"),
    ("while self.", "every wait is a named await"),
    (".load(", "every look is a named step of the word or a node"),
];

/// Where a rule above is the room's own business.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("word.rs", ".load("),
    ("queue.rs", ".load("),
    ("slowpath/lineup.rs", ".load("),
    ("slowpath/numa/node.rs", ".load("),
    ("paravirt/turn.rs", ".load("),
    ("parking/sleepers.rs", ".load("),
    ("parking/list.rs", ".load("),
    ("raw.rs", "unsafe {"),
    ("resilient/record.rs", ".load("),
    ("resilient/entry.rs", ".load("),
    ("resilient/mutex.rs", "unsafe {"),
];

pub(crate) fn check() -> Step {
    let mut broken = Vec::new();
    let root = Path::new("crates/qspinlock/src");
    for file in ALGORITHMS.iter().flat_map(|name| rust_files(&root.join(name))) {
        let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (what, why) in FORBIDDEN {
                let excepted = EXCEPTIONS.iter().any(|(name, rule)| rule == what && file.ends_with(name));
                if code.contains(what) && !excepted {
                    broken.push(format!("{}:{}: `{what}`: {why}", file.display(), number + 1));
                }
            }
        }
    }
    if broken.is_empty() {
        println!("xtask: the rules of the house hold");
        Ok(())
    } else {
        Err(format!("rules of the house:\n{}", broken.join("\n")))
    }
}

/// A file, or the Rust files below a folder. Nothing if it is not there: rooms are built one by one.
fn rust_files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let Ok(folder) = fs::read_dir(path) else { return Vec::new() };
    let mut files: Vec<_> = folder.filter_map(|entry| Some(entry.ok()?.path())).flat_map(|p| rust_files(&p)).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "rs"));
    files.sort();
    files
}
