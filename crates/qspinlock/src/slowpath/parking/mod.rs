//! Threads, which the scheduler may take away at any moment: spin a little, yield, sleep; and bar nobody who runs.
//! (docs to be written)

mod patience;
mod sleepers;

pub use patience::Patience;

use core::convert::Infallible;

use self::sleepers::{State, take_first};
use super::SlowPath;
use crate::machine::{Budget, Event, Machine};
use crate::queue::{Level, node};
use crate::word::{LockWord, Step};

/// The lock for threads.
#[derive(Clone, Copy, Debug)]
pub struct Parking;

// SAFETY: every way out of `acquire` is a claim of the locked byte, or a hand-over by who had claimed it.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: Machine> SlowPath<M> for Parking {
    type Error = Infallible;
    const NAME: &'static str = "parking";

    fn acquire(m: &M, word: &LockWord<M::Cell>) -> Result<(), Infallible> {
        wait_for(m, word);
        Ok(())
    }

    #[inline(always)]
    fn try_acquire(word: &LockWord<M::Cell>) -> bool {
        word.barge()
    }

    #[inline(always)]
    fn release(m: &M, word: &LockWord<M::Cell>) {
        if !word.release_hot() {
            release_cold(m, word);
        }
    }
}

/// The same, whose unlock is one atomic step and whose sleeps do not end by themselves: nothing covers a mistake.
#[derive(Clone, Copy, Debug)]
pub struct ParkingExact;

// SAFETY: as above.
#[allow(unsafe_code, reason = "promises exclusion")]
unsafe impl<M: Machine> SlowPath<M> for ParkingExact {
    type Error = Infallible;
    const NAME: &'static str = "parking-exact";

    fn acquire(m: &M, word: &LockWord<M::Cell>) -> Result<(), Infallible> {
        wait_for_with(m, word, &Patience { nap: 0, nap_behind: 0, ..m.patience() });
        Ok(())
    }

    #[inline(always)]
    fn try_acquire(word: &LockWord<M::Cell>) -> bool {
        word.barge()
    }

    #[inline(always)]
    fn release(m: &M, word: &LockWord<M::Cell>) {
        if !word.release_exact() {
            release_cold(m, word);
        }
    }
}

fn wait_for<M: Machine>(m: &M, word: &LockWord<M::Cell>) {
    wait_for_with(m, word, &m.patience());
}

fn wait_for_with<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience) {
    if spin(m, word, patience) {
        return;
    }
    for _ in 0..patience.yields {
        m.yield_cpu();
        if word.claim() {
            return;
        }
    }
    let mut turns = 0;
    loop {
        match word.enter_lane() {
            Step::Claimed => return,
            Step::Done => {
                if lane(m, word, patience) {
                    m.count(Event::Pending);
                    return;
                }
            }
            Step::Refused if turns > 0 => {
                if spin(m, word, patience) {
                    return;
                }
            }
            Step::Refused => {}
        }
        match sleep(m, word, patience, turns) {
            State::Owner => return,
            _ => turns = patience.turns.min(turns + 1),
        }
        if word.claim() {
            return;
        }
    }
}

/// Takes the lock if it becomes free within a short while.
fn spin<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience) -> bool {
    let until = Budget::Until(m.now().saturating_add(patience.spin.into()));
    while word.watch(m, until, |v| v.is_free()) {
        if word.barge() {
            return true;
        }
        m.count(Event::Bypassed);
    }
    false
}

/// Spins in the lane. False, and out of the lane, if that was in vain.
fn lane<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience) -> bool {
    let start = m.now();
    let until = |ns: u32| Budget::Until(start.saturating_add(ns.into()));
    while word.watch(m, until(patience.ask_after), |v| v.is_for_waiters()) {
        if word.claim_from_lane() {
            return true;
        }
    }
    while word.ask() == Step::Done {
        if !word.watch(m, until(patience.lane), |v| v.is_for_waiters() || !v.is_asked()) {
            return word.leave_lane() == Step::Claimed;
        }
        if word.claim_from_lane() {
            return true;
        }
    }
    true
}

/// Lies down and sleeps.
fn sleep<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience, turns: u32) -> State {
    let Some(level) = Level::take(m) else {
        m.yield_cpu();
        return State::Woken;
    };
    let (me, mine) = (level.me(), level.node());
    let state = if turns >= patience.turns { State::Starving } else { State::Waiting };
    let is_first = loop {
        let seen = word.seen();
        if seen.is_for_waiters() {
            if word.claim() {
                return State::Owner;
            }
            continue;
        }
        mine.prepare(me, seen.tail(), state);
        if word.lie_down(seen, me) {
            break seen.tail().is_none();
        }
    };
    m.count(Event::Queued);
    if is_first {
        let until = Budget::Until(m.now().saturating_add(patience.poll.into()));
        if word.watch(m, until, |v| v.is_free()) && word.barge() {
            return rise(m, word, me);
        }
    }
    let mut nap = if is_first { patience.nap } else { patience.nap_behind };
    loop {
        m.count(if is_first { Event::WaitHead } else { Event::WaitNode });
        let until = (nap > 0).then(|| m.now().saturating_add(nap.into()));
        match mine.sleep(m, state, until) {
            State::Waiting | State::Starving => m.count(Event::Spurious),
            told => {
                m.count(Event::KickWake);
                return told;
            }
        }
        if nap > 0 && word.seen().is_free() && word.barge() {
            m.count(Event::Missed);
            return rise(m, word, me);
        }
        nap = nap.saturating_mul(2);
    }
}

/// Took the lock while lying in the queue, or having been taken out of it just now.
fn rise<M: Machine>(m: &M, word: &LockWord<M::Cell>, me: crate::queue::Tail) -> State {
    let mine = node(m, me);
    while mine.told() != State::Woken {
        let (first, _) = take_first(m, word).expect("we are in the queue");
        if node(m, first).tell(false) != State::Abandoned && first != me {
            m.kick(first.cpu());
        }
    }
    State::Owner
}

#[cold]
#[inline(never)]
fn release_cold<M: Machine>(m: &M, word: &LockWord<M::Cell>) {
    let mut woken = None;
    loop {
        let mut rest = None;
        if let Some((first, left)) = take_first(m, word) {
            if let Some(earlier) = woken {
                m.kick(earlier);
            }
            match node(m, first).tell(true) {
                State::Starving => {
                    m.count(Event::HandedOver);
                    return m.kick(first.cpu());
                }
                State::Abandoned => continue,
                _ => woken = Some(first.cpu()),
            }
            rest = left;
        }
        // Not if somebody has lain down since: it may be the one that we have told.
        if word.release_cold(rest) {
            break;
        }
    }
    if let Some(woken) = woken {
        m.count(Event::KickUnlock);
        m.kick(woken);
    }
}
