//! Threads that are held up for long: asleep for 1 to 20 ms wherever they happen to be, as one that the scheduler has
//! taken off its CPU.
//!
//! Three ways to get there. The pest sends a signal, whose handler sleeps, to threads that hold or wait. A thread sends it
//! to itself in a critical section, most of which are over before the pest's arrives. And on x86-64 a thread steps
//! through its own acquire or unlock by the trap flag of its CPU, and sleeps after some instruction: that finds places
//! which are a few instructions wide, such as between an unlock's look and its store.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;

use super::run::{FREED, Place, Run};
use super::signals;
use crate::locks::Contender;

const SHORTEST_NS: u64 = 1_000_000;
const LONGEST_NS: u64 = 20_000_000;

/// At most one nap of each kind starts within so long, on average in half of it: some thread is away most of the time,
/// but hardly ever all of them.
pub(super) const APART_NS: u64 = 20_000_000;

/// Instructions of a crawl, at most: some ten milliseconds. Of a lock that is freed after use, for which few wait: enough
/// for the longest unlock.
const CRAWL: u32 = 300;
const LONG_CRAWL: u32 = 1_000;

/// What a thread did when it fell asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Holding,
    Waiting,
    /// Between the end of its section and the end of the unlock.
    Unlocking,
    /// None of these.
    Else,
}

/// Naps, by what the thread did.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Naps {
    pub(super) holding: u64,
    pub(super) waiting: u64,
    pub(super) unlocking: u64,
    #[serde(rename = "else")]
    pub(super) otherwise: u64,
    /// Of those, how many were sent to a thread that slept as it waited.
    pub(super) sent_to_sleepers: u64,
    /// Unlocks with a sleep after each instruction.
    pub(super) crawls: u64,
}

impl Naps {
    pub(super) fn of(places: &[Place]) -> Self {
        let sum = |doing: Doing| places.iter().map(|place| place.naps[doing as usize].load(Relaxed)).sum();
        Self {
            holding: sum(Doing::Holding),
            waiting: sum(Doing::Waiting),
            unlocking: sum(Doing::Unlocking),
            otherwise: sum(Doing::Else),
            sent_to_sleepers: places.iter().map(|place| place.sent_to_sleeper.load(Relaxed)).sum(),
            crawls: places.iter().map(|place| place.crawls.load(Relaxed)).sum(),
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.holding + self.waiting + self.unlocking + self.otherwise
    }
}

/// Sleeps. Called in handlers.
fn nap(place: &Place) {
    place.naps[place.doing() as usize].fetch_add(1, Relaxed);
    sleep(SHORTEST_NS + place.random.below(LONGEST_NS - SHORTEST_NS));
}

fn sleep(nanos: u64) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: nanos as libc::c_long };
    // SAFETY: a live timespec; allowed in a handler. Every signal that has a handler here is blocked, or it would end
    // early, which does not matter.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}

/// The handler of a signal that is there to end a system call. A sleeper must stand that it wakes for no reason, at any
/// time: also when it has been told something and not yet been woken.
pub(super) extern "C" fn nudged(_: libc::c_int) {}

/// The handler of the signal that the pest sends.
pub(super) extern "C" fn handler<L: Contender>(_: libc::c_int) {
    signals::on_my_place::<L>(|_, place| nap(place));
}

/// Sends a nap to somebody who holds or waits, if there is anybody.
pub(super) fn send<L: Contender>(run: &Run<L>, place: &Place) {
    let workers = run.workers();
    let start = place.below(workers.len() as u64) as usize;
    let wanted = [Doing::Holding, Doing::Waiting][place.below(2) as usize];
    let found = workers.iter().cycle().skip(start).take(workers.len()).find(|target| target.doing() == wanted);
    if let Some(target) = found {
        if wanted == Doing::Waiting && target.is_asleep() == Some(true) {
            target.sent_to_sleeper.fetch_add(1, Relaxed);
        }
        signals::send_nap(target);
    }
}

/// Where a thread puts itself to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planned {
    Nowhere,
    Acquire,
    Section,
    Unlock,
    /// Through the unlock from some instruction on, with a short sleep after each: what comes after the release comes
    /// long after it, and what is told and not yet done is so for long.
    Crawl {
        most: u32,
    },
}

impl Planned {
    /// Chooses, now and then. More often for a lock that is freed after use, of which there are many.
    pub(super) fn choose<L: Contender>(run: &Run<L>, place: &Place, lock: usize, now: u64) -> Self {
        if !run.recipe.naps {
            return Self::Nowhere;
        } else if lock == FREED && place.one_in(256) {
            return Self::Crawl { most: LONG_CRAWL };
        }
        let due = run.next_planned.load(Relaxed);
        let next = now + place.below(2 * APART_NS);
        if now < due || run.next_planned.compare_exchange(due, next, Relaxed, Relaxed).is_err() {
            return Self::Nowhere;
        }
        [Self::Acquire, Self::Section, Self::Unlock, Self::Crawl { most: CRAWL }][place.below(4) as usize]
    }

