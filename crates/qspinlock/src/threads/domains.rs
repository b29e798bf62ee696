//! Which domain a thread is in: that of the CPU it runs on, looked up in a table.
//!
//! The CPU is what the C library says without a system call: from the kernel's per-thread area (rseq, glibc 2.35 and later),
//! or through the vDSO. It may be another one a moment later. Nothing but the order of waiters hangs on it, so nobody waits for
//! the table either: who comes while it is read is in domain 0.

use core::fmt;
use core::str::FromStr;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use super::park::Errno;
use super::topology::{KNOWN_CPUS, TopologyError, read_domains};
use super::{environment, slots};
use crate::slowpath::parking::Excerpt;

/// What counts as near, for a slow path that keeps a lock near for a while ([`Numa`](crate::slowpath::Numa)).
///
/// As text: `node`, `l3`, `pretend:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Domains {
    /// CPUs of one memory node.
    #[default]
    Nodes,
    /// CPUs that share a last-level cache, mostly of level 3. On a machine whose sockets are of several chiplets the way from
    /// one cache to the other is what takes long, though it stays on a node.
    #[doc(alias = "llc_spinlock")]
    L3,
    /// A topology that is not there, to test with: a thread is in the domain of its slot's number modulo this, which is 1
    /// to [`Self::MOST`]. It stays there wherever it runs.
    Pretended(u32),
}

const NODES: &str = "node";
const L3: &str = "l3";
const PRETENDED: &str = "pretend:";

impl Domains {
    /// As many can be pretended.
    pub const MOST: u32 = 1023;

    /// Whether so many can be pretended.
    ///
    /// # Errors
    /// [`DomainsError::OutOfRange`].
    pub fn validate(&self) -> Result<(), DomainsError> {
        match *self {
            Self::Pretended(n) if !(1..=Self::MOST).contains(&n) => Err(DomainsError::OutOfRange(n)),
            _ => Ok(()),
        }
    }

    const fn code(self) -> u32 {
        match self {
            Self::Nodes => 0,
            Self::L3 => 1,
            Self::Pretended(n) => 1 + n,
        }
    }

    const fn from_code(code: u32) -> Self {
        match code {
            0 => Self::Nodes,
            1 => Self::L3,
            n => Self::Pretended(n - 1),
        }
    }
}

/// As [`FromStr`] reads them.
impl fmt::Display for Domains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes => f.write_str(NODES),
            Self::L3 => f.write_str(L3),
            Self::Pretended(n) => write!(f, "{PRETENDED}{n}"),
        }
    }
}

/// What is read is valid. Nothing is allocated.
impl FromStr for Domains {
    type Err = DomainsError;

    fn from_str(text: &str) -> Result<Self, DomainsError> {
        let domains = match text.trim() {
            NODES => Self::Nodes,
            L3 => Self::L3,
            other => {
                let number = other.strip_prefix(PRETENDED).and_then(|number| number.parse().ok());
                Self::Pretended(number.ok_or_else(|| DomainsError::Unknown(other.into()))?)
            }
        };
        domains.validate()?;
        Ok(domains)
    }
}

/// Why there are no such domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DomainsError {
    /// Nothing that can be said.
    Unknown(Excerpt),
    /// So many cannot be pretended.
    OutOfRange(u32),
}

impl fmt::Display for DomainsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(said) => write!(f, "there is no `{said}`: choose from {NODES} {L3} {PRETENDED}N (N domains)"),
            Self::OutOfRange(n) => write!(f, "`{PRETENDED}{n}`: pretend 1 to {} domains", Domains::MOST),
        }
    }
}

impl core::error::Error for DomainsError {}

/// What there is of domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topology {
    /// What counts as near.
    pub domains: Domains,
    /// How many of them have a CPU that is online. An error: they could not be found out, and all CPUs are in domain 0.
    pub found: Result<u32, TopologyError>,
}

/// What counts as near in this process, and how many domains there are. Reads `/sys`.
#[must_use]
pub fn topology() -> Topology {
    let _ = environment::sensible();
    let domains = Domains::from_code(STATE.0.load(Ordering::Relaxed) >> CODE);
    Topology { domains, found: count("/", domains, |_| true) }
}

