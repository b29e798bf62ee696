//! The queue walk: how a CPU waits its turn. Read it beside this diagram; a state is (tail, pending, locked).
//!
//! ```text
//!               fast path            unlock
//!   uncontended (0,0,0) --> (0,0,1) --------------------------------------------> (·,·,0)
//!                              |                                                     ^
//!   pending                    +--> (0,1,1) --> wait --> (0,1,0) --> (0,0,1) --------+
//!                              |      lane taken           claim                     |
//!   queued, alone              +--> (n,p,1) --> wait --> (n,0,0) --> (0,0,1) --------+
//!                              |      tail exchanged       claim, queue emptied      |
//!   queued, others behind      +--> (*,p,1) --> wait --> (*,0,0) --> (*,0,1) --------+
//!                                                          claim, then hand off
//! ```
//!
//! * The first to wait takes the **pending** lane. It needs no node, so two CPUs never touch a third line.
//! * Everybody else **queues** (MCS: Mellor-Crummey and Scott, TOCS 1991): exchanges the tail for its own node, links
//!   itself to its predecessor, and waits on a line of its own.
//! * The **head** of the queue waits on the lock word, so no node is carried from lock to unlock, and unlocking is
//!   one store. It has claimed the lock when it passes the baton: its successor spins on the word during its whole
//!   critical section.
//!
//! Order: arrival, but for two exceptions. One pending waiter may stand before a queue that forms behind it; and a
//! CPU that looked when nobody waited may still slip in, once (see [`word`](crate::word)).
//!
//! A **flavour** says only what differs from this walk. What a slow path must offer at all is [`SlowPath`].

mod chosen;
mod leaving;
mod lineup;
mod native;
mod numa;
pub mod paravirt;
pub mod parking;
mod place;
mod test_and_set;
mod vigil;

pub use crate::patch::Chosen;
pub use chosen::ByLoad;
pub use native::Native;
pub use numa::{Locality, LocalityError, Numa};
pub use paravirt::Paravirt;
pub(crate) use parking::kind::Sealed;
pub use parking::{Parking, ParkingExact, Patience, RawCondvar, Sleeping, Waited};
pub use test_and_set::TestAndSet;
pub use vigil::{Fallible, Late, Until, Vigil};

use crate::machine::{Budget, Event, Machine};
use crate::queue::{self, Level, Node, Tail};
use crate::word::{LockWord, Value};

/// What waits when the fast path has failed, and who is told at unlock. One is chosen for a lock, and never changes:
/// two CPUs on different protocols would break it.
///
/// # Safety
/// Exclusion rests on it: [`acquire`](Self::acquire), in its one form as in the other, returns `Ok` only to a caller that has claimed the locked byte of
/// this word (which [`walk`] does, with a flavour whose own waits do so), and [`release`](Self::release) gives up no
/// more than that claim. A mutex with this slow path hands out `&mut` to its data on the strength of it.
#[allow(unsafe_code, reason = "an obligation on implementations")]
pub unsafe trait SlowPath<M: Machine> {
    /// Why an acquire can fail. [`Infallible`](core::convert::Infallible) for most, and then the error handling disappears.
    type Error;

    /// Its name, as the user writes it.
    const NAME: &'static str;

    /// Waits for the lock and takes it.
    ///
    /// # Errors
    /// The flavour's; nothing is held then, and no trace is left in word or queue.
    fn acquire(m: &M, word: &LockWord<M::Cell>) -> Result<(), Self::Error>;

    /// What a lock calls when its fast path has failed: [`acquire`](Self::acquire), out of line, so that a call site is the
    /// fast path and one call.
    ///
    /// # Errors
    /// The same.
    #[cold]
    #[inline(never)]
    fn acquire_cold(m: &M, word: &LockWord<M::Cell>) -> Result<(), Self::Error> {
        Self::acquire(m, word)
    }

    /// The fast path: takes the lock if that can be done at once. By default not past anybody who waits.
    #[inline(always)]
    fn try_acquire(word: &LockWord<M::Cell>) -> bool {
        word.try_acquire()
    }

    /// Takes the lock past those who wait, where who runs may pass; asked when [`try_acquire`](Self::try_acquire) has
    /// failed. By default nobody may, or that one has done it already.
    #[inline(always)]
    fn try_past(_word: &LockWord<M::Cell>) -> bool {
        false
    }

    /// Whether a lock of which this was seen is taken, for an observer: by default also if somebody merely waits, who is
    /// about to take it.
    #[inline(always)]
    fn is_taken(seen: Value) -> bool {
        seen != Value::FREE
    }

    /// Releases the lock. The caller holds it.
    #[inline(always)]
    fn release(_m: &M, word: &LockWord<M::Cell>) {
        word.release();
    }
}

/// A slow path that can leave the lock to somebody who waits, whoever else is faster.
pub trait HandsOver<M: Machine>: SlowPath<M> {
    /// Releases the lock. Whoever waits has it next, if anybody does. The caller holds it.
    fn release_fair(m: &M, word: &LockWord<M::Cell>);
}

/// What a flavour of the queue walk may do differently. The defaults are the native walk.
pub trait Flavour<M: Machine> {
    /// Why an acquire can fail.
    type Error;

    /// Whether the first waiter takes the pending lane. Not where a waiter sleeps: it has no node to sleep on.
    const PENDING_LANE: bool = true;

