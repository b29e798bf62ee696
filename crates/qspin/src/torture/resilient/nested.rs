//! Handlers within handlers, at any moment, that take locks of their own; or any lock at all.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::ground::{Ground, May};
use super::interrupts::{attach, interrupt_myself};
use super::seat::{LEVELS, Seat};
use super::subject::Resilient;

/// Locks that threads take, each while they hold some of those before it.
const OF_THREADS: usize = 4;

/// Then one for each level.
pub(super) const LOCKS: usize = OF_THREADS + LEVELS;

const SHORT: Duration = Duration::from_millis(2);

/// A handler takes the lock of its level, and threads none of those: no circle can be.
pub(super) fn work_in_order<R: Resilient>(ground: &'static Ground<R>, index: usize) {
    let _attached = attach(ground, index, |ground, seat, level| {
        let lock = OF_THREADS + level as usize - 1;
        take(ground, seat, lock, May::Succeed, May::TimeOut);
    });
    work(ground, &ground.seats[index], May::Succeed, May::TimeOut);
}

/// A handler takes any lock. Circles come about all the time, and all limits are short, since some of them go through what
/// a thread was doing when it was interrupted.
pub(super) fn work_wildly<R: Resilient>(ground: &'static Ground<R>, index: usize) {
    let _attached = attach(ground, index, |ground, seat, _| {
        let lock = seat.below(LOCKS as u64) as usize;
        take(ground, seat, lock, May::Fail, May::Fail);
    });
    work(ground, &ground.seats[index], May::Fail, May::Fail);
}

fn work<R: Resilient>(ground: &'static Ground<R>, seat: &'static Seat, long: May, short: May) {
    while !ground.is_over() {
        nest(ground, seat, 0, long, short);
        ground.rounds.fetch_add(1, Relaxed);
    }
}

fn nest<R: Resilient>(ground: &'static Ground<R>, seat: &'static Seat, from: usize, long: May, short: May) {
    let Some(lock) = (from..OF_THREADS).find(|_| seat.one_in(2)) else { return };
    let inside = ask(ground, seat, lock, long, short);
    ground.spin(seat.below(500));
    nest(ground, seat, lock + 1, long, short);
    drop(inside);
}

fn take<R: Resilient>(ground: &'static Ground<R>, seat: &'static Seat, lock: usize, long: May, short: May) {
    let level = seat.who().level;
    if let Some(_inside) = ask(ground, seat, lock, long, short) {
        ground.spin(seat.below(2_000));
        if level < LEVELS as u32 && seat.one_in(2) {
            interrupt_myself(seat, level + 1);
        }
    }
}

fn ask<R: Resilient>(
    ground: &'static Ground<R>,
    seat: &'static Seat,
    lock: usize,
    long: May,
    short: May,
) -> Option<super::ground::Inside<'static, R>> {
    match seat.below(4) {
        0 => ground.try_for(seat, lock),
        1 | 2 if long == May::Succeed => ground.ask(seat, lock, ground.long, long).ok(),
        _ => {
            let began = ground.now();
            let answer = ground.ask(seat, lock, seat.up_to(SHORT), short);
            answer
                .inspect_err(|error| {
                    if error.is_deadlock() {
                        ground.found.push(ground.now() - began);
                    }
                })
                .ok()
        }
    }
}
