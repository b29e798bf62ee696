//! How long a waiter tries one thing before it tries the next.

/// The parameters of waiting for a lock whose waiters sleep. Times are in nanoseconds.
///
/// | parameter | larger | smaller |
/// |---|---|---|
/// | `spin` | more throughput, longer tail | conflicts become sleeps |
/// | `yields` | unfair with some tens of threads | starvation with many: the worst wait grows a hundredfold |
/// | `lane` | CPU time lost with more threads than CPUs | longer sections become sleeps |
/// | `ask_after` | a longer worst wait | less throughput: a lock that is granted cannot be taken by who runs |
/// | `poll` | time lost before each sleep | sleeps that a wake-up misses, to be found by the nap's end |
/// | `nap` | such a sleep lasts longer | wake-ups for nothing while an owner is away |
/// | `turns` | a longer worst wait | convoys: the lock waits for a thread to wake |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A newcomer spins so long, and so does a waiter that was woken and finds another one spinning.
    pub spin: u32,
    /// A newcomer yields its CPU so many times, and tries after each, before it waits in earnest.
    pub yields: u32,
    /// The one waiter in the lane spins so long before it sleeps.
    pub lane: u32,
    /// The waiter in the lane asks for the lock to be granted to it after so long.
    pub ask_after: u32,
    /// The first to sleep looks at the lock for so long after it has announced itself. See
    /// [`Parking`](super::Parking#unlock).
    pub poll: u32,
    /// The first sleep of the first in the queue ends by itself after so long, each next one after twice as long. 0:
    /// never.
    pub nap: u32,
    /// The same, of those behind it.
    pub nap_behind: u32,
    /// A waiter that was woken so many times and did not get the lock is handed it when its next turn comes.
    pub turns: u32,
}

impl Patience {
    /// What measured best.
    pub const DEFAULT: Self = Self {
        spin: 500,
        yields: 2,
        lane: 5_000,
        ask_after: 700,
        poll: 1_000,
        nap: 1_000_000,
        nap_behind: 16_000_000,
        turns: 8,
    };
}

impl Default for Patience {
    fn default() -> Self {
        Self::DEFAULT
    }
}
