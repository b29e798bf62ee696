//! CPUs of our own, several memory nodes: spin, and hand off within a domain while that is fair.
//!
//! A line that crosses between sockets takes several times as long as one that does not, and with each hand-off go the
//! lock's line and the lines of what it protects. So the head, while it waits for the lock anyway, sets waiters of other
//! domains aside, into a *secondary queue*, until one of its own domain is next. (D. Dice and A. Kogan, "Compact NUMA-Aware
//! Locks", EuroSys 2019.)
//!
//! ```text
//!   queue       head(A) -> B -> B -> A -> B          secondary  (none)
//!   sorted      head(A) -> A -> B                    secondary  B -> B
//! ```
//!
//! * The secondary queue belongs to the head and travels with the baton: a circle of links, named by its last node. It
//!   takes no room in the word, and none in the lock.
//! * The last waiter is never set aside: somebody may be about to link to it. Nor is an urgent one: an interrupt's, or
//!   one with its interrupts off. It has the preference of whoever it interrupts the run of, and passes it on.
//! * When those set aside have waited for [`Locality::threshold`], they come first again, in their order. So the oldest of
//!   all waiters has its turn after that and a hand-off. Nobody passes a waiter of the lock's own domain.
//! * They also come first again when the head finds none of its own domain in the queue. The reference leaves them aside, and
//!   with one or two CPUs in each domain they wait out the threshold for nothing: 0.65 to 0.85 of `native`'s throughput with
//!   four and eight CPUs on four sockets, where this has 0.93 to 1.12 (`qspin sim --placement spread --cpus 4,8`).
//! * With nobody set aside, most heads do not look ([`Locality::one_in`]): in a short queue there is little to gain. With
//!   somebody set aside each head looks at one waiter at least, also if the lock is free by then: otherwise it is never busy
//!   for long enough after a hand-off to afar, where sections are short, and hand-offs to afar go on.
//!
//! # What crosses to another CPU
//! A hand-off is on the way of everybody, so it is one store, as `native`'s is: the baton names the last of those set aside,
//! and what else belongs to them lies in that one's node. And each link says the domain of whom it names, so that a head which
//! is followed by one of its own domain fetches no line to know it. On four simulated sockets these two are worth a third
//! of the throughput.
//!
//! With one domain, or with nobody far away in the queue, the order is [`Native`](super::Native)'s.
//!
//! # What is ordered by what
//! Elsewhere the lock word orders everything about nodes. Here the head reads nodes behind it before it has claimed the word,
//! and it hands over more than its turn. So links are published (`numa.link`), and so is what comes with a grant
//! (`numa.grant`).

mod leaving;
mod node;
mod text;

pub use text::LocalityError;

use core::convert::Infallible;

use super::vigil::{Fallible, Vigil};
use super::{Flavour, HandsOver, Queue, SlowPath, claim_as_head, walk};
use node::{URGENT, Waiter, short};

use crate::machine::{Budget, Event, Machine};
use crate::queue::{Node, Tail, node};
use crate::word::LockWord;

/// How long a lock stays in one domain while CPUs of others wait. As text: `threshold=1000000,one_in=128`, with the default
/// for what is not named.
///
/// ```
/// use qspinlock::slowpath::Locality;
/// let often = Locality { one_in: 1, ..Locality::DEFAULT };
/// assert_eq!("one_in=1".parse(), Ok(often));
/// assert!("one_in=0".parse::<Locality>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locality {
    /// How long waiters may be set aside, in nanoseconds, until they come first again. Counted in steps of about a
    /// microsecond; at most four seconds. 0: they come first again with the next hand-off.
    #[doc(alias = "numa_spinlock_threshold_ns")]
    pub threshold: u32,
    /// With nobody set aside, one head in so many looks for waiters to set aside. 1: each. 0 is taken as 1.
    #[doc(alias = "SHUFFLE_REDUCTION_PROB_ARG")]
    pub one_in: u32,
}

impl Locality {
    /// A millisecond, and one in 128.
    pub const DEFAULT: Self = Self { threshold: 1_000_000, one_in: 128 };
}

