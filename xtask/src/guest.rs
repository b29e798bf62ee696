//! The test kernel: a workspace of its own, with flags of its own; and QEMU, which its tests need.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Step;

const FOLDER: &str = "guest";
/// The kernel's own target. Where it has not been added, the host's serves.
const BARE: &str = "x86_64-unknown-none";

/// Runs cargo in the kernel's folder, once for each target that it can be built for.
fn cargo(args: &[&str], more: &[&str]) -> Step {
    let mut targets = vec!["x86_64-unknown-linux-gnu"];
    if has_bare() {
        targets.push(BARE);
    }
    for target in targets {
        let args = [args, &["--target", target], more].concat();
        println!("xtask: in {FOLDER}: cargo {}", args.join(" "));
        // Flags in the environment would take the place of the kernel's.
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(FOLDER).args(&args).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        let status = command.status().map_err(|e| format!("cargo: {e}"))?;
        if !status.success() {
            return Err(format!("in {FOLDER}: cargo {}: {status}", args.join(" ")));
        }
    }
    Ok(())
}

fn has_bare() -> bool {
    let asked =
        Command::new("rustc").args(["--print", "target-libdir", "--target", BARE]).stderr(Stdio::null()).output();
    let folder = asked.ok().and_then(|asked| String::from_utf8(asked.stdout).ok());
    folder.is_some_and(|folder| !folder.trim().is_empty() && Path::new(folder.trim()).is_dir())
}

pub(crate) fn lint() -> Step {
    println!("xtask: in {FOLDER}: cargo fmt --check");
    let status = Command::new(env!("CARGO")).current_dir(FOLDER).args(["fmt", "--check"]).status();
    if !status.map_err(|e| format!("cargo: {e}"))?.success() {
        return Err(format!("in {FOLDER}: cargo fmt --check"));
    }
    cargo(&["clippy"], &["--", "-D", "warnings"])
}

/// With and without optimisation: both boot.
pub(crate) fn build() -> Step {
    cargo(&["build"], &[])?;
    cargo(&["build", "--release"], &[])
}

/// Installs QEMU, if that takes no more than asking; else says how. The tests that need it fail without.
pub(crate) fn need_qemu() {
    let runs = |program: &str| {
        let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let succeeds = |command: &mut Command| command.status().is_ok_and(|status| status.success());
    if runs("qemu-system-x86_64") {
        return;
    }
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0");
    if is_root && runs("apt-get") {
        println!("xtask: apt-get install qemu-system-x86, which the test kernel boots in");
        let apt = |args: &[&str]| succeeds(Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args));
        let install = ["install", "-qy", "--no-install-recommends", "qemu-system-x86"];
        if (apt(&install) || apt(&["update", "-q"]) && apt(&install)) && runs("qemu-system-x86_64") {
            return;
        }
    }
    println!(
        "xtask: qemu-system-x86_64 is not here, and the test kernel boots in it: what boots it will FAIL.\n\
         xtask: install it: apt-get install qemu-system-x86 (Debian, Ubuntu), dnf install qemu-system-x86 (Fedora)"
    );
}
