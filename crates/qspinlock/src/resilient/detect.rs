//! Who waits for whom: a lock is wanted by a CPU, held by another one, which waits for a lock in turn. Round the
//! circle, nobody will ever go on.
//!
//! # Only what is true
//! The records are read while others write them. What makes an answer true:
//! 1. *A wait is one thing.* A CPU numbers its waits, and publishes the number after what it holds and wants in that
//!    wait. Who reads the number, then the entries, then the same number again, has read what belonged to that wait.
//! 2. *All of them again.* When the circle is closed, every number in it is read a second time. Say CPU i waits for a
//!    lock that j holds in its wait. If i's wait had ended well, j would have released that lock, after its own wait
//!    had ended, or before it began and then taken it again. In either case i got the lock before, and what j published
//!    carries that i has gone on: the second look at i would have shown another number. So the first of them to have
//!    gone on would have had to come after another one. None has, unless it gave up, and then it had been so. (It
//!    fences after its wait, so that who has learnt that it gave up, and waits anew, does not see the old wait.)
//!
//! # All that lasts
//! A CPU publishes its wait, then fences, then looks. Of those in a circle the last to publish sees all others. So the
//! circle is found when it closes, at that one's first look, whoever waits how; or, if a handler of one of them waited
//! for something else just then, at the next look of one of them. A CPU that holds nothing can be in no circle, and
//! publishes nothing.
//!
//! One thing is left to the clock: an interrupt that arrives between an owner's claim and its note of it, or between
//! its note and its release, and then waits for another lock. Others cannot know whether that CPU holds the lock. If
//! the interrupt wants that very lock itself, and nobody else has to do with it just then, it can find out
//! ([`is_ours_alone`]).

use core::panic::Location;

use super::record::{At, Own, Wait};
use super::recorder::Recorder;
use super::report::LINKS;
use crate::machine::Access;
use crate::queue::Cpu;
use crate::slowpath::Fallible;
use crate::word::LockWord;

/// CPUs in the longest circle that is found. What is seen of it lies on the stack of who looks, who may be a signal
/// handler.
pub const LONGEST: usize = 128;

const FENCE: Access =
    Access::fence("detect.fence", "itself: of two CPUs that publish a wait and then look, one at least sees the other");

/// One CPU in a circle: it wants a lock, which the next one holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Who: its number, in user space that of the thread's slot.
    pub cpu: Cpu,
    /// What it wants: the address of the lock.
    pub wants: usize,
    /// Where that was asked for.
    pub wants_at: Option<&'static Location<'static>>,
    /// Where it asked for the lock that it holds, and that the one before it wants.
    pub holds_at: Option<&'static Location<'static>>,
}

/// Who waits for whom, from one CPU round to itself.
pub(super) struct Circle {
    /// CPUs and their waits, as they were seen. The first is the one that looked.
    seen: [(Cpu, Wait); LONGEST],
    length: usize,
    /// What there is to tell, which was read before the waits were read again: so it is as true as they are.
    links: [Option<Link>; LINKS],
}

impl Circle {
    /// Nothing has been seen yet. Where it will be found: it is not small.
    pub(super) const fn new() -> Self {
        const NOBODY: (Cpu, Wait) = (Cpu::known(0), Wait::NONE);
        Self { seen: [NOBODY; LONGEST], length: 0, links: [None; LINKS] }
    }

    /// Whether `me` closes a circle by waiting. The caller has begun its wait.
    pub(super) fn find<M: Recorder>(&mut self, m: &M, me: Cpu) -> bool {
        m.fence(FENCE);
        self.walk(m, me).is_some() && self.is_still_there(m)
    }

