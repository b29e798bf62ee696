//! Waiting for the lock until some moment.
//!
//! The same phases as without an end: spin, yield, lane, sleep; each ends at the deadline at the latest. What differs
//! is how one leaves.
//!
//! **In the queue.** Only the owner of the lock takes nodes out, and need not do so for long. So a waiter that is late
//! marks its node *abandoned* and goes; an owner that comes upon such a node makes it idle and takes out the next. The
//! node is in use until then, hence not that of a nesting level: a slot has a few of its own for this
//! ([`NODES`](crate::queue::NODES)). A waiter that finds them all in use has no node. It is never woken, so it looks by
//! itself, at growing distances.
//!
//! The mark is a compare-and-swap from *waiting*. If it fails, the waiter has been taken out of the queue and told
//! something. *Owner*: the lock is its own, and late or not, it has it.
//!
//! **Woken.** Who was taken out of the queue and told *woken* has the duty to look after the lock: if that is free, and
//! others sleep, nobody else will. So it takes the lock if it can. To have seen the lock held is not enough for going
//! away: it may be held by the very owner that told us, which is about to release it, and takes out nobody else. Those
//! who stay lie down again, which that owner notices ([`LockWord::release_cold`]). So does who goes, if others are in
//! the queue: it leaves its node there, abandoned from the start. Whoever holds the lock then finds the queue changed
//! or, if it came later, finds the queue. With nobody there, nobody needs us: a sleeper that comes later comes after
//! our look, and after the owner that we have seen.
//!
//! **The first to lie down** watches for the unlocker that did not see it, with naps that end by themselves
//! ([`Parking`](super::Parking)). One that goes looks a last time, and takes the lock if it is free. If not, the one
//! whose unlock has yet to come may still be an unlocker that did not see it; then those behind have their own naps,
//! longer ones (16 ms, and doubling), which find the lock free.
//!
//! **Left behind.** A lock that is never unlocked again keeps what lies in its queue. Of a guard that was forgotten
//! nothing else can be expected; when a [resilient](crate::resilient) lock goes, its nodes are free again
//! ([`bury`](super::unlock::bury)). And if a lock is dropped while an unlocker's store is under way past a waiter that
//! gave up, that waiter's thread is left with one node less for this. It costs promptness, once all three are gone, and
//! nothing else.

use super::sleepers::State;
use super::{Patience, lane, sleep_on, spin_from};
use crate::machine::{Event, Machine};
use crate::slowpath::place::Place;
use crate::slowpath::vigil::Vigil;
use crate::word::LockWord;

/// The first look of a waiter without a node comes after this time, each next one after twice as long.
const DOZE: u64 = 20_000;
const LONGEST_DOZE: u64 = 2_000_000;

/// Waits for the lock and takes it, for as long as the vigil lets it. If it fails it leaves no trace but abandoned
/// nodes.
pub(super) fn acquire_under<M: Machine, V: Vigil<M>>(
    m: &M,
    word: &LockWord<M::Cell>,
    patience: &Patience,
    vigil: &mut V,
) -> Result<(), V::Error> {
    let patience = &if V::MAY_BE_HANDED { *patience } else { Patience { turns: u32::MAX, ..*patience } };
    let now = m.now();
    vigil.look_at(m, now)?;
    if spin_from(m, word, &hurried(patience, vigil.due(), now), now) {
        return Ok(());
    }
    for _ in 0..patience.yields {
        vigil.look(m)?;
        m.yield_cpu();
        if word.claim() {
            return Ok(());
        }
    }
    let (mut place, mut turns, mut doze) = (None, 0, DOZE);
    let over = loop {
        let now = m.now();
        if let Err(over) = vigil.look_at(m, now) {
            break over;
        }
        let hasty = hurried(patience, vigil.due(), now);
        if (turns > 0 && spin_from(m, word, &hasty, now)) || lane(m, word, &hasty) {
            return Ok(());
        }
        place = place.or_else(|| Place::take(m));
        if let Some(taken) = &place {
            match sleep_on(m, word, &hasty, turns, taken.me, vigil) {
                Ok(State::Owner) => return Ok(()),
                // Where nobody is handed it, one is as good as many.
                Ok(_) => turns = if V::MAY_BE_HANDED { patience.turns.min(turns + 1) } else { 1 },
                Err(over) => {
                    place.take().expect("we lay there").leave(m);
                    return if word.claim() { Ok(()) } else { Err(over) };
                }
            }
        } else {
            if doze == DOZE {
                m.count(Event::NoNode);
            }
            if let Err(over) = vigil.look_before_sleep(m) {
                break over;
            }
            let end = m.now().saturating_add(doze);
            word.doze(m, vigil.due().map_or(end, |due| due.min(end)));
            m.yield_cpu();
            doze = LONGEST_DOZE.min(doze * 2);
        }
        if word.claim() {
            return Ok(());
        }
    };
    if place.is_some_and(|place| pass_on(m, word, place)) { Ok(()) } else { Err(over) }
}

/// The same patience, with no phase longer than the time that is left until the vigil's next look.
fn hurried(patience: &Patience, due: Option<u64>, now: u64) -> Patience {
    let left = due.map_or(u64::MAX, |due| due.saturating_sub(now));
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    let least = |phase: u32| phase.min(left);
    let Patience { spin, lane, ask_after, poll, .. } = *patience;
    let (spin, lane, ask_after, poll) = (least(spin), least(lane), least(ask_after), least(poll));
    Patience { spin, lane, ask_after, poll, ..*patience }
}

/// Gives up, having been woken: the duty that comes with it goes to whoever owns the lock. Or takes the lock.
fn pass_on<M: Machine>(m: &M, word: &LockWord<M::Cell>, place: Place<'_, M>) -> bool {
    loop {
        let seen = word.seen();
        if seen.is_for_waiters() {
            if word.claim() {
                return true;
            }
            continue;
        }
        let Some(newest) = seen.tail() else { return false };
        place.node().prepare(place.me, Some(newest), State::Abandoned);
        if word.lie_down(seen.tail(), place.me) {
            place.leave(m);
            return false;
        }
    }
}
