//! A machine to be simulated: where its CPUs are, and what it costs to move a line between them.
//!
//! Times are cycles of its clock.

use std::fmt;

/// A machine: its shape, its costs, and where the numbers come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its name, as the user writes it.
    pub name: String,
    /// What it is, in a line.
    pub about: String,
    /// Cycles in a microsecond.
    pub mhz: u32,
    /// Where its CPUs are.
    pub shape: Shape,
    /// What an access costs that the CPU's own cache serves.
    pub own: OwnCosts,
    /// What one costs that another CPU's cache serves, for each [`Distance`] that the shape has, nearest first.
    pub transfers: Vec<(Distance, Transfer)>,
    /// Where each number comes from, in words: a key of the file, and its source.
    pub sources: Vec<(String, String)>,
}

/// Where the CPUs of a machine are. They are numbered core by core: first one hardware thread of each core, socket after socket, then
/// the second of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sockets, each a memory node.
    pub sockets: u32,
    /// Last-level caches in a socket.
    pub l3s: u32,
    /// Cores that share one.
    pub cores: u32,
    /// Hardware threads of a core.
    pub smt: u32,
    /// Links between two sockets, by the shortest way. Symmetric; 0 from a socket to itself.
    pub hops: Vec<Vec<u8>>,
}

/// How far two CPUs are from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Distance {
    /// Two hardware threads of one core.
    Core,
    /// Two cores that share a last-level cache.
    L3,
    /// Two last-level caches of one socket.
    Socket,
    /// Two sockets, with so many links between them.
    Hops(u8),
}

/// Cycles of what needs no other cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnCosts {
    /// A load that hits.
    pub load: u32,
    /// A store that hits, from the store buffer on: how long it keeps the next one there.
    pub store: u32,
    /// An atomic read-modify-write on a line that is owned.
    pub atomic: u32,
    /// One turn of a loop that waits: `pause`, and a load that hits.
    pub pause: u32,
}

/// Cycles of what another cache serves, at one distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// A load of a line that the other has modified.
    pub load_modified: u32,
    /// A load of a line that others share.
    pub load_shared: u32,
    /// How long that load keeps the line from the next request. Less than it takes: many can be under way.
    pub load_shared_occupies: u32,
    /// A store to a line that the other has modified.
    pub store_modified: u32,
    /// A store to a line that others share, the farthest of them being at this distance.
    pub store_shared: u32,
    /// An atomic on a line that the other has modified.
    pub atomic_modified: u32,
    /// An atomic on a line that others share.
    pub atomic_shared: u32,
}

/// Which unit keeps a lock to itself for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Domain {
    /// The socket.
    #[default]
    Node,
    /// The last-level cache.
    L3,
}

/// Which CPUs a run with fewer threads than CPUs uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Placement {
    /// Core after core, socket after socket; second hardware threads last.
    #[default]
    Fill,
    /// One on each socket in turn; second hardware threads last.
    Spread,
}

impl Shape {
    /// CPUs, hardware threads counted.
    #[must_use]
    pub fn cpus(&self) -> u32 {
        self.all_cores() * self.smt
    }

    fn all_cores(&self) -> u32 {
        self.sockets * self.l3s * self.cores
    }

    /// The core of a CPU, numbered through the machine.
    #[must_use]
    pub fn core(&self, cpu: u32) -> u32 {
        cpu % self.all_cores()
    }

    /// The last-level cache of a CPU, numbered through the machine.
    #[must_use]
    pub fn l3(&self, cpu: u32) -> u32 {
        self.core(cpu) / self.cores
    }

    /// The socket of a CPU.
    #[must_use]
    pub fn socket(&self, cpu: u32) -> u32 {
        self.l3(cpu) / self.l3s
    }

    /// The domain of a CPU.
    #[must_use]
    pub fn domain(&self, cpu: u32, domain: Domain) -> u32 {
        match domain {
            Domain::Node => self.socket(cpu),
            Domain::L3 => self.l3(cpu),
        }
    }

    /// How far two CPUs are from each other. A CPU is on its own [core](Distance::Core).
    #[must_use]
    pub fn distance(&self, a: u32, b: u32) -> Distance {
        if self.core(a) == self.core(b) {
            return Distance::Core;
        }
        if self.l3(a) == self.l3(b) {
            return Distance::L3;
        }
        match self.hops[self.socket(a) as usize][self.socket(b) as usize] {
            0 => Distance::Socket,
            hops => Distance::Hops(hops),
        }
    }

    /// The CPUs of a run with `n` threads. More threads than CPUs are for an overcommitted run to place.
    #[must_use]
    pub fn place(&self, n: u32, placement: Placement) -> Vec<u32> {
        let per_socket = self.l3s * self.cores;
        let spread = |i: u32| {
            let (thread, i) = (i / self.all_cores(), i % self.all_cores());
            thread * self.all_cores() + i % self.sockets * per_socket + i / self.sockets
        };
        (0..n.min(self.cpus()))
            .map(|i| match placement {
                Placement::Fill => i,
                Placement::Spread => spread(i),
            })
            .collect()
    }
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core => f.write_str("core"),
            Self::L3 => f.write_str("l3"),
            Self::Socket => f.write_str("socket"),
            Self::Hops(1) => f.write_str("1 hop"),
            Self::Hops(hops) => write!(f, "{hops} hops"),
        }
    }
}
