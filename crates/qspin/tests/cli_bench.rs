//! `qspin bench` from outside: what it accepts, what it writes, and what it says when something goes wrong.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

const QSPIN: &str = env!("CARGO_BIN_EXE_qspin");

/// Longer than any of these takes, short enough to wait for.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Runs `qspin bench` with these arguments.
fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(QSPIN);
    command.arg("bench").args(args).env_remove("QSPINLOCK_PARKING");
    run(command)
}

/// Fails instead of hanging.
fn run(mut command: Command) -> Output {
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = piped.spawn().expect("qspin starts");
    let id = child.id().to_string();
    let (ended, wait_ended) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = ended.send(());
        output
    });
    if wait_ended.recv_timeout(WATCHDOG).is_err() {
        let _ = Command::new("kill").args(["-KILL", &id]).status();
        panic!("{command:?} did not end within {WATCHDOG:?}");
    }
    waiter.join().expect("the waiter does not panic").expect("qspin can be waited for")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A folder of this test's own, gone when it ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("qspin-cli-bench-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary folder is writable");
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path of ours is UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn rows(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("the rows were written");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Exit code 2, all of `said` in the message, and nothing measured.
fn refused(args: &[&str], said: &[&str]) {
    let output = bench(args);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    for part in said {
        assert!(message.contains(part), "{args:?}: no '{part}' in: {message}");
    }
    assert!(output.stdout.is_empty(), "{args:?}: {}", stdout(&output));
}

#[test]
fn bad_input_is_refused_with_what_would_be_accepted() {
    refused(&["--lock", "nonsense"], &["nonsense", "native", "std", "mcs"]);
    refused(&["--lock", ""], &["native", "std"]);
    refused(&["--scenario", "nonsense"], &["nonsense", "alone-hot", "contended", "oversubscribed", "map"]);
    refused(&["--threads", "0"], &["0", "1..=1024"]);
    refused(&["--threads", "1025"], &["1025", "1..=1024"]);
    refused(&["--threads", "-1"], &["-1"]);
    refused(&["--threads", "two"], &["two"]);
    refused(&["--seconds", "0"], &["above 0", "60"]);
    refused(&["--seconds", "61"], &["above 0", "60"]);
    refused(&["--seconds", "nan"], &["above 0", "60"]);
    refused(&["--seconds", "soon"], &["above 0", "60"]);
    refused(&["--kill-after", "0"], &["above 0", "60"]);
    refused(&["--rounds", "0"], &["1..=1000"]);
    refused(&["--seed", "x"], &["--seed"]);
    refused(&["--child", "{}"], &["order makes no sense"]);
    // The trade-off has cells and locks of its own, and the chart alone is of it.
    refused(&["--trade-off", "--threads", "2"], &["--trade-off", "--threads"]);
    refused(&["--trade-off", "--lock", "std"], &["--trade-off", "--lock"]);
    refused(&["--svg", "chart.svg"], &["--trade-off"]);
}

#[cfg(not(feature = "stats"))]
#[test]
fn a_build_that_does_not_count_says_how_to_make_one_that_does() {
    refused(&["--stats", "--quick"], &["does not count", "cargo run --release --features stats"]);
}

#[cfg(feature = "stats")]
#[test]
fn a_build_that_counts_shows_events_by_the_kernels_names() {
    let folder = Folder::new("stats");
    let (json, page) = (folder.file("rows.jsonl"), folder.file("report.html"));
    let args = [
        "--stats",
        "--lock",
        "parking,std",
        "--scenario",
        "oversubscribed",
        "--threads",
        "8",
        "--rounds",
        "1",
        "--seconds",
        "0.05",
        "--json",
        &json,
        "--report",
        &page,
    ];
    let output = bench(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let html = std::fs::read_to_string(&page).expect("the report was written");
    for said in ["Events in 1000 acquisitions", "lock_slowpath"] {
        assert!(stdout(&output).contains(said), "no '{said}' in: {}", stdout(&output));
        assert!(html.contains(said), "no '{said}' in the report");
    }
    for row in rows(&json) {
        assert!(row["events"]["acquisitions"].as_u64() > Some(0), "{row}");
        let counted: u64 = row["events"]["counts"]
            .as_array()
            .map_or(0, |counts| counts.iter().filter_map(|count| count[1].as_u64()).sum());
        assert_eq!(counted > 0, row["lock"] == "parking", "{row}");
    }
}

#[test]
fn a_lock_that_no_program_takes_is_left_out_and_said() {
    let program = ["--scenario", "channel", "--rounds", "1", "--seconds", "0.01"];
    let only = [&["--lock", "mcs"], &program[..]].concat();
    refused(&only, &["nothing is left to measure", "mcs in channel: it has no lock_api form"]);

    let folder = Folder::new("programs");
    let json = folder.file("rows.jsonl");
    let both = [&["--lock", "mcs,parking", "--threads", "1,3", "--json", &json], &program[..]].concat();
    let output = bench(&both);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for said in ["mcs in channel: it has no lock_api form", "channel with 1 thread"] {
        assert!(stderr(&output).contains(said), "no '{said}' in: {}", stderr(&output));
    }
    let rows = rows(&json);
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["lock"], &rows[0]["threads"]), (&"parking".into(), &3.into()));
    assert_eq!(rows[0]["excluded_ok"], true);
}

