//! `qspin boot` as a user runs it: kernels that boot, kernels that do not, and no QEMU. Without QEMU these tests fail,
//! and say how to install it.

mod command;
mod image;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use command::{Output, qspin};
use image::Planted;
use serde_json::Value;

/// Far more than any of these takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(900);

#[track_caller]
fn boot(args: &[&str]) -> Output {
    qspin(&[&["boot"], args].concat(), LIMIT)
}

#[track_caller]
fn refused(args: &[&str], why: &str) {
    let run = boot(args);
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert!(run.stderr.contains(why), "{run:#?}");
    assert!(!run.stderr.contains("panicked"), "{run:#?}");
    assert_eq!(run.stdout, "", "nothing was booted: {run:#?}");
}

/// Boots that fail, for this reason.
#[track_caller]
fn fails(args: &[&str], end: &str, why: &str) -> Output {
    let json = Planted::new(&format!("{end}.jsonl"), b"");
    let run = boot(&[args, &["--accel", "tcg", "--json", json.path()]].concat());
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.stderr.contains(why), "no '{why}': {run:#?}");
    let rows = rows(&json);
    assert_eq!((rows.len(), rows[0]["end"].as_str(), &rows[0]["ok"]), (1, Some(end), &Value::Bool(false)), "{rows:#?}");
    run
}

