//! QEMU: where it is, and how it is started.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use super::accel::Accel;
use super::machine::Machine;
use crate::failure::Failure;

const PROGRAM: &str = "qemu-system-x86_64";

/// Where QEMU is.
pub(super) fn find() -> Result<PathBuf, Failure> {
    let is_program = |path: &PathBuf| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let folders = env::var_os("PATH").unwrap_or_default();
    // An empty part would be the current folder.
    let folders = env::split_paths(&folders).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(PROGRAM)).find(is_program).ok_or_else(|| {
        Failure::failed(format!(
            "{PROGRAM} is not in PATH, and the kernel boots in it. Install it: apt-get install qemu-system-x86 \
             (Debian, Ubuntu), dnf install qemu-system-x86 (Fedora), pacman -S qemu-system-x86 (Arch)"
        ))
    })
}

/// The command that boots `image`: the serial port is its standard output, and its exit code is twice what the kernel
/// says at its end, and 1.
pub(super) fn command(qemu: &Path, accel: Accel, machine: &Machine, image: &Path) -> Command {
    let mut command = Command::new(qemu);
    command.args(["-machine", "q35", "-accel", accel.argument(), "-cpu", "max"]);
    command.args(machine.arguments());
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-kernel"]).arg(image);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec, where these are two system calls and nothing else.
    unsafe {
        command.pre_exec(|| {
            // A kernel that hangs would keep its CPUs busy for ever if this program were killed.
            #[cfg(target_os = "linux")]
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // What QEMU says when it gives up is enough; nobody wants the kernel's memory in a file.
            setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
            Ok(())
        });
    }
    command
}
