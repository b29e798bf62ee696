//! `qspin boot`: the locks in a kernel, which chooses how they wait before its second CPU starts.

mod accel;
mod log;
mod machine;
mod matrix;
mod once;
mod plan;
mod qemu;
mod report;
mod source;

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;

use self::accel::Accel;
use self::machine::{LONGEST_LINE, MOST_CPUS, Machine};
use self::once::Boot;
use self::plan::Planned;
use self::report::Outcome;
use self::source::Source;
use crate::failure::Failure;
use crate::files::JsonLines;
use crate::ui::{self, Tone};

const EXAMPLES: &str = "\
Examples:
  qspin boot                             8 CPUs, 2 memory nodes, every test of the kernel's
  qspin boot --cpus 16 --nodes 4 --append ms=1000
                                         a larger machine, longer phases
  qspin boot --append 'test=none qspinlock=numa'
                                         what is chosen, and no tests
  qspin boot --append 'test=none cpuid=40000000:40000010,61774d56,4d566572,65726177'
                                         the same where VMware seems to be beneath
  qspin boot --matrix                    every kind of machine, and the choice on each
  qspin boot --matrix --repeat 100 --json boots.jsonl
  qspin boot --kernel guest              an image that has been built already

Words for --append:
  qspinlock=WISHES      how locks wait: words as in QSPINLOCK, with commas between
  nopvspin              the plain queue under every hypervisor
  numa_spinlock=on, off or auto
  cpuid=LEAF:EAX,EBX,ECX,EDX
                        what CPUID seems to say; hexadecimal, and - for as it is
  maxcpus=N             start no more than so many CPUs
  pretend=NAME,...      no-slots: room for two CPUs only; no-low-memory: none to start other CPUs from
  test=NAME,...         which tests; none with test=none
  ms=N                  how long each phase of a test lasts, in milliseconds
A word that makes no sense is ignored with a line in the log.

Exit codes: 0 passed, 1 a boot failed, hung, or could not be made, 2 wrong usage.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// CPUs, up to 64
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = cpus)]
    cpus: u32,

    /// Memory nodes [default: 2, or 1 with one CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    nodes: Option<u32>,

    /// The kernel's command line
    #[arg(long, value_name = "STRING", default_value = "", hide_default_value = true, value_parser = command_line)]
    append: String,

    /// What executes the kernel [default: kvm where it is there and boots the kernel, else tcg]
    #[arg(long, value_enum, value_name = "NAME")]
    accel: Option<Accel>,

    /// A boot that does not get on for so long is hung, one that lasts ten times as long is slow; either is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,

    /// Boot on each kind of machine, and see that the right lock is chosen on each
    #[arg(long, conflicts_with_all = ["cpus", "nodes", "append"])]
    matrix: bool,

    /// So many times. Only logs of those that fail are shown
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    repeat: u64,

    /// Write each boot to FILE as a line of JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Boot this image [default: build the one in the repository that this is run in]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
}

fn cpus(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(cpus @ 1..=MOST_CPUS) => Ok(cpus),
        Ok(0) => Err("a machine has 1 CPU at least".to_owned()),
        Ok(_) => Err(format!("the kernel has room for {MOST_CPUS} CPUs")),
        Err(_) => Err(format!("it must be a number from 1 to {MOST_CPUS}")),
    }
}

fn command_line(text: &str) -> Result<String, String> {
    if text.len() < LONGEST_LINE {
        return Ok(text.to_owned());
    }
    Err(format!("the kernel looks at no more than {} bytes, and this has {}", LONGEST_LINE - 1, text.len()))
}

