//! What this process can find out about itself, before `main` and without an allocation.
//!
//! Threads are preemptible, and sleep; nothing has to be asked for that, so a process starts without a call to the system
//! here. Only for a program that says that its CPUs are its own are they counted, and its domains.

use super::domains::Domains;
use crate::select::{Beneath, Facts, Setting, Wishes};

/// What decides between slow paths.
pub(super) fn gather(wishes: Wishes, domains: Domains) -> Facts {
    let mut facts = Facts::new(Setting::UserSpace, 0);
    facts.wishes = wishes;
    if wishes.slow_path.is_none() && wishes.dedicated {
        facts.hypervisor = Beneath::glance();
        here::count(&mut facts, domains);
    }
    facts
}

/// How many threads this process has now. `None`: cannot be told.
pub(crate) fn threads() -> Option<usize> {
    here::threads()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod here {
    use rustix::thread::{CpuSet, sched_getaffinity};

    use super::super::domains::{self, Domains};
    use crate::select::Facts;

    /// The CPUs that the process may use, and the domains that have any of them.
    pub(super) fn count(facts: &mut Facts, domains: Domains) {
        // Fails with more CPUs than the set has room for.
        let Ok(usable) = sched_getaffinity(None) else { return };
        facts.cpus = usable.count();
        // A guest's domains are not trusted: no need to read them.
        if !facts.hypervisor.is_there() {
            let is_ours = |cpu| cpu < CpuSet::MAX_CPU as u32 && usable.is_set(cpu as usize);
            facts.domains = domains::count("/", domains, is_ours).unwrap_or(0);
        }
    }

    pub(super) fn threads() -> Option<usize> {
        Some(std::fs::read_dir("/proc/self/task").ok()?.count())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn this_process() {
            let mut facts = Facts::new(crate::select::Setting::UserSpace, 0);
            facts.hypervisor = crate::select::Hypervisor::None;
            count(&mut facts, Domains::Nodes);
            let cpus = std::thread::available_parallelism().expect("Linux tells").get();
            assert!(facts.cpus as usize >= cpus, "a quota may leave less");
            let is_told = std::path::Path::new("/sys/devices/system/node/has_cpu").exists();
            assert_eq!(facts.domains > 0, is_told);
            assert!(threads().expect("there is /proc") >= 1);
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod here {
    use super::super::domains::Domains;
    use crate::select::Facts;

    pub(super) fn count(facts: &mut Facts, _domains: Domains) {
        facts.cpus = std::thread::available_parallelism().map_or(0, |cpus| cpus.get() as u32);
    }

    pub(super) fn threads() -> Option<usize> {
        None
    }
}
