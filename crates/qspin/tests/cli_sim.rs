//! `qspin sim` as a user runs it.

mod command;

use std::path::PathBuf;
use std::time::Duration;

use command::{Output, qspin};

/// Far more than any of these takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

#[track_caller]
fn sim(args: &[&str]) -> Output {
    qspin(&[&["sim"], args].concat(), LIMIT)
}

#[track_caller]
fn refused(args: &[&str], why: &str) {
    let run = sim(args);
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert!(run.stderr.contains(why), "{run:#?}");
    assert!(!run.stderr.contains("panicked"), "{run:#?}");
    assert_eq!(run.stdout, "", "nothing was run: {run:#?}");
}

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("qspin-sim-{}-{name}", std::process::id()))
}

fn text(path: &PathBuf) -> String {
    let text = std::fs::read_to_string(path).expect("written");
    std::fs::remove_file(path).expect("ours");
    text
}

const SMALL: [&str; 6] = ["--seeds", "2", "--acquisitions", "40", "--machine", "broadwell-2s"];

#[test]
fn a_run_is_told_as_table_json_and_page() {
    let [json, page, svg] = ["rows.json", "page.html", "curves.svg"].map(file);
    let args = ["--locks", "mcs,native,ticket", "--cpus", "24,1,4", "--json", json.to_str().expect("plain")];
    let files = ["--report", page.to_str().expect("plain"), "--svg", svg.to_str().expect("plain")];
    let run = sim(&[&SMALL[..], &args, &files].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stdout.contains("24 CPUs") && run.stdout.contains("local hand-offs"), "{run:#?}");
    let rows: Vec<serde_json::Value> =
        text(&json).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 9);
    for row in &rows {
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}"));
        assert!(number("throughput") > 1e4, "{row}");
        assert!((0.5..=1.0).contains(&number("fairness")), "{row}");
        assert!((0.0..=1.0).contains(&number("local_handoffs")), "{row}");
        let wait = |key: &str| row["wait_ns"][key].as_f64().expect("a wait");
        assert!(wait("p50") <= wait("p999") && wait("p999") <= wait("max"), "{row}");
        assert_eq!(row["lock"] == "mcs", number("ratio") == 1.0, "the first lock is the measure: {row}");
    }
    let of = |lock: &str, cpus: u32| {
        let row = rows.iter().find(|row| row["lock"] == lock && row["cpus"] == cpus).expect("a row");
        (row["local_handoffs"].as_f64().expect("a share"), row["throughput"].as_f64().expect("a rate"))
    };
    assert_eq!(of("mcs", 4).0, 1.0, "four CPUs are on one socket");
    assert!(of("mcs", 24).0 < 1.0, "and 24 on two");
    assert!(of("mcs", 24).1 > of("ticket", 24).1, "a queue beats tickets where waiters are many");
    let page = text(&page);
    for part in ["Fairness per CPU", "Fairness per domain", "Local hand-offs", "Wait, p99.9", "core-to-core", "<svg"] {
        assert!(page.contains(part), "no {part} on the page");
    }
    assert!(text(&svg).starts_with("<svg"));
}

#[test]
fn the_same_command_has_the_same_outcome() {
    let args = [&SMALL[..], &["--cpus", "3,20", "--locks", "native,test-and-set"]].concat();
    let (once, again) = (sim(&args), sim(&args));
    assert_eq!(once.code, Some(0), "{once:#?}");
    assert_eq!(once.stdout, again.stdout);
    let other = sim(&[&args[..], &["--think", "700"]].concat());
    assert_ne!(once.stdout, other.stdout, "think time matters");
}

#[test]
fn what_shapes_a_run_changes_it() {
    let base = [&SMALL[..], &["--cpus", "12", "--locks", "mcs"]].concat();
    let plain = sim(&base).stdout;
    for (option, value) in [("--placement", "spread"), ("--section", "500"), ("--lines", "4")] {
        let run = sim(&[&base[..], &[option, value]].concat());
        assert_eq!(run.code, Some(0), "{run:#?}");
        let table = |text: &str| text.lines().skip(3).collect::<Vec<_>>().join("\n");
        assert_ne!(table(&run.stdout), table(&plain), "{option} {value} changes nothing");
    }
}

