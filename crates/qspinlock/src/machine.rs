//! What a lock algorithm may ask of the machine it runs on.
//!
//! Lock code is written once, generic over [`Machine`], and runs unchanged on bare CPUs, on threads, under a model
//! checker, and on simulated sockets. So nothing here names a real atomic, a thread or a clock:
//!
//! * shared state lives in [`Cell`]s, and every access to one is a named [`Access`] that carries its ordering;
//! * every wait is an await on a cell ([`Machine::until`]), never a bare loop. The real machine spins with
//!   `pause`, a virtual CPU sleeps until the line is written, a checker blocks and so can tell a hang from a wait;
//! * the caller's CPU, its queue nodes, the clock, randomness, sleeping and waking are methods.
//!
//! A machine is a value and is passed by reference: a real one is zero-sized, a virtual one holds its world.

pub use core::sync::atomic::Ordering;

use crate::queue::{Cpu, Slot};
use crate::slowpath::{Locality, Patience};

/// One access to a cell, by name: which ordering it has, and why it has it.
///
/// Orderings are not passed around bare, since an ordering means something only together with the access that it
/// pairs with. The name is what a trace prints and what an ordering audit weakens; `pairs` says, for a reader,
/// which access on another CPU this one synchronises with, and what goes wrong without it.
///
/// A compare-and-swap that fails is always a relaxed load: no algorithm here follows a value that a failed one
/// returned without a second, ordered access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Unique in the library, `room.what`.
    pub name: &'static str,
    /// The ordering. Never `SeqCst`: an order over all locations is a [`Machine::fence`], which says so.
    pub order: Ordering,
    /// The access this one pairs with, and what for. For a relaxed one: why it needs no order.
    pub pairs: &'static str,
}

impl Access {
    /// A relaxed access, and why that is enough.
    pub const fn relaxed(name: &'static str, why: &'static str) -> Self {
        Self { name, order: Ordering::Relaxed, pairs: why }
    }

    /// An acquire load, or a read-modify-write that is one.
    pub const fn acquire(name: &'static str, pairs: &'static str) -> Self {
        Self { name, order: Ordering::Acquire, pairs }
    }

    /// A release store, or a read-modify-write that is one.
    pub const fn release(name: &'static str, pairs: &'static str) -> Self {
        Self { name, order: Ordering::Release, pairs }
    }

    /// A fence over all locations: of two CPUs that each write something, fence, and then read what the other wrote, one at
    /// least sees it.
    pub const fn fence(name: &'static str, pairs: &'static str) -> Self {
        Self { name, order: Ordering::SeqCst, pairs }
    }

    /// A read-modify-write that acquires what it reads and releases what it writes.
    pub const fn acq_rel(name: &'static str, pairs: &'static str) -> Self {
        Self { name, order: Ordering::AcqRel, pairs }
    }
}

/// A 32-bit word that several CPUs may access at once.
///
/// All accesses have one width. The last methods act on one byte alone, or for one CPU alone, and have portable forms that are 32-bit
/// atomics; an instruction set may do better, within the contract that each states.
///
/// Every method is `#[track_caller]`, so that an implementation which records accesses knows their place in the
/// source without any help from the algorithm.
///
/// # Safety
/// Implementations are atomic: a value read was written by someone, read-modify-writes are indivisible, and the
/// orderings are at least as strong as C11's. Lock algorithms, and so memory safety, rely on it.
#[allow(unsafe_code, reason = "an obligation on implementations")]
pub unsafe trait Cell {
    /// Reads.
    #[track_caller]
    fn load(&self, access: Access) -> u32;

    /// Writes.
    #[track_caller]
    fn store(&self, value: u32, access: Access);

    /// Writes `new` if the cell holds `old`. `Err` is what it held instead. Never fails spuriously.
    ///
    /// # Errors
    /// The value found, if it was not `old`; read relaxed.
    #[track_caller]
    fn cas(&self, old: u32, new: u32, access: Access) -> Result<u32, u32>;

