//! How often what happened, in the slow paths of this process's locks. Feature `stats`; without it nothing is counted,
//! and nothing of it is in the program.
//!
//! Events have the names that Linux gives its own lock events, where it has one for the same thing.
//!
//! ```
//! use qspinlock::{Mutex, stats};
//!
//! let lock = Mutex::new(0);
//! let before = stats::snapshot();
//! std::thread::scope(|s| {
//!     for _ in 0..4 {
//!         s.spawn(|| (0..1000).for_each(|_| *lock.lock() += 1));
//!     }
//! });
//! println!("{}", stats::snapshot() - before);
//! ```

use core::fmt;
use core::ops::Sub;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::machine::Event;

macro_rules! events {
    ($($event:ident: $name:literal,)*) => {
        const EVENTS: [Event; [$($name),*].len()] = [$(Event::$event),*];

        /// The name of an event.
        // Without a wildcard, so that an event which is not in the list does not compile.
        #[must_use]
        pub const fn name(event: Event) -> &'static str {
            match event {
                $(Event::$event => $name,)*
            }
        }
    };
}

// In the order of `Event`: the compiler sees to it below.
events! {
    Pending: "lock_pending",
    Queued: "lock_slowpath",
    NoNode: "lock_no_node",
    SoleHead: "lock_sole_head",
    HandOff: "lock_hand_off",
    Bypassed: "pv_lock_stealing",
    Granted: "lock_granted",
    HandedOver: "lock_handed_over",
    KickUnlock: "pv_kick_unlock",
    WaitHead: "pv_wait_head",
    WaitNode: "pv_wait_node",
    WaitEarly: "pv_wait_early",
    Step: "pv_hash_hops",
    KickWake: "pv_kick_wake",
    Spurious: "pv_spurious_wakeup",
    Rescued: "nap_rescue",
    Abandoned: "lock_abandoned",
    Requeued: "cond_requeued",
    SetAside: "numa_set_aside",
    BroughtBack: "numa_brought_back",
}

const _: () = {
    let mut n = 0;
    while n < EVENTS.len() {
        assert!(EVENTS[n] as usize == n);
        n += 1;
    }
};

/// Enough that a handful of CPUs seldom meet on a line, and few enough to be summed at leisure.
const SHARDS: usize = 16;

#[repr(align(128))]
struct Shard([AtomicU64; EVENTS.len()]);

static COUNTERS: [Shard; SHARDS] = [const { Shard([const { AtomicU64::new(0) }; EVENTS.len()]) }; SHARDS];

/// Counts an event in the share of a thread. One instruction, so a signal handler may.
#[inline]
pub(crate) fn count(event: Event, thread: u32) {
    COUNTERS[thread as usize % SHARDS].0[event as usize].fetch_add(1, Ordering::Relaxed);
}

/// How often what has happened since the process started. Not of one moment: what happens meanwhile may be in it or not.
#[must_use]
pub fn snapshot() -> Stats {
    let sum = |n: usize| COUNTERS.iter().map(|shard| shard.0[n].load(Ordering::Relaxed)).fold(0, u64::wrapping_add);
    Stats(core::array::from_fn(sum))
}

/// How often what happened. Shown as a table; a difference of two is what happened between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats([u64; EVENTS.len()]);

impl Stats {
    /// How often this happened.
    #[must_use]
    pub const fn get(&self, event: Event) -> u64 {
        self.0[event as usize]
    }

    /// Each event with its name and how often it happened.
    pub fn iter(&self) -> impl Iterator<Item = (Event, &'static str, u64)> {
        EVENTS.into_iter().zip(self.0).map(|(event, count)| (event, name(event), count))
    }
}

/// What happened from `earlier` to `self`.
impl Sub for Stats {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self(core::array::from_fn(|n| self.0[n].saturating_sub(earlier.0[n])))
    }
}

/// A line for each event: its name, and how often.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = EVENTS.map(|event| name(event).len()).into_iter().fold(0, usize::max);
        let digits =
            self.0.map(|count| count.checked_ilog10().unwrap_or(0) as usize + 1).into_iter().fold(0, usize::max);
        self.iter().enumerate().try_for_each(|(n, (_, name, count))| {
            let end = if n == 0 { "" } else { "\n" };
            write!(f, "{end}{name:names$}  {count:digits$}")
        })
    }
}