impl Default for Locality {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Those who are set aside, the last of them linked to the first.
#[derive(Clone, Copy, Debug)]
pub struct Aside {
    last: Tail,
    /// In steps of [`STEP_SHIFT`], wrapping.
    since: u32,
    /// They have waited long enough.
    is_due: bool,
    /// When the head last looked, nobody of its own domain waited.
    is_all: bool,
}

impl Aside {
    /// Of those of whom a head has been told.
    fn inherited<M: Machine>(m: &M, last: Tail) -> Self {
        Self { last, since: node(m, last).since(), is_due: false, is_all: false }
    }
}

/// A step of time is 2 to this nanoseconds: 32 bits are more than an hour.
const STEP_SHIFT: u32 = 10;

fn steps<M: Machine>(m: &M) -> u32 {
    (m.now() >> STEP_SHIFT) as u32
}

/// Looks at the word between two looks at the queue.
const LOOKS: Budget = Budget::Looks { most: 16, apart: 1 };

/// The queued spinlock for CPUs that nobody takes away while they wait, on a machine with several memory nodes or
/// last-level caches ([`Machine::domain`]).
#[derive(Clone, Copy, Debug)]
#[doc(alias = "cna")]
pub struct Numa;

impl<M: Machine> Flavour<M> for Numa {
    type Error = Infallible;
    type Baton = Option<Aside>;

    fn prepare(m: &M, mine: &Node<M::Cell>, is_nested: bool) {
        let is_urgent = is_nested || m.is_urgent();
        mine.set_home(if is_urgent { URGENT } else { short(m.domain()) });
    }

    fn link(m: &M, predecessor: Tail, me: Tail) {
        node(m, predecessor).publish_next(Waiter { tail: me, domain: node(m, me).home() });
    }

    fn await_turn(m: &M, mine: &Node<M::Cell>, _: Tail) -> Result<Option<Aside>, Infallible> {
        Ok(mine.handed(m).map(|last| Aside::inherited(m, last)))
    }

    fn await_lock(
        m: &M,
        word: &LockWord<M::Cell>,
        me: Tail,
        mine: &Node<M::Cell>,
        aside: &mut Option<Aside>,
    ) -> Result<Queue, Infallible> {
        sort(m, word, mine, aside);
        let Some(Aside { last, .. }) = *aside else { return Ok(claim_as_head(m, word, me)) };
        loop {
            if word.wait_free(m).tail() != Some(me) {
                if word.claim_head() {
                    return Ok(Queue::Continues);
                }
            } else {
                // Nobody else waits: those set aside are the queue. Who comes links to the last of them.
                let first = node(m, last).next_now().expect("a circle");
                node(m, last).unlink();
                match word.claim_bringing_back(me, last) {
                    Ok(()) => {
                        *aside = None;
                        mine.point_to(first);
                        m.count(Event::BroughtBack);
                        return Ok(Queue::Continues);
                    }
                    Err(now) => {
                        node(m, last).point_to(first);
                        if !now.is_locked() {
                            continue;
                        }
                    }
                }
            }
            m.count(Event::Bypassed);
        }
    }

