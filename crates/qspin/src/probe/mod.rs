//! `qspin probe`: what this machine is, what of it this process may use, and which slow path fits.

mod cgroup;
mod clock;
mod cpulist;
mod domains;
mod facts;
mod hypervisor;
mod show;
mod topology;
mod transfer;
mod tree;

use std::path::{Path, PathBuf};

use qspinlock::select::{Choice, Setting, choose};
use serde::Serialize;

use self::cpulist::CpuList;
use self::facts::{Known, Waiters};
use self::hypervisor::Beneath;
use self::tree::Tree;
use crate::failure::Failure;
use crate::ui;

const EXAMPLES: &str = "\
Examples:
  qspin probe               what there is, and which lock fits
  qspin probe --json        the same, for a program
  qspin probe --full        measure also between more than 16 CPUs
  taskset -c 0 qspin probe  what a process with one CPU gets
  QSPINLOCK=dedicated qspin probe
                            what a program gets that owns its CPUs
  QSPINLOCK_DOMAIN=l3 qspin probe
                            count last-level caches, not memory nodes
  echo '{\"hypervisor\": \"kvm\", \"wait_kick\": true, \"kernel\": {\"cpus\": 64}}' | qspin probe --facts -
                            what another machine would get

Facts are a JSON object, as \"facts\" is in what --json prints; all that it prints will do. This machine's QSPINLOCK says
nothing of another one. What is left out, or null, is unknown:
  hypervisor                none, kvm, xen, hyper-v, vmware, tcg or other
  wait_kick, dedicated_hint of KVM: true or false
  local_apic, cluster_ipi, guest_idle
                            of Hyper-V: true or false
  process, kernel           who waits: an object of
    cpus, domains           how many CPUs, and domains that have any of them: memory nodes, or last-level caches
                            if these are to count
    wishes                  words as in QSPINLOCK: a slow path or auto; nopvspin; dedicated; numa=on, off, auto

What cannot be found out is shown as unknown (null in JSON), never guessed.";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,

    /// Measure line transfers also between more than 16 CPUs
    #[arg(long, conflicts_with = "no_transfer")]
    full: bool,

    /// Measure no line transfers
    #[arg(long)]
    no_transfer: bool,

    /// Say what a machine gets of which this file holds the facts, rather than this one. - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["full", "no_transfer", "root"])]
    facts: Option<PathBuf>,

    /// Describe the machine whose /proc and /sys are copied below this directory. Nothing is measured then
    #[arg(long, value_name = "DIR", hide = true)]
    root: Option<PathBuf>,
}

/// All that was found out. `None` is unknown.
#[derive(Serialize)]
struct Probe {
    model: Option<String>,
    cpus: topology::Cpus,
    nodes: Option<Vec<topology::Node>>,
    l3_domains: Option<Vec<CpuList>>,
    /// What counts as near for the locks of this process.
    lock_domains: domains::Domains,
    hypervisor: Beneath,
    tsc: clock::Tsc,
    process: Process,
    /// `None`: not measured.
    line_transfer: Option<Vec<transfer::Pair>>,
    facts: Known,
    choices: Choices,
    /// `None`: another machine.
    patched: Option<Patched>,
    warnings: Vec<String>,
}

/// Whether the locks of this process follow the choice by what their code is.
#[derive(Serialize)]
struct Patched {
    /// Whether there is patching in this build.
    available: bool,
    sites: usize,
    following: usize,
    looking_up: usize,
    unknown: usize,
    /// The error number with which the system refused.
    refused: Option<i32>,
    #[serde(skip)]
    text: String,
}

impl Patched {
    fn ask() -> Self {
        let status = qspinlock::patch::status();
        Self {
            available: status.available,
            sites: status.sites,
            following: status.following,
            looking_up: status.looking_up,
            unknown: status.unknown,
            refused: status.refused,
            text: status.to_string(),
        }
    }
}

#[derive(Serialize)]
struct Process {
    affinity: Option<CpuList>,
    cgroup: Option<cgroup::Limits>,
    /// CPUs in all of these that are online.
    usable: Option<CpuList>,
}

#[derive(Serialize)]
struct Choices {
    /// What this process gets.
    process: Chosen,
    /// What a kernel on this machine would get.
    kernel: Chosen,
}

#[derive(Serialize)]
struct Chosen {
    slow_path: &'static str,
    reason: &'static str,
}

impl From<Choice> for Chosen {
    fn from(choice: Choice) -> Self {
        Self { slow_path: choice.slow_path.name(), reason: choice.reason.text() }
    }
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if let Some(root) = args.root.as_ref().filter(|root| !root.is_dir()) {
        return Err(Failure::usage(format!("--root: {} is not a directory", root.display())));
    }
    if let Some(file) = &args.facts {
        return elsewhere(file, args.json);
    }
    let probe = Probe::take(args);
    if args.json {
        ui::sayln!("{}", serde_json::to_string_pretty(&probe).expect("plain data"));
    } else {
        ui::say!("{}", show::to_text(&probe));
    }
    Ok(())
}

