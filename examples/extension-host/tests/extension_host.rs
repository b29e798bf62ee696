//! The host, as its users run it, under each slow path: it carries on, and says what guests did.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What it printed, and whether it was content. A host that hangs is ended, and fails.
fn run(slow_path: &str) -> (String, String, bool) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let names = ["said", "complained"].map(|what| folder.join(format!("extension-host-{slow_path}-{what}")));
    let [said, complained] = names.each_ref().map(|name| Stdio::from(File::create(name).expect("a file")));
    let mut host = Command::new(env!("CARGO_BIN_EXE_extension-host"));
    host.env("QSPINLOCK", slow_path).env_remove("QSPINLOCK_RESILIENT").stdout(said).stderr(complained);
    let mut host = host.spawn().expect("it starts");
    let end = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = host.try_wait().expect("it is our child") {
            break Some(status);
        }
        if Instant::now() > end {
            host.kill().expect("it is our child");
            host.wait().expect("it is our child");
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let [said, complained] = names.map(|name| fs::read_to_string(name).expect("text"));
    let status = status.unwrap_or_else(|| panic!("{slow_path}: it hangs: {said}"));
    (said, complained, status.success())
}

fn is_told(slow_path: &str) {
    let (said, complained, is_content) = run(slow_path);
    assert!(is_content, "{slow_path}: {said}{complained}");
    let has = |lines: &str| assert!(said.contains(lines), "{slow_path}: `{lines}` is not in: {said}");
    // Against each other. Who closes the circle is told, and tells of both.
    has("    left wants the lock of beta, which right holds\n");
    has("    right wants the lock of alpha, which left holds\n");
    assert!(
        ["left: lock beta", "right: lock alpha"].iter().any(|who| said.contains(&format!("{who} was refused: -35\n")))
    );
    // Against themselves.
    has("twice: lock delta was refused: -35\n    twice wants the lock of delta, which twice holds\n");
    has("auditor: lookup delta was refused: -35\n    forgetful wants bucket 0 of delta, which forgetful holds\n");
    has("auditor: unlock delta was refused: -1\n");
    // For ever.
    has("neighbour: lock gamma was refused: -110\n    waited ");
    has(" for the lock of gamma; holder: hog\n");
    has("neighbour: unlock gamma was refused: -1\n");
    has("hog: was stopped: others waited in vain for what it held\nhog: the host released the lock of gamma\n");
    has("spinner: was stopped: it had used up its rounds\n");
    has("endless: was not admitted");
    // Gone without a word.
    has("forgetful: the host released the lock of delta\n");
    has("wild: failed: Error: out of bounds memory load");
    has("wild: the host released the lock of delta\n");
    has("overflow: the host released the lock of delta\n");
    // And all is well.
    has("host: hits Ok(3100), counted 3000\nhost: alpha Ok(98), beta Ok(102)\nhost: delta Ok(105), audit Ok(105)\n");
    has("host: all is as it should be\n");
}

#[test]
fn threads_that_sleep() {
    is_told("parking");
}

#[test]
fn threads_that_spin() {
    is_told("native");
}

#[test]
fn threads_that_halt() {
    is_told("paravirt");
}

#[test]
fn threads_without_a_queue() {
    is_told("test-and-set");
}
