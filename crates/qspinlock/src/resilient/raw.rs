//! The lock itself, without data.

use core::fmt;
use core::marker::PhantomData;
use core::panic::Location;

use super::detect;
use super::entered::Entered;
use super::error::LockError;
use super::recorder::Recorder;
use super::watch::Watch;
use crate::machine::{Access, GlobalMachine, Machine};
use crate::slowpath::{Chosen, Fallible};
use crate::word::{LockWord, Value};

const FENCE: Access =
    Access::release("resilient.fence", "word.seen-now: who sees the lock taken finds it entered in a record");

/// A resilient lock without data: 4 bytes, on machine `M`, whose waiters follow slow path `S`. See the
/// [module](super).
///
/// Release and acquire synchronise: what an owner did before unlocking is visible to the next owner.
#[doc(alias = "rqspinlock")]
#[doc(alias = "rqspinlock_t")]
#[repr(transparent)]
pub struct RawResilientLock<M: Machine, S = Chosen> {
    word: LockWord<M::Cell>,
    slow_path: PhantomData<fn() -> S>,
}

impl<M: GlobalMachine, S> RawResilientLock<M, S> {
    /// An unlocked lock.
    #[must_use]
    pub const fn new() -> Self {
        Self { word: LockWord::new(), slow_path: PhantomData }
    }
}

impl<M: GlobalMachine, S> Default for RawResilientLock<M, S> {
    fn default() -> Self {
        Self::new()
    }
}

/// The caller does not hold the lock, so it has not been released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotHeld;

impl fmt::Display for NotHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the lock is not held here, and was not released")
    }
}

impl core::error::Error for NotHeld {}

impl<M: Recorder, S: Fallible<M>> RawResilientLock<M, S> {
    /// An unlocked lock in a cell that holds 0, for machines that make their own cells.
    pub const fn from_cell(cell: M::Cell) -> Self {
        Self { word: LockWord::from_cell(cell), slow_path: PhantomData }
    }

    /// Waits for the lock and takes it; no longer than the machine's [limit](Recorder::limit).
    ///
    /// # Errors
    /// See [`LockErrorKind`](super::LockErrorKind). Nothing is held then.
    ///
    /// # Panics
    /// Instead of an error, if the machine is [strict](Recorder::is_strict).
    #[inline(always)]
    #[track_caller]
    #[doc(alias = "raw_res_spin_lock")]
    pub fn acquire_on(&self, m: &M) -> Result<(), LockError> {
        self.enter(m, M::limit).map(drop)
    }

    /// The same, with a limit of its own, in nanoseconds. With 0 it tries once; the largest number is as good as none.
    ///
    /// # Errors
    /// The same.
    ///
    /// # Panics
    /// The same.
    #[inline(always)]
    #[track_caller]
    pub fn acquire_within_on(&self, m: &M, limit: u64) -> Result<(), LockError> {
        self.enter(m, |_| limit).map(drop)
    }

    /// Takes the lock if that can be done at once.
    #[inline(always)]
    #[track_caller]
    #[must_use = "the lock is held only if this is true"]
    pub fn try_acquire_on(&self, m: &M) -> bool {
        self.try_enter(m).is_some()
    }

    /// Releases the lock, if the caller's CPU has it in its record; or may have it, because there was no room.
    ///
    /// # Errors
    /// The caller's CPU does not hold the lock. Nothing has been done.
    ///
    /// # Safety
    /// If the caller's CPU holds the lock, it is the caller's to release: not that of a context which it has
    /// interrupted, and of no guard.
    #[inline]
    #[doc(alias = "raw_res_spin_unlock")]
    #[allow(unsafe_code, reason = "an obligation on callers")]
    pub unsafe fn release_on(&self, m: &M) -> Result<(), NotHeld> {
        let entered = Entered::find(m, m.name(&self.word)).ok_or(NotHeld)?;
        self.exit(m, entered);
        Ok(())
    }

