//! What executes the kernel's instructions.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;

use super::machine::Machine;
use super::once::{self, End};
use super::qemu;
use crate::failure::Failure;

const DEVICE: &str = "/dev/kvm";
/// How long KVM may say nothing when it is tried out. It takes a fraction of a second.
const TRIAL: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Accel {
    /// An emulator: it runs everywhere, and slowly
    Tcg,
    /// The CPUs themselves, where Linux lends them
    Kvm,
}

impl Accel {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }

    /// As QEMU wants it.
    pub(super) fn argument(self) -> &'static str {
        match self {
            // A thread for each CPU: one that takes turns shows no races.
            Self::Tcg => "tcg,thread=multi",
            Self::Kvm => "kvm",
        }
    }
}

/// Refuses to insist on what is not there.
pub(super) fn check(wanted: Option<Accel>) -> Result<(), Failure> {
    match wanted {
        Some(Accel::Kvm) => open().map_err(|why| Failure::usage(format!("--accel kvm: {why}; tcg needs nothing"))),
        _ => Ok(()),
    }
}

fn open() -> Result<(), String> {
    let opened = OpenOptions::new().read(true).write(true).open(DEVICE);
    opened.map(drop).map_err(|e| format!("{DEVICE} cannot be opened: {e}"))
}

/// What is wanted; else KVM, where it is and boots `image`, and where not, the emulator and why.
///
/// It is tried, since KVM in a virtual machine is often there and does not work.
pub(super) fn settle(wanted: Option<Accel>, qemu: &Path, image: &Path) -> (Accel, String) {
    if let Some(accel) = wanted {
        return (accel, String::new());
    }
    let trial = || {
        open()?;
        let machine = Machine { cpus: 2, nodes: 1, append: "test=none".to_owned() };
        let boot = once::boot(&mut qemu::command(qemu, Accel::Kvm, &machine, image), TRIAL, |_, _| {});
        match boot.map_err(|e| e.to_string())?.end {
            End::Passed => Ok(()),
            end => Err(format!("KVM does not boot it here: {end}")),
        }
    };
    match trial() {
        Ok(()) => (Accel::Kvm, String::new()),
        Err(why) => (Accel::Tcg, why),
    }
}
