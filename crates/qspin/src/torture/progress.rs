//! Hung, or only slow? With more threads than CPUs a fair lock may stand still for as long as the scheduler takes to
//! come round to the thread whose turn it is, so time alone proves nothing.
//!
//! The rule counts *rounds*. In a round every thread has used the CPU for longer than any section lasts, or sleeps of
//! its own accord. If nobody got a lock, the owner has left its section in the first round, and whoever is next has
//! run in the second, and took the lock. Three rounds in which nobody gets any lock, and that for the time limit: hung.
//! A waiter that was lost while others go on is found when the run ends: the others stop, and it stands still alone.
//!
//! Time counts only while somebody looks: a process that was stopped, or whose machine was, has not stood still.

use std::time::{Duration, Instant};

const ROUNDS: u32 = 3;

/// Even if the scheduler lets some thread wait for ever, a run ends: after so many limits.
const PATIENCE: u32 = 10;

/// A thread, as the scheduler sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// The number of the thread.
    pub(super) thread: u32,
    /// Turns that it and those before it at its place have had.
    pub(super) turns: u64,
    /// Locks taken there, handlers and nesting included.
    pub(super) acquired: u64,
    /// CPU time it has used.
    pub(super) cpu_ns: u64,
    /// Runs or wants to; not asleep.
    pub(super) runnable: bool,
}

/// What a look showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Fine,
    /// No lock taken for the time limit, but some thread had no CPU.
    Slow,
    Hung,
}

/// A clock that goes on only while it is read often.
pub(super) struct Attention {
    last: Instant,
    seen: Duration,
    most: Duration,
}

impl Attention {
    /// `most`: what a look after a longer time counts for.
    pub(super) fn new(now: Instant, most: Duration) -> Self {
        Self { last: now, seen: Duration::ZERO, most }
    }

    /// The time that was seen until `now`.
    pub(super) fn at(&mut self, now: Instant) -> Duration {
        self.seen += now.saturating_duration_since(self.last).min(self.most);
        self.last = now;
        self.seen
    }
}

/// What was seen so far.
pub(super) struct Watch {
    limit: Duration,
    round_cpu_ns: u64,
    /// Sum of locks taken, and threads alive: also a thread that ends is progress.
    last: (u64, usize),
    since: Duration,
    rounds: u32,
    round_start: Vec<Sample>,
    /// The longest time in which nobody took a lock; and without a turn at each place.
    pub(super) longest_standstill: Duration,
    pub(super) longest_without_turn: Vec<Duration>,
    place_since: Vec<(u64, Duration)>,
}

impl Watch {
    /// `limit`: no lock taken for so long is worth a question. `section_ns`: no section takes longer, in CPU time.
    pub(super) fn new(places: usize, limit: Duration, section_ns: u64) -> Self {
        Self {
            limit,
            round_cpu_ns: section_ns + 5_000_000,
            last: (0, 0),
            since: Duration::ZERO,
            rounds: 0,
            round_start: Vec::new(),
            longest_standstill: Duration::ZERO,
            longest_without_turn: vec![Duration::ZERO; places],
            place_since: vec![(0, Duration::ZERO); places],
        }
    }

    /// Looks at all places, `None` being one without a thread. `now`: since the start.
    pub(super) fn look(&mut self, now: Duration, places: &[Option<Sample>]) -> Progress {
        for ((sample, since), longest) in places.iter().zip(&mut self.place_since).zip(&mut self.longest_without_turn) {
            match sample {
                Some(s) if s.turns == since.0 => *longest = (*longest).max(now.saturating_sub(since.1)),
                Some(s) => *since = (s.turns, now),
                None => since.1 = now,
            }
        }

        let live: Vec<Sample> = places.iter().copied().flatten().collect();
        let seen = (live.iter().map(|s| s.acquired).sum(), live.len());
        if seen != self.last {
            (self.last, self.since, self.rounds, self.round_start) = (seen, now, 0, live);
            return Progress::Fine;
        }
        let standstill = now.saturating_sub(self.since);
        self.longest_standstill = self.longest_standstill.max(standstill);
        if live.iter().all(|s| self.had_its_share(s)) {
            (self.rounds, self.round_start) = (self.rounds + 1, live);
        }
        if standstill < self.limit {
            Progress::Fine
        } else if self.rounds >= ROUNDS || standstill > PATIENCE * self.limit {
            Progress::Hung
        } else {
            Progress::Slow
        }
    }

