//! Starts the threads, replaces those that end, watches that they get on, and ends the run in time.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::progress::{Attention, Progress, Sample, Watch};
use super::run::{Place, Run};
use super::{sent, signals, worker};
use crate::locks::Contender;

const TICK: Duration = Duration::from_millis(5);
/// Looks at progress cost a system call or two a thread.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Room for handlers within handlers, each with a signal frame of some kilobytes.
const STACK: usize = 256 << 10;
/// After an overlap the lock may well be stuck, and nothing more is to be learnt.
const DRAIN_AFTER_OVERLAP: Duration = Duration::from_secs(1);
/// Hundreds of threads on a few CPUs take minutes to go once more through a fair lock. So many limits are enough, and
/// more than it takes to find a hang.
const DRAIN_LIMITS: u32 = 3;

/// How a run ended.
pub(super) enum End {
    /// In time.
    Done,
    /// Nobody got on.
    Hung,
    /// A worker panicked.
    Panicked { index: usize },
    /// A thread could not be created.
    NoThread { running: usize, error: io::Error },
}

/// What the supervisor saw.
pub(super) struct Seen {
    pub(super) end: End,
    /// Threads that have not ended, and what they do. If there are any the process can only be left.
    pub(super) left: Vec<(u32, String)>,
    pub(super) took: Duration,
    pub(super) most_slots: usize,
    pub(super) lulls: u64,
    pub(super) longest_standstill: Duration,
    pub(super) longest_without_turn: Vec<Duration>,
}

struct Supervisor<L: 'static> {
    run: &'static Run<L>,
    workers: Vec<Option<JoinHandle<()>>>,
    pest: Option<JoinHandle<()>>,
    courier: Option<JoinHandle<()>>,
    watch: Watch,
    attention: Attention,
    last_look: Duration,
    next_lull: Instant,
    lulls: u64,
    most_slots: usize,
}

/// Runs it all, for `seconds`.
pub(super) fn supervise<L: Contender>(run: &'static Run<L>, seconds: u64, stall: Duration, bar: &ProgressBar) -> Seen {
    let mut me = Supervisor {
        run,
        workers: (0..run.recipe.threads).map(|_| None).collect(),
        pest: None,
        courier: None,
        // The millisecond is for what a handler adds.
        watch: Watch::new(run.recipe.threads, stall, run.recipe.long_hold_ns + 1_000_000),
        attention: Attention::new(Instant::now(), 4 * TICK),
        last_look: Duration::ZERO,
        next_lull: Instant::now(),
        lulls: 0,
        most_slots: 0,
    };
    let end = me.start_all().and_then(|()| me.go_on(Duration::from_secs(seconds), bar)).unwrap_or_else(|end| end);
    run.stop.store(true, Relaxed);
    // What went wrong first is what is told.
    let drained = me.drain(stall);
    let end = if matches!(end, End::Done) { drained } else { end };
    Seen {
        end,
        left: me.left(),
        took: run.start.elapsed(),
        most_slots: me.most_slots,
        lulls: me.lulls,
        longest_standstill: me.watch.longest_standstill,
        longest_without_turn: me.watch.longest_without_turn,
    }
}

impl<L: Contender> Supervisor<L> {
    fn start_all(&mut self) -> Result<(), End> {
        for index in 0..self.workers.len() {
            self.start(index)?;
        }
        if self.run.recipe.signals {
            let (run, number) = (self.run, self.number());
            let pest = thread::Builder::new().name("pest".into()).stack_size(STACK);
            self.pest = Some(self.created(pest.spawn(move || signals::pester(run, number)))?);
        }
        if self.run.recipe.sending {
            let (run, number) = (self.run, self.number());
            let courier = thread::Builder::new().name("courier".into()).stack_size(STACK);
            self.courier = Some(self.created(courier.spawn(move || sent::deliver(run, number)))?);
        }
        Ok(())
    }

    fn number(&self) -> u32 {
        self.run.threads_created.fetch_add(1, Relaxed) + 1
    }

    fn created<T>(&self, result: io::Result<T>) -> Result<T, End> {
        result.map_err(|error| End::NoThread { running: self.workers.iter().flatten().count(), error })
    }

    fn start(&mut self, index: usize) -> Result<(), End> {
        let (run, number) = (self.run, self.number());
        let life = if run.recipe.churn { self.life(index) } else { u64::MAX };
        let thread = thread::Builder::new().name(format!("worker {index}")).stack_size(STACK);
        let handle = self.created(thread.spawn(move || worker::work(run, index, number, life)))?;
        self.workers[index] = Some(handle);
        Ok(())
    }

