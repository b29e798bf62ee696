//! What is done with a lock beside taking and releasing it: guards that move, a lock that is freed.

use std::convert::Infallible;
use std::str::FromStr;

use qspinlock::machine::{Access, Cell, Machine};
use qspinlock::slowpath::SlowPath;

use super::machine::{CheckCell, CheckMachine, World, free};
use super::scenario::Guarded;

/// What is done with a lock beside taking and releasing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Usage {
    /// Nothing.
    Plain,
    /// The last CPU takes no lock, and releases it for all others, which send it their guards.
    Moved,
    /// The last one to release it frees it.
    Freed,
    /// The last CPU gives up whenever it likes; the others wait, however long.
    Leaving,
    /// All give up whenever they like.
    Hasty,
    /// All look now and then whether the lock stays free, and then take it; the last one also gives up.
    Rescued,
    /// The first CPU has the lock, once, before the others begin, and the pending lane with it: so all others may be in the
    /// queue at once. They give up whenever they like.
    Crowd,
    /// It is resilient: no wait may last for ever, no error be wrong. Nothing beside.
    Alone,
    /// Resilient: the first CPU takes it again while it has it.
    Again,
    /// Resilient: as many locks as CPUs; each CPU takes one and then the next, round the circle.
    Circle,
    /// The same; whoever has looked for a deadlock does not look again.
    Once,
    /// Resilient: two locks that all CPUs take in the same order.
    Ordered,
}

impl Usage {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Plain,
        Self::Moved,
        Self::Freed,
        Self::Leaving,
        Self::Hasty,
        Self::Rescued,
        Self::Crowd,
        Self::Alone,
        Self::Again,
        Self::Circle,
        Self::Once,
        Self::Ordered,
    ];

    /// Its name, as the user writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Moved => "moved",
            Self::Freed => "freed",
            Self::Leaving => "leaving",
            Self::Hasty => "hasty",
            Self::Rescued => "rescued",
            Self::Crowd => "crowd",
            Self::Alone => "resilient",
            Self::Again => "again",
            Self::Circle => "circle",
            Self::Once => "once",
            Self::Ordered => "ordered",
        }
    }

    /// Whether the lock is resilient.
    #[must_use]
    pub const fn is_resilient(self) -> bool {
        matches!(self, Self::Alone | Self::Again | Self::Circle | Self::Once | Self::Ordered)
    }

    /// Whether waiters may give up, for no reason.
    #[must_use]
    pub const fn may_leave(self) -> bool {
        matches!(self, Self::Leaving | Self::Hasty | Self::Rescued | Self::Crowd)
    }
}

impl FromStr for Usage {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|usage| usage.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            format!("unknown usage '{name}'; known are {}", names.join(", "))
        })
    }
}

const SENT: Access = Access::release("guard.sent", "guard.got: the guard");
const GOT: Access = Access::acquire("guard.got", "guard.sent");
const TAKEN: Access = Access::relaxed("guard.taken", "the lock orders it");
const COUNT: Access = Access::relaxed("sections.count", "the lock orders it");

/// What a lock is used for beside being taken and released.
pub(super) struct Beside {
    usage: Usage,
    /// Whether a guard has been sent; or how many sections there have been.
    cell: CheckCell,
}

impl Beside {
    pub(super) fn new(world: &World, usage: Usage) -> Self {
        Self { usage, cell: world.cell("beside") }
    }

    pub(super) fn section<'w, S>(&self, m: &CheckMachine<'w>, guarded: &Guarded<'w, S>, all: usize)
    where
        S: SlowPath<CheckMachine<'w>, Error = Infallible>,
    {
        match self.usage {
            Usage::Moved => {
                let Ok(()) = guarded.lock.acquire_on(m);
                guarded.data.touch();
                self.cell.store(1, SENT);
            }
            Usage::Freed => {
                let Ok(()) = guarded.lock.acquire_on(m);
                guarded.data.touch();
                let sections = self.cell.load(COUNT) + 1;
                self.cell.store(sections, COUNT);
                // SAFETY: acquired above.
                unsafe { guarded.lock.release_on(m) };
                if sections as usize == all {
                    free(guarded.word);
                }
            }
            _ => guarded.section(m),
        }
    }

    /// Releases the lock for somebody else.
    pub(super) fn release<'w, S>(&self, m: &CheckMachine<'w>, guarded: &Guarded<'w, S>)
    where
        S: SlowPath<CheckMachine<'w>, Error = Infallible>,
    {
        m.until(&self.cell, GOT, |sent| sent == 1);
        self.cell.store(0, TAKEN);
        guarded.data.touch();
        // SAFETY: its owner has sent the guard, and the next one does so only when it has the lock.
        unsafe { guarded.lock.release_on(m) };
    }
}
