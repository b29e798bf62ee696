//! Circles of two, three, and more: each thread holds a lock and asks for the next one's. One at least is told, at once. In
//! some rounds one thread asks for nothing, so that there is no circle, and nobody may be told.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::ground::{Ground, May, Rounds};
use super::judge::What;
use super::seat::Seat;
use super::subject::Resilient;

/// What the threads of a circle share beside the ground.
pub(super) struct Circle {
    rounds: Rounds,
    /// Who asks for nothing in this round; as many as there are threads: nobody.
    abstains: AtomicU32,
    /// When each has asked in this round; 0, not yet.
    asked: Vec<AtomicU64>,
    told: AtomicU32,
    is_first: AtomicBool,
}

impl Circle {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            rounds: Rounds::new(threads),
            abstains: AtomicU32::new(0),
            asked: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            told: AtomicU32::new(0),
            is_first: AtomicBool::new(true),
        }
    }

    /// Chooses what the next round is like.
    fn choose(&self, seat: &Seat) {
        let threads = self.asked.len() as u64;
        let abstains = if seat.one_in(4) { seat.below(threads) } else { threads };
        self.abstains.store(abstains as u32, Relaxed);
        self.asked.iter().for_each(|asked| asked.store(0, Relaxed));
        self.told.store(0, Relaxed);
        self.is_first.store(true, Relaxed);
    }

    fn is_open(&self) -> bool {
        (self.abstains.load(Relaxed) as usize) < self.asked.len()
    }
}

pub(super) fn work<R: Resilient>(ground: &'static Ground<R>, index: usize, circle: &Circle) {
    let seat = &ground.seats[index];
    loop {
        if index == 0 {
            circle.choose(seat);
        }
        if !circle.rounds.next(ground, index == 0) {
            return;
        }
        let first = ground.ask(seat, index, ground.long, May::Succeed);
        circle.rounds.meet();
        if circle.abstains.load(Relaxed) as usize == index {
            ground.spin(seat.below(200_000));
        } else {
            ask_for_next(ground, index, circle);
        }
        drop(first);
        circle.rounds.meet();
        if index == 0 {
            if !circle.is_open() && circle.told.load(Relaxed) == 0 {
                ground.fault(seat, What::NotTold, None, None);
            }
            if let Some(left) = ground.locks.iter().position(|guarded| guarded.lock.is_locked()) {
                ground.fault(seat, What::Left, Some(left), None);
            }
            ground.rounds.fetch_add(1, Relaxed);
        }
    }
}

fn ask_for_next<R: Resilient>(ground: &'static Ground<R>, index: usize, circle: &Circle) {
    let seat = &ground.seats[index];
    // In the same moment, or one after the other, each in another phase of its wait.
    if seat.one_in(2) {
        ground.spin(seat.below(1 << seat.below(21)));
    }
    let next = (index + 1) % circle.asked.len();
    circle.asked[index].store(ground.now().max(1), Relaxed);
    let may = if circle.is_open() { May::Succeed } else { May::Deadlock };
    match ground.ask(seat, next, ground.long, may) {
        Ok(_second) => ground.spin(seat.below(1_000)),
        Err(error) if error.is_deadlock() => {
            let now = ground.now();
            circle.told.fetch_add(1, Relaxed);
            let closed = circle.asked.iter().map(|asked| asked.load(Relaxed)).try_fold(0, |last, at| {
                // Not yet asked: there is no circle yet.
                (at > 0).then_some(last.max(at))
            });
            match closed {
                None => ground.fault(seat, What::Early, Some(next), Some(error)),
                Some(closed) if circle.is_first.swap(false, Relaxed) => {
                    ground.found.push(now.saturating_sub(closed));
                }
                Some(_) => {}
            }
            if error.report().is_some_and(|report| report.length() != circle.asked.len()) {
                ground.fault(seat, What::WrongReport, Some(next), Some(error));
            }
        }
        Err(_) => {}
    }
}
