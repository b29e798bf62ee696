//! `qspin`: probe a machine, and measure and torture the qspinlock family on it.

mod bench;
mod boot;
mod check;
mod draw;
mod failure;
mod files;
mod locks;
mod page;
mod probe;
mod sim;
mod torture;
mod ui;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use qspinlock::resilient::{self, Policy};

use crate::failure::Failure;

/// Queued spinlocks on this machine: what it is, how fast they are, and whether they hold.
#[derive(Parser)]
#[command(name = "qspin", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 a run failed (what was measured so far is kept), 2 wrong usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show CPUs, memory nodes, caches, hypervisor, what this process may use, and which lock fits
    Probe(probe::Args),
    /// Measure the locks beside those people use today
    Bench(bench::Args),
    /// Explore every execution of the lock code under a weak memory
    Check(check::Args),
    /// Simulate the locks on a machine that is not here
    Sim(sim::Args),
    /// Boot a test kernel that takes the locks, in QEMU
    Boot(boot::Args),
    /// Try to break a lock
    Torture(torture::Args),
    /// See what this library does
    #[command(subcommand)]
    Demo(Demo),
}

#[derive(Subcommand)]
enum Demo {
    /// Threads that wait for each other in a circle: who is told, what, and how soon
    Deadlock(torture::philosophers::Args),
}

fn main() -> ExitCode {
    // How resilient locks fail is what the commands are about, and not the environment's to say.
    resilient::set_policy(Policy::DEFAULT).expect("the default is sensible");
    let command = Cli::parse().command;
    match environment().and_then(|()| run(command)) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("qspin: {failure}");
            failure.exit_code()
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Probe(args) => probe::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => check::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Sim(args) => sim::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Boot(args) => boot::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Torture(args) => torture::run(&args),
        Command::Demo(Demo::Deadlock(args)) => torture::philosophers::run(&args),
    }
}

/// The library goes on with its defaults when its variable says nothing sensible; what is measured then would not be
/// what was asked for.
fn environment() -> Result<(), Failure> {
    qspinlock::environment().map(drop).map_err(|error| Failure::usage(error.to_string()))
}