#[test]
fn files_that_cannot_be_written_are_noticed_before_measuring() {
    refused(&["--report", "/nonexistent/report.html"], &["/nonexistent/report.html", "folder that exists"]);
    refused(&["--json", "/nonexistent/rows.jsonl"], &["/nonexistent/rows.jsonl", "folder that exists"]);
    let folder = Folder::new("same");
    let file = folder.file("both");
    refused(&["--json", &file, "--report", &file], &["same file"]);
    refused(&["--trade-off", "--svg", &file, "--report", &file], &["same file"]);
    refused(&["--trade-off", "--svg", "/nonexistent/t.svg"], &["/nonexistent/t.svg", "folder that exists"]);
}

#[test]
fn more_threads_than_cpus_is_not_contended() {
    let output = bench(&["--scenario", "contended", "--threads", "1000", "--rounds", "1"]);
    if cpus() < 1000 {
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("oversubscribed"), "{}", stderr(&output));
    }
}

const KEYS: [&str; 17] = [
    "lock",
    "scenario",
    "threads",
    "section_ns",
    "think_ns",
    "placement",
    "ops_per_s",
    "cycles_per_pair",
    "jain",
    "fairness",
    "wait_ns",
    "cpu_ns_per_op",
    "excluded_ok",
    "round",
    "transfer_cycles",
    "seed",
    "slice_s",
];