    fn had_its_share(&self, sample: &Sample) -> bool {
        !sample.runnable
            || self
                .round_start
                .iter()
                .find(|s| s.thread == sample.thread)
                .is_some_and(|s| sample.cpu_ns >= s.cpu_ns + self.round_cpu_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn sample(thread: u32, turns: u64, cpu_ms: u64, runnable: bool) -> Option<Sample> {
        Some(Sample { thread, turns, acquired: turns, cpu_ns: cpu_ms * 1_000_000, runnable })
    }

    /// Looks once a second at two threads, whose samples `at` gives; the second at which they were found hung.
    fn hung_at(seconds: u64, at: impl Fn(u64) -> [Option<Sample>; 2]) -> Option<u64> {
        let mut watch = Watch::new(2, LIMIT, 0);
        (0..seconds).find(|&s| watch.look(Duration::from_secs(s), &at(s)) == Progress::Hung)
    }

    #[test]
    fn time_that_nobody_saw_does_not_count() {
        let start = Instant::now();
        let ms = |n| Duration::from_millis(n);
        let mut attention = Attention::new(start, ms(20));
        assert_eq!(attention.at(start + ms(5)), ms(5));
        // Stopped for a second.
        assert_eq!(attention.at(start + ms(1005)), ms(25));
        assert_eq!(attention.at(start + ms(1010)), ms(30));
    }

    #[test]
    fn a_run_that_was_stopped_for_long_is_not_hung() {
        let start = Instant::now();
        let hung = |most| {
            let mut attention = Attention::new(start, most);
            let mut watch = Watch::new(2, LIMIT, 0);
            // Each look comes 20 s after the last; nobody took a lock in between.
            (0..9).any(|look| {
                let places = [sample(1, 7, look * 500, true), sample(2, 7, 3, false)];
                watch.look(attention.at(start + 2 * LIMIT * look as u32), &places) == Progress::Hung
            })
        };
        assert!(!hung(Duration::from_millis(20)), "it was stopped nearly all of the time");
        assert!(hung(Duration::MAX), "and would be hung if that time counted");
    }

    #[test]
    fn two_that_spin_without_a_turn_are_hung() {
        let at = hung_at(60, |s| [sample(1, 7, s * 500, true), sample(2, 7, s * 500, true)]);
        assert_eq!(at, Some(10));
    }

    #[test]
    fn sleepers_without_a_turn_are_hung() {
        assert_eq!(hung_at(60, |_| [sample(1, 7, 3, false), sample(2, 7, 3, false)]), Some(10));
    }

    #[test]
    fn a_turn_of_anybody_is_progress() {
        assert_eq!(hung_at(60, |s| [sample(1, s / 8, s * 500, true), sample(2, 7, s * 500, true)]), None);
    }

    #[test]
    fn a_lock_taken_by_a_handler_is_progress() {
        let at = hung_at(60, |s| {
            let busy = Sample { thread: 1, turns: 7, acquired: s, cpu_ns: s << 30, runnable: true };
            [Some(busy), sample(2, 7, s * 500, true)]
        });
        assert_eq!(at, None);
    }

    #[test]
    fn a_thread_without_a_cpu_makes_it_slow_but_not_for_ever() {
        let starved = |s| [sample(1, 7, s * 900, true), sample(2, 7, 3, true)];
        assert_eq!(hung_at(100, starved), None);
        let mut watch = Watch::new(2, LIMIT, 0);
        assert_eq!(watch.look(Duration::ZERO, &starved(0)), Progress::Fine);
        assert_eq!(watch.look(LIMIT, &starved(10)), Progress::Slow);
        assert_eq!(hung_at(200, starved), Some(101));
    }

    #[test]
    fn it_takes_three_rounds() {
        // The second thread gets the CPU once in 20 seconds.
        let at = hung_at(99, |s| [sample(1, 7, s * 500, true), sample(2, 7, s / 20 * 50, true)]);
        assert_eq!(at, Some(60));
    }

    #[test]
    fn a_thread_that_ends_is_progress() {
        let at = hung_at(20, |s| [sample(1, 7, s * 500, true), (s < 9).then(|| sample(2, 7, 1, true)).flatten()]);
        assert_eq!(at, Some(19));
    }

    #[test]
    fn a_place_that_waits_while_others_go_on_is_remembered() {
        let mut watch = Watch::new(2, LIMIT, 0);
        for s in 0..20 {
            let places = [sample(1, s, s * 500, true), sample(2, 1 + s / 15, s * 500, true)];
            assert_eq!(watch.look(Duration::from_secs(s), &places), Progress::Fine);
        }
        assert_eq!(watch.longest_without_turn[1], Duration::from_secs(14));
        assert_eq!(watch.longest_without_turn[0], Duration::ZERO);
    }
}
