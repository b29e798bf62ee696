//! What CI runs; every step also runs by hand: `cargo xtask` lists them.

mod house;
mod suites;

use std::process::{Command, ExitCode};

const HELP: &str = "\
usage: cargo xtask STEP

  test    every test of the workspace, in both forms of the lock word
  lint    formatting, clippy and docs with warnings as errors, the rules of the house
  build   the builds that no test makes: without std, other feature sets
  smoke   the main job, shortened, and a short torture run
  ci      all of them, as CI does
";

/// A step that failed, in words.
type Step = Result<(), String>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let steps: &[fn() -> Step] = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["test"] => &[suites::run],
        ["lint"] => &[lint],
        ["build"] => &[build],
        ["smoke"] => &[smoke],
        ["ci"] => &[lint, build, smoke, suites::run],
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
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

fn lint() -> Step {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    cargo(&["clippy", "--package", "qspinlock", "--features", "portable", "--", "-D", "warnings"])?;
    cargo(&["clippy", "--package", "qspinlock", "--no-default-features", "--", "-D", "warnings"])?;
    // Safe: this process has one thread.
    // SAFETY: no other thread reads the environment.
    unsafe { std::env::set_var("RUSTDOCFLAGS", "-D warnings") };
    cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"])?;
    house::check()
}

fn build() -> Step {
    let bare = ["build", "--package", "qspinlock", "--no-default-features"];
    cargo(&bare)?;
    cargo(&[&bare[..], &["--features", "lock_api", "--example", "bare_machine"]].concat())?;
    cargo(&["build", "--package", "qspinlock", "--no-default-features", "--features", "std"])
}

fn smoke() -> Step {
    cargo(&["run", "--release", "--", "probe"])?;
    cargo(&["run", "--release", "--", "torture", "--seconds", "5"])?;
    cargo(&["run", "--release", "--", "bench", "--quick"])
}
