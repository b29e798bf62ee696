//! The user-space machine: the threads of this process.
//!
//! A thread is a CPU that the scheduler may take away at any moment, and its signal handlers are its interrupts. It
//! has a number, its *slot*, from its first contended acquire until it ends.

mod configure;
mod domains;
mod environment;
mod exit;
mod facts;
mod fixed;
mod fork;
mod locality;
mod park;
mod policy;
mod records;
mod slots;
mod topology;
mod urgent;

pub(crate) use configure::automatic;
pub use configure::{Configuration, ConfigureError, choice, configuration, configure};
pub use domains::{Domains, DomainsError, Topology, topology};
pub use environment::{
    DOMAIN_VARIABLE, ENVIRONMENT_VARIABLE, EnvironmentError, LOCALITY_VARIABLE, RESILIENT_VARIABLE, SLOW_PATH_VARIABLE,
    environment,
};
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use facts::threads as count;
pub use locality::{locality, set_locality};
pub use policy::{policy, set_policy};
pub use records::locks_left_behind;
pub use slots::{CAPACITY, slots_in_use};
pub use topology::{KNOWN_CPUS, SysFile, TopologyError, read_domains};

use core::sync::atomic::{AtomicU64, Ordering};

use crate::atomic::{
    AtomicCell, full_fence, signal_fence, spin_until, spin_until_for, spin_until_mine, spin_until_mine_for,
};
use crate::machine::{Access, Budget, Cell, Event, GlobalMachine, Machine};
use crate::queue::{Cpu, Slot};
use crate::slowpath::{Locality, Patience};

/// The threads of this process, as a [`Machine`].
///
/// # Signal handlers
/// A handler may take and release locks that its thread neither holds nor waits for, four handlers deep with a queue node
/// each. It may also sleep, but not with feature `portable`, nor on systems other than Linux and Android: there sleepers
/// use mutexes, and a handler may have interrupted its thread inside of one. The C library's `errno` is kept.
/// [Resilient](crate::resilient) locks it may take whatever its thread holds or waits for: it is told if it cannot have
/// one. It releases what it took before it returns.
///
/// # Domains
/// A thread is in the [domain](Domains) of the CPU that it runs on when it queues: a memory node, or a last-level cache
/// (`QSPINLOCK_DOMAIN`, [`Configuration::domains`]). Without Linux and its `/sys` there is one. A thread with a real-time policy
/// (`SCHED_FIFO`, `SCHED_RR`, `SCHED_DEADLINE`) is let past by nobody for the sake of a near CPU; it is asked for its policy once,
/// when it first waits in such a queue, so set that before.
///
/// # Fork
/// In the child of a `fork` only the forking thread goes on. With [`Parking`](crate::slowpath::Parking)
/// * a lock that was free, or that the forking thread holds, works in the child, whoever waited for it: those are passed
///   over. The one thing that stays is that `try_lock` may find a lock taken until it has been locked once;
/// * a lock that *another* thread held is held for ever, and what it protects may be half changed. As with any mutex, take
///   it before the fork and release it on both sides, or let the child use nothing of it before `exec`.
///
/// A condition variable that others wait for, or were about to, cannot be used in the child: they stay in its list, and a
/// notification may be spent on one of them.
///
/// Slow paths whose waiters spin in a queue cannot pass anybody over: a lock that anybody else held or waited for cannot
/// be used in the child.
///
/// Slots of threads that are gone are free in the child, but for those whose node may still be in the queue of a lock:
/// these come back when that lock is released. The child is looked after by a handler of
/// `pthread_atfork`, so not after `vfork`, `_Fork` or a bare `clone`. A signal handler may fork; but if its child returns
/// to the interrupted code, that must not be the first wait of its thread or the end of it, where it claims its slot or
/// gives it back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threads;

/// How often a waiter had no queue node and spun on the lock word instead, since the process started: more than
/// four nested contexts, more than [`CAPACITY`] threads, or a thread that is past its exit hooks.
#[must_use]
#[doc(alias = "lock_no_node")]
pub fn waits_without_node() -> u64 {
    NO_NODE.load(Ordering::Relaxed)
}

static NO_NODE: AtomicU64 = AtomicU64::new(0);

// SAFETY: a slot belongs to one thread at a time (`slots`), handlers run to their end on top of it; slots are in a
// static; the awaits return what they loaded.
#[allow(unsafe_code, reason = "promises distinct CPUs")]
unsafe impl Machine for Threads {
    type Cell = AtomicCell;

    #[inline]
    fn here(&self) -> Option<Cpu> {
        slots::mine()
    }

    #[inline]
    fn slot(&self, cpu: Cpu) -> &Slot<AtomicCell> {
        slots::get(cpu)
    }

    #[inline]
    fn until(&self, cell: &AtomicCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        spin_until(cell, access, done)
    }

    #[inline]
    fn until_mine(&self, cell: &AtomicCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        spin_until_mine(cell, access, done)
    }

    #[inline]
    fn until_for(
        &self,
        cell: &AtomicCell,
        access: Access,
        budget: Budget,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, u32> {
        spin_until_for(cell, access, budget, || self.now(), done)
    }

    #[inline]
    fn until_mine_for(
        &self,
        cell: &AtomicCell,
        access: Access,
        budget: Budget,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, u32> {
        spin_until_mine_for(cell, access, budget, || self.now(), done)
    }

    #[inline]
    fn fence(&self, access: Access) {
        full_fence(access);
    }

    #[inline]
    fn signal_fence(&self) {
        signal_fence();
    }

    fn now(&self) -> u64 {
        clock()
    }

    #[inline]
    fn domain(&self) -> u32 {
        domains::mine()
    }

    #[inline]
    fn is_urgent(&self) -> bool {
        urgent::is_urgent()
    }

    #[inline]
    fn locality(&self) -> Locality {
        locality::locality()
    }

    #[inline]
    fn choose(&self, n: u32) -> u32 {
        urgent::choose(n)
    }

    fn wait(&self, cell: &AtomicCell, value: u32, access: Access, until: Option<u64>) {
        if let Some(me) = slots::mine() {
            park::sleep(slots::get(me).token(), || cell.load(access) == value, until);
        }
    }

    fn kick(&self, cpu: Cpu) {
        park::kick(slots::get(cpu).token());
    }

    fn yield_cpu(&self) {
        park::yield_cpu();
    }

    fn patience(&self) -> Patience {
        configure::patience()
    }

    #[inline(always)]
    fn count(&self, event: Event) {
        if event == Event::NoNode {
            NO_NODE.fetch_add(1, Ordering::Relaxed);
        }
        #[cfg(feature = "stats")]
        crate::stats::count(event, slots::number());
    }
}

impl GlobalMachine for Threads {
    const MACHINE: Self = Self;
}

/// Nanoseconds of the monotonic clock. Callable from a signal handler.
#[cfg(unix)]
fn clock() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a live timespec, and the clock exists on every Unix.
    #[allow(unsafe_code, reason = "one system call, usually served by the vDSO")]
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t);
    }
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Nanoseconds of the monotonic clock since its first use here.
#[cfg(not(unix))]
fn clock() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
}