    fn promote(m: &M, _: &LockWord<M::Cell>, mine: &Node<M::Cell>, mut aside: Option<Aside>) {
        let mut next = mine.next_to_come(m);
        if aside.is_some() {
            let home = home(m, mine);
            next = succession(m, home, &mut aside, next);
            // One store to the line that the next one waits on, mostly: each takes it from it.
            if aside.is_some() && next.domain != home {
                node(m, next.tail).set_home(home);
            }
        }
        node(m, next.tail).hand(aside.map(|aside| aside.last));
    }
}

/// Who comes after the head: `next`, who is next in its queue; unless those set aside have waited for long enough, or none of
/// the lock's domain waits. Then they come before it, and the first of them is next.
fn succession<M: Machine>(m: &M, home: u32, aside: &mut Option<Aside>, next: Waiter) -> Waiter {
    let Some(Aside { last, is_due, is_all, .. }) = *aside else { return next };
    if !(is_due || is_all && !next.may_pass(home)) {
        return next;
    }
    let first = node(m, last).next_now().expect("a circle");
    node(m, last).point_to(next);
    *aside = None;
    m.count(Event::BroughtBack);
    first
}

/// The domain that the lock is to stay in.
fn home<M: Machine>(m: &M, mine: &Node<M::Cell>) -> u32 {
    match mine.home() {
        URGENT => short(m.domain()),
        domain => domain,
    }
}

/// Whether the head is to look for those to set aside. If not since those who are have waited for long enough, notes that.
fn is_to_sort<M: Machine>(m: &M, aside: &mut Option<Aside>) -> bool {
    let Locality { threshold, one_in } = m.locality();
    match aside {
        Some(Aside { since, is_due, .. }) => {
            *is_due = steps(m).wrapping_sub(*since) >= threshold >> STEP_SHIFT;
            !*is_due
        }
        None => one_in <= 1 || m.choose(one_in) == 0,
    }
}

/// While the lock is busy, sets aside who is next, until that is one of our own, or an urgent one.
fn sort<M: Machine>(m: &M, word: &LockWord<M::Cell>, mine: &Node<M::Cell>, aside: &mut Option<Aside>) {
    if !is_to_sort(m, aside) {
        return;
    }
    let home = home(m, mine);
    // With some set aside, one look in any case: a hand-off to afar takes longer than that.
    let mut looks_on = aside.is_some() || word.peek().is_busy();
    while looks_on {
        match set_aside_next(m, mine, home, aside) {
            Sorted::Aside => m.count(Event::SetAside),
            Sorted::Ours => return,
            // Somebody may come whom we let past.
            Sorted::NotYet => drop(word.wait_free_for(m, LOOKS)),
        }
        looks_on = word.peek().is_busy();
    }
}

/// What came of a look at the next waiter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sorted {
    /// It is set aside.
    Aside,
    /// It is to be the next owner.
    Ours,
    /// There is none, or it is the last.
    NotYet,
}

fn set_aside_next<M: Machine>(m: &M, mine: &Node<M::Cell>, home: u32, aside: &mut Option<Aside>) -> Sorted {
    let sorted = match mine.next_now() {
        Some(next) if next.may_pass(home) => Sorted::Ours,
        // Who has a successor is not the last, and will never be: nobody else writes its link any more.
        Some(next) => match node(m, next.tail).next_now() {
            Some(after) => {
                mine.point_to(after);
                set_aside(m, next, aside);
                Sorted::Aside
            }
            None => Sorted::NotYet,
        },
        None => Sorted::NotYet,
    };
    if let Some(aside) = aside {
        aside.is_all = sorted == Sorted::NotYet;
    }
    sorted
}

/// Puts a waiter, taken out of the queue, behind those who are set aside.
fn set_aside<M: Machine>(m: &M, waiter: Waiter, aside: &mut Option<Aside>) {
    let theirs = node(m, waiter.tail);
    match aside {
        None => {
            theirs.point_to(waiter);
            *aside = Some(Aside { last: waiter.tail, since: steps(m), is_due: false, is_all: false });
        }
        Some(aside) => {
            let last = node(m, aside.last);
            theirs.point_to(last.next_now().expect("a circle"));
            last.point_to(waiter);
            aside.last = waiter.tail;
        }
    }
    if let Some(Aside { since, .. }) = aside {
        theirs.set_since(*since);
    }
}

// SAFETY: the walk returns when it has claimed the byte; `await_lock` returns when one of three claims has.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: Machine> SlowPath<M> for Numa {
    type Error = Infallible;
    const NAME: &'static str = "numa";

    fn acquire(m: &M, word: &LockWord<M::Cell>) -> Result<(), Infallible> {
        walk::<M, Self>(m, word)
    }
}

// SAFETY: that walk, too.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: Machine> Fallible<M> for Numa {
    fn acquire_under<V: Vigil<M>>(m: &M, word: &LockWord<M::Cell>, vigil: &mut V) -> Result<(), V::Error> {
        super::leaving::walk::<M, Self, V>(m, word, vigil)
    }
}

impl<M: Machine> HandsOver<M> for Numa {
    /// Every unlock is as fair as the queue is: newcomers see the waiter's bits, and queue.
    #[inline(always)]
    fn release_fair(_m: &M, word: &LockWord<M::Cell>) {
        word.release();
    }
}
