//! A worker: takes locks in every way there is, for as long as its life is.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::run::{How, Place, Run, THREAD_LOCKS, lock_of_signal};
use super::{freed, signals};
use crate::locks::Contender;

const SHORT_HOLD_NS: u64 = 2_000;
/// One hold in so many is long.
const LONG_HOLD_ONE_IN: u64 = 2_000;

/// The body of a worker thread, which was created with the signals blocked.
pub(super) fn work<L: Contender>(run: &'static Run<L>, index: usize, number: u32, life_ns: u64) {
    let place = &run.places[index];
    adopt(place, number);
    signals::attach(run, index);
    if run.recipe.signals {
        signals::unblock();
    }
    let end = run.now().saturating_add(life_ns);
    while !run.stopping() && run.now() < end {
        if run.lull.load(Relaxed) {
            rest(run, place);
            continue;
        }
        step(run, place);
        run.spin(place.below(1_000));
    }
    // Half of them end with signals still coming: then handlers run during the thread's exit hooks, and wait on a
    // thread that has given its queue slot back.
    if place.one_in(2) {
        signals::block();
        place.tid.store(0, Relaxed);
    }
}

/// Until the lull is over.
fn rest<L: Contender>(run: &Run<L>, place: &Place) {
    place.resting.store(true, Relaxed);
    while run.lull.load(Relaxed) && !run.stopping() {
        std::thread::sleep(Duration::from_millis(1));
    }
    place.resting.store(false, Relaxed);
}

/// Makes the calling thread the one that works here.
pub(super) fn adopt(place: &Place, number: u32) {
    place.thread.store(number, Relaxed);
    place.level.store(0, Relaxed);
    place.depth.store(0, Relaxed);
    place.leaving.store(0, Relaxed);
    place.resting.store(false, Relaxed);
    place.handlers_sent.store(place.handlers_run.load(Relaxed), Relaxed);
    let mut clock = 0;
    // SAFETY: the calling thread is alive; `clock` is live.
    if unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) } == 0 {
        place.cpu_clock.store(clock, Relaxed);
    }
    place.tid.store(rustix::thread::gettid().as_raw_nonzero().get(), Relaxed);
}

/// One turn.
fn step<L: Contender>(run: &Run<L>, place: &Place) {
    let recipe = run.recipe;
    let inside = &mut || hold(run, place);
    let had_a_turn = match place.below(8) {
        0 if recipe.trylock => {
            let taken = run.locked(place, pick(place), How::Try, inside);
            place.tries_failed.fetch_add(u64::from(!taken), Relaxed);
            taken
        }
        1 if recipe.timed => {
            let taken = run.locked(place, pick(place), How::WaitFor(time_limit(place)), inside);
            place.timed_out.fetch_add(u64::from(!taken), Relaxed);
            taken
        }
        2 if recipe.nesting => {
            nest(run, place, 0);
            true
        }
        3 if recipe.freed => freed::use_one(run, place),
        4 if recipe.sending => run.send(place, pick(place), inside),
        _ => run.locked(place, pick(place), How::Wait, inside),
    };
    place.turns.fetch_add(u64::from(had_a_turn), Relaxed);
    if recipe.signals && place.one_in(16) {
        let _blocked = signals::Blocked::new();
        let lock = lock_of_signal(1 + place.below(super::run::SIGNALS as u64) as u32);
        run.locked(place, lock, How::Wait, &mut || hold(run, place));
    }
}

/// From nothing to some milliseconds, short ones as often as long ones.
fn time_limit(place: &Place) -> Duration {
    Duration::from_nanos(place.below(1 << place.below(23)))
}

/// Half of the time the first lock, so that one has a queue.
fn pick(place: &Place) -> usize {
    (place.below(2 * THREAD_LOCKS as u64) as usize).saturating_sub(THREAD_LOCKS)
}

/// Takes some of the locks from `from` on, one within the other, always upwards: no cycle can form.
fn nest<L: Contender>(run: &Run<L>, place: &Place, from: usize) {
    match (from..THREAD_LOCKS).find(|_| place.one_in(2)) {
        Some(lock) => {
            run.locked(place, lock, How::Wait, &mut || nest(run, place, lock + 1));
        }
        None => hold(run, place),
    }
}

pub(super) fn hold<L: Contender>(run: &Run<L>, place: &Place) {
    let long = run.recipe.long_hold_ns;
    if long > 0 && place.one_in(LONG_HOLD_ONE_IN) {
        run.spin(place.below(long));
    } else {
        run.spin(place.below(SHORT_HOLD_NS));
    }
}
