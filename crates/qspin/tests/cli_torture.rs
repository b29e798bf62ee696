//! `qspin torture` as a user runs it.

mod command;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use command::{Output, qspin};

/// Far more than any of these takes on a busy machine; the run itself is bounded by its arguments.
const LIMIT: Duration = Duration::from_secs(60);

/// One at a time: fair spinning locks suffer from every thread too many.
#[track_caller]
fn torture(args: &[&str]) -> Output {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    qspin(&[&["torture"], args].concat(), LIMIT)
}

/// Exclusion and progress, while threads are held up everywhere, the process is stopped, locks are freed and sent.
#[track_caller]
fn holds(lock: &str, on: &[&str]) -> serde_json::Value {
    // A lost wake-up shows at the end, when nobody else comes by: soon.
    let run = torture(&[&["--lock", lock, "--seconds", "2", "--stall-seconds", "3", "--json"], on].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = run.json();
    assert_eq!(report["outcome"], "passed");
    assert_eq!(report["lock"], lock);
    assert_eq!(report["overlaps"], 0);
    assert!(report["message"].is_null());
    let each = report["turns"]["each"].as_array().expect("a list");
    assert_eq!(each.len() as u64, report["threads"]);
    assert!(each.iter().any(|turns| turns.as_u64() > Some(0)), "{report:#}");
    let some = |what: &serde_json::Value| assert!(what.as_u64() > Some(0), "{report:#}");
    some(&report["handlers"]["run"]);
    some(&report["naps"]["holding"]);
    some(&report["naps"]["waiting"]);
    if cfg!(target_arch = "x86_64") {
        some(&report["naps"]["unlocking"]);
        some(&report["naps"]["crawls"]);
    }
    some(&report["stops"]);
    some(&report["lulls"]);
    some(&report["freed"]["locks"]);
    assert_eq!(report["freed"]["touches"], 0);
    some(&report["sent"]);
    report
}

const FOUR: &[&str] = &["--threads", "4"];
const ONE_CPU: &[&str] = &["--profile", "one-cpu"];
const CROWD: &[&str] = &["--profile", "crowd"];

/// And waiters are set aside, who come back, also those whose time is not over.
#[test]
fn numa_holds_and_waiters_are_set_aside() {
    let report = holds("numa", &["--threads", "6", "--domains", "2"]);
    let locality = &report["locality"];
    assert_eq!((&locality["near"], &locality["domains"]), (&"pretend:2".into(), &2.into()));
    assert!(locality["set_aside"].as_u64() > Some(0), "{locality}");
    assert!(locality["brought_back"].as_u64() > Some(0), "{locality}");
    let report = holds("numa", &["--threads", "4", "--domains", "1"]);
    assert_eq!(report["locality"]["set_aside"], 0);
}

#[test]
fn domains_are_pretended_for_who_looks() {
    for (args, why) in [
        (&["--lock", "native", "--domains", "2"][..], "--domains: native does not look at domains; numa does"),
        (&["--lock", "chosen", "--domains", "2"], "--domains: chosen does not look at domains; numa does"),
        (&["--lock", "numa", "--domains", "0"], "1..=1023"),
        (&["--lock", "numa", "--domains", "1024"], "1..=1023"),
    ] {
        let run = torture(args);
        assert_eq!(run.code, Some(2), "{args:?}: {run:#?}");
        assert!(run.stderr.contains(why), "{args:?}: {run:#?}");
    }
}

#[test]
fn native_holds() {
    holds("native", FOUR);
}

#[test]
fn test_and_set_holds() {
    holds("test-and-set", FOUR);
}

#[test]
fn parking_holds() {
    let report = holds("parking", FOUR);
    assert!(report["threads_created"].as_u64() > Some(6), "threads came and went: {report:#}");
    assert!(report["naps"]["sent_to_sleepers"].as_u64() > Some(0), "{report:#}");
}

#[test]
fn parking_holds_without_its_cover() {
    holds("parking-exact", FOUR);
}

#[test]
fn parking_holds_on_one_cpu() {
    for lock in ["parking", "parking-exact"] {
        let report = holds(lock, ONE_CPU);
        assert_eq!((&report["cpus"], &report["threads"]), (&1.into(), &8.into()));
    }
}

#[test]
fn parking_holds_in_a_crowd() {
    for lock in ["parking", "parking-exact"] {
        let report = holds(lock, CROWD);
        assert_eq!((&report["cpus"], &report["threads"]), (&2.into(), &64.into()));
    }
}

#[test]
fn paravirt_holds() {
    holds("paravirt", FOUR);
}

#[test]
fn paravirt_holds_on_one_cpu() {
    holds("paravirt", ONE_CPU);
}

#[test]
fn paravirt_holds_in_a_crowd() {
    holds("paravirt", CROWD);
}

#[test]
fn the_chosen_lock_holds() {
    for lock in ["chosen", "chosen-by-load"] {
        holds(lock, FOUR);
    }
}

/// As below: its sleeps end by nothing but a kick.
#[test]
fn paravirt_without_help() {
    let run = torture(&[&["--lock", "paravirt", "--seconds", "2"], WITHOUT_HELP].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(run.json()["outcome"], "passed");
}

const WITHOUT_HELP: &[&str] =
    &["--stall-seconds", "3", "--threads", "6", "--no-signals", "--no-stops", "--no-trylock", "--json"];

/// No handlers, which may end a sleep that ought to have been ended by a wake-up; and nobody who merely tries.
#[test]
fn parking_without_its_cover_and_without_help() {
    let run = torture(&[&["--lock", "parking-exact", "--seconds", "2"], WITHOUT_HELP].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = run.json();
    assert_eq!(
        (&report["outcome"], &report["naps"]["holding"], &report["stops"]),
        (&"passed".into(), &0.into(), &0.into())
    );
}

/// parking_lot has time limits. It may touch a lock after its release, so none is freed here.
#[test]
fn waits_end_in_time() {
    let run = torture(&["--lock", "parking_lot", "--seconds", "1", "--threads", "4", "--no-freed", "--json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = run.json();
    assert_eq!(report["ingredients"]["timed"], true);
    assert!(report["acquisitions"]["timed_out"].as_u64() > Some(0), "{report:#}");
}

/// Six handlers within one another, each waiting: the fifth context has no node. Whether all of them wait at once is up
/// to the scheduler, so it has several goes.
#[test]
fn handlers_nest_until_nodes_run_out() {
    let mut reports = Vec::new();
    for _ in 0..5 {
        let run = torture(&[
            "--seconds",
            "1",
            "--threads",
            "4",
            "--no-churn",
            "--no-trylock",
            "--no-naps",
            "--no-stops",
            "--json",
        ]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        let report = run.json();
        // Not only on threads that are past their exit hooks, which have no node either.
        if report["waits_without_node"].as_u64() > Some(0) && report["handlers"]["deepest"].as_u64() > Some(3) {
            return;
        }
        reports.push(report);
    }
    panic!("no waiter ran out of nodes: {reports:#?}");
}

#[test]
fn slots_are_used_again() {
    let run = torture(&["--seconds", "1", "--threads", "3", "--json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = run.json();
    // Three workers, who sends signals and who releases what was sent live at a time.
    assert!(report["threads_created"].as_u64() > Some(7), "{report:#}");
    assert!(report["slots"]["most"].as_u64() <= Some(4), "{report:#}");
}

#[test]
fn nothing_left_out_is_done() {
    let run = torture(&[
        "--seconds",
        "1",
        "--threads",
        "2",
        "--no-signals",
        "--no-stops",
        "--no-lulls",
        "--no-churn",
        "--no-nesting",
        "--no-trylock",
        "--no-timed",
        "--no-freed",
        "--no-sending",
        "--long-hold-ms",
        "0",
        "--json",
    ]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = run.json();
    assert_eq!(report["handlers"]["run"], 0);
    assert_eq!(report["threads_created"], 2);
    assert_eq!(report["acquisitions"]["tries_failed"], 0);
    for left_out in [&report["stops"], &report["lulls"], &report["freed"]["locks"], &report["sent"]] {
        assert_eq!(left_out, 0, "{report:#}");
    }
    let locks = report["acquisitions"]["each"].as_array().expect("a list");
    let taken: u64 = locks.iter().filter_map(|lock| lock["count"].as_u64()).sum();
    let turns: u64 = report["turns"]["each"].as_array().expect("a list").iter().filter_map(|n| n.as_u64()).sum();
    assert_eq!(taken, turns, "one lock a turn, and none of a signal's");
}

#[test]
fn a_broken_lock_is_caught() {
    let run = torture(&["--lock", "broken", "--seconds", "20"]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.stderr.contains("broken: exclusion failed: "), "{run:#?}");
    // Which lock, and who was in it.
    assert!(run.stderr.contains("lock ") && run.stderr.contains("thread "), "{run:#?}");
    assert!(run.stdout.contains("exclusion failed"), "{run:#?}");
}

#[test]
fn a_broken_lock_is_caught_without_any_help() {
    let run = torture(&[
        "--lock",
        "broken",
        "--seconds",
        "20",
        "--no-signals",
        "--no-churn",
        "--no-nesting",
        "--no-trylock",
        "--json",
    ]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    let report = run.json();
    assert_eq!(report["outcome"], "exclusion-failed");
    assert!(report["overlaps"].as_u64() > Some(0) && report["seconds"].as_f64() < Some(20.0), "{report:#}");
}

#[test]
fn a_lock_that_is_touched_after_its_release_is_caught() {
    let run = torture(&["--lock", "late", "--seconds", "20", "--json"]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.stderr.contains("touched the memory of a lock that was freed"), "{run:#?}");
    let report = run.json();
    assert_eq!(report["outcome"], "freed-memory-touched");
    assert!(report["freed"]["touches"].as_u64() > Some(0) && report["seconds"].as_f64() < Some(20.0), "{report:#}");
}

#[test]
fn a_stuck_lock_is_caught() {
    let run = torture(&["--lock", "stuck", "--seconds", "30", "--stall-seconds", "1"]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.stderr.contains("stuck: no progress: nobody took a lock for "), "{run:#?}");
    assert!(run.stdout.contains("waits for "), "what each thread does: {run:#?}");
}

/// Sleepers that nobody wakes: one kick in so many is lost, or the unlock does not look for sleepers.
#[test]
fn a_lost_kick_is_caught() {
    for lock in ["deaf", "careless"] {
        let run = torture(&[&["--lock", lock, "--seconds", "20"], WITHOUT_HELP].concat());
        assert_eq!(run.code, Some(1), "{run:#?}");
        assert!(run.stderr.contains(&format!("{lock}: no progress: ")), "{run:#?}");
        assert_eq!(run.json()["overlaps"], 0, "{run:#?}");
    }
}

#[test]
fn wrong_usage_is_told_what_is_right() {
    for (args, told) in [
        (
            &["--lock", "nativ"][..],
            "native, numa, paravirt, parking, parking-exact, chosen, chosen-by-load, resilient, ",
        ),
        (&["--lock", ""], "native"),
        (&["--threads", "0"], "1..=1024"),
        (&["--threads", "5000"], "1..=1024"),
        (&["--threads", "-1"], "'-1'"),
        (&["--cpus", "0"], "1..=65536"),
        (&["--cpus", "65536"], "65536 CPUs are asked for, but this process may use "),
        (&["--profile", "crowds"], "one-cpu, crowd"),
        (&["--seconds", "0"], "1..=86400"),
        (&["--seconds", "1.5"], "1.5"),
        (&["--stall-seconds", "0"], "1..=3600"),
        (&["--long-hold-ms", "5000"], "0..=1000"),
        (&["--seed", "x"], "'x'"),
        (&["--bogus"], "--bogus"),
    ] {
        let run = torture(args);
        assert_eq!(run.code, Some(2), "{args:?}: {run:#?}");
        assert!(run.stderr.contains(told), "{args:?}: {run:#?}");
        assert!(run.stdout.is_empty(), "{args:?}: {run:#?}");
    }
}

#[test]
fn help_has_examples() {
    let help = torture(&["--help"]);
    assert_eq!(help.code, Some(0));
    assert!(help.stdout.contains("qspin torture --lock broken"), "{help:#?}");
    let hidden = ["stuck", "late", "deaf", "careless"]
        .map(|lock| help.stdout.split_whitespace().any(|word| word.trim_matches(',') == lock));
    assert_eq!(hidden, [false; 4], "those are for these tests: {help:#?}");
}
