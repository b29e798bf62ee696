//! `qspin torture --resilient` and `qspin demo deadlock` as a user runs them.

mod command;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use command::{Output, qspin};
use serde_json::Value;

/// Far more than any of these takes on a busy machine; the run itself is bounded by its arguments.
const LIMIT: Duration = Duration::from_secs(90);

/// One at a time: they want the CPUs to themselves.
#[track_caller]
fn alone(args: &[&str]) -> Output {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    qspin(args, LIMIT)
}

#[track_caller]
fn torture(args: &[&str]) -> Output {
    alone(&[&["torture", "--resilient"], args].concat())
}

#[track_caller]
fn some(what: &Value) {
    assert!(what.as_f64() > Some(0.0), "{what:#}");
}

fn mode<'a>(report: &'a Value, name: &str) -> &'a Value {
    let modes = report["modes"].as_array().expect("a list");
    modes.iter().find(|mode| mode["mode"] == name).unwrap_or_else(|| panic!("no mode {name}: {report:#}"))
}

/// Every mode, with what it is there for.
#[track_caller]
fn holds(lock: &str) -> Value {
    holds_with(lock, &[])
}

#[track_caller]
fn holds_with(lock: &str, on: &[&str]) -> Value {
    let run = torture(&[&["--lock", lock, "--seconds", "4", "--json"], on].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = run.json();
    assert_eq!((&report["outcome"], &report["lock"]), (&"passed".into(), &lock.into()));
    assert!(report["message"].is_null() && report["not_run"].as_array().is_some_and(Vec::is_empty), "{report:#}");
    some(&report["stops"]);
    for circle in ["aa", "abba", "three", "ring:8"] {
        let mode = mode(&report, circle);
        some(&mode["deadlocks"]);
        for figure in ["count", "p50_us", "p99_us", "max_us"] {
            some(&mode["detection"][figure]);
        }
    }
    for circle in ["abba", "three", "ring:8", "handoff", "order", "signals", "dying", "crowd"] {
        let none_can_be = ["handoff", "signals", "dying", "crowd"].contains(&circle);
        let errors = &mode(&report, circle)[if none_can_be { "deadlocks" } else { "timed_out" }];
        assert_eq!(errors, 0, "{circle}: {report:#}");
    }
    for given_up in ["dead", "handoff", "many", "wild", "dying"] {
        some(&mode(&report, given_up)["timed_out"]);
    }
    some(&mode(&report, "dead")["locks_left_behind"]);
    some(&mode(&report, "many")["deadlocks"]);
    some(&mode(&report, "order")["deadlocks"]);
    for signals in ["aa", "signals", "wild"] {
        some(&mode(&report, signals)["handlers"]);
    }
    some(&mode(&report, "crowd")["acquisitions"]);
    report
}

#[test]
fn native_holds() {
    holds("native");
}

/// And waiters are set aside, who come back; none is where all are near.
#[test]
fn numa_holds_and_waiters_are_set_aside() {
    let report = holds_with("numa", &["--domains", "2"]);
    let locality = &report["locality"];
    assert_eq!((&locality["near"], &locality["domains"]), (&"pretend:2".into(), &2.into()));
    some(&locality["set_aside"]);
    some(&locality["brought_back"]);
    let report = holds_with("numa", &["--domains", "1"]);
    assert_eq!(report["locality"]["set_aside"], 0);
}

#[test]
fn test_and_set_holds() {
    holds("test-and-set");
}

#[test]
fn parking_holds() {
    holds("parking");
}

#[test]
fn parking_exact_holds() {
    holds("parking-exact");
}

#[test]
fn paravirt_holds() {
    holds("paravirt");
}

#[test]
fn the_chosen_lock_holds() {
    holds("chosen");
}

/// All four signals at once, each in the handler of the one before. Whether it comes to that is up to the scheduler.
#[test]
fn handlers_nest() {
    let deepest = (0..5).map(|_| {
        let run = torture(&["--mode", "signals,wild", "--seconds", "2", "--json"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        mode(&run.json(), "signals")["deepest"].as_u64().max(mode(&run.json(), "wild")["deepest"].as_u64())
    });
    assert!(deepest.into_iter().any(|deepest| deepest == Some(4)));
}

#[test]
fn a_crowd_goes_on_for_as_long_as_it_is_told() {
    let run = torture(&["--mode", "crowd", "--acquisitions", "300000", "--seconds", "1", "--no-stops", "--json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = run.json();
    assert!(report["acquisitions"].as_u64() >= Some(300_000), "{report:#}");
    assert_eq!((&report["deadlocks"], &report["stops"]), (&0.into(), &0.into()));
}

#[test]
fn a_ring_is_as_long_as_it_is_told() {
    let run = torture(&["--mode", "ring:20", "--seconds", "1", "--json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = run.json();
    assert_eq!(mode(&report, "ring:20")["threads"], 20);
    some(&mode(&report, "ring:20")["deadlocks"]);
}

/// Each mistake, where it shows, and what is said of it.
#[test]
fn mistakes_are_caught() {
    for (lock, mode, outcome, told) in [
        ("silent", "abba", "no-progress", "no progress: thread "),
        ("blurred", "three", "wrong", "where it should have been told of a deadlock"),
        ("alarmist", "crowd", "wrong", "was told of a deadlock where none can be"),
        ("clingy", "crowd", "wrong", "was told of a deadlock where none can be"),
        ("clingy", "order", "wrong", "was told of a deadlock where none can be"),
        ("intruder", "handoff", "exclusion-failed", "exclusion failed: thread "),
        ("litter", "handoff", "wrong", "thread "),
        ("heedless", "handoff", "exclusion-failed", "exclusion failed: thread "),
        ("heedless", "aa", "exclusion-failed", "exclusion failed: thread "),
    ] {
        let args = ["--lock", lock, "--mode", mode, "--seconds", "30", "--stall-seconds", "2", "--no-stops", "--json"];
        let run = torture(&args);
        assert_eq!(run.code, Some(1), "{lock}: {run:#?}");
        let report = run.json();
        assert_eq!(report["outcome"], outcome, "{lock}: {report:#}");
        assert!(run.stderr.contains(&format!("qspin: {lock}: {mode}: ")), "{run:#?}");
        assert!(run.stderr.contains(told), "{lock}: {run:#?}");
        assert!(report["seconds"].as_f64() < Some(30.0), "it stops when it knows: {report:#}");
    }
}

#[test]
fn the_table_says_what_failed_and_what_was_not_run() {
    let run = torture(&["--lock", "alarmist", "--mode", "crowd,abba,dead", "--seconds", "60"]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.stdout.contains("where none can be") && run.stdout.contains("abba, dead"), "{run:#?}");
}

#[test]
fn wrong_usage_is_told_what_is_right() {
    for (args, told) in [
        (
            &["torture", "--resilient", "--lock", "std"][..],
            "native, numa, paravirt, parking, parking-exact, chosen, test-and-set",
        ),
        (&["torture", "--resilient", "--lock", ""], "there is no resilient lock ''"),
        (&["torture", "--resilient", "--mode", "ring:1"], "2 to 128"),
        (&["torture", "--resilient", "--mode", "ring:x"], "2 to 128"),
        (&["torture", "--resilient", "--mode", "abab"], "aa, abba, three, ring:N, dead"),
        (&["torture", "--resilient", "--acquisitions", "0"], "'0'"),
        (&["torture", "--resilient", "--mode", "aa", "--acquisitions", "9"], "--mode crowd"),
        (&["torture", "--resilient", "--no-freed"], "--no-freed"),
        (&["torture", "--resilient", "--domains", "2"], "--domains: native does not look at domains; numa does"),
        (&["torture", "--resilient", "--lock", "chosen", "--domains", "2"], "chosen does not look at domains"),
        (&["torture", "--resilient", "--lock", "numa", "--domains", "0"], "1..=1023"),
        (&["torture", "--mode", "aa"], "--resilient"),
        (&["torture", "--acquisitions", "9"], "--resilient"),
        (&["torture", "--resilient", "--seconds", "0"], "1..=86400"),
        (&["demo"], "deadlock"),
        (&["demo", "deadlock", "--threads", "1"], "2..=128"),
        (&["demo", "deadlock", "--lock", "spin"], "there is no resilient lock 'spin'"),
        (&["demo", "lifelock"], "lifelock"),
    ] {
        let run = alone(args);
        assert_eq!(run.code, Some(2), "{args:?}: {run:#?}");
        assert!(run.stderr.contains(told), "{args:?}: {run:#?}");
        assert!(run.stdout.is_empty(), "{args:?}: {run:#?}");
    }
}

#[test]
fn help_has_examples() {
    let help = alone(&["torture", "--help"]);
    assert!(help.stdout.contains("qspin torture --resilient --mode ring:16"), "{help:#?}");
    assert!(help.stdout.contains("with --resilient: native, numa, "), "{help:#?}");
    let hidden = ["silent", "blurred", "alarmist", "intruder", "litter", "clingy", "heedless"];
    let words: Vec<_> = help.stdout.split_whitespace().map(|word| word.trim_matches(',')).collect();
    assert!(!hidden.iter().any(|lock| words.contains(lock)), "those are for these tests: {help:#?}");
    let help = alone(&["demo", "deadlock", "--help"]);
    assert!(help.code == Some(0) && help.stdout.contains("qspin demo deadlock --threads 2"), "{help:#?}");
}

#[test]
fn the_demo_shows_who_gave_up_and_why() {
    let run = alone(&["demo", "deadlock"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    for told in ["deadlock: a circle of 5", "was told, gave up, had both later", "philosophers.rs:", "holds 0x"] {
        assert!(run.stdout.contains(told), "{told}: {run:#?}");
    }
}

#[test]
fn the_demo_for_programs() {
    for (lock, threads) in
        [("native", 2), ("numa", 4), ("parking", 3), ("paravirt", 5), ("test-and-set", 8), ("chosen", 20)]
    {
        let run = alone(&["demo", "deadlock", "--lock", lock, "--threads", &threads.to_string(), "--json"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        let shown = run.json();
        assert_eq!((&shown["circle"], &shown["threads"]), (&threads.into(), &threads.into()), "{shown:#}");
        let each = shown["each"].as_array().expect("a list");
        assert_eq!(each.len(), threads);
        assert!(each.iter().all(|thread| thread["had_both"] == true && thread["timed_out"] == false), "{shown:#}");
        assert!(each.iter().any(|thread| thread["gave_up"] == true), "{shown:#}");
        // Round the circle by what each holds and wants.
        let next = |n: usize| &each[(n + 1) % threads]["holds"];
        assert!(each.iter().enumerate().all(|(n, thread)| &thread["wants"] == next(n)), "{shown:#}");
        some(&shown["told_after_us"]);
    }
}

#[test]
fn the_demo_fails_if_nobody_is_told() {
    let run = alone(&["demo", "deadlock", "--lock", "blurred"]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.stderr.contains("instead of a deadlock"), "{run:#?}");
}
