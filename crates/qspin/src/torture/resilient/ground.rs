//! What the threads of a mode share: locks, a record for each thread, and how a lock is asked for and what it answers is
//! judged.

use std::mem::ManuallyDrop;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use qspinlock::resilient::{LINKS, Report};
use qspinlock::threads::Threads;
use qspinlock::{LockError, LockErrorKind, Machine};

use super::super::section::{FirstOverlap, Guarded};
use super::judge::{Fault, Judge, What};
use super::seat::Seat;
use super::subject::Resilient;

/// Errors that may be the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum May {
    /// None: no circle can be, and the limit is far away.
    Succeed,
    /// The limit is short.
    TimeOut,
    /// A circle can be, and the limit is far away.
    Deadlock,
    /// Both.
    Fail,
}

impl May {
    fn be(self, kind: LockErrorKind) -> Result<(), What> {
        match (kind, self) {
            (LockErrorKind::Deadlock, Self::Deadlock | Self::Fail) => Ok(()),
            (LockErrorKind::Deadlock, _) => Err(What::FalseDeadlock),
            (_, Self::TimeOut | Self::Fail) => Ok(()),
            (_, Self::Deadlock) => Err(What::ByTime),
            (_, Self::Succeed) => Err(What::TimedOut),
        }
    }
}

/// Lives as long as the process, since stuck threads cannot be asked to let go of it.
pub(super) struct Ground<R> {
    pub(super) start: Instant,
    pub(super) seats: Vec<Seat>,
    pub(super) locks: Vec<Guarded<R>>,
    /// A limit that no wait comes near.
    pub(super) long: Duration,
    pub(super) judge: Judge,
    pub(super) overlap: FirstOverlap,
    pub(super) stop: AtomicBool,
    pub(super) rounds: AtomicU64,
    /// Locks that were left behind on purpose.
    pub(super) orphans: AtomicU64,
    pub(super) found: Samples,
}

impl<R: Resilient> Ground<R> {
    pub(super) fn new(seed: u64, seats: usize, locks: usize, long: Duration) -> Self {
        Self {
            start: Instant::now(),
            seats: (0..seats).map(|index| Seat::new(seed, index)).collect(),
            locks: (0..locks).map(|_| Guarded::by(R::new())).collect(),
            long,
            judge: Judge::default(),
            overlap: FirstOverlap::default(),
            stop: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            orphans: AtomicU64::new(0),
            found: Samples::new(),
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Keeps the CPU busy for so long.
    pub(super) fn spin(&self, nanos: u64) {
        let until = self.now() + nanos;
        while self.now() < until {
            std::hint::spin_loop();
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.load(Relaxed) || self.is_caught()
    }

    /// The lock has failed.
    pub(super) fn is_caught(&self) -> bool {
        self.judge.has_any() || self.overlap.count() > 0
    }

    pub(super) fn acquired(&self) -> u64 {
        self.seats.iter().map(|seat| seat.acquired.load(Relaxed)).sum()
    }

    /// Asks for a lock. What comes back was judged already.
    #[track_caller]
    pub(super) fn ask<'a>(
        &'a self,
        seat: &'a Seat,
        lock: usize,
        limit: Duration,
        may: May,
    ) -> Result<Inside<'a, R>, LockError> {
        self.ask_for(seat, &self.locks[lock], lock, limit, may)
    }

    /// The same, of any lock that counts as `lock`.
    #[track_caller]
    pub(super) fn ask_for<'a>(
        &'a self,
        seat: &'a Seat,
        guarded: &'a Guarded<R>,
        lock: usize,
        limit: Duration,
        may: May,
    ) -> Result<Inside<'a, R>, LockError> {
        let level = seat.who().level as usize;
        let began = self.now();
        let is_new = seat.note(level, lock);
        seat.begin(level, lock, limit);
        let answer = guarded.lock.lock_within(limit);
        seat.end(level);
        seat.longest_wait.fetch_max(self.now() - began, Relaxed);
        match answer {
            Ok(guard) => Ok(self.enter(seat, guarded, lock, guard)),
            Err(error) => {
                if is_new {
                    seat.clear(level, lock);
                }
                let count = if error.is_deadlock() { &seat.deadlocks } else { &seat.timed_out };
                count.fetch_add(1, Relaxed);
                let report = error.report();
                if let Err(what) = may.be(error.kind()) {
                    self.fault(seat, what, Some(lock), Some(error));
                } else if report.is_some_and(|report| !self.is_of(&report, seat, &guarded.lock)) {
                    self.fault(seat, What::WrongReport, Some(lock), Some(error));
                }
                Err(error)
            }
        }
    }

    /// Takes a lock if it is to be had at once.
    #[track_caller]
    pub(super) fn try_for<'a>(&'a self, seat: &'a Seat, lock: usize) -> Option<Inside<'a, R>> {
        let level = seat.who().level as usize;
        let guarded = &self.locks[lock];
        let is_new = seat.note(level, lock);
        seat.begin(level, lock, Duration::ZERO);
        let guard = guarded.lock.try_lock();
        seat.end(level);
        if guard.is_none() {
            if is_new {
                seat.clear(level, lock);
            }
            seat.tries_failed.fetch_add(1, Relaxed);
        }
        guard.map(|guard| self.enter(seat, guarded, lock, guard))
    }

    /// Asks for a lock that is not to be had, and not ever: the answer is known. A deadlock is to be found at once.
    #[track_caller]
    pub(super) fn refused(&self, seat: &Seat, guarded: &Guarded<R>, lock: usize, limit: Duration, kind: LockErrorKind) {
        let began = self.now();
        match (self.ask_for(seat, guarded, lock, limit, May::Fail), kind) {
            (Ok(_), _) => self.fault(seat, What::LetIn, Some(lock), None),
            (Err(error), LockErrorKind::Deadlock) if error.is_timeout() => {
                self.fault(seat, What::ByTime, Some(lock), Some(error));
            }
            (Err(error), LockErrorKind::TimedOut) if error.is_deadlock() => {
                self.fault(seat, What::FalseDeadlock, Some(lock), Some(error));
            }
            (Err(error), _) if error.is_deadlock() => self.found.push(self.now() - began),
            (Err(_), _) => {}
        }
    }

    fn enter<'a>(&'a self, seat: &'a Seat, guarded: &'a Guarded<R>, lock: usize, guard: R::Guard<'a>) -> Inside<'a, R> {
        guarded.enter(lock, seat.who(), &self.overlap);
        seat.acquired.fetch_add(1, Relaxed);
        Inside { ground: self, seat, guarded, lock, guard: ManuallyDrop::new(guard) }
    }

    /// Whether a report is one of this thread, and this lock; and of a lock that this thread may hold.
    fn is_of(&self, report: &Report, seat: &Seat, lock: &R) -> bool {
        let is_ours = report.lock() == lock.address() && report.cpu() == Threads.here();
        let first = report.links().next();
        let closes = || {
            let last = report.links().last().filter(|_| report.length() <= LINKS);
            last.and_then(|last| self.index_of(last.wants)).is_none_or(|held| seat.may_hold(held))
        };
        is_ours
            && match report.kind() {
                LockErrorKind::Deadlock => first.is_some_and(|first| first.wants == lock.address()) && closes(),
                _ => first.is_none(),
            }
    }

    fn index_of(&self, address: usize) -> Option<usize> {
        self.locks.iter().position(|guarded| guarded.lock.address() == address)
    }

    pub(super) fn fault(&self, seat: &Seat, what: What, lock: Option<usize>, error: Option<LockError>) {
        self.judge.record(Fault { what, who: seat.who(), lock, error });
    }
}