fn rows(json: &Planted) -> Vec<Value> {
    let text = fs::read_to_string(&json.0).expect("written");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn kernel(name: &str, code: &[u8]) -> Planted {
    Planted::new(name, &image::elf(code, true))
}

/// A folder with a `qemu-system-x86_64` in it that is this script, and is gone when this is dropped.
struct Fake(PathBuf);

impl Fake {
    fn new(name: &str, script: &str) -> Self {
        let folder = image::path(name);
        fs::create_dir_all(&folder).expect("a folder");
        let program = folder.join("qemu-system-x86_64");
        // Copied by another process: a file that this one has open for writing cannot be executed, and other tests fork
        // meanwhile.
        fs::write(folder.join("new"), format!("#!/bin/sh\n{script}\n")).expect("a file");
        assert!(Command::new("cp").arg(folder.join("new")).arg(&program).status().expect("cp").success());
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
        Self(folder)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qspin"));
        command.arg("boot").args(args).stdin(Stdio::null());
        command.env("PATH", format!("{}:/usr/bin:/bin", self.0.display()));
        command
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_machine_gets_the_lock_that_fits() {
    let json = Planted::new("matrix.jsonl", b"");
    let run = boot(&["--matrix", "--accel", "tcg", "--json", json.path()]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stdout.contains("all as they must be") && run.stdout.contains("chosen after"), "{run:#?}");
    let rows = rows(&json);
    assert!(rows.len() >= 12, "{}", rows.len());
    let readme = include_str!("../../../README.md");
    assert!(readme.contains(&format!("`--matrix`: {} machines", rows.len())), "the README counts them");
    for row in &rows {
        let text = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("{key} of {row}"));
        assert_eq!((text("end"), &row["ok"], &row["tests"]), ("passed", &Value::Bool(true), &Value::Array(vec![])));
        assert_eq!(row["expected"]["slow_path"], row["slow_path"], "{row}");
        assert!(text("code").ends_with(text("slow_path")), "call sites follow: {row}");
        assert!(row["chosen_us"].as_u64() > row["choosing_us"].as_u64(), "{row}");
    }
    // What must be among them, whatever the table says.
    let chosen = |beneath: &str, cpus: u64, nodes: u64, word: &str| {
        let is = |row: &&Value| {
            let shape = (row["cpus_up"].as_u64(), row["nodes_up"].as_u64());
            let words = row["append"].as_str().expect("text").split(' ');
            let words: Vec<_> = words.filter(|word| !word.starts_with("cpuid=") && *word != "test=none").collect();
            row["beneath"] == beneath
                && shape == (Some(cpus), Some(nodes))
                && words == word.split_terminator(' ').collect::<Vec<_>>()
        };
        let mut all: Vec<_> = rows.iter().filter(is).map(|row| row["slow_path"].as_str().expect("text")).collect();
        all.sort_unstable();
        all.join(" ")
    };
    assert_eq!(chosen("none", 1, 1, ""), "native");
    assert_eq!(chosen("none", 4, 1, ""), "native");
    assert_eq!(chosen("none", 4, 2, ""), "numa");
    assert_eq!(chosen("none", 8, 4, ""), "numa");
    assert_eq!(chosen("none", 4, 2, "numa_spinlock=off"), "native");
    assert_eq!(chosen("none", 64, 1, ""), "native", "of 65 CPUs");
    // Realtime, with wait and kick, without.
    assert_eq!(chosen("kvm", 4, 2, ""), "native paravirt test-and-set");
    assert_eq!(chosen("kvm", 4, 2, "nopvspin"), "native");
    assert_eq!(chosen("kvm", 4, 2, "qspinlock=numa"), "numa");
    assert_eq!(chosen("kvm", 1, 1, ""), "native");
    assert_eq!(chosen("xen", 4, 1, ""), "paravirt");
    assert_eq!(chosen("hyper-v", 4, 1, ""), "paravirt test-and-set");
    assert_eq!(chosen("vmware", 4, 2, ""), "test-and-set");
    assert_eq!(chosen("tcg", 4, 2, ""), "test-and-set");
}

/// A kernel that says the same on each machine is wrong on most.
#[test]
fn a_wrong_choice_is_told() {
    let says = "guest: beneath: none\\nguest: locks: native: bare metal: a waiter is never taken off its CPU, so a \
                fair queue costs nothing extra\\nguest: code: all 16 call sites rewritten for native\\n\
                guest: chosen 9 us after the start, in 2 us\\nguest: 4 of 4 CPUs up, 1 nodes\\nguest: PASSED\\n";
    let fake = Fake::new("wrong", &format!("printf '{says}'; exit 33"));
    let (image, json) = (kernel("wrong", image::SILENT), Planted::new("wrong.jsonl", b""));
    let args = ["--matrix", "--accel", "tcg", "--kernel", image.path(), "--json", json.path()];
    let run = command::run(&mut fake.command(&args), LIMIT);
    assert_eq!(run.code, Some(1), "{run:#?}");
    let rows = rows(&json);
    let right: Vec<_> = rows.iter().filter(|row| row["ok"] == true).map(|row| row["boot"].as_str()).collect();
    assert_eq!(right, [Some("bare metal, 1 node")]);
    let not = format!("{} of {} boots were not as they must be", rows.len() - 1, rows.len());
    assert!(run.stderr.contains(&not), "{run:#?}");
    for said in [
        "WRONG",
        "chosen: native, and not numa",
        "up: 4 CPUs in 1 nodes, and not 4 CPUs in 2 nodes",
        "again: qspin boot",
    ] {
        assert!(run.stdout.contains(said), "no '{said}': {run:#?}");
    }
    for (name, wrong) in [
        ("Xen", "beneath: none, and not xen"),
        ("a slip of the pen", "not said: guest: 'qspinlok=native' is ignored: no such word"),
        ("a CPU that says nothing", "because: bare metal: "),
        ("KVM, wait and kick", "call sites for: native, and not paravirt"),
    ] {
        let row = rows.iter().find(|row| row["boot"] == name).expect("a row");
        let all = row["wrong"].as_array().expect("a list");
        assert!(
            all.iter().any(|text| text.as_str().is_some_and(|text| text.starts_with(wrong))),
            "no '{wrong}': {row:#}"
        );
    }
}

#[test]
fn the_tests_of_the_kernel_pass() {
    let json = Planted::new("tests.jsonl", b"");
    let run = boot(&["--cpus", "8", "--accel", "tcg", "--append", "ms=100", "--json", json.path()]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    for line in
        ["guest: test exclusion", "guest: 8 of 8 CPUs up, 2 nodes", "guest: progress ", "guest: PASSED", "passed, "]
    {
        assert!(run.stdout.contains(line), "no '{line}': {run:#?}");
    }
    let row = &rows(&json)[0];
    assert!(row["tests"].as_array().is_some_and(|tests| tests.contains(&"exclusion".into())), "{row:#}");
    assert!(row["log"].as_array().is_some_and(|log| log.len() > 10), "{row:#}");
}

#[test]
fn a_failed_test_is_a_failed_boot() {
    let run = fails(&["--cpus", "1", "--append", "test=nonesuch"], "failed", "failed: a test did");
    assert!(run.stdout.contains("guest: no test 'nonesuch'"), "{run:#?}");
}

#[test]
fn each_time_is_counted() {
    let json = Planted::new("repeat.jsonl", b"");
    let args = ["--repeat", "3", "--cpus", "2", "--nodes", "1", "--accel", "tcg", "--append", "test=none"];
    let run = boot(&[&args[..], &["--json", json.path()]].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stdout.contains("3 boots, all as they must be") && run.stdout.contains("at most"), "{run:#?}");
    let rounds: Vec<_> = rows(&json).iter().map(|row| row["round"].as_u64()).collect();
    assert_eq!(rounds, [Some(1), Some(2), Some(3)]);
}

#[test]
fn hung_and_slow_are_told_apart() {
    let quick = ["--cpus", "1", "--timeout", "1", "--kernel"];
    let silent = kernel("silent", image::SILENT);
    fails(&[&quick[..], &[silent.path()]].concat(), "hung", "hung: no progress for 1 s");
    // Alive, and it does not get on.
    let circles = kernel("circles", &image::repeats("guest: progress 5\n"));
    fails(&[&quick[..], &[circles.path()]].concat(), "hung", "hung: no progress for 1 s");
    // Always something new, and no end. It may be kept from saying it for a while, on a busy machine.
    let fake = Fake::new("chatter", "while :; do echo and on; sleep 0.05; done");
    let run = command::run(&mut fake.command(&["--accel", "tcg", "--timeout", "3", "--kernel", silent.path()]), LIMIT);
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.stderr.contains("slow: it got on, but was not through after 30 s"), "{run:#?}");
}

#[test]
fn kernels_that_are_none() {
    let of = |image: &Planted, end: &str, why: &str| drop(fails(&["--cpus", "1", "--kernel", image.path()], end, why));
    of(&kernel("faults", image::FAULTS), "reset", "a triple fault");
    of(&kernel("lies", image::LIES), "qemu", "exit code 33, which is not what the kernel said last");
    of(&Planted::new("entry", &image::elf(image::SILENT, false)), "qemu", "without PVH ELF Note");
    // A log that ends well, and an exit code that does not.
    let fake = Fake::new("code", "echo guest: PASSED; echo 'qemu: out of memory' >&2; exit 1");
    let image = kernel("code", image::SILENT);
    let run = command::run(&mut fake.command(&["--accel", "tcg", "--kernel", image.path()]), LIMIT);
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.stderr.contains("QEMU: exit status: 1: qemu: out of memory"), "{run:#?}");
}

#[test]
fn without_qemu_it_says_what_to_install() {
    for args in [&["--matrix"][..], &[]] {
        let run = command::run(
            Command::new(env!("CARGO_BIN_EXE_qspin")).arg("boot").args(args).env("PATH", "").stdin(Stdio::null()),
            LIMIT,
        );
        assert_eq!(run.code, Some(1), "{run:#?}");
        assert!(run.stderr.contains("apt-get install qemu-system-x86"), "{run:#?}");
        assert_eq!(run.stdout, "", "{run:#?}");
    }
}

/// Where KVM is there and does not boot the kernel, and where it is not there, the emulator does it, and why is said.
#[test]
fn kvm_that_does_not_work_is_passed_over() {
    let script = "case \"$*\" in
        *'-accel kvm'*) echo 'KVM internal error. Suberror: 1' >&2; exec sleep 1000;;
        *) echo 'guest: PASSED'; exit 33;;
    esac";
    let fake = Fake::new("kvm", script);
    let image = kernel("kvm", image::SILENT);
    let run = command::run(&mut fake.command(&["--kernel", image.path()]), LIMIT);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let why = if fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok() {
        "by tcg (KVM does not boot it here: QEMU: KVM internal error"
    } else {
        "by tcg (/dev/kvm cannot be opened: "
    };
    assert!(run.stdout.contains(why), "{run:#?}");
}

