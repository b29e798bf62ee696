//! Waiting for a condition, with the lock released meanwhile.
//!
//! # What happens to a waiter
//! ```text
//!               wait                    notify                      unlock
//!   has the lock ---> listed, asleep -----------> in the lock's queue ------> woken: takes the lock
//!                        |      |                                               ^
//!                        |      +-- notify, and the lock is free ---------------+
//!                        v
//!                     late: takes itself out of the list, and the lock again
//! ```
//! A waiter that is notified is *moved* to the queue of the lock, not woken: whoever notifies mostly holds the lock or is
//! about to, and it would only wake to wait again. It has its turn there as any other sleeper has.
//!
//! # Exactly one outcome
//! The list has a lock of its own. Who takes a waiter out of the list, under that lock, decides what happened to it: a
//! notifier (from *listed* to *waiting*, the state of who is in the lock's queue or about to be) or, when it is late, the
//! waiter. A waiter that is late and finds that it was notified counts as notified, and sleeps on until its turn comes.
//! So a notification is never spent on somebody who reports that its time was over.
//!
//! *No notification is lost.* The waiter is listed before it releases the lock. Who changes what it waits for, under that
//! lock, does so after, and finds it in the list.
//!
//! # Moving
//! The notifier releases the list's lock first, and then pushes the waiter's node on the lock's queue, by the very step by
//! which the waiter would have lain down; it sleeps, so somebody else writes its node. It is pushed behind an owner
//! only, as always. All waiters at a time are pushed in one step, linked as they are.
//!
//! Where waiters do not sleep in the lock's queue (a [`Chosen`](crate::slowpath::Chosen) slow path other than
//! [`Parking`]) they are woken instead, and wait for the lock as any newcomer does.
//!
//! If the lock is free, one waiter is simply told that it is woken. Several would fight for the lock; so the notifier
//! takes the lock, pushes them, and releases it, which wakes the oldest.
//!
//! An owner between the two steps of its [unlock](super#unlock) may not see the first push on an empty queue. The waiter
//! that lies there is asleep and does not watch. So the notifier kicks the waiter that it pushes first; that one looks,
//! naps, and looks again, as the first to lie down does. The same if the last in the queue is somebody who may give up
//! ([`timed`](super::timed)), and so may be the only one there who watches. Behind anybody else no kick is needed: that
//! one watches, or those whom it lay down behind do, or it is past: an owner who came later has seen the queue.
//!
//! The moved waiter does not know whether it is in the queue *yet*. It need not: when it finds the lock free and somebody
//! in the queue, it takes the lock and releases it, and its unlock wakes the oldest there, whoever that is. It naps until
//! it is told something, so it does not matter either whether the kick came before its sleep or ended it.
//!
//! # Freed at once
//! The last waiter may free the condition and the lock as soon as it returns. It returns only after it was told, and it is
//! told by the owner of the lock, or by the notifier's last step. Neither touches the condition any more: its lock was
//! released before. Nor do they touch the lock, after an unlock or a push: a kick goes to the waiter's CPU.

use core::convert::Infallible;
use core::fmt;

use super::list::List;
use super::nap::{Nap, is_past, poll};
use super::sleepers::State;
use super::unlock::release_cold;
use super::{Parking, Patience, Sleeping, contend};
use crate::machine::{Event, GlobalMachine, Machine};
use crate::queue::{LEVELS, Level, Tail, node};
use crate::raw::RawSpinLock;
use crate::slowpath::SlowPath;
use crate::word::LockWord;

/// A condition variable without a lock: who waits for something to change, on machine `M`. Its list has a lock of its own,
/// of kind `I`.
///
/// All who wait at the same time must have come with the same lock, and who notifies them must name that lock. Nothing
/// unsound comes of another one; waiters that are never woken may.
///
/// A waiter has a queue node for as long as it waits. With no node left (on a fifth nesting level, or without a slot) it
/// returns at once, having released the lock for a moment. So callers look again what they waited for, as they must.
pub struct RawCondvar<M: Machine, I = Parking> {
    inner: RawSpinLock<M, I>,
    list: List<M::Cell>,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Somebody has notified the waiter; or it could not wait, for want of a node.
    Notified,
    /// The deadline came first, and no notification was spent on the waiter.
    TimedOut,
    /// The waiter was not let in. It has held the lock throughout.
    Refused,
}

impl<M: GlobalMachine, I> RawCondvar<M, I> {
    /// One on which nobody waits.
    #[must_use]
    pub const fn new() -> Self {
        Self { inner: RawSpinLock::new(), list: List::new() }
    }
}

impl<M: GlobalMachine, I> Default for RawCondvar<M, I> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine, I> fmt::Debug for RawCondvar<M, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawCondvar").field("has_waiters", &!self.list.looks_empty()).finish()
    }
}

impl<M: Machine, I: SlowPath<M, Error = Infallible>> RawCondvar<M, I> {
    /// One on which nobody waits, in cells that hold 0, for machines that make their own cells.
    pub const fn from_cells(inner: M::Cell, oldest: M::Cell, newest: M::Cell) -> Self {
        Self { inner: RawSpinLock::from_cell(inner), list: List::from_cells(oldest, newest) }
    }