    /// One read-modify-write: writes `f(value)`, or nothing if that is `None`. Returns the value it replaced.
    ///
    /// Real machines do this by a compare-and-swap loop; for a checker it is one step. `f` must be pure.
    ///
    /// # Errors
    /// The value for which `f` returned `None`; read relaxed.
    #[track_caller]
    fn update(&self, access: Access, f: impl Fn(u32) -> Option<u32>) -> Result<u32, u32>;

    /// Bits 8-15, all others read as 0: a *hint*. It may be as old as the caller's last store to the low byte, that is,
    /// it need not show what others wrote before that store took effect. Always relaxed.
    ///
    /// Cheap right after [`Self::store_low8`]: it does not wait for that store to leave the CPU.
    #[track_caller]
    fn load_byte1(&self, access: Access) -> u32 {
        self.load(access) & 0xff00
    }

    /// Writes the low byte if it holds `old`, whatever the other bits are, which are kept.
    ///
    /// As seen by every CPU: one `update`. True if it wrote.
    #[track_caller]
    fn cas_low8(&self, old: u8, new: u8, access: Access) -> bool {
        self.update(access, |v| (v as u8 == old).then_some((v & !0xff) | u32::from(new))).is_ok()
    }

    /// Writes the low byte; the other bits are kept.
    ///
    /// As seen by every CPU: one read-modify-write. On a machine whose stores are totally ordered this may be a
    /// byte store.
    #[track_caller]
    fn store_low8(&self, value: u8, access: Access) {
        let _ = self.update(access, |v| Some((v & !0xff) | u32::from(value)));
    }

    /// Takes 1 from the low byte, which is not 0; the other bits are kept. True if it is 0 now.
    ///
    /// As seen by every CPU: one `update`. Real machines have an instruction for it, which others cannot hold up as they
    /// can a compare-and-swap loop.
    #[track_caller]
    fn count_down_low8(&self, access: Access) -> bool {
        self.update(access, |v| Some(v - 1)).is_ok_and(|old| old as u8 == 1)
    }

    /// Adds 1, wrapping, to a cell that only this CPU and its interrupts write, and others read.
    ///
    /// As seen by other CPUs: a load and a store. As seen by interrupts of this CPU: one step. So it needs no lock of the bus.
    #[track_caller]
    fn count_up_own(&self, access: Access) {
        let _ = self.update(access, |v| Some(v.wrapping_add(1)));
    }
}

/// A cell that can be made in a constant, as a lock in a `static` needs.
pub trait ConstCell: Cell {
    /// A cell that holds 0.
    #[allow(clippy::declare_interior_mutable_const, reason = "an initialiser: every use is a new cell")]
    const ZERO: Self;
}

/// How long an await may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// So many looks at the cell, at least one. A checker may give up at any time, so that no counter is state.
    Looks {
        /// How many.
        most: u32,
        /// Pauses between two of them. Many, where a look gets in the way of whom it waits for.
        apart: u32,
    },
    /// Until [`Machine::now`] reaches this, in nanoseconds. At least one look is taken, and later ones ever further
    /// apart.
    Until(u64),
}

