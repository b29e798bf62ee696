//! `qspin probe`: on this machine, and on copies of others'.

mod command;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use command::{Output, qspin};
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
    assert!(["native", "test-and-set"].contains(&seen["choices"]["kernel"]["slow_path"].as_str().expect("a name")));
    if (2..=16).contains(&usable) {
        let pairs = seen["line_transfer"].as_array().expect("measured");
        assert_eq!(pairs.len(), usable * (usable - 1) / 2);
    }
    let text = probe(&["--no-transfer"]);
    assert_eq!(text.code, Some(0), "{text:#?}");
    for what in ["CPUs online", "memory nodes", "L3 domains", "hypervisor", "TSC", "affinity", "this process"] {
        assert!(text.stdout.contains(what), "{what} is missing: {text:#?}");
    }
    assert!(!text.stdout.contains("one way"), "{text:#?}");
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
    assert_eq!(seen["choices"]["kernel"]["slow_path"], "native");
    let reason = seen["choices"]["kernel"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("several memory nodes"), "{reason}");
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
        "/choices/kernel",
    ] {
        assert_eq!(seen.pointer(pointer), Some(&Value::Null), "{pointer} of {seen:#}");
    }
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
        (&["--bogus"], "--bogus"),
        (&["extra"], "extra"),
    ] {
        let run = probe(args);
        assert_eq!(run.code, Some(2), "{args:?}: {run:#?}");
        assert!(run.stderr.contains(told), "{args:?}: {run:#?}");
    }
    assert!(probe(&["--help"]).stdout.contains("qspin probe --json"));
}

#[test]
fn an_environment_that_says_nothing_sensible_is_wrong_usage() {
    let probe = |value: &str| {
        let mut qspin = std::process::Command::new(env!("CARGO_BIN_EXE_qspin"));
        qspin.arg("probe").env("QSPINLOCK_PARKING", value).output().expect("qspin runs")
    };
    for value in ["spun=3", "spin=fast", "poll=0", "yields"] {
        let output = probe(value);
        assert_eq!(output.status.code(), Some(2), "{value}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("QSPINLOCK_PARKING"), "{value}: {said}");
    }
    assert_eq!(probe("spin=400,yields=1").status.code(), Some(0));
}
