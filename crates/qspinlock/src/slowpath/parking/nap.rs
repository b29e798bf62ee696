//! How the first to sleep covers the [unlock](super#unlock) that may not have seen it: a watch, then naps that end.

use super::Patience;
use crate::machine::{Budget, Machine};
use crate::word::{LockWord, Value};

/// Watches the word for a moment: an unlock may be under way that has not seen us lie down. Whether the lock is free.
pub(super) fn poll<M: Machine>(m: &M, word: &LockWord<M::Cell>, patience: &Patience) -> bool {
    let budget = || Budget::Until(m.now().saturating_add(patience.poll.into()));
    patience.poll > 0 && word.watch(m, budget(), Value::is_for_waiters)
}

/// A sleep that ends by itself, and then one of twice the length. One of no length has no end.
pub(super) struct Nap {
    length: u32,
    end: u64,
}

impl Nap {
    pub(super) fn new<M: Machine>(m: &M, length: u32) -> Self {
        Self { length, end: m.now().saturating_add(length.into()) }
    }

    pub(super) fn ends(&self) -> bool {
        self.length > 0
    }

    pub(super) fn end_or(&self, deadline: Option<u64>) -> Option<u64> {
        self.ends().then_some(self.end).into_iter().chain(deadline).min()
    }

    /// After a waking. If that was no end of the nap (a signal, an old kick), the nap goes on.
    pub(super) fn next<M: Machine>(&mut self, m: &M) {
        if self.ends() && m.now() >= self.end {
            *self = Self::new(m, self.length.saturating_mul(2));
        }
    }
}

pub(super) fn is_past<M: Machine>(m: &M, deadline: Option<u64>) -> bool {
    deadline.is_some_and(|deadline| m.now() >= deadline)
}
