//! The kernel's image: built from the repository, or one that is there.

use std::env;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;

/// The kernel's own target, and the one that serves where this has not been added.
const BARE: &str = "x86_64-unknown-none";
const HOST: &str = "x86_64-unknown-linux-gnu";

/// Where an image may come from; not built yet.
#[derive(Debug)]
pub(super) enum Source {
    /// The folder of the kernel's package.
    Package(PathBuf),
    /// An image.
    Image(PathBuf),
}

impl Source {
    /// The image that was named; else the package in this folder's repository.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, Failure> {
        if let Some(path) = named {
            check_image(path)?;
            return Ok(Self::Image(path.to_owned()));
        }
        let here = env::current_dir().map_err(|e| Failure::usage(format!("cannot tell the current folder: {e}")))?;
        let is_kernel = |folder: &Path| {
            let manifest = std::fs::read_to_string(folder.join("Cargo.toml"));
            manifest.is_ok_and(|text| text.lines().any(|line| line.trim() == "name = \"qspinlock-guest\""))
        };
        let found =
            here.ancestors().flat_map(|folder| [folder.join("guest"), folder.to_owned()]).find(|f| is_kernel(f));
        found.map(Self::Package).ok_or_else(|| {
            Failure::usage(format!(
                "no test kernel in {} or above it; run this in the project's repository, or give --kernel an image",
                here.display()
            ))
        })
    }

    /// The image's path. Cargo's complaints go to standard error.
    pub(super) fn build(&self) -> Result<PathBuf, Failure> {
        match self {
            Self::Image(path) => Ok(path.clone()),
            Self::Package(folder) => build(folder),
        }
    }
}

/// QEMU's own words for what is no kernel are few.
fn check_image(path: &Path) -> Result<(), Failure> {
    let mut head = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    match read {
        Err(e) if e.kind() != ErrorKind::UnexpectedEof => {
            Err(Failure::usage(format!("cannot read {}: {e}; --kernel takes an image", path.display())))
        }
        // 64 bits, little-endian, for x86-64.
        Ok(()) if head.starts_with(b"\x7fELF\x02\x01") && head[18..] == [62, 0] => Ok(()),
        _ => Err(Failure::usage(format!(
            "{} is no ELF image for x86-64; without --kernel the one in the repository is built",
            path.display()
        ))),
    }
}

/// The target that the kernel is built for.
fn target() -> Result<&'static str, Failure> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = Command::new(rustc).args(["--print", "target-libdir", "--target", BARE]).stderr(Stdio::null()).output();
    let folder =
        asked.ok().filter(|asked| asked.status.success()).and_then(|asked| String::from_utf8(asked.stdout).ok());
    if folder.is_some_and(|folder| Path::new(folder.trim()).is_dir()) {
        return Ok(BARE);
    }
    if cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")) {
        return Ok(HOST);
    }
    Err(Failure::failed(format!("the kernel needs a target that is not here: rustup target add {BARE}")))
}

fn build(folder: &Path) -> Result<PathBuf, Failure> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = target()?;
    let mut command = Command::new(cargo);
    // In its folder, since that is where its flags are. Flags in the environment would take their place.
    command.current_dir(folder).args(["build", "--release", "--quiet", "--target", target]);
    command.arg("--message-format=json-render-diagnostics");
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    for target in [BARE, HOST] {
        command.env_remove(format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_")));
    }
    let failed = |why: String| Failure::failed(format!("cannot build the kernel in {}: {why}", folder.display()));
    let built = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let built = built.map_err(|e| failed(format!("cargo: {e}; it comes with Rust: https://rustup.rs")))?;
    if !built.status.success() {
        return Err(failed(format!("cargo: {}", built.status)));
    }
    let messages = String::from_utf8_lossy(&built.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut images = messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    images.next().ok_or_else(|| failed("cargo names no image".to_owned()))
}
