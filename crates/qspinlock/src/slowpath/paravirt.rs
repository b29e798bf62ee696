//! Virtual CPUs that a hypervisor may take away at any time, and that can sleep until another one kicks them.
//!
//! A fair queue waits for its head, and here the head may not be running. So waiters spin for a while and then sleep, which
//! gives their CPU to somebody who has something to do; and as long as the head of the queue sleeps, who comes by may take
//! the lock (*stealing*).
//!
//! ```text
//!   newcomer   lock free and head not awake? take it ---> else join the queue
//!   waiter     spin ---> sleep ---> made the head, asleep or awake
//!   head       awake: nobody may steal ---> spin ---> asleep: "slow", anybody may steal ---> woken by the unlock
//! ```
//!
//! * **Made the head without being woken.** The new owner makes the next in the queue the head *before* its critical
//!   section. If that one sleeps it stays asleep: the lock is held, it could only spin. Instead the owner marks the lock
//!   *slow*, and whoever unlocks wakes it. One wake-up an acquisition, not two.
//! * **One word decides each race.** A waiter goes to sleep by a read-modify-write on its node, and is made the head by
//!   another one: so each knows what the other did, with no fence between a flag and a state. The head goes to sleep by a
//!   read-modify-write on the lock word that takes the lock instead if that is free; the slow unlock is another. Whichever
//!   comes second sees the first.
//! * **Early sleep is not contagious.** A waiter behind somebody who sleeps need not spin its whole budget: its turn is far
//!   off. But only behind one that has spent its own budget; not behind one that slept early itself, not even if that one
//!   has been made the head since.
//!   Otherwise a single sleeper puts the whole queue behind it to sleep, and each hand-off is a wake-up. The machine's hint
//!   that a CPU is preempted counts only for the head, for the same reason.
//!
//! # From the lock to its sleeping head, without a table
//! An unlock has the address of a lock and needs to know whom to wake. The usual answer is a hash from locks to heads,
//! filled before the lock is marked slow, emptied before it is released, with an entry a lock and a proof that it never
//! runs over. Here the queue itself leads there: the lock word names the newest waiter, and each knows who came before
//! it (`lineup.rs`). Only the owner of the lock looks, and only an owner changes who is first; so what it
//! finds is right, whoever the owner is: one who stole the lock, or a thread that was sent the guard. Nothing can be full,
//! nothing has to be removed before the release, nothing is allocated at start, and no two locks share a line of anything.
//! Each waiter is walked past once, so the price is that of one probe a waiter ([`Event::Step`] counts them).
//!
//! # Nothing of the lock is touched after it is free
//! The slow unlock looks up the head, releases, and then touches only the head's node and its CPU, which live as long as
//! the machine: it writes *head, awake*, and kicks.
//!
//! The write is never too late. A head sleeps until its node says otherwise, whatever else wakes its CPU. The lock is marked
//! slow once for each such sleep: by the head, or by who made it the head. The one unlock that takes the mark away is the
//! one that writes. So while this write is to come the head stays where it is, and its node is in no other queue.
//!
//! The kick may be late: the head may have looked at its node by itself, and its CPU may wait for something else by
//! then. It looks again there, finds nothing new, and sleeps on.
//!
//! # Bounded stealing
//! A thief passes a sleeping head, not one that is awake. While a head that was woken is on its way (its CPU may have
//! been given to somebody else) any number of thieves may pass: that is what they are for. But a head that was woken so
//! many times ([`turns`](Patience::turns)) in vain sleeps with nobody allowed to steal, and so has the lock next. Those
//! behind it wait for it, in order of arrival. (Who looked before anybody queued may pass once, as
//! [everywhere](crate::word); and so may, at any time, who has no node.)
//!
//! How long everybody spins is the machine's to say ([`Machine::patience`]): `spin` and `yields` of a newcomer, `lane` of
//! who is in the queue, `turns`.

mod turn;

use core::convert::Infallible;

use self::turn::Turn;
use super::lineup::{first, step_out};
use super::vigil::{Fallible, Vigil, beside};
use super::{HandsOver, Patience, SlowPath, test_and_set};
use crate::machine::{Budget, Event, Machine};
use crate::queue::{Level, Node, Tail, node};
use crate::word::{Behind, LockWord, Value};

/// The queued lock for virtual CPUs. See the [module](self).
#[derive(Clone, Copy, Debug)]
#[doc(alias = "__pv_queued_spin_lock_slowpath")]
pub struct Paravirt;

// SAFETY: every way out of `acquire` is a claim of the locked byte.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: Machine> SlowPath<M> for Paravirt {
    type Error = Infallible;
    const NAME: &'static str = "paravirt";

    fn acquire(m: &M, word: &LockWord<M::Cell>) -> Result<(), Infallible> {
        let patience = m.patience();
        if steal(m, word, &patience) {
            return Ok(());
        }
        let Some(level) = Level::take(m) else {
            test_and_set::barge(m, word);
            return Ok(());
        };
        wait_in_line(m, word, &patience, level.me());
        Ok(())
    }

    #[inline(always)]
    fn release(m: &M, word: &LockWord<M::Cell>) {
        if !word.release_fast() {
            release_slow(m, word);
        }
    }
}

