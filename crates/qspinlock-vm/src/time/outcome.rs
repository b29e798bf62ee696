//! What a run has shown.

use std::fmt;

use qspinlock::machine::Event;

/// What a run has shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How often each CPU had a lock.
    pub acquisitions: Vec<u64>,
    /// Virtual time from the first acquire to the last release, in cycles of the machine.
    pub cycles: u64,
    /// The same in nanoseconds.
    pub nanos: u64,
    /// Acquisitions in a second, of all CPUs.
    pub throughput: f64,
    /// How long CPUs waited for a lock.
    pub waits: Waits,
    /// From where to where the locks went.
    pub handoffs: Handoffs,
    /// Acquisitions of the busier half of the CPUs, of all: 0.5 is fair, 1 is starving. Measured until the first CPU
    /// is done, if each does so many.
    pub fairness: f64,
    /// Acquisitions in each [domain](super::run::Setup::domain), until the same moment.
    pub domains: Vec<u64>,
    /// What the lock code counted.
    pub events: Vec<(Event, u64)>,
    /// How often a CPU was preempted that held a lock.
    pub holder_preemptions: u64,
    /// How often a lock was released and whoever had it next waited for it and was not running: preempted.
    pub next_waiter_preemptions: u64,
    /// The same, asleep.
    pub next_waiter_asleep: u64,
    /// A number made of all that happened: equal runs have equal ones.
    pub digest: u64,
}

impl Outcome {
    /// Acquisitions of all CPUs.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.acquisitions.iter().sum()
    }
}

/// How long CPUs waited for a lock, from the call to its return, in nanoseconds. Quantiles are up to a 64th too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Waits {
    /// On average.
    pub mean: u64,
    /// Half of the waits are no longer.
    pub p50: u64,
    /// 99 % are no longer.
    pub p99: u64,
    /// 99.9 % are no longer.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

/// From one owner of a lock to the next: how far it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Handoffs {
    /// The same CPU had it again.
    pub same: u64,
    /// Another hardware thread of its core.
    pub core: u64,
    /// Another core at its last-level cache.
    pub l3: u64,
    /// Another last-level cache of its socket.
    pub socket: u64,
    /// Another socket.
    pub remote: u64,
}

impl Handoffs {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.same + self.core + self.l3 + self.socket + self.remote
    }

    fn share(&self, part: u64) -> f64 {
        if self.total() == 0 { 0.0 } else { part as f64 / self.total() as f64 }
    }

    /// The share that stayed with a core.
    #[must_use]
    pub fn in_core(&self) -> f64 {
        self.share(self.same + self.core)
    }

    /// The share that stayed with a last-level cache.
    #[must_use]
    pub fn in_l3(&self) -> f64 {
        self.share(self.same + self.core + self.l3)
    }

    /// The share that stayed in a socket.
    #[must_use]
    pub fn in_socket(&self) -> f64 {
        self.share(self.total() - self.remote)
    }
}

/// Why there is no outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError {
    /// The setup makes no sense on this machine, and why.
    Setup(String),
    /// CPUs wait, and nothing will ever end it. Which ones, and for what.
    Deadlock(String),
    /// Two CPUs had a lock at the same time.
    Exclusion(String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(why) => f.write_str(why),
            Self::Deadlock(who) => write!(f, "deadlock: {who}"),
            Self::Exclusion(who) => write!(f, "no mutual exclusion: {who}"),
        }
    }
}

impl std::error::Error for RunError {}