#[test]
fn a_tiny_run_of_everything_writes_rows_and_a_page_of_its_own() {
    let folder = Folder::new("tiny");
    let (json, page) = (folder.file("rows.jsonl"), folder.file("report.html"));
    let args = [
        "--quick",
        "--lock",
        "parking,native,std",
        "--rounds",
        "1",
        "--seconds",
        "0.02",
        "--seed",
        "42",
        "--json",
        &json,
        "--report",
        &page,
    ];
    let output = bench(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for said in ["Throughput of parking", "Noise", "Figures", "bytes of a lock", "64 slots in use x 128"] {
        assert!(stdout(&output).contains(said), "no '{said}' in: {}", stdout(&output));
    }

    let rows = rows(&json);
    let cells = if cpus() < 2 { 9 } else { 19 };
    assert_eq!(rows.len(), cells * 3, "{}", stderr(&output));
    let mut idle = 0;
    for row in &rows {
        let object = row.as_object().expect("a row is an object");
        let mut keys: Vec<_> = object.keys().map(String::as_str).collect();
        let mut expected = KEYS.to_vec();
        keys.sort_unstable();
        expected.sort_unstable();
        assert_eq!(keys, expected);
        let ops = row["ops_per_s"].as_f64().expect("ops_per_s");
        // Slices this short are over before a thread of a busy machine has run; but not all of them.
        if ops == 0.0 {
            idle += 1;
            continue;
        }
        assert_eq!(row["seed"], 42);
        match row["scenario"].as_str() {
            Some("alone-hot" | "alone-cold") => {
                assert!(row["wait_ns"].is_null() && row["excluded_ok"].is_null(), "{row}");
                assert_eq!(row["cycles_per_pair"].is_number(), cfg!(target_arch = "x86_64"), "{row}");
            }
            Some("contended" | "oversubscribed" | "map" | "allocator" | "channel") => {
                assert_eq!(row["excluded_ok"], true, "{row}");
                let wait = |name: &str| row["wait_ns"][name].as_f64().unwrap_or_else(|| panic!("no {name}: {row}"));
                assert!(wait("p50") <= wait("p99") && wait("p99") <= wait("p999") && wait("p999") <= wait("max"));
                if row["threads"] == 1 {
                    assert!(row["fairness"].is_null() && row["jain"].is_null(), "nobody to share with: {row}");
                    continue;
                }
                let (fairness, jain) =
                    (row["fairness"].as_f64().expect("fairness"), row["jain"].as_f64().expect("jain"));
                assert!((0.5..=1.0).contains(&fairness) && (0.0..=1.000_001).contains(&jain), "{row}");
            }
            other => panic!("unknown scenario {other:?}"),
        }
    }

    assert!(idle < rows.len() / 2, "{idle} of {} rows measured nothing", rows.len());

    let html = std::fs::read_to_string(&page).expect("the report was written");
    assert!(html.starts_with("<!DOCTYPE html>") && html.trim_end().ends_with("</html>"));
    assert!(html.contains("<svg") && html.contains("prefers-color-scheme"));
    // The namespace of SVG is a name, not an address that is fetched.
    let html = html.replace("http://www.w3.org/2000/svg", "");
    for external in ["http:", "https:", "<script", "<link", "src=", "href=", "@import", "url("] {
        assert!(!html.contains(external), "the report has '{external}'");
    }
}

/// What a quick run saves, it says; and what it is too short for, it does not judge.
#[test]
fn a_quick_run_says_what_it_leaves_out() {
    let folder = Folder::new("quick");
    let json = folder.file("rows.jsonl");
    let args = ["--quick", "--scenario", "oversubscribed", "--rounds", "2", "--seconds", "0.004", "--json", &json];
    let output = bench(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for said in ["left out: oversubscribed with 4, 16 and 32 threads", "left out: locks that only spin"] {
        assert!(stderr(&output).contains(said), "no '{said}' in: {}", stderr(&output));
    }
    assert!(stdout(&output).contains("means nothing: slices of 0.032 s, 2 s needed"), "{}", stdout(&output));
    let rows = rows(&json);
    let rounds_of = |lock: &str| {
        let rounds = rows.iter().filter(|row| row["lock"] == lock && row["threads"] == 64);
        rounds.map(|row| row["round"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    assert_eq!(rounds_of("parking"), [0, 1]);
    if cpus() < 64 {
        assert_eq!(rounds_of("mcs"), [0]);
    }
    assert!(rounds_of("parking-exact").is_empty(), "it is there for tests");
}

/// What has been chosen is measured, in both forms, beside what it stands for; and what the choice took.
#[test]
fn the_choice_has_a_price() {
    let locks = ["--lock", "chosen,chosen-by-load,parking"];
    let output = bench(&[&locks[..], &["--scenario", "alone-hot", "--rounds", "1", "--seconds", "0.01"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    if cfg!(target_arch = "x86_64") {
        for figure in ["chosen / chosen-by-load", "chosen / parking", "chosen-by-load / parking"] {
            assert!(stdout(&output).contains(figure), "no '{figure}' in: {}", stdout(&output));
        }
    }
    if cfg!(target_os = "linux") {
        let text = stdout(&output);
        let start = text.lines().find(|line| line.contains("all constructors of this program"));
        assert!(start.is_some_and(|line| line.contains("n = 31")), "{text}");
    }
}

#[test]
fn the_trade_off_turns_one_knob_at_a_time_and_draws_it() {
    let folder = Folder::new("tradeoff");
    let (json, page, svg) = (folder.file("rows.jsonl"), folder.file("page.html"), folder.file("chart.svg"));
    let args =
        ["--trade-off", "--rounds", "1", "--seconds", "0.005", "--json", &json, "--report", &page, "--svg", &svg];
    let output = bench(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let rows = rows(&json);
    let settings: std::collections::BTreeSet<&str> = rows.iter().filter_map(|row| row["setting"].as_str()).collect();
    // What the lock's own process found in its environment.
    for knob in ["spin=0,", "yields=0,", "lane=0,", "ask_after=100"] {
        assert!(settings.iter().any(|setting| setting.contains(knob)), "nobody was given {knob}: {settings:?}");
    }
    let cells = if cpus() < 2 { 1 } else { 2 };
    let slices = |lock: &str| rows.iter().filter(|row| row["lock"] == lock).count();
    assert_eq!((slices("parking"), slices("std")), (cells * settings.len(), cells), "each setting once");
    assert!(slices("parking_lot") > cells, "what all are compared with is measured again and again");
    assert!(rows.iter().all(|row| row["setting"].is_string() == (row["lock"] == "parking")));

    for said in ["worst wait", "the worst waits mean nothing"] {
        assert!(stdout(&output).contains(said), "no '{said}' in: {}", stdout(&output));
    }
    // What was measured while the host moved the CPUs is left out, which may be the one setting that is looked for here: then
    // again. One that moves them all the time leaves nothing to compare, and that is said.
    let mut text = stdout(&output).to_owned();
    let is_nothing = |text: &str| text.matches("No slice was comparable").count() >= cells;
    let lacks = |text: &str| ["spin", "ask_after", "500 (as it is)"].into_iter().find(|said| !text.contains(said));
    for _ in 0..8 {
        if is_nothing(&text) || lacks(&text).is_none() {
            break;
        }
        text = stdout(&bench(&args)).to_owned();
    }
    let svg = std::fs::read_to_string(&svg).expect("the chart was written");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    if !is_nothing(&text) {
        assert_eq!(lacks(&text), None, "{text}");
        assert!(svg.contains("parking_lot = 1") && svg.contains("ask_after"), "{svg}");
    }
    let html = std::fs::read_to_string(&page).expect("the page was written");
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("<svg") && !html.contains("<script"));
}

#[test]
fn a_setting_of_the_environment_is_told_in_the_rows() {
    let folder = Folder::new("setting");
    let json = folder.file("rows.jsonl");
    let mut command = Command::new(QSPIN);
    command.args(["bench", "--lock", "parking,std", "--scenario", "alone-hot", "--rounds", "1", "--seconds", "0.01"]);
    command.args(["--json", &json]).env("QSPINLOCK_PARKING", "spin=500");
    let output = run(command);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for row in rows(&json) {
        let said = if row["lock"] == "parking" { "spin=500".into() } else { Value::Null };
        assert_eq!(row["setting"], said, "{row}");
    }
}

#[test]
fn one_cpu_is_enough_and_what_it_lacks_is_said() {
    let args =
        ["--lock", "native", "--rounds", "1", "--seconds", "0.01", "--scenario", "alone-hot,alone-cold,contended"];
    let mut on_one_cpu = Command::new("taskset");
    on_one_cpu.args(["-c", "0", QSPIN, "bench"]).args(args);
    // Not every system has the program, nor lets everybody run on CPU 0.
    if !Command::new("taskset").args(["-c", "0", "true"]).status().is_ok_and(|status| status.success()) {
        return;
    }
    let output = run(on_one_cpu);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("alone-cold needs two CPUs"), "{}", stderr(&output));
    assert!(stderr(&output).contains("contended with 2 threads needs 2 CPUs"), "{}", stderr(&output));
}

#[test]
fn a_lock_that_excludes_nobody_is_found_out() {
    if cpus() < 2 {
        return;
    }
    let folder = Folder::new("broken");
    let json = folder.file("rows.jsonl");
    let args = ["--lock", "broken", "--scenario", "contended", "--rounds", "2", "--seconds", "0.02", "--json", &json];
    let output = bench(&args);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("broken let two threads in at once"), "{}", stderr(&output));
    assert!(rows(&json).iter().any(|row| row["excluded_ok"] == false));
}

#[test]
fn a_slice_that_hangs_costs_its_own_row_only() {
    let folder = Folder::new("hang");
    let (json, page) = (folder.file("rows.jsonl"), folder.file("report.html"));
    let args = [
        "--lock",
        "native,spin",
        "--test-hang",
        "spin",
        "--scenario",
        "alone-hot",
        "--rounds",
        "2",
        "--seconds",
        "0.01",
        "--kill-after",
        "3",
        "--json",
        &json,
        "--report",
        &page,
    ];
    let output = bench(&args);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("1 slice gave no row"), "{}", stderr(&output));
    assert!(stdout(&output).contains("spin: alone-hot, round 0: killed after 3.0 s"), "{}", stdout(&output));
    let rows = rows(&json);
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["lock"] == "native"));
    assert!(std::fs::read_to_string(&page).expect("the report was written").contains("killed after"));
}