/// In the section of a lock, until dropped.
pub(super) struct Inside<'a, R: Resilient> {
    ground: &'a Ground<R>,
    seat: &'a Seat,
    guarded: &'a Guarded<R>,
    lock: usize,
    guard: ManuallyDrop<R::Guard<'a>>,
}

impl<R: Resilient> Inside<'_, R> {
    /// Leaves it locked, for ever.
    pub(super) fn abandon(self) {
        self.seat.clear(self.seat.who().level as usize, self.lock);
        std::mem::forget(self);
    }
}

impl<R: Resilient> Drop for Inside<'_, R> {
    fn drop(&mut self) {
        let Self { ground, seat, guarded, lock, .. } = *self;
        let me = seat.who();
        guarded.exit(lock, me, &ground.overlap);
        seat.begin(me.level as usize, lock, Duration::ZERO);
        // SAFETY: it is not used any more.
        unsafe { ManuallyDrop::drop(&mut self.guard) };
        seat.end(me.level as usize);
        seat.clear(me.level as usize, lock);
    }
}

/// Rounds that all threads of a mode begin together, and end in together when it is over.
pub(super) struct Rounds {
    barrier: Barrier,
    goes_on: AtomicBool,
}

impl Rounds {
    pub(super) fn new(threads: usize) -> Self {
        Self { barrier: Barrier::new(threads), goes_on: AtomicBool::new(true) }
    }

    /// Whether there is another one. It has at least one [`meet`](Self::meet).
    pub(super) fn next<R: Resilient>(&self, ground: &Ground<R>, is_leader: bool) -> bool {
        if is_leader {
            self.goes_on.store(!ground.is_over(), Relaxed);
        }
        self.meet();
        self.goes_on.load(Relaxed)
    }

    pub(super) fn meet(&self) {
        self.barrier.wait();
    }
}

const SAMPLES: usize = 1 << 14;

/// How long it took to find deadlocks, until somebody fetches it. Handlers add to it.
pub(super) struct Samples {
    next: AtomicU64,
    /// Nanoseconds + 1; 0, none.
    kept: Box<[AtomicU64]>,
}

impl Samples {
    fn new() -> Self {
        Self { next: AtomicU64::new(0), kept: (0..SAMPLES).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(super) fn push(&self, nanos: u64) {
        let at = self.next.fetch_add(1, Relaxed) as usize % SAMPLES;
        self.kept[at].store(nanos + 1, Relaxed);
    }

    /// Those that have come since. If there were more than it has room for, the later ones.
    pub(super) fn fetch(&self) -> impl Iterator<Item = u64> {
        self.kept.iter().filter_map(|kept| match kept.load(Relaxed) {
            0 => None,
            _ => kept.swap(0, Relaxed).checked_sub(1),
        })
    }
}