    /// How long a newcomer waits for a hand-over in flight before it queues. Bounded, since a stream of new pending
    /// waiters would otherwise starve it. The looks are apart, since each takes the line from the waiter that has seen
    /// the lock free and is about to claim it: between two far CPUs the hand-over then takes three trips of the line
    /// instead of two.
    #[doc(alias = "_Q_PENDING_LOOPS")]
    const HANDOVER: Budget = Budget::Looks { most: 8, apart: 10 };

    /// What goes from head to head beside the turn itself: nothing, unless the queue has more to it than its order. The
    /// default is what a head has whom nobody made one.
    type Baton: Default;

    /// Fills in what others should know of the caller, before its node is queued. `is_nested`: it has interrupted a wait.
    fn prepare(_m: &M, _mine: &Node<M::Cell>, _is_nested: bool) {}

    /// Tells the predecessor who is behind it.
    fn link(m: &M, predecessor: Tail, me: Tail) {
        queue::node(m, predecessor).link(me);
    }

    /// A waiter that is not the head waits for its turn.
    ///
    /// # Errors
    /// The flavour's.
    fn await_turn(m: &M, mine: &Node<M::Cell>, _predecessor: Tail) -> Result<Self::Baton, Self::Error> {
        mine.granted(m);
        Ok(Self::Baton::default())
    }

    /// The head waits until it has the lock.
    ///
    /// # Errors
    /// The flavour's.
    fn await_lock(
        m: &M,
        word: &LockWord<M::Cell>,
        me: Tail,
        _mine: &Node<M::Cell>,
        _baton: &mut Self::Baton,
    ) -> Result<Queue, Self::Error> {
        Ok(claim_as_head(m, word, me))
    }

    /// The new owner makes whoever is next the head.
    fn promote(m: &M, _word: &LockWord<M::Cell>, mine: &Node<M::Cell>, _baton: Self::Baton) {
        queue::node(m, mine.successor(m)).grant(1);
    }
}

/// What a head leaves behind when it has taken the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Nobody: it was the last.
    Emptied,
    /// Somebody, who has linked to it or is about to.
    Continues,
}

/// Tries at the pending lane before queueing. More than one, since an owner that leaves between look and swap is no
/// reason to queue; few, since each failure means that somebody else got ahead.
const LANE_TRIES: u32 = 3;

/// The walk.
///
/// # Errors
/// The flavour's. Nothing is held then.
pub fn walk<M: Machine, F: Flavour<M>>(m: &M, word: &LockWord<M::Cell>) -> Result<(), F::Error> {
    let wait = || {
        word.wait_pending(m);
        Ok(())
    };
    if F::PENDING_LANE && pending_lane::<M, F, _>(m, word, wait)? {
        return Ok(());
    }
    // No node, no queue: on a fifth nesting level, or with no slot. Correct, unfair, counted. It may pass a queue
    // whose head is the very context that we interrupted; waiting behind it would be for ever.
    let Some(level) = Level::take(m) else {
        test_and_set::barge(m, word);
        return Ok(());
    };
    let (me, node) = (level.me(), level.node());
    node.init();
    F::prepare(m, node, me.level() > 0);
    // The node's line may have been far away: the lock may be free by now.
    if word.try_acquire() {
        return Ok(());
    }
    m.count(Event::Queued);
    let mut baton = F::Baton::default();
    if let Some(predecessor) = word.exchange_tail(me) {
        F::link(m, predecessor, me);
        baton = F::await_turn(m, node, predecessor)?;
    }
    match F::await_lock(m, word, me, node, &mut baton)? {
        Queue::Emptied => m.count(Event::SoleHead),
        Queue::Continues => {
            F::promote(m, word, node, baton);
            m.count(Event::HandOff);
        }
    }
    Ok(())
}

/// Waits in the pending lane and takes the lock. False if the lane was not to be had: then queue. `wait` waits until
/// nobody holds the lock; if it fails, the lane is free again.
fn pending_lane<M: Machine, F: Flavour<M>, E>(
    m: &M,
    word: &LockWord<M::Cell>,
    mut wait: impl FnMut() -> Result<(), E>,
) -> Result<bool, E> {
    let mut seen = word.settle(m, F::HANDOVER);
    for _ in 0..LANE_TRIES {
        if seen.is_contended() {
            return Ok(false);
        }
        if seen.is_locked() {
            match word.try_pend(seen) {
                Ok(()) => loop {
                    wait().inspect_err(|_| word.unpend())?;
                    if word.claim_from_pending() {
                        m.count(Event::Pending);
                        return Ok(true);
                    }
                    m.count(Event::Bypassed);
                },
                Err(now) => seen = now,
            }
        } else if word.try_acquire() {
            return Ok(true);
        } else {
            seen = word.peek();
        }
    }
    Ok(false)
}

/// The head's wait on the lock word, and its claim.
fn claim_as_head<M: Machine>(m: &M, word: &LockWord<M::Cell>, me: Tail) -> Queue {
    loop {
        // A tail that is not us is for ever: whoever followed us has linked, or will.
        if word.wait_free(m).tail() == Some(me) {
            match word.claim_sole(me) {
                Ok(()) => return Queue::Emptied,
                // Somebody queued behind us; the lock is still free.
                Err(now) if !now.is_locked() => continue,
                Err(_) => {}
            }
        } else if word.claim_head() {
            return Queue::Continues;
        }
        m.count(Event::Bypassed);
    }
}
