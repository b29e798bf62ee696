//! Threads that end: with a lock, for ever; and while others wait, with their own place in the queue just left.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use qspinlock::LockErrorKind;

use super::super::section::Guarded;
use super::ground::{Ground, May};
use super::seat::Seat;
use super::subject::Resilient;

/// Those who work, and those who come and go.
pub(super) const STAY: usize = 4;
pub(super) const GO: usize = 6;

const SHORT: Duration = Duration::from_millis(2);

/// A lock of its own for each round, often where the last one was.
pub(super) const NEW: usize = 99;

/// The owner ends with the lock, or lives on and has forgotten it: who waits is told by time. One waits alone, and then some
/// together.
pub(super) fn dead_owner<R: Resilient>(ground: &'static Ground<R>) {
    let [seat, owner, others @ ..] = &ground.seats[..] else { return };
    while !ground.is_over() {
        let guarded = Guarded::by(R::new());
        let lives_on = seat.one_in(2);
        thread::scope(|scope| {
            let (is_held, held) = mpsc::channel::<()>();
            let (is_over, over) = mpsc::channel::<()>();
            let guarded = &guarded;
            let owner = scope.spawn(move || {
                let taken = ground.ask_for(owner, guarded, NEW, ground.long, May::Succeed);
                ground.orphans.fetch_add(u64::from(taken.is_ok()), Relaxed);
                let _ = taken.map(super::ground::Inside::abandon);
                drop(is_held);
                if lives_on {
                    ground.refused(owner, guarded, NEW, ground.long, LockErrorKind::Deadlock);
                    let _ = over.recv();
                }
            });
            let _ = held.recv();
            let owner = if lives_on { Some(owner) } else { owner.join().map_or(None, |()| None) };
            ground.refused(seat, guarded, NEW, seat.up_to(SHORT), LockErrorKind::TimedOut);
            let some = seat.below(1 + others.len() as u64) as usize;
            let wait = |seat: &'static Seat| {
                move || ground.refused(seat, guarded, NEW, seat.up_to(SHORT), LockErrorKind::TimedOut)
            };
            join(others[..some].iter().map(|seat| scope.spawn(wait(seat))).collect());
            drop(is_over);
            join(owner.into_iter().collect());
        });
        ground.rounds.fetch_add(1, Relaxed);
    }
}

/// Some stay in the queue while those beside them give up and end, and others take over their slots.
pub(super) fn dying<R: Resilient>(ground: &'static Ground<R>, index: usize) {
    let seat = &ground.seats[index];
    if index < STAY / 2 {
        while !ground.is_over() {
            if let Ok(_inside) = ground.ask(seat, 0, ground.long, May::Succeed) {
                ground.spin(seat.below(50_000));
            }
            ground.rounds.fetch_add(1, Relaxed);
        }
        return;
    }
    let each = GO / (STAY - STAY / 2);
    let mine = STAY + each * (index - STAY / 2);
    while !ground.is_over() {
        thread::scope(|scope| {
            let seats = &ground.seats[mine..mine + each];
            join(seats.iter().map(|seat| scope.spawn(move || come_and_go(ground, seat))).collect());
        });
    }
}

/// A scope ends when its threads have returned. Their exit hooks may still run then, and what is left is looked for.
fn join(threads: Vec<thread::ScopedJoinHandle<'_, ()>>) {
    for thread in threads {
        thread.join().expect("it does not panic");
    }
}

fn come_and_go<R: Resilient>(ground: &Ground<R>, seat: &Seat) {
    for _ in 0..=seat.below(3) {
        if let Ok(_inside) = ground.ask(seat, 0, seat.up_to(SHORT), May::TimeOut) {
            ground.spin(seat.below(2_000));
        }
    }
}
