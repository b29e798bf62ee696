//! The same lock again: plainly nested, and in a signal handler, by a thread that holds it, or is about to, or has just
//! released it.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use qspinlock::LockErrorKind;

use super::ground::{Ground, May};
use super::interrupts::{attach, interrupt_myself};
use super::judge::What;
use super::seat::Seat;
use super::subject::Resilient;

/// All threads share this one; each has another one to itself.
const SHARED: usize = 0;

pub(super) const fn locks(threads: usize) -> usize {
    1 + threads
}

pub(super) fn work<R: Resilient>(ground: &'static Ground<R>, index: usize) {
    let seat = &ground.seats[index];
    let _attached = attach(ground, index, interrupted::<R>);
    while !ground.is_over() {
        let lock = if seat.one_in(2) { SHARED } else { 1 + index };
        seat.aim.store(lock as u32, Relaxed);
        let Ok(_inside) = ground.ask(seat, lock, ground.long, May::Succeed) else { return };
        seat.sure.store(1 << lock, Relaxed);
        if seat.one_in(2) {
            ground.refused(seat, &ground.locks[lock], lock, ground.long, LockErrorKind::Deadlock);
        }
        if seat.one_in(4) {
            interrupt_myself(seat, 1);
        }
        if seat.one_in(8) && ground.try_for(seat, lock).is_some() {
            ground.fault(seat, What::LetIn, Some(lock), None);
        }
        ground.spin(seat.below(2_000));
        seat.sure.store(0, Relaxed);
        ground.rounds.fetch_add(1, Relaxed);
    }
}

/// What is asked for may be held by who was interrupted: then the answer is known. Or it is about to be: then each answer is
/// right, if it is true.
fn interrupted<R: Resilient>(ground: &'static Ground<R>, seat: &'static Seat, _: u32) {
    let lock = seat.aim.load(Relaxed) as usize;
    if seat.sure.load(Relaxed) >> lock & 1 != 0 {
        ground.refused(seat, &ground.locks[lock], lock, ground.long, LockErrorKind::Deadlock);
    } else {
        let limit = seat.up_to(Duration::from_millis(2));
        let _ = ground.ask(seat, lock, limit, May::Fail).map(|_inside| ground.spin(seat.below(1_000)));
    }
}