/// Something worth counting. Names are the kernel's lock events where one exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Event {
    /// The lock was taken through the pending lane.
    #[doc(alias = "lock_pending")]
    Pending,
    /// A node was queued.
    #[doc(alias = "lock_slowpath")]
    Queued,
    /// A waiter that could not have a node (levels or slots used up) spun on the word instead.
    #[doc(alias = "lock_no_node")]
    NoNode,
    /// The head was the last in the queue and left it empty.
    SoleHead,
    /// The head passed the baton to its successor.
    HandOff,
    /// The pending owner or the head saw the lock free and lost it to a newcomer that had looked before.
    #[doc(alias = "pv_lock_stealing")]
    Bypassed,
    /// An unlock granted the lock to whoever had waited for long.
    Granted,
    /// An unlock handed the lock to a sleeper that had been woken in vain too often.
    HandedOver,
    /// An unlock woke a sleeper.
    #[doc(alias = "pv_kick_unlock")]
    KickUnlock,
    /// The first in the queue went to sleep.
    #[doc(alias = "pv_wait_head")]
    WaitHead,
    /// A waiter behind another went to sleep.
    #[doc(alias = "pv_wait_node")]
    WaitNode,
    /// A waiter went to sleep before it had spun its whole time, since its turn was far off.
    #[doc(alias = "pv_wait_early")]
    WaitEarly,
    /// Who looked for the first in the queue passed a waiter that nobody had passed before.
    #[doc(alias = "pv_hash_hops")]
    Step,
    /// A sleeper woke and had been told why.
    #[doc(alias = "pv_kick_wake")]
    KickWake,
    /// A sleeper woke for nothing, or because its nap was over.
    #[doc(alias = "pv_spurious_wakeup")]
    Spurious,
    /// A sleeper's nap ended, the lock was free, and it saw to it that somebody has it. Mostly who was woken before had
    /// yet to get a CPU; now and then an unlock had not seen that anybody sleeps.
    Rescued,
    /// A waiter's time was over while it lay in the queue; its node stays there until its turn comes.
    Abandoned,
    /// A waiter for a condition was moved to the queue of its lock.
    Requeued,
    /// The head set a waiter of another domain aside.
    SetAside,
    /// Those set aside had waited for long enough, or nobody else waited: they came first again.
    BroughtBack,
}

/// The machine an algorithm runs on.
///
/// # Safety
/// Exclusion rests on these, so an implementation must see to them:
/// * [`here`](Self::here) never returns the same CPU to two contexts that run at the same time, unless one has
///   interrupted the other and runs to its end before the other goes on;
/// * a context keeps its CPU from the moment it starts to acquire until it has acquired (preemption off, or a
///   number that belongs to the thread);
/// * [`slot`](Self::slot) returns the same, distinct slot for a CPU each time, valid for as long as the machine;
/// * [`until`](Self::until), [`until_mine`](Self::until_mine) and their forms with a budget return only values that they loaded with the access they
///   were given, for which the predicate is true.
#[allow(unsafe_code, reason = "an obligation on implementations")]
pub unsafe trait Machine {
    /// The shared word of this machine.
    type Cell: Cell;

    /// The number of the CPU that the caller runs on (in user space: of the calling thread's slot). `None` if it
    /// has none; it then waits without a queue node, which is correct and unfair.
    #[doc(alias = "smp_processor_id")]
    fn here(&self) -> Option<Cpu>;

    /// The queue nodes of a CPU. Only called with numbers that [`here`](Self::here) returned, to anybody.
    fn slot(&self, cpu: Cpu) -> &Slot<Self::Cell>;

    /// Waits until the cell holds a value for which `done` is true, and returns it.
    ///
    /// `done` must be pure and depend on nothing but its argument. `access` is the ordering of each look.
    #[doc(alias = "smp_cond_load_acquire")]
    #[track_caller]
    fn until(&self, cell: &Self::Cell, access: Access, done: impl Fn(u32) -> bool) -> u32;

    /// The same, by a CPU that will write the cell as soon as it is done, and is likely the only one to wait on it. A
    /// real machine fetches the line for writing while it looks, so that it does not have to be fetched again for the
    /// write.
    #[track_caller]
    fn until_mine(&self, cell: &Self::Cell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        self.until(cell, access, done)
    }

