//! How a waiter for a resilient lock watches out: for a circle of waiters, and for the end of its time.

use core::panic::Location;

use super::detect::{self, Circle, Link};
use super::entered::Entered;
use super::error::{LockError, LockErrorKind};
use super::record::{Own, Wait};
use super::recorder::Recorder;
use super::report::{LINKS, Report};
use crate::machine::Access;
use crate::queue::Cpu;
use crate::slowpath::{Fallible, Vigil};
use crate::word::LockWord;

/// When a waiter looks for a deadlock, in nanoseconds. Also before it sleeps for the first time. Each later look comes
/// after twice as long, up to 50 ms: a deadlock is found at the first one, and the others see to what had been in the
/// way of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    /// The first look comes after so long. Waits that are over before cost nothing.
    pub first: u32,
    /// The second comes so long after the first. 0: every look is one for a deadlock, and nobody sees that a clock stands
    /// still; for a model checker, which has none.
    pub next: u32,
}

impl Looks {
    /// 10 µs, and 1 ms.
    pub const DEFAULT: Self = Self { first: 10_000, next: 1_000_000 };
}

/// Later looks come no further apart than 50 ms.
const LONGEST_GAP: u64 = 50_000_000;

/// Looks at a clock that has not moved between any two of them, after which it counts as standing still. Each comes
/// after some looks at the lock, so they take a good part of a second.
const STILL: u32 = 1 << 18;

const OVER: Access =
    Access::release("watch.over", "detect.fence: who knows that we have given up does not see us wait");

/// The vigil of a wait.
pub(super) struct Watch<'a, M: Recorder, S> {
    word: &'a LockWord<M::Cell>,
    name: usize,
    entered: Entered,
    place: &'static Location<'static>,
    limit: u64,
    /// Since the first look at the clock. That comes when the wait has lasted for about a microsecond: reading a clock
    /// takes longer than many a wait.
    clock: Option<Clock>,
    /// What [`Record::begin_wait`](super::record::Record::begin_wait) has said.
    began: Option<Wait>,
    /// Our own CPU has to do with this lock already.
    is_unsure: bool,
    has_looked: bool,
    slow_path: core::marker::PhantomData<fn() -> S>,
}

/// What goes by the clock.
struct Clock {
    start: u64,
    deadline: u64,
    /// The next look.
    due: u64,
    gap: u64,
    last: u64,
    /// For how many looks it has not moved.
    still: u32,
}

impl Clock {
    fn new(now: u64, limit: u64, looks: Looks) -> Self {
        let deadline = now.saturating_add(limit);
        let due = now.saturating_add(looks.first.into()).min(deadline);
        Self { start: now, deadline, due, gap: looks.next.into(), last: now, still: 0 }
    }

    /// Whether it stands still.
    fn is_still(&mut self, now: u64) -> bool {
        self.still = if now == self.last { self.still + 1 } else { 0 };
        self.last = now;
        self.still >= STILL
    }

    /// A look has been taken.
    fn has_looked(&mut self, now: u64) {
        self.due = self.deadline.min(now.saturating_add(self.gap));
        self.gap = self.gap.saturating_mul(2).min(LONGEST_GAP);
    }
}

impl<'a, M: Recorder, S: Fallible<M>> Watch<'a, M, S> {
    /// Begins to watch, before anything is waited for.
    ///
    /// # Errors
    /// The caller holds the lock already.
    pub(super) fn new(
        m: &M,
        word: &'a LockWord<M::Cell>,
        entered: Entered,
        place: &'static Location<'static>,
        limit: u64,
    ) -> Result<Self, LockError> {
        let mut watch = Self {
            word,
            name: m.name(word),
            entered,
            place,
            limit,
            clock: None,
            began: None,
            is_unsure: false,
            has_looked: false,
            slow_path: core::marker::PhantomData,
        };
        watch.is_unsure = watch.look_at_own(m)?;
        Ok(watch)
    }

    /// Whether our own CPU has to do with this lock, in a context that we have interrupted. It cannot go on before we
    /// do, so we must not wait behind it.
    pub(super) const fn is_unsure(&self) -> bool {
        self.is_unsure
    }

    /// The wait is over.
    pub(super) fn end(self, m: &M) {
        if let (Some(before), Some((me, at))) = (self.began, self.entered.get()) {
            m.record(me).end_wait(self.name, at, before);
            m.fence(OVER);
        }
    }

