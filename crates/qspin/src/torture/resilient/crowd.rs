//! Locks taken one within the other, always upwards, so that no circle can be, for as long as it takes; and many who wait for
//! one lock and give up at any moment, on both sides of those who stay.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::ground::{Ground, Inside, May};
use super::seat::Seat;
use super::subject::Resilient;

pub(super) const LOCKS: usize = 8;

/// Turns between two looks at the clock of the run.
const TURNS: u32 = 64;

pub(super) fn work<R: Resilient>(ground: &'static Ground<R>, index: usize) {
    let seat = &ground.seats[index];
    while !ground.is_over() {
        (0..TURNS).for_each(|_| nest(ground, seat, 0));
        ground.rounds.fetch_add(TURNS.into(), Relaxed);
    }
}

fn nest<R: Resilient>(ground: &Ground<R>, seat: &Seat, from: usize) {
    let lock = from + seat.below((LOCKS - from) as u64) as usize;
    let inside = match seat.below(16) {
        0 => ground.try_for(seat, lock),
        1 => ground.ask(seat, lock, seat.up_to(Duration::from_millis(1)), May::TimeOut).ok(),
        _ => ground.ask(seat, lock, ground.long, May::Succeed).ok(),
    };
    if lock + 1 < LOCKS && seat.one_in(2) {
        nest(ground, seat, lock + 1);
    }
    drop(inside);
}

/// The first holds the lock for long, the next two stay until they have it, and all others give up soon.
pub(super) fn hand_off<R: Resilient>(ground: &'static Ground<R>, index: usize) {
    let seat = &ground.seats[index];
    while !ground.is_over() {
        let inside = match index {
            0..3 => ground.ask(seat, 0, ground.long, May::Succeed).ok(),
            _ => ground.ask(seat, 0, seat.up_to(Duration::from_micros(500)), May::TimeOut).ok(),
        };
        hold(ground, seat, index == 0, inside);
        ground.spin(seat.below(5_000));
        ground.rounds.fetch_add(1, Relaxed);
    }
}

fn hold<R: Resilient>(ground: &Ground<R>, seat: &Seat, is_owner: bool, inside: Option<Inside<'_, R>>) {
    match inside {
        Some(_inside) if is_owner && seat.one_in(64) => std::thread::sleep(Duration::from_millis(1)),
        Some(_inside) if is_owner => ground.spin(seat.below(300_000)),
        Some(_inside) => ground.spin(seat.below(2_000)),
        None => {}
    }
}
