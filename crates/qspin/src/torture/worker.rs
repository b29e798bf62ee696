//! A worker: takes locks in every way there is, for as long as its life is.

use std::sync::atomic::Ordering::Relaxed;

use super::run::{How, Place, Run, THREAD_LOCKS, lock_of_signal};
use super::signals;
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

/// Makes the calling thread the one that works here.
pub(super) fn adopt(place: &Place, number: u32) {
    place.thread.store(number, Relaxed);
    place.level.store(0, Relaxed);
    place.depth.store(0, Relaxed);
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
    if recipe.trylock && place.one_in(8) {
        let lock = pick(place);
        if run.locked(place, lock, How::Try, &mut || hold(run, place)) {
            place.turns.fetch_add(1, Relaxed);
        } else {
            place.tries_failed.fetch_add(1, Relaxed);
        }
    } else if recipe.nesting && place.one_in(8) {
        nest(run, place, 0);
        place.turns.fetch_add(1, Relaxed);
    } else {
        run.locked(place, pick(place), How::Wait, &mut || hold(run, place));
        place.turns.fetch_add(1, Relaxed);
    }
    if recipe.signals && place.one_in(16) {
        let _blocked = signals::Blocked::new();
        let lock = lock_of_signal(1 + place.below(super::run::SIGNALS as u64) as u32);
        run.locked(place, lock, How::Wait, &mut || hold(run, place));
    }
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

fn hold<L: Contender>(run: &Run<L>, place: &Place) {
    let long = run.recipe.long_hold_ns;
    if long > 0 && place.one_in(LONG_HOLD_ONE_IN) {
        run.spin(place.below(long));
    } else {
        run.spin(place.below(SHORT_HOLD_NS));
    }
}
