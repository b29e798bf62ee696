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

    /// How many are in the circle. 1: the caller itself holds what it wants. 0: its time was over.
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

/// The line of who holds a lock.
fn holds(f: &mut fmt::Formatter<'_>, cpu: Cpu, lock: usize, since: Option<&'static Location<'static>>) -> fmt::Result {
    write!(f, "\n  cpu {:<4} holds {lock:#x}, asked for at {}", cpu.index(), Place(since))
}

impl Report {
    fn timed_out(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lock, at, .. } = self;
        write!(f, "timed out after {:.1?}:", self.waited())?;
        match self.cpu {
            Some(cpu) => write!(f, "\n  cpu {:<4} wants {lock:#x} at {}", cpu.index(), Place(*at))?,
            None => write!(f, "\n  a cpu without a number wants {lock:#x} at {}", Place(*at))?,
        }
        match self.holder {
            Some((cpu, since)) => holds(f, cpu, *lock, since),
            None => f.write_str("\n  nobody says that it holds it"),
        }
    }
}

/// ```text
/// deadlock: a circle of 2
///   cpu 3    holds 0x7f0010, asked for at src/one.rs:10:5
///            wants 0x7f0020 at src/one.rs:11:5
///   cpu 0    holds 0x7f0020, asked for at src/two.rs:20:5
///            wants 0x7f0010 at src/two.rs:21:5, which cpu 3 holds
/// ```
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == LockErrorKind::TimedOut {
            return self.timed_out(f);
        }
        match self.length {
            1 => f.write_str("deadlock: who wants the lock holds it")?,
            length => write!(f, "deadlock: a circle of {length}")?,
        }
        // The first one holds what the last one wants.
        let is_whole = self.length <= LINKS;
        let mut held = self.links().last().filter(|_| is_whole).map(|last| last.wants);
        for link in self.links() {
            match held {
                Some(lock) => holds(f, link.cpu, lock, link.holds_at)?,
                None => {
                    write!(f, "\n  cpu {:<4} holds a lock, asked for at {}", link.cpu.index(), Place(link.holds_at))?
                }
            }
            write!(f, "\n           wants {:#x} at {}", link.wants, Place(link.wants_at))?;
            held = Some(link.wants);
        }
        match self.links[0] {
            Some(first) if is_whole && self.length > 1 => write!(f, ", which cpu {} holds", first.cpu.index()),
            Some(_) if !is_whole => write!(f, "\n  and {} more", self.length - LINKS),
            _ => Ok(()),
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    fn link(cpu: u32, wants: usize) -> Link {
        Link { cpu: Cpu::new(cpu).expect("a small number"), wants, wants_at: None, holds_at: None }
    }

    fn report(kind: LockErrorKind, length: usize) -> Report {
        let links = core::array::from_fn(|n| (n < length).then(|| link(n as u32, 0x100 + n)));
        Report { kind, cpu: Cpu::new(0), lock: 0x100, at: None, waited: 2_000_000, holder: None, links, length }
    }

    #[test]
    fn a_circle_is_read_from_line_to_line() {
        let shown = report(LockErrorKind::Deadlock, 2).to_string();
        let lines: [&str; 5] = [
            "deadlock: a circle of 2",
            "  cpu 0    holds 0x101, asked for at an unknown place",
            "           wants 0x100 at an unknown place",
            "  cpu 1    holds 0x100, asked for at an unknown place",
            "           wants 0x101 at an unknown place, which cpu 0 holds",
        ];
        assert_eq!(shown, lines.join("\n"));
    }

    #[test]
    fn a_long_circle_says_how_much_is_not_shown() {
        let shown = report(LockErrorKind::Deadlock, LINKS + 3).to_string();
        assert!(shown.starts_with("deadlock: a circle of 19\n  cpu 0    holds a lock, asked for"), "{shown}");
        assert!(shown.ends_with("\n  and 3 more"), "{shown}");
        assert_eq!(shown.matches("wants").count(), LINKS);
    }

    #[test]
    fn alone_and_too_late() {
        let alone = report(LockErrorKind::Deadlock, 1).to_string();
        assert!(alone.starts_with("deadlock: who wants the lock holds it\n  cpu 0    holds 0x100,"), "{alone}");
        let mut late = report(LockErrorKind::TimedOut, 0);
        assert!(late.to_string().ends_with("nobody says that it holds it"));
        late.holder = Cpu::new(7).map(|cpu| (cpu, None));
        let late = late.to_string();
        assert!(late.starts_with("timed out after 2.0ms:\n  cpu 0    wants 0x100 at"), "{late}");
        assert!(late.ends_with("\n  cpu 7    holds 0x100, asked for at an unknown place"), "{late}");
    }
}