    /// From one that waits to who holds what it wants, round to `me`. `None` if that does not lead there.
    fn walk<M: Recorder>(&mut self, m: &M, me: Cpu) -> Option<()> {
        let mine = m.record(me).waits()?;
        let (mut cpu, mut wait, mut holds_at) = (me, mine, None);
        loop {
            let (wants, wants_at) = m.record(cpu).wanted(wait)?;
            *self.seen.get_mut(self.length)? = (cpu, wait);
            if let Some(link) = self.links.get_mut(self.length) {
                *link = Some(Link { cpu, wants, wants_at, holds_at });
            }
            self.length += 1;
            let (next, its_wait, held) = holder(m, wants)?;
            (cpu, wait, holds_at) = (next, its_wait, m.record(next).place(held));
            if cpu == me {
                self.links[0].as_mut()?.holds_at = holds_at;
                return (wait == mine).then_some(());
            }
            if self.seen().iter().any(|&(seen, _)| seen == cpu) {
                // A circle without us: its own CPUs find it.
                return None;
            }
        }
    }

    fn seen(&self) -> &[(Cpu, Wait)] {
        &self.seen[..self.length]
    }

    fn is_still_there<M: Recorder>(&self, m: &M) -> bool {
        self.seen().iter().all(|&(cpu, wait)| m.record(cpu).waits() == Some(wait))
    }

    /// How many are in it.
    pub(super) const fn length(&self) -> usize {
        self.length
    }

    /// What there is to tell of it; of a long one, of the first in it.
    pub(super) const fn links(&self) -> &[Option<Link>; LINKS] {
        &self.links
    }
}

/// All CPUs that have a record.
pub(super) fn cpus<M: Recorder>(m: &M) -> impl Iterator<Item = Cpu> + use<M> {
    (0..m.recorded()).filter_map(Cpu::new)
}

/// The CPU that holds a lock and waits for another one, if there is one.
fn holder<M: Recorder>(m: &M, name: usize) -> Option<(Cpu, Wait, At)> {
    cpus(m).find_map(|cpu| {
        let wait = m.record(cpu).waits()?;
        m.record(cpu).held_in(wait, name).map(|at| (cpu, wait, at))
    })
}

/// How the CPU that wants a lock, entered at `except`, stands with it already: in a context that was interrupted, or in
/// the one that now asks again.
///
/// Somebody else may say so as well. Then one of the two has forgotten its guard, with a lock that has been moved away,
/// and it is not for us to say which.
pub(super) fn own<M: Recorder, S: Fallible<M>>(
    m: &M,
    word: &LockWord<M::Cell>,
    name: usize,
    me: Cpu,
    except: At,
) -> Own {
    match m.record(me).own(name, except) {
        Own::Unsure(at) if is_ours_alone::<M, S>(m, word, name, me) => Own::Holds(at),
        Own::Holds(at) if others(m, me).any(|cpu| m.record(cpu).holds(name).is_some()) => Own::Unsure(at),
        own => own,
    }
}

fn others<M: Recorder>(m: &M, me: Cpu) -> impl Iterator<Item = Cpu> + use<M> {
    cpus(m).filter(move |&cpu| cpu != me)
}

/// Whether a lock is held by its CPU's own context that was interrupted in the middle of taking or releasing it.
///
/// Whoever holds a lock has entered it before, and removes it after. So if the lock is held at some moment at which
/// nobody else has entered it, it is ours. The moment is that of the look at the word. Nobody has pushed anything from
/// before the search until after it, so an owner that is seen there would have been entered when the search began, and
/// not removed until it was past. Who holds a lock that is in no record may hold this one.
fn is_ours_alone<M: Recorder, S: Fallible<M>>(m: &M, word: &LockWord<M::Cell>, name: usize, me: Cpu) -> bool {
    // Each only grows: the same sum, the same numbers.
    let pushes = || others(m, me).map(|cpu| u64::from(m.record(cpu).pushes())).sum::<u64>();
    let before = (m.unrecorded(), pushes());
    before.0.is_some()
        && !others(m, me).any(|cpu| m.record(cpu).may_hold(name))
        && !S::is_to_be_had(word.seen_now())
        && (m.unrecorded(), pushes()) == before
}
