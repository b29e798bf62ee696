//! `qspin check` as a user runs it.

mod command;

use std::time::Duration;

use command::{Output, qspin};

/// Far more than any of these takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);

#[track_caller]
fn check(args: &[&str]) -> Output {
    qspin(&[&["check"], args].concat(), LIMIT)
}

#[track_caller]
fn refused(args: &[&str], why: &str) {
    let run = check(args);
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert!(run.stderr.contains(why), "{run:#?}");
    assert!(!run.stderr.contains("panicked"), "{run:#?}");
}

#[test]
fn every_lock_holds_in_the_smallest_scenarios() {
    let path = std::env::temp_dir().join(format!("qspin-check-{}.json", std::process::id()));
    let path = path.to_str().expect("a plain path");
    let locks = "native,test-and-set,parking,parking-exact";
    let run = check(&[
        "--lock",
        locks,
        "--cpus",
        "2",
        "--acquires",
        "1",
        "--interrupts",
        "1",
        "--handler",
        "same",
        "--json",
        path,
    ]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let rows = std::fs::read_to_string(path).expect("written");
    std::fs::remove_file(path).expect("ours");
    let rows: Vec<serde_json::Value> = rows.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!(row["verdict"], "holds", "{row}");
        assert!(row["states"].as_u64() > Some(100), "{row}");
        assert!(row["seed"].is_null(), "{row}");
    }
}

/// The documentation says what breaks without each ordering. It says what the audit finds. Half a minute where the checker
/// is optimised, and ten where it is not.
#[cfg(not(debug_assertions))]
#[test]
fn the_table_of_orderings_is_that_of_the_audit() {
    let run = check(&["--weaken", "--markdown"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let document = include_str!("../../../docs/orderings.md");
    let table = run.stdout.trim_end();
    assert!(table.contains("| `word.release` | Release |"), "{table}");
    assert!(document.contains(table), "docs/orderings.md is not what `check --weaken --markdown` prints:\n{table}");
}

/// Along this execution one CPU reads the free word before the other has released it. With the ordering that the code
/// has nothing breaks; with a weaker one, the same choices end in a race.
#[test]
fn a_seed_leads_to_the_failure_again() {
    let version = env!("CARGO_PKG_VERSION");
    let weakened = check(&["--replay", &format!("{version}/native/2x1/1/0/0other/word.release=Relaxed/-/0.0.1")]);
    assert_eq!(weakened.code, Some(1), "{weakened:#?}");
    assert!(weakened.stderr.contains("race"), "{weakened:#?}");
    assert!(weakened.stdout.contains("word.release"), "the trace names its accesses: {weakened:#?}");
    let sound = check(&["--replay", &format!("{version}/native/2x1/1/0/0other//-/0.0.1")]);
    assert_eq!(sound.code, Some(0), "{sound:#?}");
    assert!(sound.stdout.contains("nothing is broken"), "{sound:#?}");
}

#[test]
fn a_limit_that_is_reached_does_not_pass() {
    for limit in [["--budget", "0"], ["--memory", "1"]] {
        let run = check(&[&["--cpus", "3", "--acquires", "2"][..], &limit].concat());
        assert_eq!(run.code, Some(1), "{run:#?}");
        assert!(run.stdout.contains("not finished"), "{run:#?}");
        assert!(run.stdout.contains("states"), "says how far it came: {run:#?}");
    }
    let run = check(&["--cpus", "2", "--preemptions", "1"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stdout.contains("at most 1 preemption"), "a bound is part of the verdict: {run:#?}");
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    refused(&["--lock", "mcs"], "known are native, numa, paravirt, parking, parking-exact, test-and-set");
    refused(&["--waiting", "awake"], "known are all, lane, sleepers, queue");
    refused(&["--cpus", "0"], "at least 1");
    refused(&["--sorting", "never"], "known are always, whim");
    refused(&["--lock", "native", "--urgent", "1"], "sets no waiter aside");
    refused(&["--lock", "numa", "--urgent", "4"], "at most 3");
    refused(&["--cpus", "9"], "at most 8");
    refused(&["--acquires", "0"], "at least 1");
    refused(&["--interrupts", "200"], "at most 3");
    refused(&["--json", "/no/such/folder/x.json"], "cannot write");
    refused(&["--replay", "0.0.0/native/2x1/1/0/0other//-/0"], "version 0.0.0");
    refused(&["--replay", "nonsense"], "is no seed");
    let far = format!("{}/native/2x1/1/0/0other//-/7", env!("CARGO_PKG_VERSION"));
    refused(&["--replay", &far], "other code");
    refused(&["--all", "--weaken"], "cannot be used with");
}
