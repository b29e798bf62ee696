//! Runs one mode: starts its threads, watches that each step of each of them ends, and sees what is left behind.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use qspinlock::threads::{locks_left_behind, slots_in_use, waits_without_node};

use super::super::progress::Attention;
use super::ground::Ground;
use super::interrupts;
use super::judge::{Fault, What};
use super::mode::Mode;
use super::seat::{Doing, LEVELS, Seat};
use super::subject::Resilient;

const TICK: Duration = Duration::from_millis(2);
/// Room for handlers within handlers, each with a signal frame of some kilobytes.
const STACK: usize = 256 << 10;

/// When a mode has done enough.
#[derive(Clone, Copy)]
pub(super) enum Enough {
    After(Duration),
    /// So many locks were taken.
    Taken(u64),
}

/// How a mode is run.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) mode: Mode,
    pub(super) threads: usize,
    pub(super) seed: u64,
    pub(super) stall: Duration,
    pub(super) enough: Enough,
}

/// What went wrong.
pub(super) enum Trouble {
    Overlap(String),
    Fault(String),
    /// A step of a thread does not end.
    Hung(String),
    Panicked,
    NoThread(String),
}

/// What a mode has shown.
pub(super) struct Shown {
    pub(super) mode: Mode,
    pub(super) took: Duration,
    pub(super) threads: usize,
    pub(super) rounds: u64,
    pub(super) acquired: u64,
    pub(super) tries_failed: u64,
    pub(super) deadlocks: u64,
    pub(super) timed_out: u64,
    pub(super) handlers: u64,
    pub(super) deepest: u32,
    pub(super) longest_wait: u64,
    pub(super) without_node: u64,
    pub(super) left_behind: u64,
    /// Nanoseconds from the moment at which it could be found.
    pub(super) found: Histogram<u64>,
    pub(super) trouble: Option<Trouble>,
    /// Some threads have not ended. The process can only be left.
    pub(super) is_stuck: bool,
}

struct Stage<R: 'static> {
    plan: Plan,
    ground: &'static Ground<R>,
    threads: Vec<JoinHandle<()>>,
    attention: Attention,
    watched: Vec<[Option<(Doing, Duration)>; LEVELS + 1]>,
    found: Histogram<u64>,
}

pub(super) fn run<R: Resilient>(plan: Plan, bar: &ProgressBar) -> Shown {
    // This thread's own slot, so that it is none of those that are left.
    drop(R::new().try_lock());
    let before = (slots_in_use(), waits_without_node(), locks_left_behind());
    let Plan { mode, threads, seed, stall, .. } = plan;
    let ground: &'static Ground<R> =
        Box::leak(Box::new(Ground::new(seed, mode.seats(threads), mode.locks(threads), stall)));
    let mut stage = Stage {
        plan,
        ground,
        threads: Vec::new(),
        attention: Attention::new(Instant::now(), 4 * TICK),
        watched: vec![[None; LEVELS + 1]; ground.seats.len()],
        found: Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("sensible bounds"),
    };
    let ended = stage.start().and_then(|()| stage.go_on(bar));
    let is_stuck = ended.is_err();
    let left_behind = locks_left_behind() - before.2;
    if !is_stuck {
        stage.look_what_is_left(before.0, left_behind);
    }
    let judged =
        ground.overlap.get().map(|overlap| Trouble::Overlap(overlap.message(&format!("lock {}", overlap.lock))));
    let judged = judged.or_else(|| ground.judge.first().map(|fault| Trouble::Fault(fault.message())));
    let sum = |field: fn(&Seat) -> u64| ground.seats.iter().map(field).sum::<u64>();
    let most = |field: fn(&Seat) -> u64| ground.seats.iter().map(field).max().unwrap_or(0);
    Shown {
        mode,
        took: ground.start.elapsed(),
        threads: mode.workers(threads),
        rounds: ground.rounds.load(Relaxed),
        acquired: ground.acquired(),
        tries_failed: sum(|seat| seat.tries_failed.load(Relaxed)),
        deadlocks: sum(|seat| seat.deadlocks.load(Relaxed)),
        timed_out: sum(|seat| seat.timed_out.load(Relaxed)),
        handlers: sum(|seat| seat.handlers_run.load(Relaxed)),
        deepest: most(|seat| seat.deepest.load(Relaxed).into()) as u32,
        longest_wait: most(|seat| seat.longest_wait.load(Relaxed)),
        without_node: waits_without_node() - before.1,
        left_behind,
        found: stage.found,
        // Who does not end has told nothing yet; what is told explains why others do not end.
        trouble: judged.or(ended.err()),
        is_stuck,
    }
}

