//! What to simulate: which lock, on how many CPUs, and what they do with it.

use std::fmt;
use std::str::FromStr;

use super::model::{Domain, Model, Placement};

/// A lock to be simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LockKind {
    /// The library's [`Native`](qspinlock::slowpath::Native).
    Native,
    /// The library's [`Numa`](qspinlock::slowpath::Numa).
    Numa,
    /// The library's [`TestAndSet`](qspinlock::slowpath::TestAndSet), whose waiters look before they swap.
    TestAndSet,
    /// The library's [`Paravirt`](qspinlock::slowpath::Paravirt).
    Paravirt,
    /// The library's [`Parking`](qspinlock::slowpath::Parking).
    Parking,
    /// The library's resilient lock over native.
    Resilient,
    /// The library's resilient lock over numa.
    ResilientNuma,
    /// For reference: an exchange in a loop.
    Tas,
    /// For reference: the same, after a look.
    Ttas,
    /// For reference: a ticket lock, its two words on a line each.
    Ticket,
    /// For reference: the queue of Mellor-Crummey and Scott, a node and a line for each CPU.
    Mcs,
}

impl LockKind {
    /// All of them: the library's, then those for reference.
    pub const ALL: [Self; 11] = [
        Self::Native,
        Self::Numa,
        Self::TestAndSet,
        Self::Paravirt,
        Self::Parking,
        Self::Resilient,
        Self::ResilientNuma,
        Self::Tas,
        Self::Ttas,
        Self::Ticket,
        Self::Mcs,
    ];

    /// Its name, as the user writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Numa => "numa",
            Self::TestAndSet => "test-and-set",
            Self::Paravirt => "paravirt",
            Self::Parking => "parking",
            Self::Resilient => "resilient",
            Self::ResilientNuma => "resilient-numa",
            Self::Tas => "tas",
            Self::Ttas => "ttas",
            Self::Ticket => "ticket",
            Self::Mcs => "mcs",
        }
    }

    /// Whether it is one of the library's own.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        !matches!(self, Self::Tas | Self::Ttas | Self::Ticket | Self::Mcs)
    }
}

impl fmt::Display for LockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LockKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|lock| lock.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            format!("unknown lock '{name}'; known are {}", names.join(", "))
        })
    }
}

/// A length of virtual time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// Cycles of the machine's clock.
    Cycles(u64),
    /// Nanoseconds.
    Nanos(u64),
}

impl Span {
    /// In cycles of a machine.
    #[must_use]
    pub fn cycles(self, model: &Model) -> u64 {
        match self {
            Self::Cycles(cycles) => cycles,
            Self::Nanos(ns) => u64::try_from(u128::from(ns) * u128::from(model.mhz) / 1000).unwrap_or(u64::MAX),
        }
    }
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Each CPU has acquired a lock so many times.
    Acquisitions(u32),
    /// So much virtual time is over, and who is at a lock then has come through.
    Time(Span),
}

/// Virtual CPUs on fewer physical ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overcommit {
    /// Physical CPUs: the first so many by the placement.
    pub physical: u32,
    /// How long a virtual CPU runs before another one that is ready has its turn, in nanoseconds.
    pub slice: u64,
    /// What a kick costs the kicker, in nanoseconds.
    pub kick: u64,
    /// From a kick until who was woken runs, if a physical CPU is free, in nanoseconds.
    pub wake: u64,
    /// What it costs to give a physical CPU to another virtual one, in nanoseconds.
    pub switch: u64,
}

impl Overcommit {
    /// So many physical CPUs, and what a common hypervisor does.
    ///
    /// A kick costs 7.4 us and takes 64 us to have the woken one run: published with the Linux patches for adaptive
    /// waiting of virtual CPUs (KVM). 6 ms is the longest slice of that kernel's scheduler at the time, on eight or
    /// more CPUs; 2 us for a switch of virtual CPUs is an estimate.
    #[must_use]
    pub const fn on(physical: u32) -> Self {
        Self { physical, slice: 6_000_000, kick: 7_400, wake: 64_000, switch: 2_000 }
    }
}

/// A run: what each of the CPUs does over and over.
///
/// *Think, take one of the locks, read and write the data lines of that lock, work, release.*
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Which lock.
    pub lock: LockKind,
    /// How many virtual CPUs.
    pub cpus: u32,
    /// Which CPUs of the machine these are.
    pub placement: Placement,
    /// Work with the lock held, beside the access to its lines.
    pub section: Span,
    /// Work between a release and the next acquire, on average; each is half to one and a half of it.
    pub think: Span,
    /// Lines that each section reads and writes. They belong to its lock.
    pub lines: u32,
    /// Locks, of which each acquire takes one at random.
    pub locks: u32,
    /// When it ends.
    pub until: Until,
    /// Seeds think times, jitter, and the choice of locks. The same seed, the same run.
    pub seed: u64,
    /// What the NUMA-aware lock takes for near.
    pub domain: Domain,
    /// How long the NUMA-aware lock sets far waiters aside, in nanoseconds; its default if there is none.
    pub threshold: Option<u32>,
    /// With nobody set aside, one head in so many looks for far waiters; the default if there is none.
    pub one_in: Option<u32>,
    /// Fewer physical CPUs than virtual ones.
    pub overcommit: Option<Overcommit>,
}

impl Setup {
    /// One lock and one data line, no work, a think time of 1,000 cycles; 1,000 acquisitions each.
    #[must_use]
    pub const fn new(lock: LockKind, cpus: u32) -> Self {
        Self {
            lock,
            cpus,
            placement: Placement::Fill,
            section: Span::Cycles(0),
            think: Span::Cycles(1_000),
            lines: 1,
            locks: 1,
            until: Until::Acquisitions(1_000),
            seed: 1,
            domain: Domain::Node,
            threshold: None,
            one_in: None,
            overcommit: None,
        }
    }
}
