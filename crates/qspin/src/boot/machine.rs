//! The machine that QEMU is to be: CPUs, memory nodes, a command line.

/// CPUs that the kernel has room for.
pub(super) const MOST_CPUS: u32 = 64;
/// Bytes of a command line that the kernel looks at.
pub(super) const LONGEST_LINE: usize = 4096;
/// Memory of a node, in MiB.
const NODE_MIB: u32 = 64;

/// A machine, as the kernel finds it.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) cpus: u32,
    pub(super) nodes: u32,
    /// The kernel's command line.
    pub(super) append: String,
}

impl Machine {
    /// First and last CPU of each node: as many in each as can be.
    fn ranges(&self) -> impl Iterator<Item = (u32, u32)> {
        let start = |node| node * self.cpus / self.nodes;
        (0..self.nodes).map(move |node| (start(node), start(node + 1) - 1))
    }

    /// What QEMU is told, all but how it executes and what.
    pub(super) fn arguments(&self) -> Vec<String> {
        let Self { cpus, nodes, .. } = *self;
        // A node is a socket where that can be; names of CPUs have gaps then, as on real machines.
        let sockets = if cpus.is_multiple_of(nodes) { nodes } else { cpus };
        let mut args = vec![
            "-smp".to_owned(),
            format!("{cpus},sockets={sockets},cores={},threads=1", cpus / sockets),
            "-m".to_owned(),
            format!("{}M", NODE_MIB * nodes),
        ];
        for (node, (first, last)) in self.ranges().enumerate() {
            args.extend([
                "-object".to_owned(),
                format!("memory-backend-ram,id=m{node},size={NODE_MIB}M"),
                "-numa".to_owned(),
                format!("node,nodeid={node},memdev=m{node},cpus={first}-{last}"),
            ]);
        }
        // A firmware's table of distances: with two nodes and more, the further apart in number the further.
        for from in 0..nodes {
            for to in (from + 1)..nodes {
                args.extend(["-numa".to_owned(), format!("dist,src={from},dst={to},val={}", distance(from, to))]);
            }
        }
        args.extend(["-append".to_owned(), self.append.clone()]);
        args
    }
}

/// As ACPI says it: 10 is near, and this is so much of that.
fn distance(from: u32, to: u32) -> u32 {
    20 + from.abs_diff(to).min(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cpu_is_in_one_node() {
        for cpus in 1..=MOST_CPUS {
            for nodes in 1..=cpus {
                let ranges: Vec<_> = Machine { cpus, nodes, append: String::new() }.ranges().collect();
                let all: Vec<_> = ranges.iter().flat_map(|(first, last)| *first..=*last).collect();
                assert_eq!(all, (0..cpus).collect::<Vec<_>>(), "{cpus} CPUs, {nodes} nodes: {ranges:?}");
                assert!(ranges.iter().all(|(first, last)| first <= last), "{cpus} CPUs, {nodes} nodes: {ranges:?}");
            }
        }
    }
}
