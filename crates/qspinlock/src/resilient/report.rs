//! What there is to tell of an error: which locks, who holds them, who wants them, and where in the source that was.

use core::fmt;
use core::num::NonZeroU32;
use core::panic::Location;

use super::detect::Link;
use super::error::LockErrorKind;
use crate::queue::Cpu;

/// Links of a circle that a report keeps. Of a longer one it tells the first, and how many there are.
pub const LINKS: usize = 16;

/// What a report can be recalled by. `None`: it was not kept.
pub type Ticket = Option<NonZeroU32>;

/// Who holds what and wants what, when a lock was not taken. Prints as a circle, a line for each in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub(crate) kind: LockErrorKind,
    pub(crate) cpu: Option<Cpu>,
    pub(crate) lock: usize,
    pub(crate) at: Option<&'static Location<'static>>,
    pub(crate) waited: u64,
    pub(crate) holder: Option<(Cpu, Option<&'static Location<'static>>)>,
    pub(crate) links: [Option<Link>; LINKS],
    pub(crate) length: usize,
}

impl Report {
    /// What kind of error it was.
    #[must_use]
    pub const fn kind(&self) -> LockErrorKind {
        self.kind
    }

    /// The number of the CPU, in user space of the thread's slot, that was told. `None` if it had none.
    #[must_use]
    pub const fn cpu(&self) -> Option<Cpu> {
        self.cpu
    }

    /// The address of the lock that was not taken.
    #[must_use]
    pub const fn lock(&self) -> usize {
        self.lock
    }

    /// Where it was asked for.
    #[must_use]
    pub const fn asked_at(&self) -> Option<&'static Location<'static>> {
        self.at
    }

    /// For how long it was waited for.
    #[must_use]
    pub const fn waited(&self) -> core::time::Duration {
        core::time::Duration::from_nanos(self.waited)
    }

    /// Who said, just then, that it holds the lock, and where it had asked for it. `None`: nobody did. It may have been
    /// between two steps of taking or releasing it, have ended without releasing it, or hold more locks than are
    /// recorded.
    #[must_use]
    pub const fn holder(&self) -> Option<(Cpu, Option<&'static Location<'static>>)> {
        self.holder
    }

    /// The circle, for a deadlock: first who was told. Each wants what the next one holds, and the last what the first
    /// one holds. No more than [`LINKS`].
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().flatten()
    }

    /// How many are in the circle. 1: the caller itself holds what it wants.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }
}

/// A place, or that there is none.
struct Place(Option<&'static Location<'static>>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(place) => place.fmt(f),
            None => f.write_str("an unknown place"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, lock, at, length, .. } = self;
        write!(f, "{kind} at {}", Place(*at))?;
        if *kind == LockErrorKind::TimedOut {
            write!(f, "\n  lock {lock:#x} was waited for {:?}", self.waited())?;
            return match self.holder {
                Some((cpu, since)) => write!(f, "\n  cpu {} holds it, from {}", cpu.index(), Place(since)),
                None => f.write_str("\n  nobody says that it holds it"),
            };
        }
        if let (1, Some(link)) = (*length, self.links[0]) {
            let Link { cpu, wants, holds_at, .. } = link;
            return write!(f, "\n  cpu {} wants lock {wants:#x}, and holds it, from {}", cpu.index(), Place(holds_at));
        }
        let mut links = self.links().peekable();
        while let Some(link) = links.next() {
            write!(f, "\n  cpu {} wants lock {:#x} at {}", link.cpu.index(), link.wants, Place(link.wants_at))?;
            let next = links.peek().copied().or_else(|| self.links[0].as_ref().filter(|_| *length <= LINKS));
            if let Some(next) = next {
                write!(f, "\n    which cpu {} holds, from {}", next.cpu.index(), Place(next.holds_at))?;
            }
        }
        if *length > LINKS {
            write!(f, "\n  and so on: {length} in all")?;
        }
        Ok(())
    }
}
