//! The machine: which CPUs are ours, staying on one, and how far apart two of them are now.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::clock::{Clock, ticks};
use super::verdict::median;

/// On a line of its own, and not in the pair of lines that a prefetcher fetches together.
#[repr(align(128))]
pub(super) struct Line<T>(pub(super) T);

/// The CPUs that this process may run on.
pub(super) fn allowed_cpus() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect(),
        Err(_) => vec![0],
    }
}

/// The CPUs in the order in which threads are placed on them: first one of each core, then their siblings.
pub(super) fn placing_order(cpus: &[usize]) -> Vec<usize> {
    let topology = |cpu: usize, what: &str| {
        fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/{what}")).unwrap_or_default()
    };
    let mut seen = Vec::new();
    let (mut firsts, mut siblings) = (Vec::new(), Vec::new());
    for &cpu in cpus {
        let core = (topology(cpu, "physical_package_id"), topology(cpu, "core_id"));
        // Unknown is not the same core.
        if core.1.is_empty() || !seen.contains(&core) {
            seen.push(core);
            firsts.push(cpu);
        } else {
            siblings.push(cpu);
        }
    }
    firsts.append(&mut siblings);
    firsts
}

/// Keeps the calling thread on `cpu`.
pub(super) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = sched_setaffinity(None, &set) {
        // A measurement on other CPUs than it says is worse than none; the parent reports a child that dies.
        panic!("cannot stay on CPU {cpu}: {error}");
    }
}

/// Ticks that a line takes from one CPU of `pair` to the other, as of now: the median of several short ping-pongs.
pub(super) fn transfer_ticks(pair: (usize, usize)) -> f64 {
    const BATCHES: usize = 15;
    const ROUND_TRIPS: usize = 200;
    let line = Line(AtomicU32::new(0));
    let pass = |from, to| {
        // By compare-and-swap alone: a load first would fetch the line twice, to read it and then to own it.
        while line.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_err() {}
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(pair.1);
            (0..BATCHES * ROUND_TRIPS).for_each(|_| pass(1, 0));
        });
        let timed = scope.spawn(|| {
            pin(pair.0);
            let batch = |_| {
                let start = ticks();
                (0..ROUND_TRIPS).for_each(|_| pass(0, 1));
                (ticks() - start) as f64 / (2 * ROUND_TRIPS) as f64
            };
            median((0..BATCHES).map(batch).collect()).unwrap_or(0.0)
        });
        timed.join().expect("the probe does not panic")
    })
}

/// The machine in words, for the report.
pub(super) fn describe(clock: Clock, cpus: &[usize]) -> Vec<(&'static str, String)> {
    let mut facts = vec![("CPU", cpu_name())];
    let count = std::thread::available_parallelism().map_or(cpus.len(), usize::from);
    facts.push(("CPUs for this process", format!("{count} (numbers {})", list(cpus))));
    if let Some(hypervisor) = hypervisor() {
        facts.push(("Hypervisor", hypervisor));
    }
    let uname = rustix::system::uname();
    facts.push(("Kernel", format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy())));
    let (mhz, step) = (clock.ticks_per_s / 1e6, clock_step());
    facts.push(("Clock", format!("{mhz:.0} MHz, in steps of {step} ({:.1} ns)", clock.ns(step as f64))));
    facts.push(("Lock's low byte", qspinlock::atomic::LOW_BYTE.to_owned()));
    facts.push(("Build", if cfg!(debug_assertions) { "debug: figures mean nothing" } else { "release" }.to_owned()));
    facts
}

/// The step that the tick counter makes most often when read again and again: no single wait is known better.
fn clock_step() -> u64 {
    let mut last = ticks();
    let mut times_seen = std::collections::BTreeMap::<u64, u32>::new();
    for _ in 0..10_000 {
        let now = ticks();
        let step = now.saturating_sub(std::mem::replace(&mut last, now));
        *times_seen.entry(step).or_default() += 1;
    }
    times_seen.remove(&0);
    times_seen.into_iter().max_by_key(|&(_, times)| times).map_or(1, |(step, _)| step)
}

fn list(cpus: &[usize]) -> String {
    let names: Vec<_> = cpus.iter().take(16).map(ToString::to_string).collect();
    names.join(", ") + if cpus.len() > 16 { ", ..." } else { "" }
}

#[cfg(target_arch = "x86_64")]
fn cpu_name() -> String {
    let cpuid = raw_cpuid::CpuId::new();
    let brand = cpuid.get_processor_brand_string().map(|b| b.as_str().trim().to_owned());
    let invariant = cpuid.get_advanced_power_mgmt_info().is_some_and(|info| info.has_invariant_tsc());
    let name = brand.filter(|b| !b.is_empty()).unwrap_or_else(|| "unknown".to_owned());
    if invariant { name } else { format!("{name} (its TSC is not said to be invariant: doubt the times)") }
}

#[cfg(target_arch = "x86_64")]
fn hypervisor() -> Option<String> {
    let info = raw_cpuid::CpuId::new().get_hypervisor_info()?;
    Some(format!("{:?}", info.identify()))
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_name() -> String {
    std::env::consts::ARCH.to_owned()
}

#[cfg(not(target_arch = "x86_64"))]
fn hypervisor() -> Option<String> {
    None
}