    /// Sleeps, if it is to be in the section.
    pub(super) fn in_section(self, place: &Place) {
        if self == Self::Section {
            signals::send_nap(place);
        }
    }

    /// Begins to step through an acquire, if that is the plan. The nap comes after some instructions: as likely a few as
    /// many.
    #[inline(always)]
    pub(super) fn begin_acquire(self, place: &Place) {
        if self == Self::Acquire {
            step::begin(1 + place.below(1 << (4 + place.below(9))) as u32, 0);
        }
    }

    #[inline(always)]
    pub(super) fn end_acquire(self) {
        if self == Self::Acquire {
            step::end();
        }
    }

    /// The same, of an unlock.
    #[inline(always)]
    pub(super) fn begin_unlock(self, place: &Place) {
        let first = || 1 + place.below(1 << (2 + place.below(9))) as u32;
        match self {
            Self::Unlock => step::begin(first(), 0),
            Self::Crawl { most } => step::begin(first(), most),
            _ => {}
        }
    }

    /// Most unlocks are short, and another one may be longer: if this one was over before the nap, who plans the next nap
    /// need not wait.
    #[inline(always)]
    pub(super) fn end_unlock<L: Contender>(self, run: &Run<L>) {
        if matches!(self, Self::Unlock | Self::Crawl { .. }) && step::end() {
            run.next_planned.store(0, Relaxed);
        }
    }
}

/// Installs the handlers that are here. `mask`: all signals with handlers.
pub(super) fn install<L: Contender>(mask: libc::sigset_t) -> std::io::Result<()> {
    step::install::<L>(mask)
}

pub(super) fn longest() -> Duration {
    Duration::from_nanos(LONGEST_NS)
}

#[cfg(target_arch = "x86_64")]
mod step {
    use std::arch::asm;
    use std::cell::Cell;
    use std::ffi::c_void;
    use std::sync::atomic::Ordering::Relaxed;

    use super::{nap, signals, sleep};
    use crate::locks::Contender;

    const TRAP_FLAG: i64 = 0x100;

    std::thread_local! {
        /// Instructions before the nap, and those of the crawl.
        static LEFT: Cell<u32> = const { Cell::new(0) };
        static CRAWL_LEFT: Cell<u32> = const { Cell::new(0) };
        static IS_CRAWLING: Cell<bool> = const { Cell::new(false) };
    }

    /// With `crawl`, so many short sleeps instead of one long.
    #[inline(always)]
    pub(super) fn begin(steps: u32, crawl: u32) {
        LEFT.set(steps);
        CRAWL_LEFT.set(crawl);
        IS_CRAWLING.set(false);
        // SAFETY: sets the trap flag; `install` has set the handler. Without `nostack`, so there is no red zone.
        unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    }

    #[inline(always)]
    pub(super) fn end() -> bool {
        // SAFETY: clears it.
        unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
        LEFT.replace(0) > 0
    }

    /// After each instruction. The kernel runs handlers with the flag cleared.
    extern "C" fn trap<L: Contender>(_: libc::c_int, _: *const libc::siginfo_t, context: *mut c_void) {
        let left = LEFT.get().saturating_sub(1);
        LEFT.set(left);
        if left > 0 {
            return;
        }
        let crawl = CRAWL_LEFT.get();
        CRAWL_LEFT.set(crawl.saturating_sub(1));
        signals::on_my_place::<L>(|_, place| match crawl {
            0 => nap(place),
            _ => {
                if !IS_CRAWLING.replace(true) {
                    place.crawls.fetch_add(1, Relaxed);
                }
                // As short as the system sleeps.
                sleep(1);
            }
        });
        if crawl <= 1 {
            // SAFETY: the kernel passes a context, and takes the flags from it when the handler returns.
            unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_EFL as usize] &= !TRAP_FLAG };
        }
    }

    pub(super) fn install<L: Contender>(mask: libc::sigset_t) -> std::io::Result<()> {
        signals::set_handler(libc::SIGTRAP, trap::<L> as *const () as usize, libc::SA_SIGINFO | libc::SA_RESTART, mask)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod step {
    pub(super) fn begin(_steps: u32, _crawl: u32) {}

    pub(super) fn end() -> bool {
        false
    }

    pub(super) fn install<L>(_mask: libc::sigset_t) -> std::io::Result<()> {
        Ok(())
    }
}
