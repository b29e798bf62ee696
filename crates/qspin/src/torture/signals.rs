//! Signals: the interrupts of user space. A pest thread sends them, and their handlers wait for locks of their own
//! on top of whatever they interrupted, up to six deep.
//!
//! No deadlock can come from it: a handler blocks its own signal and those before it, so it can only be interrupted
//! by a later one, and takes only the lock of its own signal. Thread locks, then the locks of signals 1, 2, ... is an
//! order that everybody keeps.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::naps::{self, Doing};
use super::run::{How, Place, Run, SIGNALS, lock_of_signal};
use super::worker;
use crate::locks::Contender;

/// Whose thread this is, for a handler. No destructor, so it can be read at any time in the life of a thread.
#[derive(Clone, Copy)]
struct Me {
    run: *const (),
    index: usize,
    thread: u32,
}

std::thread_local! {
    static ME: Cell<Me> = const { Cell::new(Me { run: ptr::null(), index: 0, thread: 0 }) };
}

/// The real-time signal of a level, from 1.
pub(super) fn signal(level: u32) -> libc::c_int {
    libc::SIGRTMIN() + level as libc::c_int
}

pub(super) fn set(levels: impl Iterator<Item = u32>) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initialises the set; the signals exist (there are at least eight real-time ones).
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for level in levels {
            libc::sigaddset(set.as_mut_ptr(), signal(level));
        }
        set.assume_init()
    }
}

/// No signal at all.
pub(super) fn none() -> libc::sigset_t {
    set(std::iter::empty())
}

/// The level of the signal that puts threads to sleep. Its handler takes no lock and may interrupt all others.
const NAP: u32 = SIGNALS as u32 + 1;

/// The level of the signal that merely wakes who sleeps.
const NUDGE: u32 = NAP + 1;

fn mask(how: libc::c_int) {
    let all = set(1..=NUDGE);
    // SAFETY: a live set. Fails only for a wrong `how`.
    unsafe { libc::pthread_sigmask(how, &raw const all, ptr::null_mut()) };
}

pub(super) fn block() {
    mask(libc::SIG_BLOCK);
}

pub(super) fn unblock() {
    mask(libc::SIG_UNBLOCK);
}

/// Signals are blocked while this lives. Not nested.
pub(super) struct Blocked;

impl Blocked {
    pub(super) fn new() -> Self {
        block();
        Self
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        unblock();
    }
}

/// Installs the handlers. Call with the signals blocked: threads inherit that, and only workers want them.
pub(super) fn install<L: Contender>() -> std::io::Result<()> {
    for level in 1..=SIGNALS as u32 {
        set_handler(signal(level), handler::<L> as *const () as usize, libc::SA_RESTART, set(1..=level))?;
    }
    set_handler(signal(NAP), naps::handler::<L> as *const () as usize, libc::SA_RESTART, set(1..=NAP))?;
    set_handler(signal(NUDGE), naps::nudged as *const () as usize, 0, none())?;
    naps::install::<L>(set(1..=NAP))
}