impl Args {
    fn plan(&self) -> Result<Vec<Planned>, Failure> {
        if self.matrix {
            return Ok(Planned::matrix());
        }
        let (cpus, nodes) = (self.cpus, self.nodes.unwrap_or(2.min(self.cpus)));
        if nodes > cpus {
            return Err(Failure::usage(format!(
                "--nodes {nodes}: each memory node has a CPU at least, and there are {cpus}; see --cpus"
            )));
        }
        Ok(vec![Planned::one(Machine { cpus, nodes, append: self.append.clone() })])
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let plan = args.plan()?;
    accel::check(args.accel)?;
    let source = Source::find(args.kernel.as_deref())?;
    let json = args.json.as_deref().map(JsonLines::create).transpose()?;
    let qemu = qemu::find()?;
    let bar = ui::spinner();
    bar.set_message("building the kernel");
    let image = source.build()?;
    bar.set_message("trying KVM");
    let (accel, why) = accel::settle(args.accel, &qemu, &image);
    bar.finish_and_clear();
    let why = if why.is_empty() { why } else { format!(" ({why})") };
    ui::sayln!("{}", ui::paint(&format!("{}, by {}{why}", image.display(), accel.name()), Tone::Dim));

    let booter = Booter { qemu: &qemu, image: &image, accel, limit: Duration::from_secs(args.timeout) };
    if args.matrix || args.repeat > 1 { booter.many(&plan, args.repeat, json) } else { booter.one(&plan[0], json) }
}

/// What all boots have in common.
struct Booter<'a> {
    qemu: &'a Path,
    image: &'a Path,
    accel: Accel,
    limit: Duration,
}

impl Booter<'_> {
    fn boot(&self, machine: &Machine, listen: impl FnMut(&log::Log, Option<&str>)) -> Result<Boot, Failure> {
        let mut command = qemu::command(self.qemu, self.accel, machine, self.image);
        let boot = once::boot(&mut command, self.limit, listen);
        boot.map_err(|e| Failure::failed(format!("cannot run {}: {e}", self.qemu.display())))
    }

    /// One boot, with its log.
    fn one(&self, planned: &Planned, json: Option<JsonLines>) -> Result<(), Failure> {
        let bar = ui::spinner();
        bar.set_message("booting");
        let boot = self.boot(&planned.machine, |log, line| match line {
            Some(line) => bar.suspend(|| ui::sayln!("{line}")),
            None => progress(&bar, log),
        })?;
        bar.finish_and_clear();
        let wrong = planned.wrong(&boot);
        if let Some(mut json) = json {
            json.write(&report::json(planned, 1, &boot, self.accel, &wrong))?;
        }
        if let Some(figures) = report::figures(&boot.log) {
            ui::sayln!("\n{figures}");
        }
        boot.complaints.lines().for_each(|line| eprintln!("QEMU: {line}"));
        ui::sayln!("\n{}", report::summary(&boot));
        if wrong.is_empty() { Ok(()) } else { Err(Failure::failed(wrong.join("; "))) }
    }

    /// Many boots, as a table.
    fn many(&self, plan: &[Planned], rounds: u64, mut json: Option<JsonLines>) -> Result<(), Failure> {
        let mut outcomes: Vec<_> = plan.iter().map(Outcome::new).collect();
        let bar = ui::progress(rounds * plan.len() as u64);
        for round in 1..=rounds {
            for outcome in &mut outcomes {
                let planned = outcome.planned;
                bar.set_message(planned.name.clone());
                let boot = self.boot(&planned.machine, |log, line| {
                    if line.is_none() {
                        bar.set_message(format!("{}: {}", planned.name, at(log)));
                    }
                })?;
                let wrong = outcome.add(&boot, self.accel);
                if let Some(json) = &mut json {
                    json.write(&report::json(planned, round, &boot, self.accel, &wrong))?;
                }
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        ui::sayln!("\n{}", report::table(&outcomes));
        outcomes.iter().flat_map(Outcome::failures).for_each(|failure| ui::sayln!("\n{failure}"));
        let boots: u64 = outcomes.iter().map(Outcome::boots).sum();
        let failed: u64 = outcomes.iter().map(Outcome::failed).sum();
        if failed > 0 {
            return Err(Failure::failed(format!("{failed} of {boots} boots were not as they must be")));
        }
        ui::sayln!("\n{}", ui::paint(&format!("{boots} boots, all as they must be"), Tone::Good));
        Ok(())
    }
}

/// The kernel's counter: in the bar, or as a line where there is none.
fn progress(bar: &ProgressBar, log: &log::Log) {
    if bar.is_hidden() {
        ui::sayln!("guest: progress {}", log.progress.unwrap_or_default());
    } else {
        bar.set_message(at(log));
    }
}

/// How far a boot is.
fn at(log: &log::Log) -> String {
    let test = log.test.as_ref().map_or("booting".to_owned(), |test| format!("test {test}"));
    format!("{test}, progress {}", log.progress.unwrap_or_default())
}