// SAFETY: every way out is a claim of the locked byte, or says so.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: Machine> Fallible<M> for Paravirt {
    fn acquire_under<V: Vigil<M>>(m: &M, word: &LockWord<M::Cell>, vigil: &mut V) -> Result<(), V::Error> {
        beside::<M, Self, V>(m, word, vigil)
    }
}

impl<M: Machine> HandsOver<M> for Paravirt {
    /// As every unlock: a head that is awake has it next, and one that sleeps would have to be waited for.
    fn release_fair(m: &M, word: &LockWord<M::Cell>) {
        Self::release(m, word);
    }
}

/// Looks at the predecessor while a waiter spins, spread over its budget.
#[doc(alias = "PV_PREV_CHECK_MASK")]
const EARLY_LOOKS: u32 = 8;

/// Takes the lock while no head is awake, for a while. A queue without a head to wait for is one to be in front of.
fn steal<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience) -> bool {
    if patience.spin > 0 {
        // Before the time is asked for: behind a sleeping head the lock is mostly free.
        if word.steal() {
            return true;
        }
        let budget = Budget::Until(m.now().saturating_add(patience.spin.into()));
        while word.watch(m, budget, |v| v.is_for_thieves() || v.is_head_awake()) {
            if word.steal() {
                return true;
            }
            if word.peek().is_head_awake() {
                return false;
            }
            m.count(Event::Bypassed);
        }
    }
    (0..patience.yields).any(|_| {
        m.yield_cpu();
        word.steal()
    })
}

/// Joins the queue, and leaves it with the lock.
fn wait_in_line<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience, me: Tail) {
    let mine = node(m, me);
    let before = loop {
        let last = word.peek().tail();
        mine.take_turn(last.is_none());
        mine.follow(me, last);
        if word.join(last, me) {
            break last;
        }
    };
    m.count(Event::Queued);
    let has_slept = before.is_some_and(|before| await_turn(m, patience, mine, before));
    match await_lock(m, word, patience, me, has_slept) {
        Behind::Nobody => m.count(Event::SoleHead),
        Behind::UpTo(newest) => {
            promote(m, word, step_out(m, newest));
            m.count(Event::HandOff);
        }
    }
}

/// Waits to be made the head. Whether it slept.
fn await_turn<M: Machine>(m: &M, patience: &Patience, mine: &Node<M::Cell>, before: Tail) -> bool {
    let Some(early) = spin(m, patience, mine, before) else { return false };
    let Some(turn) = mine.doze_off(early) else { return false };
    if early {
        m.count(Event::WaitEarly);
    }
    m.count(Event::WaitNode);
    mine.sleep_through(m, turn);
    true
}

/// Spins until it is made the head: `None`. Or until it should sleep: whether that is early.
fn spin<M: Machine>(m: &M, patience: &Patience, mine: &Node<M::Cell>, before: Tail) -> Option<bool> {
    let looks = patience.lane.min(EARLY_LOOKS);
    for _ in 0..looks {
        let budget = Budget::Until(m.now().saturating_add((patience.lane / looks).into()));
        if mine.await_headship(m, budget) {
            return None;
        }
        if node(m, before).is_far(m, before.cpu()) {
            return Some(true);
        }
    }
    Some(false)
}

/// The head waits until it has the lock. It has slept before it was made the head, or not.
fn await_lock<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience, me: Tail, has_slept: bool) -> Behind {
    let mine = node(m, me);
    let mut vain = u32::from(has_slept);
    // Who was made the head in its sleep sleeps on: the lock is held, and has been or will be marked slow.
    let mut asleep = mine.is_head_asleep();
    loop {
        if let Some(turn) = asleep {
            m.count(Event::WaitHead);
            mine.sleep_through(m, turn);
        }
        if let Some(behind) = word.rise(me) {
            return behind;
        }
        let budget = Budget::Until(m.now().saturating_add(patience.lane.into()));
        while patience.lane > 0 && word.watch(m, budget, Value::is_free) {
            if let Some(behind) = word.claim_as_first(me) {
                return behind;
            }
            m.count(Event::Bypassed);
        }
        mine.nod_off();
        if let Some(behind) = word.slow_down(me, vain >= patience.turns) {
            return behind;
        }
        asleep = Some(Turn::HeadAsleep);
        vain += 1;
    }
}

/// The new owner makes the next in the queue the head, and leaves it asleep if it sleeps.
fn promote<M: Machine>(m: &M, word: &LockWord<M::Cell>, next: Tail) {
    if node(m, next).promote() {
        word.mark_slow();
    }
}

/// The unlock when the head is to be woken.
#[cold]
#[inline(never)]
fn release_slow<M: Machine>(m: &M, word: &LockWord<M::Cell>) {
    let head = first(m, word).expect("a slow lock has a queue");
    word.release_slow();
    // Nothing of the lock may be touched from here on: it may be gone.
    node(m, head).rouse();
    m.count(Event::KickUnlock);
    m.kick(head.cpu());
}
