//! `qspin sim`: the locks on a machine that is not here.

mod plan;
mod report;
mod row;
mod table;
mod validate;

use std::path::PathBuf;

use clap::ValueEnum;
use qspinlock_vm::time::machines;
use qspinlock_vm::time::model::{Domain, Model, Placement};
use qspinlock_vm::time::run::LockKind;

use crate::failure::Failure;
use crate::files::{self, JsonLines};
use crate::ui::{self, Tone};

const EXAMPLES: &str = "\
Examples:
  qspin sim                                    the locks on a machine of four sockets, from one CPU to all
  qspin sim --machines                         the machines that are built in
  qspin sim --machine epyc-7742 --domain l3 --cpus 64,128
  qspin sim --machine epyc-7742 --show > mine.toml && qspin sim --machine mine.toml
  qspin sim --locks native,mcs --section 200 --think 500 --report sim.html
  qspin sim --locks native,paravirt --cpus 48 --overcommit 1.5
  qspin sim --validate                         simulated beside published, misses included

Virtual CPUs run the library's own lock code in virtual time. The same command gives the same figures everywhere.
What they may be believed for is in docs/simulator.md.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A built-in machine, or a file that describes one
    #[arg(long, value_name = "NAME|FILE", default_value = machines::DEFAULT)]
    machine: String,

    /// List the machines that are built in
    #[arg(long)]
    machines: bool,

    /// Print the file of a built-in machine, to begin one's own from
    #[arg(long, conflicts_with = "machines")]
    show: bool,

    /// Locks, the first of which the others are compared with [default: native, numa, test-and-set, ticket, mcs]
    #[arg(long, value_name = "NAME", value_delimiter = ',', alias = "lock")]
    locks: Vec<LockKind>,

    /// How many CPUs contend, one run each [default: powers of two, and all]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    cpus: Vec<u32>,

    /// Which CPUs these are
    #[arg(long, value_enum, default_value_t = PlacementArg::Fill)]
    placement: PlacementArg,

    /// Work with the lock held, beside the access to its lines, in nanoseconds
    #[arg(long, value_name = "NS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1_000_000_000))]
    section: u64,

    /// Work between a release and the next acquire, on average, in nanoseconds
    #[arg(long, value_name = "NS", default_value_t = 400, value_parser = clap::value_parser!(u64).range(..=1_000_000_000))]
    think: u64,

    /// Lines that each section reads and writes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=1024))]
    lines: u32,

    /// Runs of each, with other seeds; shown is the median
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    seeds: u32,

    /// Acquisitions by each CPU
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    acquisitions: u32,

    /// What the NUMA-aware lock takes for near, and what local hand-offs are counted by
    #[arg(long, value_enum, default_value_t = DomainArg::Node)]
    domain: DomainArg,

    /// How long the NUMA-aware lock prefers near waiters at most, in nanoseconds [default: the library's]
    #[arg(long, value_name = "NS")]
    threshold: Option<u32>,

    /// So many virtual CPUs on each physical one, above 1: a hypervisor preempts them
    #[arg(long, value_name = "R", value_parser = ratio)]
    overcommit: Option<f64>,

    /// With --overcommit: how long a virtual CPU runs before another has its turn, in nanoseconds [default: 6 ms]
    #[arg(long, value_name = "NS", requires = "overcommit", value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    slice: Option<u64>,

    /// With --overcommit: what a kick costs the kicker, in nanoseconds [default: 7.4 us]
    #[arg(long, value_name = "NS", requires = "overcommit", value_parser = clap::value_parser!(u64).range(..=10_000_000_000))]
    kick: Option<u64>,

    /// With --overcommit: from a kick until who was woken runs, in nanoseconds [default: 64 us]
    #[arg(long, value_name = "NS", requires = "overcommit", value_parser = clap::value_parser!(u64).range(..=10_000_000_000))]
    wake: Option<u64>,

    /// Write each row to FILE as a line of JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write a page with curves to FILE
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,

    /// Write the throughput curves alone to FILE; two counts of CPUs at least
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,

    /// Instead: published figures beside simulated ones
    #[arg(long, conflicts_with_all = ["locks", "cpus", "machines", "show", "overcommit", "json", "svg"])]
    validate: bool,

    /// With --validate: as Markdown, as it stands in the documentation
    #[arg(long, requires = "validate")]
    markdown: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PlacementArg {
    /// Core after core, socket after socket; second hardware threads last
    Fill,
    /// One on each socket in turn; second hardware threads last
    Spread,
}

#[derive(Clone, Copy, ValueEnum)]
enum DomainArg {
    /// The socket
    Node,
    /// The last-level cache
    L3,
}

impl Args {
    fn placement(&self) -> Placement {
        match self.placement {
            PlacementArg::Fill => Placement::Fill,
            PlacementArg::Spread => Placement::Spread,
        }
    }

    fn domain(&self) -> Domain {
        match self.domain {
            DomainArg::Node => Domain::Node,
            DomainArg::L3 => Domain::L3,
        }
    }
}

/// Virtual CPUs for each physical one.
fn ratio(text: &str) -> Result<f64, String> {
    let why = "a number above 1 and up to 100, such as 1.5";
    let value: f64 = text.parse().map_err(|_| why.to_owned())?;
    if value > 1.0 && value <= 100.0 { Ok(value) } else { Err(format!("it must be {why}")) }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if args.machines {
        ui::sayln!("{}", table::machines(&Model::built_ins()));
        return Ok(());
    }
    if args.show {
        let text = Model::text_of(&args.machine).ok_or_else(|| plan::unknown(&args.machine))?;
        ui::say!("{text}");
        return Ok(());
    }
    files::distinct(&[("--json", &args.json), ("--report", &args.report), ("--svg", &args.svg)])?;
    // Before anything is run: what took minutes must not be lost to a wrong path.
    let open = |path: &Option<PathBuf>| path.as_deref().map(files::open).transpose();
    if args.validate {
        let report = open(&args.report)?;
        let found = validate::run()?;
        if let Some(file) = report {
            files::fill(file, &found.page(), "the report")?;
        }
        ui::say!("{}", if args.markdown { found.markdown() } else { found.text() });
        return Ok(());
    }
    let plan = plan::plan(args)?;
    let (report, svg) = (open(&args.report)?, open(&args.svg)?);
    let mut json = args.json.as_deref().map(JsonLines::create).transpose()?;
    let groups = plan.run()?;
    if let Some(json) = &mut json {
        for row in groups.iter().flat_map(|group| &group.rows) {
            json.write(&row.json(&plan))?;
        }
    }
    if let Some(file) = svg {
        let curves = report::throughput(&groups)?
            .ok_or_else(|| Failure::usage("--svg draws curves: give --cpus two counts at least"))?;
        files::fill(file, &curves, "the chart")?;
    }
    if let Some(file) = report {
        files::fill(file, &report::page(&plan, &groups)?, "the report")?;
    }
    ui::sayln!("{}", ui::paint(&plan.to_string(), Tone::Dim));
    for group in &groups {
        ui::sayln!("\n{}\n{}", ui::heading(&group.title()), table::of(group, plan.overcommit.is_some()));
    }
    Ok(())
}