impl<R: Resilient> Stage<R> {
    fn start(&mut self) -> Result<(), Trouble> {
        let Plan { mode, threads, .. } = self.plan;
        let ground = self.ground;
        let workers = mode.workers(threads);
        let common = std::sync::Arc::new(mode.common(threads));
        for index in 0..workers {
            let common = common.clone();
            self.spawn(format!("worker {index}"), move || mode.work(ground, &common, index))?;
        }
        if mode.has_signals() {
            self.spawn("pest".into(), move || interrupts::pester(ground, workers))?;
        }
        Ok(())
    }

    fn spawn(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> Result<(), Trouble> {
        let failed = |error: io::Error| Trouble::NoThread(format!("cannot create another thread: {error}"));
        let thread = thread::Builder::new().name(name).stack_size(STACK).spawn(body).map_err(failed)?;
        self.threads.push(thread);
        Ok(())
    }

    /// Until it is enough, and all threads have ended.
    fn go_on(&mut self, bar: &ProgressBar) -> Result<(), Trouble> {
        let ground = self.ground;
        let position = bar.position();
        let mut stopped_at = None;
        let mut has_panicked = false;
        loop {
            let (elapsed, taken) = (ground.start.elapsed(), ground.acquired());
            let (done, all) = match self.plan.enough {
                Enough::After(time) => (elapsed.as_millis() as u64, time.as_millis() as u64),
                Enough::Taken(most) => (taken.min(most), most),
            };
            if matches!(self.plan.enough, Enough::After(_)) {
                bar.set_position(position + done.min(all));
            }
            let now = self.attention.at(Instant::now());
            if done >= all || ground.is_caught() {
                ground.stop.store(true, Relaxed);
                stopped_at.get_or_insert(now);
            }
            for nanos in ground.found.fetch() {
                self.found.saturating_record(nanos.max(1));
            }
            for index in (0..self.threads.len()).rev() {
                if self.threads[index].is_finished() {
                    has_panicked |= self.threads.swap_remove(index).join().is_err();
                }
            }
            if has_panicked {
                return Err(Trouble::Panicked);
            }
            if self.threads.is_empty() {
                return Ok(());
            }
            self.look(now)?;
            // No step takes so long; but a thread may wait for one that waits for one.
            if stopped_at.is_some_and(|at| now - at > 4 * self.plan.stall) {
                return Err(Trouble::Hung(format!("{} threads do not end", self.threads.len())));
            }
            thread::sleep(TICK);
        }
    }

    /// Whether a step goes on that should have ended long ago.
    fn look(&mut self, now: Duration) -> Result<(), Trouble> {
        for (seat, watched) in self.ground.seats.iter().zip(&mut self.watched) {
            for (level, (doing, watched)) in seat.doing().into_iter().zip(watched).enumerate() {
                match (doing, *watched) {
                    (Some(doing), Some((same, since))) if same == doing => {
                        let limit = doing.limit + self.plan.stall;
                        if now - since > limit {
                            let who = super::super::section::Who { thread: seat.who().thread, level: level as u32 };
                            return Err(Trouble::Hung(format!(
                                "{who} has been at lock {} for {:.1} s, with a limit of {:?}",
                                doing.lock,
                                (now - since).as_secs_f64(),
                                doing.limit
                            )));
                        }
                    }
                    (doing, _) => *watched = doing.map(|doing| (doing, now)),
                }
            }
        }
        Ok(())
    }

    /// All have ended: what is taken now will be for ever.
    fn look_what_is_left(&self, slots: usize, left_behind: u64) {
        let ground = self.ground;
        let seat = &ground.seats[0];
        let fault = |what, lock| ground.judge.record(Fault { what, who: seat.who(), lock, error: None });
        for (lock, guarded) in ground.locks.iter().enumerate() {
            if guarded.lock.is_locked() || guarded.lock.try_lock().is_none() {
                fault(What::Left, Some(lock));
            }
        }
        if slots_in_use() > slots {
            fault(What::Slots, None);
        }
        if left_behind != ground.orphans.load(Relaxed) {
            fault(What::Orphans, None);
        }
        if self.plan.mode != Mode::Dead {
            let entered: u64 = ground.locks.iter().map(|guarded| guarded.totals().0).sum();
            if entered != ground.acquired() {
                fault(What::Lost, None);
            }
        }
    }
}
