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
//!   any        (if its wait may end before its turn) given up: `leaving.rs`
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
//! it (`lineup.rs`). While the head sleeps only the owner of the lock looks, and changes who is first; so what it
//! finds is right, whoever the owner is: one who stole the lock, or a thread that was sent the guard. Nothing can be full,
//! nothing has to be removed before the release, nothing is allocated at start, and no two locks share a line of anything.
//! Each waiter is walked past once, so the price is that of one probe a waiter ([`Event::Step`] counts them).
//!
//! # Nothing of the lock is touched after it is free
//! The slow unlock looks up the head, writes *head, awake* into its node, releases, and then only kicks its CPU, which
//! lives as long as the machine.
//!
//! The write comes before the release. The head may have given up in its sleep (`leaving.rs`); then somebody else is to be
//! woken, which the unlock can find out only while the lock is its own. A head sleeps until its node says otherwise,
//! whatever else wakes its CPU; the lock is marked slow once for each such sleep, by the head or by who made it the head;
//! and the one unlock that takes the mark away writes once.
//!
//! The kick comes after the release, so who is woken by it finds the lock free, or stolen. But a CPU may wake for another
//! reason, see the write, and look at a lock that is still held. The word says that it is about to be free; so the head
//! waits for that, and awake, since the unlock looks for nobody any more.
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

mod leaving;
mod turn;

use core::convert::Infallible;

use self::leaving::{Left, leave};
use self::turn::{Found, Turn};
use super::lineup::{first, step_out, take_first_by};
use super::place::Place;
use super::vigil::{Fallible, Never, Vigil, beside, rescue};
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
        let Ok(is_ours) = steal(m, word, &patience, &mut Never);
        if is_ours {
            return Ok(());
        }
        let Some(level) = Level::take(m) else {
            test_and_set::barge(m, word);
            return Ok(());
        };
        wait_in_line(m, word, &patience, &mut Never, level.me()).came
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
        let patience = m.patience();
        if steal(m, word, &patience, vigil)? {
            return Ok(());
        }
        let Some(place) = Place::take(m) else {
            m.count(Event::NoNode);
            return beside::<M, Self, V>(m, word, vigil);
        };
        let ended = wait_in_line(m, word, &patience, vigil, place.me);
        if ended.node_stays {
            place.leave(m);
        }
        ended.came
    }
}

impl<M: Machine> HandsOver<M> for Paravirt {
    /// As every unlock: a head that is awake has it next, and one that sleeps would have to be waited for.
    fn release_fair(m: &M, word: &LockWord<M::Cell>) {
        Self::release(m, word);
    }
}

/// Looks at the predecessor while a waiter spins, spread over its budget; and at whether to give up.
#[doc(alias = "PV_PREV_CHECK_MASK")]
const EARLY_LOOKS: u32 = 8;