    /// Whether our own CPU has to do with the lock.
    ///
    /// # Errors
    /// It holds it.
    fn look_at_own(&self, m: &M) -> Result<bool, LockError> {
        let Some((me, at)) = self.entered.get() else { return Ok(false) };
        let name = self.name;
        match detect::own::<M, S>(m, self.word, name, me, at) {
            Own::Nothing => Ok(false),
            Own::Unsure(_) => Ok(true),
            Own::Holds(held) => {
                let holds_at = m.record(me).place(held);
                let link = Link { cpu: me, wants: name, wants_at: Some(self.place), holds_at };
                let mut links = [None; LINKS];
                links[0] = Some(link);
                Err(self.error(m, LockErrorKind::Deadlock, &links, 1))
            }
        }
    }

    /// Looks for a circle, and for what had been unsure.
    fn look_around(&mut self, m: &M) -> Result<(), LockError> {
        self.has_looked = true;
        let Some((me, at)) = self.entered.get() else { return Ok(()) };
        if self.is_unsure {
            self.is_unsure = self.look_at_own(m)?;
        }
        // Nobody waits for who holds nothing.
        if self.began.is_none() && m.record(me).has_others(at) {
            self.began = Some(m.record(me).begin_wait(self.name, at));
        }
        if self.began.is_some() { self.look_for_circle(m, me) } else { Ok(()) }
    }

    // Out of line, for the room that it takes on the stack.
    #[inline(never)]
    fn look_for_circle(&self, m: &M, me: Cpu) -> Result<(), LockError> {
        let mut circle = Circle::new();
        if !circle.find(m, me) {
            return Ok(());
        }
        Err(self.error(m, LockErrorKind::Deadlock, circle.links(), circle.length()))
    }

    #[cold]
    #[inline(never)]
    fn error(&self, m: &M, kind: LockErrorKind, links: &[Option<Link>; LINKS], length: usize) -> LockError {
        let name = self.name;
        let report = Report {
            kind,
            cpu: self.entered.get().map(|(me, _)| me),
            lock: name,
            at: Some(self.place),
            waited: self.clock.as_ref().map_or(0, |clock| m.now().saturating_sub(clock.start)),
            holder: detect::cpus(m).find_map(|cpu| {
                let record = m.record(cpu);
                record.holds(name).map(|at| (cpu, record.place(at)))
            }),
            links: *links,
            length,
        };
        LockError::new(kind, m.keep(&report))
    }

    fn time_is_over(&self, m: &M) -> LockError {
        self.error(m, LockErrorKind::TimedOut, &[None; LINKS], 0)
    }

    /// The clock, started now if it has not been.
    fn clock_at(&mut self, m: &M, now: u64) -> &mut Clock {
        self.clock.get_or_insert_with(|| Clock::new(now, self.limit, m.looks()))
    }
}

impl<M: Recorder, S: Fallible<M>> Vigil<M> for Watch<'_, M, S> {
    type Error = LockError;

    /// A waiter that sleeps may have been interrupted, by a handler that waits for somebody who wants this lock. Nobody
    /// could see that it has it.
    const MAY_BE_HANDED: bool = false;

    fn due(&self) -> Option<u64> {
        self.clock.as_ref().map(|clock| clock.due)
    }

    fn gives_way(&self) -> bool {
        self.has_looked
    }

    fn look(&mut self, m: &M) -> Result<bool, LockError> {
        self.look_at(m, m.now())
    }

    fn look_at(&mut self, m: &M, now: u64) -> Result<bool, LockError> {
        let clock = self.clock_at(m, now);
        if now < clock.due {
            return if clock.is_still(now) { Err(self.time_is_over(m)) } else { Ok(false) };
        }
        self.look_around(m)?;
        let clock = self.clock_at(m, now);
        if now >= clock.deadline {
            return Err(self.time_is_over(m));
        }
        clock.has_looked(now);
        Ok(true)
    }

    fn look_before_sleep(&mut self, m: &M) -> Result<(), LockError> {
        let now = m.now();
        if !self.has_looked {
            self.clock_at(m, now).due = now;
        }
        self.look_at(m, now).map(drop)
    }
}
