//! What a thread holds: released in any order, and more than there is room for.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use qspinlock::LockErrorKind;
use qspinlock::resilient::ENTRIES;

use super::ground::{Ground, Inside, May, Rounds};
use super::seat::Seat;
use super::subject::Resilient;

/// Locks of a thread, and as many that all share.
const EACH: usize = 8;

pub(super) const fn locks_in_order(threads: usize) -> usize {
    EACH * (1 + threads)
}

/// Releases in any order. Of its own locks a thread takes any, and knows the answer: what it holds is a deadlock, what it does
/// not hold is to be had. The shared ones it takes upwards.
pub(super) fn in_any_order<R: Resilient>(ground: &'static Ground<R>, index: usize) {
    let seat = &ground.seats[index];
    let own = EACH * (1 + index);
    let mut held: [Option<Inside<'_, R>>; 2 * EACH] = [const { None }; 2 * EACH];
    while !ground.is_over() {
        let at = seat.below(EACH as u64) as usize;
        match seat.below(6) {
            0..2 if held[at].is_none() => {
                held[at] = ground.ask(seat, own + at, ground.long, May::Succeed).ok();
            }
            0..3 if held[at].is_some() => {
                ground.refused(seat, &ground.locks[own + at], own + at, ground.long, LockErrorKind::Deadlock);
            }
            3 if held[EACH + at..].iter().all(Option::is_none) => {
                held[EACH + at] = ground.ask(seat, at, ground.long, May::Succeed).ok();
            }
            _ => drop(held[seat.below(2 * EACH as u64) as usize].take()),
        }
        ground.rounds.fetch_add(1, Relaxed);
    }
}

/// More than are recorded.
pub(super) const MANY: usize = ENTRIES + 9;

const SHORT: Duration = Duration::from_micros(500);

/// With more than there is room for, what had no room ends by time, and all else as ever. Then all is as before.
pub(super) fn too_many<R: Resilient>(ground: &'static Ground<R>, index: usize, threads: usize, rounds: &Rounds) {
    let seat = &ground.seats[index];
    let own = MANY * index;
    let guarded = |at: usize| &ground.locks[own + at];
    while rounds.next(ground, index == 0) {
        let mut held: Vec<_> =
            (0..MANY).filter_map(|at| ground.ask(seat, own + at, ground.long, May::Succeed).ok()).collect();
        let recorded = seat.below(ENTRIES as u64) as usize;
        ground.refused(seat, guarded(recorded), own + recorded, ground.long, LockErrorKind::Deadlock);
        let beyond = ENTRIES + seat.below((MANY - ENTRIES) as u64) as usize;
        ground.refused(seat, guarded(beyond), own + beyond, SHORT, LockErrorKind::TimedOut);
        rounds.meet();
        // A circle that nobody sees, unless somebody gets what another one has given up.
        let next = MANY * ((index + 1) % threads) + MANY - 1;
        drop(ground.ask(seat, next, seat.up_to(4 * SHORT), May::TimeOut));
        rounds.meet();
        while !held.is_empty() {
            drop(held.swap_remove(seat.below(held.len() as u64) as usize));
        }
        as_before(ground, seat, own + recorded);
        ground.rounds.fetch_add(1, Relaxed);
    }
}

fn as_before<R: Resilient>(ground: &Ground<R>, seat: &Seat, lock: usize) {
    if let Ok(_inside) = ground.ask(seat, lock, ground.long, May::Succeed) {
        ground.refused(seat, &ground.locks[lock], lock, ground.long, LockErrorKind::Deadlock);
    }
}