/// What another machine would get.
fn elsewhere(file: &Path, json: bool) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Elsewhere {
        facts: Known,
        choices: Choices,
    }
    let facts = Known::read(file)?;
    let choices = choices(&facts);
    if json {
        let all = Elsewhere { facts, choices };
        ui::sayln!("{}", serde_json::to_string_pretty(&all).expect("plain data"));
    } else {
        ui::sayln!("{}\n\n{}", show::facts(&facts), show::choices(&choices, "a process there", "a kernel there"));
    }
    Ok(())
}

impl Probe {
    fn take(args: &Args) -> Self {
        let here = args.root.is_none();
        let tree = Tree::new(args.root.clone().unwrap_or_else(|| "/".into()));
        let cpus = topology::cpus(&tree);
        let process = Process::find(&tree, here, cpus.online.as_ref());
        // The CPU can only be asked about the machine that it is in.
        let hypervisor = if here { Beneath::ask_cpu() } else { Beneath::from_files(&tree) };
        let tsc = if here { clock::ask_cpu() } else { clock::Tsc::default() };
        let nodes = topology::nodes(&tree);
        let lock_domains = domains::Domains::find(args.root.as_deref().unwrap_or(Path::new("/")));
        lock_domains.warning().into_iter().for_each(|warning| tree.warn(warning));
        let facts = known(&cpus, nodes.as_deref(), &hypervisor, &process, &lock_domains);
        let mut choices = choices(&facts);
        if here {
            // What it really has.
            choices.process = qspinlock::choice().into();
        }
        Self {
            model: tree.field("/proc/cpuinfo", "model name"),
            l3_domains: cpus.online.as_ref().and_then(|online| topology::l3_domains(&tree, online)),
            line_transfer: process.usable.as_ref().filter(|_| here).and_then(|usable| line_transfer(args, usable)),
            facts,
            lock_domains,
            choices,
            patched: here.then(Patched::ask),
            warnings: tree.into_warnings(),
            cpus,
            nodes,
            hypervisor,
            tsc,
            process,
        }
    }
}

impl Process {
    fn find(tree: &Tree, here: bool, online: Option<&CpuList>) -> Self {
        let affinity = here.then(ask_affinity).flatten().or_else(|| {
            let file = "/proc/self/status";
            tree.field(file, "Cpus_allowed_list").and_then(|text| tree.parse_list(file, &text))
        });
        let cgroup = cgroup::limits(tree);
        let restrict = |cpus: CpuList, by: Option<&CpuList>| by.map_or(cpus.clone(), |by| cpus.and(by));
        let usable = affinity
            .clone()
            .map(|cpus| restrict(restrict(cpus, online), cgroup.as_ref().and_then(|c| c.cpuset.as_ref())));
        Self { affinity, cgroup, usable }
    }
}

/// `None` on a machine with more CPUs than the set has room for: the file says it as well.
fn ask_affinity() -> Option<CpuList> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    Some((0..rustix::thread::CpuSet::MAX_CPU as u32).filter(|&cpu| set.is_set(cpu as usize)).collect())
}

fn line_transfer(args: &Args, usable: &CpuList) -> Option<Vec<transfer::Pair>> {
    if args.no_transfer || usable.len() < 2 || (usable.len() > transfer::FEW_CPUS && !args.full) {
        return None;
    }
    let bar = ui::progress(transfer::steps(usable.len()));
    let pairs = transfer::measure(usable.as_slice(), || bar.inc(1));
    bar.finish_and_clear();
    Some(pairs)
}

fn choices(facts: &Known) -> Choices {
    let choose = |setting| choose(&facts.of(setting)).into();
    Choices { process: choose(Setting::UserSpace), kernel: choose(Setting::Kernel) }
}

/// What is known of who would wait.
fn known(
    cpus: &topology::Cpus,
    nodes: Option<&[topology::Node]>,
    beneath: &Beneath,
    process: &Process,
    domains: &domains::Domains,
) -> Known {
    let waiters = |cpus: Option<&CpuList>, wishes| Waiters {
        cpus: cpus.map(|cpus| cpus.len() as u32).filter(|&cpus| cpus > 0),
        domains: cpus.zip(nodes).map(|(cpus, nodes)| {
            // Nodes that have none of the CPUs are of no interest to a lock.
            let near = |node: &&topology::Node| node.cpus.as_ref().is_some_and(|near| near.and(cpus).len() > 0);
            nodes.iter().filter(near).count().max(1) as u32
        }),
        wishes,
    };
    // A kernel counts those that may come as well.
    let possible = cpus.possible.as_ref().or(cpus.online.as_ref());
    let said = qspinlock::environment().ok().and_then(|said| said.said_wishes());
    Known {
        hypervisor: beneath.kind,
        wait_kick: beneath.wait_kick,
        dedicated_hint: beneath.dedicated_hint,
        local_apic: beneath.local_apic,
        cluster_ipi: beneath.cluster_ipi,
        guest_idle: beneath.guest_idle,
        process: Waiters {
            domains: process.usable.as_ref().and_then(|cpus| domains.of(cpus)),
            ..waiters(process.usable.as_ref(), said)
        },
        kernel: waiters(possible, None),
    }
}