/// Preemptions are counted, and a machine may have more virtual CPUs than it has CPUs.
#[test]
fn a_hypervisor_preempts() {
    let args =
        ["--machine", "graviton-3", "--overcommit", "2", "--slice", "50000", "--cpus", "80", "--locks", "native"];
    let run = sim(&[&args[..], &["--acquisitions", "40", "--seeds", "1"]].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stdout.contains("next preempted") && run.stdout.contains("slice 50.0 us"), "{run:#?}");
    assert!(!sim(&[&SMALL[..], &["--cpus", "2"]].concat()).stdout.contains("preempted"), "only then");
}

#[test]
fn machines_are_listed_and_a_shown_one_is_a_file() {
    let list = sim(&["--machines"]);
    assert_eq!(list.code, Some(0), "{list:#?}");
    for name in ["haswell-4s", "sosp13-xeon", "epyc-7742", "kunpeng-920", "icelake-2s", "cascadelake-2s"] {
        assert!(list.stdout.contains(name), "{list:#?}");
    }
    let shown = sim(&["--machine", "broadwell-2s", "--show"]);
    assert_eq!(shown.code, Some(0), "{shown:#?}");
    let mine = file("mine.toml");
    std::fs::write(&mine, shown.stdout.replace("broadwell-2s", "mine")).expect("a file");
    let args = ["--cpus", "2", "--seeds", "1", "--acquisitions", "20", "--machine"];
    let run = sim(&[&args[..], &[mine.to_str().expect("plain")]].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stdout.contains("mine: 2 x Xeon"), "{run:#?}");
    std::fs::write(&mine, shown.stdout.replace("hops = [[0, 1]", "hops = [[0, 2]")).expect("a file");
    refused(&["--machine", mine.to_str().expect("plain")], "must be symmetric");
    refused(&["--machine", mine.to_str().expect("plain")], "mine.toml, line 12: ");
    std::fs::remove_file(&mine).expect("ours");
}

/// The documentation shows what the validation prints, and the misses with it.
#[test]
fn the_validation_is_that_of_the_documentation() {
    let run = sim(&["--validate", "--markdown"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let tables = run.stdout.trim_end();
    assert!(tables.contains("| mcs | 80 | 1.57 |"), "{tables}");
    let document = include_str!("../../../docs/simulator.md");
    assert!(document.contains(tables), "docs/simulator.md is not what `sim --validate --markdown` prints:\n{tables}");
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    refused(&["--machine", "pdp-11"], "neither a built-in machine nor a file; built in are haswell-4s");
    refused(&["--machine", "/"], "cannot read /");
    refused(&["--show", "--machine", "pdp-11"], "built in are");
    refused(&["--locks", "mutex"], "unknown lock 'mutex'; known are native");
    refused(&["--cpus", "0"], "at least 1");
    refused(&["--cpus", "145"], "haswell-4s has 144 CPUs; more virtual CPUs need --overcommit");
    refused(&["--cpus", "600", "--overcommit", "2"], "need a larger --overcommit");
    refused(&["--overcommit", "1"], "above 1");
    refused(&["--overcommit", "nan"], "above 1");
    refused(&["--slice", "1000"], "--overcommit");
    refused(&["--seeds", "0"], "--seeds");
    refused(&["--acquisitions", "0"], "--acquisitions");
    refused(&["--section=-1"], "--section");
    refused(&["--json", "/no/such/folder/x.json"], "cannot write");
    refused(&["--report", "/no/such/folder/x.html"], "cannot write");
    refused(&["--report", "a", "--svg", "a"], "name the same file");
    refused(&["--svg", "a.svg", "--cpus", "4"], "two counts");
    refused(&["--markdown"], "--validate");
    refused(&["--validate", "--cpus", "4"], "cannot be used with");
}