/// How many domains have any of the CPUs for which `is_meant`.
pub(super) fn count(root: &str, domains: Domains, is_meant: impl Fn(u32) -> bool) -> Result<u32, TopologyError> {
    if let Domains::Pretended(n) = domains {
        return Ok(n);
    }
    // A bit for each: domains have numbers like CPUs, or smaller ones.
    let mut seen = [0_u64; KNOWN_CPUS / 64];
    read_domains(root, domains, |cpu, domain| {
        if let Some(bits) = seen.get_mut(domain as usize / 64).filter(|_| is_meant(cpu)) {
            *bits |= 1 << (domain % 64);
        }
    })?;
    Ok(seen.iter().map(|bits| bits.count_ones()).sum())
}

/// The table is as it is to be, or as good as can be.
const READY: u32 = 1;
/// Somebody reads it.
const READING: u32 = 2;
/// What it is to be of, from this bit on.
const CODE: u32 = 2;

#[repr(align(128))]
struct Line(AtomicU32);

static STATE: Line = Line(AtomicU32::new(Domains::Nodes.code() << CODE));

/// The domain of each CPU. Pages that nobody writes to are not there.
static TABLE: [AtomicU16; KNOWN_CPUS] = [const { AtomicU16::new(0) }; KNOWN_CPUS];

const _: () = assert!(KNOWN_CPUS <= 1 << 16, "a domain's number fits");

/// The domain that the calling thread is in now.
#[inline]
pub(super) fn mine() -> u32 {
    let state = STATE.0.load(Ordering::Relaxed);
    if state & READY == 0 {
        read_table();
    }
    match Domains::from_code(state >> CODE) {
        Domains::Pretended(n) => slots::number() % n,
        _ => TABLE.get(cpu()).map_or(0, |domain| domain.load(Ordering::Relaxed).into()),
    }
}

/// What counts as near from now on.
pub(super) fn set(domains: Domains) {
    let code = domains.code() << CODE;
    let change = |state| (state >> CODE != domains.code()).then_some(code | (state & READING));
    let _ = STATE.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
}

/// What counts as near.
pub(super) fn now() -> Domains {
    Domains::from_code(STATE.0.load(Ordering::Relaxed) >> CODE)
}

/// Reads the table, unless somebody does or has: at start-up, where such a lock is chosen, or by the first that waits for one.
#[cold]
pub(super) fn read_table() {
    // Elsewhere than on Linux it is read when it is first needed.
    let _ = environment::sensible();
    let begin = |state| (state & (READING | READY) == 0).then_some(state | READING);
    if STATE.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, begin).is_err() {
        return;
    }
    let _errno = Errno::keep();
    loop {
        let state = STATE.0.load(Ordering::Relaxed);
        TABLE
            .iter()
            .filter(|domain| domain.load(Ordering::Relaxed) != 0)
            .for_each(|domain| domain.store(0, Ordering::Relaxed));
        let enter = |cpu: u32, domain: u32| {
            if let (Some(place), Ok(domain)) = (TABLE.get(cpu as usize), u16::try_from(domain)) {
                place.store(domain, Ordering::Relaxed);
            }
        };
        if read_domains("/", Domains::from_code(state >> CODE), enter).is_err() {
            // Half of a topology is worse than none. `topology` says why.
            TABLE.iter().for_each(|domain| domain.store(0, Ordering::Relaxed));
        }
        // Or it is to be of something else by now.
        let done = (state | READY) & !READING;
        if STATE.0.compare_exchange(state, done, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

/// The CPU that the thread runs on now; or a number that is none's.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
#[inline]
fn cpu() -> usize {
    // Where it cannot be told that is an error of the C library.
    let _errno = Errno::keep();
    // SAFETY: no preconditions.
    #[allow(unsafe_code, reason = "a call of the C library")]
    let cpu = unsafe { libc::sched_getcpu() };
    usize::try_from(cpu).unwrap_or(usize::MAX)
}

#[cfg(not(all(any(target_os = "linux", target_os = "android"), not(miri))))]
fn cpu() -> usize {
    usize::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_both_ways() {
        for domains in [Domains::Nodes, Domains::L3, Domains::Pretended(1), Domains::Pretended(Domains::MOST)] {
            assert_eq!(Domains::from_code(domains.code()), domains);
        }
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn the_cpu_is_the_one_that_it_runs_on() {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        let usable = sched_getaffinity(None).expect("Linux tells");
        let pinned = |cpu| {
            let mut only = CpuSet::new();
            only.set(cpu);
            std::thread::spawn(move || sched_setaffinity(None, &only).map(|()| super::cpu())).join().expect("no panic")
        };
        for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| usable.is_set(cpu)) {
            assert_eq!(pinned(cpu), Ok(cpu));
        }
    }
}