/// Installs a handler, which must be of the type that `flags` ask for, and do only what a handler may.
pub(super) fn set_handler(
    signal: libc::c_int,
    handler: usize,
    flags: libc::c_int,
    mask: libc::sigset_t,
) -> std::io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeros is a valid `sigaction`; the handler is what it should be.
    let done = unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        action.sa_mask = mask;
        libc::sigaction(signal, action, ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Tells handlers on this thread whose it is.
pub(super) fn attach<L: Contender>(run: &'static Run<L>, index: usize) {
    let thread = run.places[index].thread.load(Relaxed);
    ME.set(Me { run: ptr::from_ref(run).cast(), index, thread });
}

/// The number of the thread, 0 if it is none of a run.
pub(super) fn my_thread() -> u32 {
    ME.get().thread
}

/// What a handler does, with the record of the thread that it interrupted.
pub(super) fn on_my_place<L: Contender>(what: impl FnOnce(&'static Run<L>, &'static Place)) {
    let me = ME.get();
    if me.run.is_null() {
        return; // Meant for a thread that ended, whose id another one has got.
    }
    // SAFETY: set by `attach` from a `&'static Run<L>`; `install` was called with the same `L`, once in a process.
    let run = unsafe { &*me.run.cast::<Run<L>>() };
    // SAFETY: the address of the thread's own errno.
    let errno = unsafe { *libc::__errno_location() };
    what(run, &run.places[me.index]);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

extern "C" fn handler<L: Contender>(signal: libc::c_int) {
    on_my_place::<L>(|run, place| interrupt(run, place, signal));
}

fn interrupt<L: Contender>(run: &Run<L>, place: &Place, signal: libc::c_int) {
    let level = (signal - libc::SIGRTMIN()) as u32;
    let interrupted = place.level.swap(level, Relaxed);
    let depth = place.depth.fetch_add(1, Relaxed) + 1;
    place.deepest.fetch_max(depth, Relaxed);
    if run.recipe.handlers_wait && (run.storm.load(Relaxed) || !place.one_in(4)) {
        run.locked(place, lock_of_signal(level), How::Wait, &mut || run.spin(place.below(2_000)));
    } else {
        // Holds up an owner or a waiter, as a hypervisor or a scheduler does.
        run.spin(place.below(300_000));
    }
    place.depth.fetch_sub(1, Relaxed);
    place.level.store(interrupted, Relaxed);
    place.handlers_run.fetch_add(1, Relaxed);
}

fn send(place: &Place, level: u32) {
    place.handlers_sent.fetch_add(u64::from(send_raw(place, level)), Relaxed);
}

pub(super) fn send_nap(place: &Place) {
    send_raw(place, NAP);
}

/// False if there is no thread at that place.
fn send_raw(place: &Place, level: u32) -> bool {
    let tid = place.tid.load(Relaxed);
    if tid != 0 {
        // SAFETY: no memory is involved. A thread that has ended meanwhile is an error that does not matter; the
        // group id keeps the signal in this process.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal(level)) };
    }
    tid != 0
}

/// The body of the pest thread: disturbs until told to stop.
///
/// It keeps quiet while the threads do not get on: handlers that go on taking their locks would hide from the watchdog
/// that everything else hangs, and would bury threads that are only slow.
pub(super) fn pester<L: Contender>(run: &'static Run<L>, number: u32) {
    let place = run.pest();
    worker::adopt(place, number);
    attach(run, run.recipe.threads);
    let mut turns_seen = 0;
    let mut seen_at = 0;
    let (mut next_storm, mut next_nap) = (0, 0);
    while !run.stopping() {
        std::thread::sleep(Duration::from_micros(100 + place.below(900)));
        let turns = run.workers().iter().map(|w| w.turns.load(Relaxed)).sum();
        let now = run.now();
        if now < seen_at + NUDGE_FOR_NS && is_nudging(now) {
            nudge_sleepers(run);
        }
        if turns == turns_seen {
            continue;
        }
        (turns_seen, seen_at) = (turns, now);
        let target = &run.workers()[place.below(run.recipe.threads as u64) as usize];
        // Real-time signals queue up.
        if target.handlers_sent.load(Relaxed) < target.handlers_run.load(Relaxed) + 3 {
            let deepest = 1 + place.below(SIGNALS as u64) as u32;
            (1..=deepest).filter(|_| place.one_in(2)).for_each(|level| send(target, level));
        }
        if run.recipe.naps && run.now() >= next_nap {
            naps::send(run, place);
            next_nap = run.now() + place.below(2 * naps::APART_NS);
        }
        // The pause grows with the storm, so that storms are never the whole weather.
        if run.recipe.handlers_wait && run.now() >= next_storm {
            let began = run.now();
            storm(run, place);
            next_storm = run.now() + 100_000_000 + 4 * (run.now() - began);
        }
    }
}

/// So long after the last turn of anybody.
const NUDGE_FOR_NS: u64 = 30_000_000;

/// Half of the time: who has been told and not been woken may only be found when nobody nudges.
const fn is_nudging(now: u64) -> bool {
    (now / 200_000_000).is_multiple_of(2)
}

/// Wakes all who wait asleep, for no reason.
fn nudge_sleepers<L: Contender>(run: &Run<L>) {
    if run.recipe.naps {
        for place in run.workers().iter().filter(|place| place.doing() == Doing::Waiting) {
            send_raw(place, NUDGE);
        }
    }
}

/// Takes the locks of all signals, and then sends the signals, the first to some threads, then the second, and so on:
/// each thread waits in a handler within a handler within a handler.
fn storm<L: Contender>(run: &Run<L>, place: &Place) {
    let workers = run.workers();
    let start = place.below(workers.len() as u64) as usize;
    let targets: Vec<&Place> = workers.iter().cycle().skip(start).take(workers.len().min(6)).collect();
    run.storm.store(true, Relaxed);
    hold_all(run, place, 1, &mut || {
        for level in 1..=SIGNALS as u32 {
            targets.iter().for_each(|target| send(target, level));
            // Wait until all are in; but some end, or do not get a CPU in time.
            for _ in 0..50 {
                if run.stopping() || targets.iter().all(|t| t.level.load(Relaxed) >= level) {
                    break;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    run.storm.store(false, Relaxed);
}

fn hold_all<L: Contender>(run: &Run<L>, place: &Place, level: u32, inside: &mut dyn FnMut()) {
    if level as usize > SIGNALS {
        inside();
    } else {
        run.locked(place, lock_of_signal(level), How::Wait, &mut || hold_all(run, place, level + 1, &mut *inside));
    }
}