/// Takes the lock while no head is awake, for a while. A queue without a head to wait for is one to be in front of.
fn steal<M: Machine, V: Vigil<M>>(
    m: &M,
    word: &LockWord<M::Cell>,
    patience: &Patience,
    vigil: &mut V,
) -> Result<bool, V::Error> {
    vigil.look(m)?;
    if patience.spin > 0 {
        // Before the time is asked for: behind a sleeping head the lock is mostly free.
        if word.steal() {
            return Ok(true);
        }
        let budget = Budget::Until(m.now().saturating_add(patience.spin.into()));
        while word.watch(m, budget, |v| v.is_for_thieves() || v.is_head_awake()) {
            if word.steal() {
                return Ok(true);
            }
            if word.peek().is_head_awake() {
                return Ok(false);
            }
            m.count(Event::Bypassed);
        }
    }
    for _ in 0..patience.yields {
        vigil.look(m)?;
        m.yield_cpu();
        if word.steal() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How a wait in the queue has ended.
struct Ended<E> {
    came: Result<(), E>,
    /// The node is still in the queue.
    node_stays: bool,
}

/// Joins the queue, and leaves it with the lock, or when the vigil ends the wait.
fn wait_in_line<M: Machine, V: Vigil<M>>(
    m: &M,
    word: &LockWord<M::Cell>,
    patience: &Patience,
    vigil: &mut V,
    me: Tail,
) -> Ended<V::Error> {
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
    let turn = match before {
        None => Ok(Turned::Head { has_slept: false }),
        Some(before) => await_turn(m, word, patience, vigil, mine, before),
    };
    let came = turn.and_then(|turned| match turned {
        Turned::Head { has_slept } => await_lock(m, word, patience, vigil, me, has_slept).map(Some),
        Turned::PastAll => Ok(None),
    });
    match came {
        Ok(Some(behind)) => {
            m.count(if behind == Behind::Nobody { Event::SoleHead } else { Event::HandOff });
            hand_on(m, word, behind);
            Ended { came: Ok(()), node_stays: false }
        }
        Ok(None) => Ended { came: Ok(()), node_stays: leave(m, word, me) == Left::Node },
        Err(over) => match leave(m, word, me) {
            Left::Owner => Ended { came: Ok(()), node_stays: false },
            left => Ended { came: Err(over), node_stays: left == Left::Node },
        },
    }
}

/// How a waiter has come to the front.
enum Turned {
    /// It is the head.
    Head {
        /// It was not when it went to sleep.
        has_slept: bool,
    },
    /// It has taken the lock past those before it.
    PastAll,
}

/// Waits to be made the head: spins, and then sleeps.
fn await_turn<M: Machine, V: Vigil<M>>(
    m: &M,
    word: &LockWord<M::Cell>,
    patience: &Patience,
    vigil: &mut V,
    mine: &Node<M::Cell>,
    before: Tail,
) -> Result<Turned, V::Error> {
    let looks = patience.lane.min(EARLY_LOOKS);
    let mut early = false;
    for _ in 0..looks {
        let budget = Budget::Until(m.now().saturating_add((patience.lane / looks).into()));
        if mine.await_headship(m, budget) {
            return Ok(Turned::Head { has_slept: false });
        }
        if vigil.look(m)? && rescue::<M, Paravirt>(m, word) {
            return Ok(Turned::PastAll);
        }
        early = node(m, before).is_far(m, before.cpu());
        if early {
            break;
        }
    }
    vigil.look_before_sleep(m)?;
    let Some(turn) = mine.doze_off(early) else { return Ok(Turned::Head { has_slept: false }) };
    if early {
        m.count(Event::WaitEarly);
    }
    m.count(Event::WaitNode);
    while !mine.sleep_as(m, turn, vigil.due()) {
        if vigil.look(m)? && rescue::<M, Paravirt>(m, word) {
            return Ok(Turned::PastAll);
        }
    }
    Ok(Turned::Head { has_slept: true })
}

/// The head waits until it has the lock. It has slept before it was made the head, or not.
fn await_lock<M: Machine, V: Vigil<M>>(
    m: &M,
    word: &LockWord<M::Cell>,
    patience: &Patience,
    vigil: &mut V,
    me: Tail,
    has_slept: bool,
) -> Result<Behind, V::Error> {
    let mine = node(m, me);
    let mut vain = u32::from(has_slept);
    let looks = if vigil.due().is_some() { EARLY_LOOKS } else { 1 }.min(patience.lane);
    // Who was made the head in its sleep sleeps on: the lock is held, and has been or will be marked slow.
    let mut asleep = mine.is_head_asleep();
    loop {
        if let Some(turn) = asleep {
            m.count(Event::WaitHead);
            while !mine.sleep_as(m, turn, vigil.due()) {
                vigil.look(m)?;
            }
        }
        let found = match word.rise(me) {
            Ok(behind) => return Ok(behind),
            Err(found) => found,
        };
        if found.is_about_to_be_free() {
            await_release(m, word, patience, vigil)?;
            asleep = None;
            continue;
        }
        for _ in 0..looks {
            let budget = Budget::Until(m.now().saturating_add((patience.lane / looks).into()));
            while word.watch(m, budget, Value::is_free) {
                if let Some(behind) = word.claim_as_first(me) {
                    return Ok(behind);
                }
                m.count(Event::Bypassed);
            }
            vigil.look(m)?;
        }
        vigil.look_before_sleep(m)?;
        mine.nod_off();
        if let Some(behind) = word.slow_down(me, vain >= patience.turns) {
            return Ok(behind);
        }
        asleep = Some(Turn::HeadAsleep);
        vain = patience.turns.min(vain + 1);
    }
}

/// The head, told to get going by an unlock that has yet to release, waits for that. It does not sleep: nobody would wake
/// it.
fn await_release<M: Machine, V: Vigil<M>>(
    m: &M,
    word: &LockWord<M::Cell>,
    patience: &Patience,
    vigil: &mut V,
) -> Result<(), V::Error> {
    let is_over = |v: Value| !v.is_about_to_be_free();
    while !word.watch(m, Budget::Until(m.now().saturating_add(patience.lane.into())), is_over) {
        vigil.look(m)?;
        m.yield_cpu();
    }
    Ok(())
}

/// The new owner, which was the head, makes the next in the queue the head, and leaves it asleep if it sleeps.
fn hand_on<M: Machine>(m: &M, word: &LockWord<M::Cell>, behind: Behind) {
    let Behind::UpTo(newest) = behind else { return };
    let next = step_out(m, newest);
    if let Some((_, Found::Sleeping)) = lead(m, word, next, |node| node.promote()) {
        word.mark_slow();
    }
}

/// Makes `head`, the first in the queue, the head, in the way that is given. If it has given up it is taken out, and the
/// next one is the head; and so on. Who it is, and how it was found; `None` if nobody is left.
fn lead<M: Machine>(
    m: &M,
    word: &LockWord<M::Cell>,
    mut head: Tail,
    make_head: impl Fn(&Node<M::Cell>) -> Found,
) -> Option<(Tail, Found)> {
    loop {
        let found = make_head(node(m, head));
        if found != Found::Gone {
            return Some((head, found));
        }
        let (_, newest) = take_first_by(m, word, |last| word.disband(last))?;
        node(m, head).vacate();
        // Of nobody: who comes to an empty queue is the head by itself, and leads it.
        newest?;
        head = first(m, word)?;
    }
}

/// The unlock when the head is to be woken.
#[cold]
#[inline(never)]
fn release_slow<M: Machine>(m: &M, word: &LockWord<M::Cell>) {
    let head = first(m, word).expect("a slow lock has a queue");
    let woken = lead(m, word, head, |node| node.wake());
    word.release_slow();
    // Nothing of the lock may be touched from here on: it may be gone.
    if let Some((head, Found::Sleeping)) = woken {
        m.count(Event::KickUnlock);
        m.kick(head.cpu());
    }
}