/// Nobody would end a kernel that hangs, and it would take its CPUs for ever.
#[cfg(target_os = "linux")]
#[test]
fn who_is_killed_leaves_no_qemu() {
    let fake = Fake::new("killed", "echo $$ > \"$(dirname \"$0\")/pid\"; exec sleep 1000");
    let image = kernel("killed", image::SILENT);
    let mut command = fake.command(&["--accel", "tcg", "--kernel", image.path()]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("built for this test");
    let start = Instant::now();
    let wait_for = |what: &str, is_so: &mut dyn FnMut() -> bool| {
        while !is_so() {
            assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let mut pid = String::new();
    wait_for("QEMU starts", &mut || {
        pid = fs::read_to_string(fake.0.join("pid")).unwrap_or_default();
        pid.ends_with('\n')
    });
    child.kill().expect("it is our child");
    child.wait().expect("it is our child");
    let state = format!("/proc/{}/stat", pid.trim());
    // Nobody may have collected it yet.
    let is_gone = || fs::read_to_string(&state).map_or(true, |stat| stat.contains(") Z "));
    wait_for("QEMU has ended", &mut { is_gone });
}

#[test]
fn bad_input_is_refused_with_a_reason() {
    refused(&["--cpus", "0"], "a machine has 1 CPU at least");
    refused(&["--cpus", "65"], "the kernel has room for 64 CPUs");
    refused(&["--cpus", "two"], "a number from 1 to 64");
    refused(&["--cpus", "2", "--nodes", "3"], "--nodes 3: each memory node has a CPU at least, and there are 2");
    refused(&["--nodes", "0"], "--nodes");
    refused(&["--append", &"x".repeat(4096)], "no more than 4095 bytes");
    refused(&["--accel", "xen"], "tcg, kvm");
    refused(&["--timeout", "0"], "--timeout");
    refused(&["--repeat", "0"], "--repeat");
    refused(&["--matrix", "--cpus", "4"], "cannot be used with");
    refused(&["--matrix", "--append", "nopvspin"], "cannot be used with");
    refused(&["--json", "/no/such/folder/x.json"], "cannot write /no/such/folder/x.json");
    refused(&["--kernel", "/no/such/kernel"], "cannot read /no/such/kernel");
    refused(&["--kernel", "/"], "cannot read /");
    let text = Planted::new("text", b"#!/bin/sh\n# much longer than the head of an image\n");
    refused(&["--kernel", text.path()], "is no ELF image for x86-64");
    let short = Planted::new("short", b"\x7fELF\x02\x01");
    refused(&["--kernel", short.path()], "is no ELF image for x86-64");
    let mut arm = image::elf(image::SILENT, true);
    arm[18] = 183;
    refused(&["--kernel", Planted::new("arm", &arm).path()], "is no ELF image for x86-64");
    let run = command::run(
        Command::new(env!("CARGO_BIN_EXE_qspin")).arg("boot").current_dir("/").stdin(Stdio::null()),
        LIMIT,
    );
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert!(run.stderr.contains("run this in the project's repository"), "{run:#?}");
    if !std::path::Path::new("/dev/kvm").exists() {
        refused(&["--accel", "kvm"], "/dev/kvm cannot be opened");
    }
}
