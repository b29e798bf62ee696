//! What this process can find out about itself, before `main` and without an allocation.
//!
//! Threads are preemptible, and sleep; nothing has to be asked for that, so a process starts without a call to the system
//! here. Only for a program that says that its CPUs are its own are they counted, and its memory nodes.

use crate::select::{Beneath, Facts, Setting, Wishes};

/// What decides between slow paths.
pub(super) fn gather(wishes: Wishes) -> Facts {
    let mut facts = Facts::new(Setting::UserSpace, 0);
    facts.wishes = wishes;
    if wishes.slow_path.is_none() && wishes.dedicated {
        facts.hypervisor = Beneath::glance();
        here::count(&mut facts);
    }
    facts
}

/// How many threads this process has now. `None`: cannot be told.
pub(crate) fn threads() -> Option<usize> {
    here::threads()
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod here {
    use core::fmt::Write as _;
    use std::fs::File;
    use std::io::Read as _;

    use rustix::thread::{CpuSet, sched_getaffinity};

    use super::super::fixed::Fixed;
    use crate::select::Facts;

    /// The CPUs that the process may use, and the memory nodes that have any of them.
    pub(super) fn count(facts: &mut Facts) {
        // Fails with more CPUs than the set has room for.
        let Ok(usable) = sched_getaffinity(None) else { return };
        facts.cpus = usable.count();
        // A guest's nodes are not trusted: no need to read them.
        if !facts.hypervisor.is_there() {
            facts.domains = domains(&usable).unwrap_or(0);
        }
    }

    /// Two are as good as many, and a file each.
    const ENOUGH: u32 = 2;

    fn domains(usable: &CpuSet) -> Option<u32> {
        let mut found = 0;
        read("/sys/devices/system/node/has_cpu", |nodes| {
            each(nodes, &mut |node| {
                let mut path = Fixed::<64>::new();
                let has_ours = write!(path, "/sys/devices/system/node/node{node}/cpulist").is_ok()
                    && read(path.text(), |cpus| {
                        each(cpus, &mut |cpu| cpu < CpuSet::MAX_CPU as u32 && usable.is_set(cpu as usize))
                    }) == Some(true);
                found += u32::from(has_ours);
                found >= ENOUGH
            })
        })?;
        Some(found)
    }

    /// A short file. What does not fit is left out.
    fn read<R>(path: &str, look: impl FnOnce(&str) -> R) -> Option<R> {
        let mut bytes = [0; 1024];
        let len = File::open(path).ok()?.read(&mut bytes).ok()?;
        core::str::from_utf8(&bytes[..len]).ok().map(look)
    }

    /// The numbers of a list such as `0-3,8`, until one is what was looked for; then true. Stops at what makes no sense.
    fn each(list: &str, is_it: &mut impl FnMut(u32) -> bool) -> bool {
        for item in list.trim_end().split(',') {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (Ok(first), Ok(last)) = (first.parse(), last.parse::<u32>()) else { return false };
            if (first..=last).any(&mut *is_it) {
                return true;
            }
        }
        false
    }

    pub(super) fn threads() -> Option<usize> {
        Some(std::fs::read_dir("/proc/self/task").ok()?.count())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn lists() {
            let numbers = |list| {
                let mut seen = Vec::new();
                each(list, &mut |n| {
                    seen.push(n);
                    n == 9
                });
                seen
            };
            assert_eq!(numbers("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
            assert_eq!(numbers("7-12,20"), [7, 8, 9], "found");
            assert_eq!(numbers("1,x,3"), [1]);
            assert_eq!(numbers("\n"), [0; 0]);
        }

        #[test]
        fn this_process() {
            let mut facts = Facts::new(crate::select::Setting::UserSpace, 0);
            facts.hypervisor = crate::select::Hypervisor::None;
            count(&mut facts);
            let cpus = std::thread::available_parallelism().expect("Linux tells").get();
            assert!(facts.cpus as usize >= cpus, "a quota may leave less");
            assert!(facts.domains <= ENOUGH);
            let is_told = std::path::Path::new("/sys/devices/system/node/has_cpu").exists();
            assert_eq!(facts.domains > 0, is_told);
            assert!(threads().expect("there is /proc") >= 1);
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod here {
    use crate::select::Facts;

    pub(super) fn count(facts: &mut Facts) {
        facts.cpus = std::thread::available_parallelism().map_or(0, |cpus| cpus.get() as u32);
    }

    pub(super) fn threads() -> Option<usize> {
        None
    }
}
