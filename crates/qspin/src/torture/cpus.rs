//! How many CPUs a run may use.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::failure::Failure;

/// Known combinations of threads and CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Profile {
    /// 8 threads on 1 CPU: whoever waits awake keeps the owner from its CPU
    OneCpu,
    /// 64 threads on 2 CPUs
    Crowd,
}

impl Profile {
    pub(super) const fn threads(self) -> u64 {
        match self {
            Self::OneCpu => 8,
            Self::Crowd => 64,
        }
    }

    pub(super) const fn cpus(self) -> u64 {
        match self {
            Self::OneCpu => 1,
            Self::Crowd => 2,
        }
    }
}

/// Keeps this process, which has one thread, to the first `wanted` of the CPUs that it may use.
pub(super) fn restrict(wanted: u64) -> Result<(), Failure> {
    let failed = |what: &str, error| Failure::failed(format!("cannot {what} this process: {error}"));
    let allowed = sched_getaffinity(None).map_err(|error| failed("see the CPUs of", error))?;
    if wanted > u64::from(allowed.count()) {
        return Err(Failure::usage(format!(
            "{wanted} CPUs are asked for, but this process may use {}; ask for fewer with --cpus",
            allowed.count()
        )));
    }
    let mut some = CpuSet::new();
    (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).take(wanted as usize).for_each(|cpu| some.set(cpu));
    sched_setaffinity(None, &some).map_err(|error| failed("set the CPUs of", error))
}
