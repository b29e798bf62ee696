//! CPUs, memory nodes and last-level caches, from sysfs.

use serde::Serialize;

use super::cpulist::CpuList;
use super::tree::Tree;

#[derive(Serialize)]
pub(super) struct Cpus {
    pub(super) online: Option<CpuList>,
    pub(super) offline: Option<CpuList>,
    pub(super) possible: Option<CpuList>,
}

#[derive(Serialize)]
pub(super) struct Node {
    pub(super) node: u32,
    pub(super) cpus: Option<CpuList>,
    pub(super) memory_kib: Option<u64>,
    /// To each node in order; 10 is here.
    pub(super) distances: Option<Vec<u32>>,
}

const CPU: &str = "/sys/devices/system/cpu";
const NODE: &str = "/sys/devices/system/node";

pub(super) fn cpus(tree: &Tree) -> Cpus {
    let list = |name| tree.list(&format!("{CPU}/{name}"));
    Cpus { online: list("online"), offline: list("offline"), possible: list("possible") }
}

/// `None` where the kernel does not tell. A node may have no CPU (memory alone), or no memory.
pub(super) fn nodes(tree: &Tree) -> Option<Vec<Node>> {
    let online = tree.list(&format!("{NODE}/online"))?;
    Some(online.as_slice().iter().map(|&node| read_node(tree, node)).collect())
}

fn read_node(tree: &Tree, node: u32) -> Node {
    let path = format!("{NODE}/node{node}");
    let memory = format!("{path}/meminfo");
    // "Node 0 MemTotal:   16384 kB"
    let total = tree.field(&memory, &format!("Node {node} MemTotal"));
    let distance = format!("{path}/distance");
    Node {
        node,
        cpus: tree.list(&format!("{path}/cpulist")),
        memory_kib: total.and_then(|text| tree.parse_number(&memory, text.trim_end_matches("kB").trim())),
        distances: tree
            .text(&distance)
            .and_then(|text| text.split_ascii_whitespace().map(|n| tree.parse_number(&distance, n)).collect()),
    }
}

/// Sets of online CPUs that share a level 3 cache, in order. `None` if no CPU tells of one.
pub(super) fn l3_domains(tree: &Tree, online: &CpuList) -> Option<Vec<CpuList>> {
    let mut domains: Vec<CpuList> = online.as_slice().iter().filter_map(|&cpu| l3_of(tree, cpu)).collect();
    domains.sort();
    domains.dedup();
    (!domains.is_empty()).then_some(domains)
}

/// The index of a cache is not its level: the level is in a file beside.
fn l3_of(tree: &Tree, cpu: u32) -> Option<CpuList> {
    let cache = |index| format!("{CPU}/cpu{cpu}/cache/index{index}");
    let index = (0..8).find(|&index| tree.text(&format!("{}/level", cache(index))).as_deref() == Some("3"))?;
    tree.list(&format!("{}/shared_cpu_list", cache(index)))
}
