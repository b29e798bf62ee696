//! How long a waiter tries one thing before it tries the next.

mod text;

pub use text::{Excerpt, ParseError};

use core::fmt;

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
///
/// Start from the default and change what you mean to; the methods named after the parameters say what each may be, and
/// [`validate`](Self::validate) checks it. As text: `spin=300,yields=2`, in any order, with the default for what is not
/// named.
///
/// ```
/// use qspinlock::slowpath::Patience;
/// let patience = Patience::DEFAULT.spin(500).yields(3);
/// assert_eq!(patience.validate(), Ok(()));
/// assert_eq!("yields=3, spin=500".parse(), Ok(patience));
/// assert!(Patience::DEFAULT.poll(0).validate().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A newcomer spins so long, and so does a waiter that was woken.
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

    /// For virtual CPUs that sleep by a trip to their hypervisor, which costs some microseconds, and are woken by another
    /// ([`Paravirt`](crate::slowpath::Paravirt)): spin for longer than that is worth. There is nobody to yield to. Not
    /// measured on such machines; a place to start from.
    pub const VIRTUAL: Self = Self { spin: 20_000, yields: 0, lane: 200_000, ..Self::DEFAULT };
}

/// A parameter of [`Patience`]: its name, and what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// As a user writes it; the same as the field.
    pub name: &'static str,
    /// The least it may be.
    pub least: u32,
    /// The most it may be.
    pub most: u32,
}

macro_rules! parameters {
    ($($name:ident: $least:literal to $most:literal,)*) => {
        impl Patience {
            /// All there are.
            pub const PARAMETERS: [Parameter; Self::COUNT] =
                [$(Parameter { name: stringify!($name), least: $least, most: $most }),*];

            pub(crate) const COUNT: usize = [$(stringify!($name)),*].len();

            $(
                #[doc = concat!("Changes [`", stringify!($name), "`](#structfield.", stringify!($name), "): ",
                    stringify!($least), " to ", stringify!($most), ".")]
                #[must_use]
                pub const fn $name(mut self, $name: u32) -> Self {
                    self.$name = $name;
                    self
                }
            )*

            /// The values, in the order of `PARAMETERS`.
            pub(crate) const fn values(&self) -> [u32; Self::COUNT] {
                [$(self.$name),*]
            }

            pub(crate) const fn from_values([$($name),*]: [u32; Self::COUNT]) -> Self {
                Self { $($name),* }
            }
        }
    };
}

// The upper bounds keep a slip of the pen (seconds for nanoseconds, say) from looking like a hang. Of the lower ones,
// that of `poll` is what measured as enough to cover a release in flight. A nap has to end for the same reason: without
// an end, a wake-up that an unlock missed would be lost.
parameters! {
    spin: 0 to 1_000_000,
    yields: 0 to 1_000,
    lane: 0 to 10_000_000,
    ask_after: 0 to 10_000_000,
    poll: 1_000 to 1_000_000,
    nap: 10_000 to 1_000_000_000,
    nap_behind: 10_000 to 4_000_000_000,
    turns: 0 to 10_000,
}

impl Patience {
    /// Whether every parameter is one that a process may use.
    ///
    /// # Errors
    /// The first that is not.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        let of = |(value, Parameter { name, least, most }): (u32, Parameter)| {
            let is_in = (least..=most).contains(&value);
            if is_in { Ok(()) } else { Err(OutOfRange { what: name, value, least, most }) }
        };
        self.values().into_iter().zip(Self::PARAMETERS).try_for_each(of)
    }
}

/// A parameter is not what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange {
    /// Which one.
    pub what: &'static str,
    /// What it is.
    pub value: u32,
    /// The least it may be.
    pub least: u32,
    /// The most it may be.
    pub most: u32,
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, value, least, most } = self;
        write!(f, "`{what}` is {value}: choose from {least} to {most}")
    }
}

impl core::error::Error for OutOfRange {}

impl Default for Patience {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests;
