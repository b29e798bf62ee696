//! What control groups leave to this process: CPU time and CPUs, versions 1 and 2.

use serde::Serialize;

use super::cpulist::CpuList;
use super::tree::Tree;

#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Limits {
    /// CPU time per time, the least of the group and those it is in. `None`: no limit was found.
    pub(super) quota_cpus: Option<f64>,
    /// Where the quota was found.
    pub(super) quota_from: Option<String>,
    /// CPUs that the group may use. `None`: no limit was found.
    pub(super) cpuset: Option<CpuList>,
}

/// A mounted hierarchy: where it is, and which group its top is.
struct Mount {
    at: String,
    top: String,
}

/// `None` if the groups of this process cannot be found out.
pub(super) fn limits(tree: &Tree) -> Option<Limits> {
    let (mounts, groups) = (tree.text("/proc/self/mountinfo")?, tree.text("/proc/self/cgroup")?);
    let mut limits = Limits::default();
    for line in groups.lines() {
        // "4:cpu,cpuacct:/some/group"; version 2 is "0::/some/group".
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
            tree.warn(format!("/proc/self/cgroup: '{}' is not understood", line.escape_debug()));
            continue;
        };
        let has = |name| controllers.split(',').any(|c| c == name);
        if controllers.is_empty() {
            let Some(mount) = find_mount(&mounts, "cgroup2", None) else { continue };
            for path in mount.chain(group) {
                limits.add_quota(tree, quota_v2(tree, &path), &path);
                limits.add_cpuset(tree.list(&format!("{path}/cpuset.cpus.effective")));
            }
        }
        if has("cpu")
            && let Some(mount) = find_mount(&mounts, "cgroup", Some("cpu"))
        {
            for path in mount.chain(group) {
                limits.add_quota(tree, quota_v1(tree, &path), &path);
            }
        }
        if has("cpuset")
            && let Some(mount) = find_mount(&mounts, "cgroup", Some("cpuset"))
        {
            for path in mount.chain(group) {
                let effective = tree.list(&format!("{path}/cpuset.effective_cpus"));
                limits.add_cpuset(effective.or_else(|| tree.list(&format!("{path}/cpuset.cpus"))));
            }
        }
    }
    Some(limits)
}

impl Limits {
    fn add_quota(&mut self, tree: &Tree, quota: Option<(f64, f64)>, path: &str) {
        let Some((time, period)) = quota else { return };
        if time <= 0.0 || period <= 0.0 {
            tree.warn(format!("{path}: a CPU quota of {time} in {period} makes no sense"));
            return;
        }
        let cpus = time / period;
        if self.quota_cpus.is_none_or(|least| cpus < least) {
            (self.quota_cpus, self.quota_from) = (Some(cpus), Some(path.to_owned()));
        }
    }

    /// A list that is empty restricts nothing: the group has not been given one.
    fn add_cpuset(&mut self, cpus: Option<CpuList>) {
        let Some(cpus) = cpus.filter(|cpus| cpus.len() > 0) else { return };
        self.cpuset = Some(match &self.cpuset {
            Some(before) => before.and(&cpus),
            None => cpus,
        });
    }
}

/// `cpu.max`: "50000 100000", or "max 100000".
fn quota_v2(tree: &Tree, path: &str) -> Option<(f64, f64)> {
    let file = format!("{path}/cpu.max");
    let text = tree.text(&file)?;
    let number = |text: &str| text.parse::<u64>().ok().map(|n| n as f64);
    match text.split(' ').collect::<Vec<_>>()[..] {
        ["max", period] if number(period).is_some() => None,
        [time, period] if number(time).is_some() && number(period).is_some() => Some((number(time)?, number(period)?)),
        _ => {
            tree.warn(format!("{file}: '{}' is not a CPU quota", text.escape_debug()));
            None
        }
    }
}

/// Two files; -1 is no quota.
fn quota_v1(tree: &Tree, path: &str) -> Option<(f64, f64)> {
    let time = tree.number::<i64>(&format!("{path}/cpu.cfs_quota_us")).filter(|&time| time != -1)?;
    let period = tree.number::<u64>(&format!("{path}/cpu.cfs_period_us"))?;
    Some((time as f64, period as f64))
}

/// "31 27 0:28 /top /mount/point rw,relatime shared:1 - cgroup cgroup rw,cpu": optional fields end at the dash.
fn find_mount(mounts: &str, kind: &str, controller: Option<&str>) -> Option<Mount> {
    mounts.lines().find_map(|line| {
        let (place, what) = line.split_once(" - ")?;
        let mut what = what.split(' ');
        let options = (what.next()? == kind).then(|| what.nth(1).unwrap_or_default())?;
        if let Some(controller) = controller
            && !options.split(',').any(|option| option == controller)
        {
            return None;
        }
        let mut place = place.split(' ').skip(3);
        Some(Mount { top: place.next()?.to_owned(), at: place.next()?.to_owned() })
    })
}

impl Mount {
    /// The directories of a group and of all that it is in, as far as they are visible. In a container the top of
    /// the mount is not the top of the hierarchy, and the group's path may be told from either.
    fn chain(&self, group: &str) -> Vec<String> {
        let below = group
            .strip_prefix(self.top.trim_end_matches('/'))
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
            .unwrap_or(group);
        let mut paths = vec![self.at.clone()];
        for part in below.split('/').filter(|part| !part.is_empty() && *part != "..") {
            paths.push(format!("{}/{part}", paths[paths.len() - 1]));
        }
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 29 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct
31 29 0:30 /docker/ab /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
38 29 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn mounts_are_found_by_type_and_controller() {
        let at = |kind, controller| find_mount(MOUNTS, kind, controller).map(|mount| mount.at);
        assert_eq!(at("cgroup2", None).as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(at("cgroup", Some("cpu")).as_deref(), Some("/sys/fs/cgroup/cpu"));
        assert_eq!(at("cgroup", Some("cpuset")).as_deref(), Some("/sys/fs/cgroup/cpuset"));
        assert_eq!(at("cgroup", Some("memory")), None);
    }

    #[test]
    fn a_group_and_all_that_it_is_in() {
        let mount = Mount { at: "/m".into(), top: "/".into() };
        assert_eq!(mount.chain("/"), ["/m"]);
        assert_eq!(mount.chain("/a/b"), ["/m", "/m/a", "/m/a/b"]);
        assert_eq!(mount.chain("/../a"), ["/m", "/m/a"]);
        let container = Mount { at: "/m".into(), top: "/docker/ab".into() };
        assert_eq!(container.chain("/docker/ab/x"), ["/m", "/m/x"]);
        assert_eq!(container.chain("/docker/abc"), ["/m", "/m/docker", "/m/docker/abc"]);
        assert_eq!(container.chain("/x"), ["/m", "/m/x"]);
    }
}