    #[inline(always)]
    #[track_caller]
    pub(super) fn enter(&self, m: &M, limit: impl FnOnce(&M) -> u64) -> Result<Entered, LockError> {
        let (name, place) = (m.name(&self.word), Location::caller());
        // In line is what mostly happens, and nothing that would come together with it again.
        let Some((cpu, entry, at)) = m.known().and_then(|(cpu, record)| {
            let (entry, at) = record.push_simply(m, name, place)?;
            Some((cpu, entry, at))
        }) else {
            return self.enter_anew(m, place, limit);
        };
        let entered = Entered::new(cpu, at);
        // On every way to a claim, before it.
        m.fence(FENCE);
        if !S::try_acquire(&self.word) {
            return self.enter_slow(m, entered, place, limit);
        }
        entry.hold(name);
        Ok(entered)
    }

    /// A CPU that has no number yet; or with fewer locks than it had before, or too many.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn enter_anew(
        &self,
        m: &M,
        place: &'static Location<'static>,
        limit: impl FnOnce(&M) -> u64,
    ) -> Result<Entered, LockError> {
        let name = m.name(&self.word);
        let entered = Entered::enter(m, name, place);
        m.fence(FENCE);
        if !S::try_acquire(&self.word) {
            return self.enter_slow(m, entered, place, limit);
        }
        entered.hold(m, name);
        Ok(entered)
    }

    #[inline(always)]
    #[track_caller]
    pub(super) fn try_enter(&self, m: &M) -> Option<Entered> {
        let name = m.name(&self.word);
        let entered = Entered::enter(m, name, Location::caller());
        m.fence(FENCE);
        let is_ours = S::try_acquire(&self.word) || S::try_past(&self.word);
        if is_ours {
            entered.hold(m, name)
        } else {
            entered.remove(m)
        }
        is_ours.then_some(entered)
    }

    /// Releases what was entered.
    #[inline]
    pub(super) fn exit(&self, m: &M, entered: Entered) {
        let name = m.name(&self.word);
        match entered.entry(m).filter(|entry| entry.is_held(name)) {
            Some(entry) => {
                entry.leave(name);
                m.signal_fence();
                S::release(m, &self.word);
                m.signal_fence();
                entry.remove();
            }
            None => {
                S::release(m, &self.word);
                entered.forget(m);
            }
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn enter_slow(
        &self,
        m: &M,
        entered: Entered,
        place: &'static Location<'static>,
        limit: impl FnOnce(&M) -> u64,
    ) -> Result<Entered, LockError> {
        let name = m.name(&self.word);
        if S::try_past(&self.word) {
            entered.hold(m, name);
            return Ok(entered);
        }
        let result = Watch::<M, S>::new(m, &self.word, entered, place, limit(m)).and_then(|mut watch| {
            let waited = match watch.is_unsure() {
                true => S::acquire_beside(m, &self.word, &mut watch),
                false => S::acquire_under(m, &self.word, &mut watch),
            };
            watch.end(m);
            waited
        });
        // Here, and only here, is undone what was done before; whatever has failed.
        match result {
            Ok(()) => entered.hold(m, name),
            Err(error) => {
                entered.remove(m);
                if m.is_strict() {
                    panic_with(error);
                }
            }
        }
        result.map(|()| entered)
    }

    /// The lock is about to go: takes it out of the records of those who have forgotten their guards, and what waiters
    /// that gave up have left out of its queue. Otherwise another lock that comes to stand in this place would be taken
    /// for it. A lock that is *moved* after its guard was forgotten has that happen: do not.
    pub fn forget_on(&mut self, m: &M) {
        if self.word.peek() != Value::FREE {
            forget(m, m.name(&self.word));
            S::bury(m, &self.word);
        }
    }

    /// Whether anybody holds the lock or waits for it.
    #[inline]
    pub fn is_taken(&self) -> bool {
        S::is_taken(self.word.peek())
    }
}

#[cold]
fn forget<M: Recorder>(m: &M, name: usize) {
    detect::cpus(m).for_each(|cpu| m.record(cpu).forget(name));
}

#[cold]
#[track_caller]
fn panic_with(error: LockError) -> ! {
    match error.report() {
        Some(report) => panic!("{report}"),
        None => panic!("{error}"),
    }
}

impl<M: Machine, S> fmt::Debug for RawResilientLock<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.word.peek();
        f.debug_struct("RawResilientLock").field("locked", &seen.is_locked()).field("tail", &seen.tail()).finish()
    }
}
