//! Taking sleepers out of the queue: what an unlock does when somebody is to be told, and who gets up by itself.

use super::sleepers::State;
use crate::machine::{Event, Machine};
use crate::queue::{Tail, node};
use crate::slowpath::lineup::{first, take_first};
use crate::word::LockWord;

/// Claimed the lock while lying in the queue: its first takes itself out, true. From behind, it is the turn of the first: the
/// lock is released again, in the name of an unlock that did not see the queue; false.
pub(super) fn get_up<M: Machine>(m: &M, word: &LockWord<M::Cell>, me: Tail) -> bool {
    let mine = node(m, me);
    // Taken out by the last owner, just before we claimed?
    if mine.told() == State::Woken {
        return true;
    }
    let is_first = first(m, word) == Some(me);
    if is_first {
        take_first(m, word);
        mine.tell(State::Woken, State::Woken);
    } else {
        release_cold(m, word);
    }
    is_first
}

/// The unlock when somebody is to be told.
#[cold]
#[inline(never)]
pub(super) fn release_cold<M: Machine>(m: &M, word: &LockWord<M::Cell>) {
    let mut woken = None;
    let released = loop {
        let taken = take_first(m, word);
        if let Some((first, _)) = taken {
            let was = node(m, first).tell(State::Woken, State::Owner);
            if was == State::Abandoned {
                continue;
            }
            if let Some(earlier) = woken.replace(first.cpu()) {
                m.kick(earlier);
            }
            if was == State::Starving {
                m.count(Event::HandedOver);
                return m.kick(first.cpu());
            }
        }
        // Refused if somebody has lain down since: perhaps the one that we have told.
        if let Ok(released) = word.release_cold(taken.and_then(|(_, newest)| newest)) {
            break released;
        }
    };
    // Nothing of the lock may be touched from here on: it may be gone.
    if released.is_asked() {
        m.count(Event::Granted);
    }
    if let Some(woken) = woken {
        m.count(Event::KickUnlock);
        m.kick(woken);
    }
}

/// The unlock that leaves the lock to somebody who waits, if anybody does: it belongs to the first sleeper from now on, or
/// is granted to the one in the lane.
#[cold]
pub(super) fn release_fair<M: Machine>(m: &M, word: &LockWord<M::Cell>) {
    loop {
        while let Some((first, _)) = take_first(m, word) {
            if node(m, first).tell(State::Owner, State::Owner) != State::Abandoned {
                m.count(Event::HandedOver);
                return m.kick(first.cpu());
            }
        }
        if word.release_granting() {
            return;
        }
    }
}

/// A lock goes, held by nobody who could release it. What those have left in its queue who gave up is free again.
pub(super) fn bury<M: Machine>(m: &M, word: &LockWord<M::Cell>) {
    let (Some(newest), Some(first)) = (word.newest(), first(m, word)) else { return };
    let mut at = newest;
    loop {
        let older = node(m, at).older();
        node(m, at).bury();
        match older {
            Some(older) if at != first => at = older,
            _ => return,
        }
    }
}