    /// Releases the lock, waits to be notified or until [`Machine::now`] reaches the deadline, and takes the lock again.
    ///
    /// `admit` is called with the list locked, and told whether nobody waits now. If it returns false nothing else is
    /// done. It must not panic.
    ///
    /// # Safety
    /// The caller holds `lock`.
    #[allow(unsafe_code, reason = "an obligation on callers")]
    pub unsafe fn wait_on<S: Sleeping<M>>(
        &self,
        m: &M,
        lock: &RawSpinLock<M, S>,
        deadline: Option<u64>,
        admit: impl FnOnce(bool) -> bool,
    ) -> Waited {
        let word = lock.word();
        let Some(level) = Level::take(m) else {
            S::release(m, word);
            m.yield_cpu();
            let Ok(()) = lock.acquire_on(m);
            return if is_past(m, deadline) { Waited::TimedOut } else { Waited::Notified };
        };
        let me = level.me();
        let is_admitted = self.locked(m, || {
            let is_admitted = admit(self.list.is_empty());
            if is_admitted {
                self.list.push(m, me);
            }
            is_admitted
        });
        if !is_admitted {
            return Waited::Refused;
        }
        S::release(m, word);
        let patience = S::patience(m);
        let is_notified = self.sleep(m, S::lines_up().then_some(word), &patience, me, deadline);
        drop(level);
        if !is_notified || !S::lines_up() {
            let Ok(()) = lock.acquire_on(m);
        } else if !word.claim() {
            contend(m, word, &patience, patience.turns.min(1));
        }
        if is_notified { Waited::Notified } else { Waited::TimedOut }
    }

    /// Notifies the oldest waiter, if there is one. `lock` is called with the list locked, and says which lock it came
    /// with; or nothing, if waiters of that lock do not [line up](Sleeping::lines_up).
    pub fn notify_one_on<'l, S: Sleeping<M> + 'l>(
        &self,
        m: &M,
        lock: impl FnOnce() -> Option<&'l RawSpinLock<M, S>>,
    ) -> bool
    where
        M: 'l,
    {
        if self.list.looks_empty() {
            return false;
        }
        let taken = self.locked(m, || self.list.take_oldest(m).map(|oldest| (oldest, lock())));
        let Some((oldest, lock)) = taken else { return false };
        match lock {
            Some(lock) => requeue(m, lock.word(), oldest, oldest),
            None => wake(m, oldest, oldest),
        }
        true
    }

    /// Notifies all waiters. Returns how many there were.
    pub fn notify_all_on<'l, S: Sleeping<M> + 'l>(
        &self,
        m: &M,
        lock: impl FnOnce() -> Option<&'l RawSpinLock<M, S>>,
    ) -> usize
    where
        M: 'l,
    {
        if self.list.looks_empty() {
            return 0;
        }
        let taken = self.locked(m, || self.list.take_all(m).map(|taken| (taken, lock())));
        let Some(((oldest, newest, count), lock)) = taken else { return 0 };
        match lock {
            Some(lock) => requeue(m, lock.word(), oldest, newest),
            None => wake(m, oldest, newest),
        }
        count
    }

    /// Sleeps until told to get up; true. False if late, and out of the list. `word` is that of a lock whose waiters line up.
    fn sleep(
        &self,
        m: &M,
        word: Option<&LockWord<M::Cell>>,
        patience: &Patience,
        me: Tail,
        deadline: Option<u64>,
    ) -> bool {
        let mine = node(m, me);
        loop {
            match mine.sleep(m, State::Listed, deadline) {
                State::Listed => {
                    if is_past(m, deadline) && self.locked(m, || self.list.remove(m, me)) {
                        return false;
                    }
                }
                State::Waiting => break,
                _ => return true,
            }
        }
        // Notified: in the lock's queue, or about to be; or about to be woken.
        if let Some(word) = word {
            poll(m, word, patience);
        }
        let mut nap = Nap::new(m, if word.is_some() { patience.nap } else { 0 });
        loop {
            if let Some(word) = word {
                let seen = word.seen();
                if seen.is_for_waiters() && seen.tail().is_some() && word.claim() {
                    release_cold(m, word);
                }
            }
            match mine.sleep(m, State::Waiting, nap.end_or(None)) {
                State::Waiting => m.count(Event::Spurious),
                _ => return true,
            }
            nap.next(m);
        }
    }

    fn locked<R>(&self, m: &M, f: impl FnOnce() -> R) -> R {
        let Ok(()) = self.inner.acquire_on(m);
        let result = f();
        I::release(m, self.inner.word());
        result
    }
}

/// Wakes notified waiters, which are linked from the newest to the oldest.
fn wake<M: Machine>(m: &M, oldest: Tail, newest: Tail) {
    let mut at = Some(newest);
    while let Some(waiter) = at {
        // Before it is told: its node is its own again then.
        at = if waiter == oldest { None } else { node(m, waiter).older() };
        node(m, waiter).tell(State::Woken, State::Woken);
        m.kick(waiter.cpu());
    }
}

/// Moves notified waiters, which are linked from the newest to the oldest, to the lock's queue.
fn requeue<M: Machine>(m: &M, word: &LockWord<M::Cell>, oldest: Tail, newest: Tail) {
    loop {
        let seen = word.seen();
        if !seen.is_for_waiters() {
            node(m, oldest).follow(oldest, seen.tail());
            if !word.lie_down(seen.tail(), newest) {
                continue;
            }
            m.count(Event::Requeued);
            // The owner may be past its look. Nothing of the lock may be touched from here on: it may be gone.
            if seen.tail().is_none_or(|last| last.level() >= LEVELS) {
                m.kick(oldest.cpu());
            }
            return;
        }
        if oldest == newest {
            return wake(m, oldest, newest);
        }
        if word.claim() {
            push_as_owner(m, word, oldest, newest);
            return release_cold(m, word);
        }
    }
}

fn push_as_owner<M: Machine>(m: &M, word: &LockWord<M::Cell>, oldest: Tail, newest: Tail) {
    loop {
        let seen = word.seen();
        node(m, oldest).follow(oldest, seen.tail());
        if word.lie_down(seen.tail(), newest) {
            return m.count(Event::Requeued);
        }
    }
}
