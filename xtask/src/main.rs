//! What CI runs; every step also runs by hand: `cargo xtask` lists them.

mod guest;
mod house;
mod suites;

use std::process::{Command, ExitCode};

const HELP: &str = "\
usage: cargo xtask STEP...

  test    every test of the workspace, in both forms: with call sites that are rewritten, and portable; and the test
          kernel's, in QEMU, which is installed first where that can be done
  lint    formatting, clippy and docs with warnings as errors, the rules of the house
  build   the builds that no test makes: without std, other feature sets, the test kernel
  smoke   the commands: probe, torture, check and boot, and the main job, shortened
  ci      all of them, as CI does
";

/// A step that failed, in words.
type Step = Result<(), String>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut steps: Vec<fn() -> Step> = Vec::new();
    for arg in &args {
        match arg.as_str() {
            "test" => steps.push(test),
            "lint" => steps.push(lint),
            "build" => steps.push(build),
            "smoke" => steps.push(smoke),
            "ci" => steps.extend([lint as fn() -> Step, build, smoke, test]),
            "help" | "--help" | "-h" => {
                print!("{HELP}");
                return ExitCode::SUCCESS;
            }
            _ => {
                eprint!("xtask: unknown step '{arg}'\n\n{HELP}");
                return ExitCode::from(2);
            }
        }
    }
    if steps.is_empty() {
        eprint!("{HELP}");
        return ExitCode::from(2);
    }
    for step in steps {
        if let Err(why) = step() {
            eprintln!("xtask: FAILED: {why}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Runs cargo, its output going where ours goes.
fn cargo(args: &[&str]) -> Step {
    println!("xtask: cargo {}", args.join(" "));
    let status = Command::new(env!("CARGO")).args(args).status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {}: {status}", args.join(" "))) }
}

fn test() -> Step {
    guest::need_qemu();
    suites::run()
}

fn lint() -> Step {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo(&[
        "clippy",
        "--package",
        "qspinlock",
        "--all-targets",
        "--features",
        "portable,stats",
        "--",
        "-D",
        "warnings",
    ])?;
    cargo(&["clippy", "--package", "qspinlock", "--no-default-features", "--", "-D", "warnings"])?;
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("RUSTDOCFLAGS", "-D warnings") };
    cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"])?;
    guest::lint()?;
    house::check()
}

fn build() -> Step {
    let bare = ["build", "--package", "qspinlock", "--no-default-features"];
    cargo(&bare)?;
    cargo(&[&bare[..], &["--features", "lock_api", "--example", "kernel"]].concat())?;
    cargo(&["build", "--package", "qspinlock", "--no-default-features", "--features", "std"])?;
    guest::build()
}

fn smoke() -> Step {
    guest::need_qemu();
    cargo(&["run", "--release", "--", "probe"])?;
    let torture = |args: &[&str]| cargo(&[&["run", "--release", "--", "torture", "--seconds", "4"], args].concat());
    torture(&["--lock", "native"])?;
    torture(&["--lock", "parking"])?;
    torture(&["--lock", "paravirt"])?;
    torture(&["--lock", "parking-exact", "--stall-seconds", "4"])?;
    torture(&["--lock", "parking-exact", "--stall-seconds", "4", "--profile", "crowd"])?;
    cargo(&["run", "--release", "--", "check", "--all"])?;
    cargo(&["run", "--release", "--", "check", "--weaken"])?;
    // On the emulator, which is the same everywhere.
    let boot = |args: &[&str]| cargo(&[&["run", "--release", "--", "boot", "--accel", "tcg"], args].concat());
    boot(&["--matrix"])?;
    boot(&["--cpus", "16", "--nodes", "4", "--append", "ms=50"])?;
    cargo(&["run", "--release", "--", "bench", "--quick"])
}