    /// The same, but gives up when the budget is spent.
    ///
    /// # Errors
    /// The last value seen, for which `done` was false.
    #[doc(alias = "smp_cond_load_relaxed_timeout")]
    #[track_caller]
    fn until_for(
        &self,
        cell: &Self::Cell,
        access: Access,
        budget: Budget,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, u32>;

    /// [`until_for`](Self::until_for), by a CPU that will write the cell as soon as it is done, as in
    /// [`until_mine`](Self::until_mine).
    ///
    /// # Errors
    /// The last value seen, for which `done` was false.
    #[track_caller]
    fn until_mine_for(
        &self,
        cell: &Self::Cell,
        access: Access,
        budget: Budget,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, u32> {
        self.until_for(cell, access, budget, done)
    }

    /// A fence over all locations. [`Access::order`] is `SeqCst` for nothing else.
    #[track_caller]
    fn fence(&self, access: Access);

    /// Keeps the compiler from moving accesses across this point, as seen by an interrupt or signal handler on the
    /// same CPU. No instruction. A machine whose cells are never reordered by a compiler needs nothing here.
    #[doc(alias = "barrier")]
    fn signal_fence(&self);

    /// Nanoseconds since some fixed moment. Never goes backwards on one CPU.
    fn now(&self) -> u64;

    /// The domain that the caller is in: CPUs in one domain pass a line between them faster than to others. A memory node,
    /// or a last-level cache. Two that differ by a multiple of 1023 count as one.
    #[doc(alias = "numa_node_id")]
    fn domain(&self) -> u32 {
        0
    }

    /// Whether nobody should be let past the caller for the sake of a near CPU: its interrupts are off, or it is a
    /// real-time task. (Handlers that nest need not say so.)
    fn is_urgent(&self) -> bool {
        false
    }

    /// How long a lock stays in one domain while CPUs of others wait.
    fn locality(&self) -> Locality {
        Locality::DEFAULT
    }

    /// Sleeps until [`kick`](Self::kick)ed, or until [`now`](Self::now) reaches `until`; not at all if the cell does not
    /// hold `value` when it looks, once, before it sleeps. A kick that comes before is kept for the next wait, or for
    /// this one. May return at any time, so a caller looks again; returning at once is correct, and the default. What
    /// a kicker did before its kick is visible after the wait that it ends.
    ///
    /// An interrupt (in user space, a signal) whose handler waits itself may use up a kick that was meant for whom it
    /// interrupted. So a wait that was interrupted ends, or looks again before it sleeps on. It leaves interrupts as it found
    /// them, on or off: a halt that turns them on has to turn them off again where they were off, and only there. Where no
    /// kick can arrive (in an NMI) it returns at once.
    #[track_caller]
    fn wait(&self, _cell: &Self::Cell, _value: u32, _access: Access, _until: Option<u64>) {}

    /// Wakes a CPU that is in [`wait`](Self::wait), or makes its next one return at once. Harmless if it is awake.
    #[track_caller]
    fn kick(&self, _cpu: Cpu) {}

    /// Lets whoever else wants this CPU have it for a while. Only threads have something to give; the default gives
    /// nothing.
    #[doc(alias = "sched_yield")]
    fn yield_cpu(&self) {}

    /// How long a waiter tries one thing before it tries the next, where waiters sleep.
    fn patience(&self) -> Patience {
        Patience::DEFAULT
    }

    /// Whether a CPU is known not to be running now. A hint; `false` where nothing is known.
    #[doc(alias = "vcpu_is_preempted")]
    fn preempted(&self, _cpu: Cpu) -> bool {
        false
    }

    /// A number below `n`, arbitrary: a checker tries each. Real CPUs that are asked about often give another one each time.
    fn choose(&self, _n: u32) -> u32 {
        0
    }

    /// Counts an event. The default counts nothing and leaves nothing in the code.
    #[inline(always)]
    fn count(&self, _event: Event) {}
}

/// A machine of which there is one, which therefore needs no room in a lock: real CPUs, or the threads of a process.
pub trait GlobalMachine: Machine<Cell: ConstCell> + Sized + 'static {
    /// The machine. Zero-sized.
    const MACHINE: Self;
}
