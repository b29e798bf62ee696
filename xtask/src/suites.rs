//! Every test suite, with a line for each that ran. A suite that did not run, or ran no test, or ignored one, fails.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Command;

use crate::Step;

/// How the workspace is tested: a name, arguments to `cargo test`, and the folders of whose `tests` all must have run.
const PASSES: &[(&str, &[&str], &[&str])] = &[
    (
        "workspace",
        &["--workspace"],
        &[
            "crates/qspinlock",
            "crates/qspinlock-vm",
            "crates/qspin",
            "examples/extension-host",
            "guest/firmware",
            "xtask",
        ],
    ),
    ("portable form, counting", &["--package", "qspinlock", "--features", "portable,stats"], &["crates/qspinlock"]),
    (
        "without std",
        &["--package", "qspinlock", "--no-default-features", "--features", "lock_api", "--test", "kernel"],
        &[],
    ),
    // What the compiler makes of call sites depends on how hard it tries.
    ("optimised", &["--package", "qspinlock", "--release", "--test", "patch", "--test", "patch_code"], &[]),
    // The audit of all orderings against their documentation takes too long otherwise.
    ("optimised checker", &["--package", "qspin", "--release", "--test", "cli_check"], &[]),
    ("command line, counting", &["--package", "qspin", "--features", "stats", "--bins"], &[]),
];

/// What a suite said at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcome {
    passed: u64,
    failed: u64,
    ignored: u64,
}

pub(crate) fn run() -> Step {
    let mut lines = Vec::new();
    let mut total = Outcome::default();
    for (pass, args, folders) in PASSES {
        let suites = cargo_test(args)?;
        for file in folders.iter().flat_map(|folder| test_files(folder)) {
            if !suites.keys().any(|suite| suite.ends_with(&file)) {
                return Err(format!("{pass}: suite {file} did not run"));
            }
        }
        for (suite, outcome) in suites {
            let is_empty = outcome.passed == 0 && suite.starts_with("tests/");
            if outcome.failed > 0 || outcome.ignored > 0 || is_empty {
                return Err(format!("{pass}: suite {suite}: {outcome:?}"));
            }
            if outcome.passed > 0 {
                lines.push(format!("suite {pass}: {suite}: {} passed", outcome.passed));
            }
            total.passed += outcome.passed;
        }
    }
    println!();
    for line in &lines {
        println!("{line}");
    }
    println!("{} suites", lines.len());
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(())
}

/// `tests/NAME.rs` for each integration test of a package.
fn test_files(package: &str) -> Vec<String> {
    let Ok(folder) = std::fs::read_dir(format!("{package}/tests")) else { return Vec::new() };
    folder
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".rs"))
        .map(|name| format!("tests/{name}"))
        .collect()
}

/// Runs `cargo test`, passing its output on, and collects what each suite said.
fn cargo_test(args: &[&str]) -> Result<BTreeMap<String, Outcome>, String> {
    println!("xtask: cargo test {}", args.join(" "));
    let text = |e: std::io::Error| format!("cargo test: {e}");
    // One pipe for both streams: the names of suites come on one, their results on the other.
    let (reader, writer) = std::io::pipe().map_err(text)?;
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--no-fail-fast", "--color=never"]).args(args);
    command.stdout(writer.try_clone().map_err(text)?).stderr(writer);
    let mut child = command.spawn().map_err(text)?;
    drop(command);

    let mut suites = BTreeMap::<String, Outcome>::new();
    let mut current = None;
    for line in BufReader::new(reader).lines() {
        let line = line.map_err(text)?;
        println!("{line}");
        if let Some(name) = suite_name(&line) {
            current = Some(name);
        } else if let Some(outcome) = outcome(&line) {
            let name = current.clone().ok_or_else(|| format!("a result without a suite: {line}"))?;
            let sum = suites.entry(name).or_default();
            sum.passed += outcome.passed;
            sum.failed += outcome.failed;
            sum.ignored += outcome.ignored;
        }
    }
    let status = child.wait().map_err(text)?;
    if status.success() { Ok(suites) } else { Err(format!("cargo test {}: {status}", args.join(" "))) }
}

/// The suite that a line of cargo's announces.
fn suite_name(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(rest) = line.strip_prefix("Running ") {
        // `tests/x.rs (target/debug/deps/x-0123)`, `unittests src/lib.rs (target/debug/deps/qspin-0123)`
        let (what, binary) = rest.rsplit_once(" (")?;
        let stem = binary.trim_end_matches(')').rsplit('/').next()?.rsplit_once('-')?.0;
        return Some(if what.starts_with("unittests") { format!("{stem}, {what}") } else { what.to_owned() });
    }
    line.strip_prefix("Doc-tests ").map(|package| format!("{package}, examples in the docs"))
}

/// What `test result:` says.
fn outcome(line: &str) -> Option<Outcome> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |what: &str| -> Option<u64> {
        rest.split(['.', ';']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
    };
    Some(Outcome { passed: number("passed")?, failed: number("failed")?, ignored: number("ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_lines_are_understood() {
        let names = [
            ("     Running tests/word.rs (target/debug/deps/word-0a1b)", "tests/word.rs"),
            ("     Running unittests src/lib.rs (/t/debug/deps/qspinlock-0a1b)", "qspinlock, unittests src/lib.rs"),
            ("   Doc-tests qspinlock", "qspinlock, examples in the docs"),
        ];
        for (line, name) in names {
            assert_eq!(suite_name(line).as_deref(), Some(name));
        }
        assert_eq!(suite_name("running 3 tests"), None);
        let line = "test result: FAILED. 2 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(outcome(line), Some(Outcome { passed: 2, failed: 1, ignored: 3 }));
        assert_eq!(outcome("test x ... ok"), None);
    }
}