    /// Long enough for some turns, however many share a CPU.
    fn life(&self, index: usize) -> u64 {
        let crowd = 1 + self.workers.len() as u64 / 8;
        crowd * (20_000_000 + self.run.places[index].below(180_000_000))
    }

    /// Until the time is over, somebody was caught, or nobody gets on.
    fn go_on(&mut self, time: Duration, bar: &ProgressBar) -> Result<End, End> {
        loop {
            let elapsed = self.run.start.elapsed();
            bar.set_position((elapsed.as_millis() as u64).min(time.as_millis() as u64));
            if elapsed >= time || self.run.is_caught() {
                return Ok(End::Done);
            }
            for index in 0..self.workers.len() {
                if self.join_ended(index)? {
                    self.start(index)?;
                }
            }
            if self.run.recipe.lulls {
                self.lull();
            }
            match self.look() {
                Progress::Fine => bar.set_message(""),
                Progress::Slow => bar.set_message("slow: threads wait for a CPU"),
                Progress::Hung => return Ok(End::Hung),
            }
            thread::sleep(TICK);
        }
    }

    /// Begins a lull when it is time, and ends it when all are at rest. Who has lost a wake-up never is.
    fn lull(&mut self) {
        let lull = &self.run.lull;
        if !lull.load(Relaxed) {
            lull.store(Instant::now() >= self.next_lull, Relaxed);
        } else if self.run.workers().iter().all(|place| place.resting.load(Relaxed)) {
            lull.store(false, Relaxed);
            self.lulls += 1;
            self.next_lull = Instant::now() + Duration::from_millis(5 + self.run.pest().below(40));
        }
    }

    /// Joins the worker at a place if it has ended.
    fn join_ended(&mut self, index: usize) -> Result<bool, End> {
        let Some(ended) = self.workers[index].take_if(|handle| handle.is_finished()) else { return Ok(false) };
        self.run.places[index].tid.store(0, Relaxed);
        ended.join().map(|()| true).map_err(|_| End::Panicked { index })
    }

    fn look(&mut self) -> Progress {
        let now = self.attention.at(Instant::now());
        if now - self.last_look < LOOK_EVERY {
            return Progress::Fine;
        }
        self.last_look = now;
        self.most_slots = self.most_slots.max(qspinlock::threads::slots_in_use());
        let samples: Vec<_> = self
            .workers
            .iter()
            .zip(self.run.workers())
            .map(|(handle, place)| handle.as_ref().map(|_| sample(place)))
            .collect();
        self.watch.look(now, &samples)
    }

    /// Waits for all to end, within reason.
    fn drain(&mut self, stall: Duration) -> End {
        let began = self.attention.at(Instant::now());
        let mut end = End::Done;
        loop {
            for index in 0..self.workers.len() {
                if let Err(panicked) = self.join_ended(index) {
                    end = panicked;
                }
            }
            if let Some(ended) = self.pest.take_if(|pest| pest.is_finished()) {
                let _ = ended.join();
            }
            // Once nobody is left who sends.
            if self.workers.iter().all(Option::is_none) {
                self.run.post.close();
            }
            if let Some(ended) = self.courier.take_if(|courier| courier.is_finished()) {
                let _ = ended.join();
            }
            let limit = if self.run.is_caught() { DRAIN_AFTER_OVERLAP } else { DRAIN_LIMITS * stall };
            let are_gone = self.workers.iter().chain([&self.pest, &self.courier]).all(Option::is_none);
            if are_gone || self.attention.at(Instant::now()) - began > limit {
                return end;
            }
            if self.look() == Progress::Hung {
                return if matches!(end, End::Done) { End::Hung } else { end };
            }
            thread::sleep(TICK);
        }
    }

    fn left(&self) -> Vec<(u32, String)> {
        let live = self.workers.iter().map(Option::is_some).chain([self.pest.is_some()]);
        let left = self.run.places.iter().zip(live).filter(|(_, live)| *live);
        left.map(|(place, _)| (place.thread.load(Relaxed), place.state())).collect()
    }
}

/// How the scheduler has treated a thread. One that is not to be asked has ended: it counts as asleep.
fn sample(place: &Place) -> Sample {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is live. The clock of a thread that has ended is an error.
    let known = unsafe { libc::clock_gettime(place.cpu_clock.load(Relaxed), &raw mut time) } == 0;
    let asleep = place.is_asleep().unwrap_or(!known);
    Sample {
        thread: place.thread.load(Relaxed),
        turns: place.turns.load(Relaxed),
        acquired: place.acquired.iter().map(|lock| lock.load(Relaxed)).sum(),
        cpu_ns: if known { time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64 } else { 0 },
        runnable: !asleep,
    }
}
