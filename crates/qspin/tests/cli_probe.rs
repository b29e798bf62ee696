//! `qspin probe`: on this machine, and on copies of others'.

mod command;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use command::{Output, qspin, run};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// A directory with the files of some machine; gone when dropped.
struct Fake(PathBuf);

impl Fake {
    fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("qspin-probe-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let fake = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(&fake.0).expect("a directory for the test");
        for (path, text) in files {
            fake.write(path, text);
        }
        fake
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a directory for the test");
        fs::write(path, text).expect("a file for the test");
    }

    fn probe(&self, args: &[&str]) -> Output {
        probe(&[args, &["--root", self.0.to_str().expect("a plain name")]].concat())
    }

    #[track_caller]
    fn json(&self) -> Value {
        let run = self.probe(&["--json"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        run.json()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn probe(args: &[&str]) -> Output {
    qspin(&[&["probe"], args].concat(), LIMIT)
}

/// Two nodes with two L3 domains each; CPU 5 and 7 are off, 8 to 15 do not exist.
fn two_nodes() -> Fake {
    let fake = Fake::new(&[
        ("proc/cpuinfo", "processor\t: 0\nmodel name\t: Paper CPU 9000\nflags\t\t: fpu tsc\n"),
        ("proc/self/status", "Name:\tqspin\nCpus_allowed:\tff\nCpus_allowed_list:\t1-6,16-18\n"),
        ("sys/devices/system/cpu/online", "0-4,6,16-19\n"),
        ("sys/devices/system/cpu/offline", "5,7\n"),
        ("sys/devices/system/cpu/possible", "0-7,16-19\n"),
        ("sys/devices/system/node/online", "0,2\n"),
        ("sys/devices/system/node/has_cpu", "0,2\n"),
        ("sys/devices/system/node/node0/cpulist", "0-4,6\n"),
        ("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:       16777216 kB\nNode 0 MemFree: 1 kB\n"),
        ("sys/devices/system/node/node0/distance", "10 21\n"),
        ("sys/devices/system/node/node2/cpulist", "16-19\n"),
        ("sys/devices/system/node/node2/distance", "21 10\n"),
    ]);
    for (cpus, shared) in [(&[0, 1, 2][..], "0-2"), (&[3, 4, 6], "3-4,6"), (&[16, 17], "16-17"), (&[18, 19], "18-19")] {
        for cpu in cpus {
            let cache = format!("sys/devices/system/cpu/cpu{cpu}/cache");
            fake.write(&format!("{cache}/index2/level"), "2\n");
            fake.write(&format!("{cache}/index2/shared_cpu_list"), &format!("{cpu}\n"));
            // Not at index 3, which is only where it usually is.
            fake.write(&format!("{cache}/index4/level"), "3\n");
            fake.write(&format!("{cache}/index4/shared_cpu_list"), &format!("{shared}\n"));
        }
    }
    fake
}

#[test]
fn this_machine() {
    let run = probe(&["--json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let seen = run.json();
    let online = seen["cpus"]["online"].as_array().expect("Linux tells").len();
    let usable = seen["process"]["usable"].as_array().expect("Linux tells").len();
    assert!(usable >= 1 && usable <= online, "{seen:#}");
    assert_eq!(seen["choices"]["process"]["slow_path"], "parking");
    let kernel = seen["choices"]["kernel"]["slow_path"].as_str().expect("a name");
    assert!(["native", "numa", "paravirt", "test-and-set"].contains(&kernel), "{kernel}");
    let patched = &seen["patched"];
    let refused = !patched["refused"].is_null();
    assert_eq!(patched["available"] == true, patched["sites"].as_u64() > Some(0), "{patched}");
    assert!(refused || patched["following"] == patched["sites"], "{patched}");
    if (2..=16).contains(&usable) {
        let pairs = seen["line_transfer"].as_array().expect("measured");
        assert_eq!(pairs.len(), usable * (usable - 1) / 2);
    }
    let text = probe(&["--no-transfer"]);
    assert_eq!(text.code, Some(0), "{text:#?}");
    for what in
        ["CPUs online", "memory nodes", "L3 domains", "hypervisor", "TSC", "affinity", "this process", "code of"]
    {
        assert!(text.stdout.contains(what), "{what} is missing: {text:#?}");
    }
    assert!(!text.stdout.contains("one way"), "{text:#?}");
}

#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    use std::process::{Command, Stdio};
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let mut command = Command::new(env!("CARGO_BIN_EXE_qspin"));
    let child = command.args(["probe", "--no-transfer"]).stdout(full).stderr(Stdio::piped()).output();
    let output = child.expect("qspin starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("qspin: cannot write to standard output"), "{said}");
}

#[test]
fn nodes_caches_holes_and_offline_cpus() {
    let seen = two_nodes().json();
    assert_eq!(seen["model"], "Paper CPU 9000");
    assert_eq!(seen["cpus"]["online"], json!([0, 1, 2, 3, 4, 6, 16, 17, 18, 19]));
    assert_eq!(seen["cpus"]["offline"], json!([5, 7]));
    assert_eq!(seen["l3_domains"], json!([[0, 1, 2], [3, 4, 6], [16, 17], [18, 19]]));
    let nodes = &seen["nodes"];
    assert_eq!((&nodes[0]["node"], &nodes[1]["node"]), (&json!(0), &json!(2)));
    assert_eq!(nodes[0]["memory_kib"], 16_777_216);
    assert_eq!(nodes[1]["memory_kib"], Value::Null);
    assert_eq!(nodes[1]["distances"], json!([21, 10]));
    assert_eq!(seen["process"]["affinity"], json!([1, 2, 3, 4, 5, 6, 16, 17, 18]));
    assert_eq!(seen["process"]["usable"], json!([1, 2, 3, 4, 6, 16, 17, 18]), "CPU 5 is off");
    assert_eq!(seen["hypervisor"]["present"], false);
    assert_eq!(seen["choices"]["kernel"]["slow_path"], "numa");
    let who = json!({"cpus": 8, "domains": 2, "wishes": null});
    assert_eq!(seen["facts"]["process"], who);
    assert_eq!(seen["facts"]["kernel"], json!({"cpus": 12, "domains": 2, "wishes": null}), "and those that may come");
    let reason = seen["choices"]["kernel"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("several domains"), "{reason}");
    assert_eq!(seen["line_transfer"], Value::Null, "nothing is measured on paper");
    assert_eq!(seen["tsc"]["mhz"], Value::Null);
    assert_eq!(seen["warnings"], json!([]));
}

#[test]
fn the_same_as_text() {
    let run = two_nodes().probe(&[]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    for what in ["10 (0-4,6,16-19)", "2 (5,7)", "4: [0-2] [3-4,6] [16-17] [18-19]", "16.0 GiB", "none: bare metal"] {
        assert!(run.stdout.contains(what), "{what} is missing: {run:#?}");
    }
}

/// What counts as near is what the locks of the process count, too.
#[test]
fn domains_by_nodes_caches_and_pretence() {
    let fake = two_nodes();
    let by = |unit: &str, args: &[&str]| {
        let root = fake.0.to_str().expect("a plain name");
        probe_by("QSPINLOCK_DOMAIN", unit, &[&["--root", root], args].concat())
    };
    for (unit, found, of_process) in [("node", 2, 2), ("l3", 4, 4), ("pretend:7", 7, 7)] {
        let run = by(unit, &["--json"]);
        assert_eq!(run.code, Some(0), "{run:#?}");
        let seen = run.json();
        assert_eq!(seen["lock_domains"], json!({"unit": unit, "found": found, "problem": null}));
        assert_eq!(seen["facts"]["process"]["domains"], of_process);
        assert_eq!(seen["facts"]["kernel"]["domains"], 2, "a kernel is not asked by this process");
        let shown = by(unit, &[]).stdout;
        assert!(shown.contains(&format!("{found} (by {unit})")), "{shown}");
    }
    let run = by("socket", &["--json"]);
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert!(run.stderr.contains("QSPINLOCK_DOMAIN: there is no `socket`: choose from node l3 pretend:N"), "{run:#?}");

    fake.write("sys/devices/system/node/node2/cpulist", "16-x\n");
    let seen = by("node", &["--json"]).json();
    let why = "/sys/devices/system/node/node2/cpulist: `16-x` makes no sense";
    assert_eq!(seen["lock_domains"], json!({"unit": "node", "found": null, "problem": why}));
    let warnings = seen["warnings"].to_string();
    assert!(warnings.contains(&format!("{why}; locks take all CPUs to be in one domain")), "{warnings}");
}

#[test]
fn a_guest_gets_another_lock_than_bare_metal() {
    let fake = two_nodes();
    fake.write("proc/cpuinfo", "flags : fpu hypervisor tsc\n");
    let seen = fake.json();
    assert_eq!(seen["hypervisor"]["present"], true);
    assert_eq!(seen["hypervisor"]["signature"], Value::Null);
    assert_eq!(seen["choices"]["kernel"]["slow_path"], "test-and-set");
    assert_eq!(seen["choices"]["process"]["slow_path"], "parking");
    fake.write("sys/devices/system/cpu/online", "0\n");
    assert_eq!(fake.json()["choices"]["kernel"]["slow_path"], "test-and-set", "others may come");
    fake.write("sys/devices/system/cpu/possible", "0\n");
    assert_eq!(fake.json()["choices"]["kernel"]["slow_path"], "native", "one CPU");
}

#[test]
fn version_2_groups() {
    let fake = two_nodes();
    fake.write("proc/self/cgroup", "0::/outer/inner\n");
    fake.write("proc/self/mountinfo", "25 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
    fake.write("sys/fs/cgroup/outer/cpu.max", "150000 100000\n");
    fake.write("sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n");
    fake.write("sys/fs/cgroup/outer/inner/cpuset.cpus.effective", "2-5\n");
    let process = &fake.json()["process"];
    assert_eq!(process["cgroup"]["quota_cpus"], 1.5);
    assert_eq!(process["cgroup"]["quota_from"], "/sys/fs/cgroup/outer", "the group around it has the limit");
    assert_eq!(process["usable"], json!([2, 3, 4]));
    fake.write("sys/fs/cgroup/outer/inner/cpu.max", "50000 100000\n");
    assert_eq!(fake.json()["process"]["cgroup"]["quota_cpus"], 0.5, "the least counts");
}

#[test]
fn version_1_groups() {
    let fake = two_nodes();
    fake.write("proc/self/cgroup", "4:cpu,cpuacct:/box\n3:cpuset:/docker/ab\n1:name=systemd:/\n0::/\n");
    fake.write(
        "proc/self/mountinfo",
        "30 29 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n31 29 0:30 /docker/ab /cg/cpuset rw - cgroup cgroup rw,cpuset\n",
    );
    fake.write("cg/cpu/cpu.cfs_quota_us", "-1\n");
    fake.write("cg/cpu/cpu.cfs_period_us", "100000\n");
    fake.write("cg/cpu/box/cpu.cfs_quota_us", "200000\n");
    fake.write("cg/cpu/box/cpu.cfs_period_us", "100000\n");
    fake.write("cg/cpuset/cpuset.cpus", "16-19\n");
    let seen = fake.json();
    assert_eq!(seen["process"]["cgroup"]["quota_cpus"], 2.0);
    assert_eq!(seen["process"]["usable"], json!([16, 17, 18]));
    assert_eq!(seen["warnings"], json!([]));
}

#[test]
fn what_is_missing_is_unknown() {
    let empty = Fake::new(&[]);
    let seen = empty.json();
    for pointer in [
        "/model",
        "/cpus/online",
        "/cpus/offline",
        "/nodes",
        "/l3_domains",
        "/hypervisor/present",
        "/tsc/mhz",
        "/process/affinity",
        "/process/cgroup",
        "/process/usable",
        "/line_transfer",
        "/facts/hypervisor",
        "/facts/wait_kick",
        "/facts/process/cpus",
        "/facts/kernel/cpus",
        "/facts/kernel/domains",
    ] {
        assert_eq!(seen.pointer(pointer), Some(&Value::Null), "{pointer} of {seen:#}");
    }
    assert_eq!(seen["choices"]["kernel"]["slow_path"], "native", "what fits where nothing is known");
    assert_eq!(seen["warnings"], json!([]));
    let text = empty.probe(&[]);
    assert!(text.stdout.matches("unknown").count() >= 10, "{text:#?}");
}

#[test]
fn garbage_is_unknown_and_pointed_at() {
    let fake = two_nodes();
    fake.write("sys/devices/system/cpu/online", "0-3,banana\n");
    fake.write("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal: lots kB\n");
    fake.write("proc/self/cgroup", "what\n0::/\n");
    fake.write("proc/self/mountinfo", "25 23 0:28 / /cg rw - cgroup2 cgroup2 rw\n");
    fake.write("cg/cpu.max", "5 apples\n");
    let seen = fake.json();
    assert_eq!(seen["cpus"]["online"], Value::Null);
    assert_eq!(seen["nodes"][0]["memory_kib"], Value::Null);
    assert_eq!(seen["process"]["cgroup"]["quota_cpus"], Value::Null);
    let warnings = seen["warnings"].to_string();
    for what in ["/sys/devices/system/cpu/online", "banana", "lots", "5 apples", "'what'"] {
        assert!(warnings.contains(what), "{what} is missing: {warnings}");
    }
    let text = fake.probe(&[]);
    assert_eq!(text.code, Some(0), "{text:#?}");
    assert!(
        text.stdout.contains("warning: /sys/devices/system/cpu/online: '0-3,banana' is not a CPU list"),
        "{text:#?}"
    );
}

#[test]
fn bytes_that_are_no_text_are_unknown() {
    let fake = two_nodes();
    fs::write(fake.0.join("sys/devices/system/cpu/online"), [0xff, 0xfe, 0]).expect("a file for the test");
    let seen = fake.json();
    assert_eq!(seen["cpus"]["online"], Value::Null);
    assert!(seen["warnings"].to_string().contains("not text"), "{seen:#}");
}

#[test]
fn wrong_usage() {
    for (args, told) in [
        (&["--root", "/does/not/exist"][..], "not a directory"),
        (&["--full", "--no-transfer"], "cannot be used with"),
        (&["--facts", "/does/not/exist"], "--facts: /does/not/exist: "),
        (&["--facts", "-", "--full"], "cannot be used with"),
        (&["--facts"], "a value is required"),
        (&["--bogus"], "--bogus"),
        (&["extra"], "extra"),
    ] {
        let run = probe(args);
        assert_eq!(run.code, Some(2), "{args:?}: {run:#?}");
        assert!(run.stderr.contains(told), "{args:?}: {run:#?}");
    }
    assert!(probe(&["--help"]).stdout.contains("qspin probe --json"));
    assert!(probe(&["--help"]).stdout.contains("probe --facts -"));
}

/// With a variable in its environment.
#[track_caller]
fn probe_by(variable: &str, value: &str, args: &[&str]) -> Output {
    let mut qspin = Command::new(env!("CARGO_BIN_EXE_qspin"));
    run(qspin.arg("probe").args(args).env(variable, value).stdin(Stdio::null()), LIMIT)
}

#[test]
fn an_environment_that_says_nothing_sensible_is_wrong_usage() {
    for (variable, value) in [
        ("QSPINLOCK_PARKING", "spun=3"),
        ("QSPINLOCK_PARKING", "spin=fast"),
        ("QSPINLOCK_PARKING", "poll=0"),
        ("QSPINLOCK_PARKING", "yields"),
        ("QSPINLOCK", "fast"),
        ("QSPINLOCK", "native,parking"),
        ("QSPINLOCK", "paravirt,nopvspin"),
        ("QSPINLOCK", "numa=on,numa=off"),
        ("QSPINLOCK_DOMAIN", "pretend:0"),
        ("QSPINLOCK_NUMA", "one_in=0"),
        ("QSPINLOCK_NUMA", "threshold=1ms"),
    ] {
        let output = probe_by(variable, value, &["--no-transfer"]);
        assert_eq!(output.code, Some(2), "{value}");
        assert!(output.stderr.contains(&format!("qspin: {variable}: ")), "{value}: {output:#?}");
    }
    assert_eq!(probe_by("QSPINLOCK_PARKING", "spin=400,yields=1", &["--no-transfer"]).code, Some(0));
}

#[test]
fn wishes_are_this_process_s_and_not_a_kernel_s() {
    for name in ["native", "numa", "paravirt", "parking", "test-and-set"] {
        let seen = probe_by("QSPINLOCK", name, &["--no-transfer", "--json"]).json();
        assert_eq!(seen["choices"]["process"], json!({"slow_path": name, "reason": "asked for"}));
        assert_ne!(seen["choices"]["kernel"]["reason"], "asked for");
        assert_eq!(
            (&seen["facts"]["process"]["wishes"], &seen["facts"]["kernel"]["wishes"]),
            (&json!(name), &Value::Null)
        );
    }
    let seen = probe_by("QSPINLOCK", "dedicated", &["--no-transfer", "--json"]).json();
    assert_ne!(seen["choices"]["process"]["reason"], "asked for");
    assert_eq!(seen["facts"]["process"]["wishes"], "auto,dedicated");
}

/// `qspin probe --facts`, of a text on its standard input.
#[track_caller]
fn facts(text: &str) -> Output {
    let fake = Fake::new(&[("facts.json", text)]);
    let input = fs::File::open(fake.0.join("facts.json")).expect("written above");
    let mut qspin = Command::new(env!("CARGO_BIN_EXE_qspin"));
    run(qspin.args(["probe", "--json", "--facts", "-"]).stdin(input), LIMIT)
}

#[test]
fn another_machine_gets_what_fits_it() {
    for (text, process, kernel) in [
        ("{}", "parking", "native"),
        (r#"{"hypervisor": null, "process": null, "kernel": {"cpus": null}}"#, "parking", "native"),
        (r#"{"hypervisor": "none", "kernel": {"cpus": 64, "domains": 4}}"#, "parking", "numa"),
        (r#"{"hypervisor": "kvm", "wait_kick": true, "kernel": {"cpus": 64}}"#, "parking", "paravirt"),
        (r#"{"hypervisor": "kvm", "wait_kick": false}"#, "parking", "test-and-set"),
        (r#"{"hypervisor": "kvm", "wait_kick": true, "dedicated_hint": true}"#, "parking", "native"),
        (r#"{"hypervisor": "kvm", "kernel": {"wishes": "nopvspin"}}"#, "parking", "native"),
        (r#"{"hypervisor": "xen", "kernel": {"cpus": 2}}"#, "parking", "paravirt"),
        (r#"{"hypervisor": "xen", "kernel": {"cpus": 1}}"#, "parking", "native"),
        (
            r#"{"hypervisor": "hyper-v", "local_apic": true, "cluster_ipi": true, "guest_idle": true}"#,
            "parking",
            "paravirt",
        ),
        (r#"{"hypervisor": "hyper-v", "local_apic": true, "guest_idle": true}"#, "parking", "test-and-set"),
        (r#"{"hypervisor": "vmware", "process": {"wishes": "dedicated"}}"#, "native", "test-and-set"),
        (r#"{"hypervisor": "none", "process": {"cpus": 8, "domains": 2, "wishes": "dedicated"}}"#, "numa", "native"),
    ] {
        let run = facts(text);
        assert_eq!(run.code, Some(0), "{text}: {run:#?}");
        let choices = &run.json()["choices"];
        assert_eq!(choices["process"]["slow_path"], process, "{text}");
        assert_eq!(choices["kernel"]["slow_path"], kernel, "{text}");
    }
}

#[test]
fn the_facts_of_this_machine_can_be_fed_back() {
    for value in ["", "dedicated", "native", "nopvspin"] {
        let seen = probe_by("QSPINLOCK", value, &["--no-transfer", "--json"]).json();
        // They alone, and all that was said.
        for text in [seen["facts"].to_string(), seen.to_string()] {
            let again = facts(&text);
            assert_eq!(again.code, Some(0), "{again:#?}");
            let again = again.json();
            assert_eq!((&again["facts"], &again["choices"]), (&seen["facts"], &seen["choices"]), "{value}");
        }
    }
}

#[test]
fn facts_as_text_and_from_a_file() {
    let fake = Fake::new(&[("facts.json", r#"{"hypervisor": "kvm", "wait_kick": true, "kernel": {"cpus": 64}}"#)]);
    let file = fake.0.join("facts.json");
    let run = probe(&["--facts", file.to_str().expect("a plain name")]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    for what in ["kvm, wait_kick: yes", "64", "unknown", "a kernel there", "paravirt", "wait and kick"] {
        assert!(run.stdout.contains(what), "{what} is missing: {run:#?}");
    }
}

#[test]
fn absurd_facts_are_named() {
    for (text, told) in [
        ("", "it is not JSON"),
        ("{", "it is not JSON"),
        ("[]", "it is []: write an object"),
        (r#"{"cpu": 3}"#, "there is no field `cpu`: choose from hypervisor wait_kick"),
        (r#"{"kernel": {"cpu": 3}}"#, "there is no field `kernel.cpu`: choose from cpus domains wishes"),
        (r#"{"kernel": 64}"#, "`kernel` is 64: write an object"),
        (r#"{"kernel": {"cpus": 0}}"#, "`kernel.cpus` is 0: write a whole number from 1 to 524288"),
        (r#"{"kernel": {"cpus": -1}}"#, "`kernel.cpus` is -1: write"),
        (r#"{"kernel": {"cpus": 2.5}}"#, "`kernel.cpus` is 2.5: write"),
        (r#"{"kernel": {"cpus": "8"}}"#, "`kernel.cpus` is \"8\": write"),
        (r#"{"kernel": {"cpus": 99999999999}}"#, "`kernel.cpus` is 99999999999: write"),
        (
            r#"{"process": {"cpus": 4, "domains": 5}}"#,
            "`process.domains` is 5: each has a CPU, and `process.cpus` is 4",
        ),
        (
            r#"{"hypervisor": "qemu"}"#,
            "`hypervisor` is \"qemu\": choose from none kvm xen hyper-v vmware tcg other unknown",
        ),
        (r#"{"hypervisor": 3}"#, "`hypervisor` is 3: choose from"),
        (r#"{"hypervisor": "kvm", "wait_kick": 1}"#, "`wait_kick` is 1: write true or false"),
        (
            r#"{"hypervisor": "xen", "wait_kick": true}"#,
            "`wait_kick` is true, and `hypervisor` is xen: only `kvm` has it",
        ),
        (r#"{"guest_idle": true}"#, "`guest_idle` is true, and `hypervisor` is unknown: only `hyper-v` has it"),
        (r#"{"kernel": {"wishes": "fast"}}"#, "`kernel.wishes`: there is no `fast`: choose from native"),
        (r#"{"kernel": {"wishes": "paravirt,nopvspin"}}"#, "`kernel.wishes`: `paravirt` and `nopvspin` exclude"),
        (r#"{"kernel": {"wishes": 3}}"#, "`kernel.wishes` is 3: write words"),
    ] {
        let run = facts(text);
        assert_eq!(run.code, Some(2), "{text}: {run:#?}");
        assert!(run.stderr.contains(told) && run.stderr.contains("--facts: -: "), "{text}: {run:#?}");
        assert_eq!((run.stderr.lines().count(), run.stdout.as_str()), (1, ""), "{text}: {run:#?}");
    }
    let run = facts(&" ".repeat(70_000));
    assert_eq!(run.code, Some(2), "{run:#?}");
    assert!(run.stderr.contains("longer than 65536 bytes"), "{run:#?}");
}
