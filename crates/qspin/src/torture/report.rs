//! What a run has shown: figures, a verdict on fairness, and whether the lock held.

use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use super::naps::{self, Naps};
use super::run::{FREED, Place, Recipe, Run, lock_label};
use super::section::Overlap;
use super::subject::Subject;
use super::supervisor::{End, Seen};
use super::witness::{self, Locality};
use super::{freed, warden};
use crate::locks::Contender;
use crate::ui::{self, Tone, figure, text};

#[derive(Serialize)]
pub(super) struct Report {
    lock: &'static str,
    outcome: Outcome,
    /// Why it is not "passed".
    message: Option<String>,
    seconds: f64,
    threads: usize,
    cpus: usize,
    /// Repeats the choices of the threads, not their schedule.
    seed: u64,
    ingredients: Ingredients,
    turns: Turns,
    acquisitions: Acquisitions,
    longest_wait_ns: u64,
    longest_handler_wait_ns: u64,
    longest_standstill_ns: u64,
    handlers: Handlers,
    naps: Naps,
    /// Of the whole process.
    stops: u64,
    /// Times in which nobody took a lock, and all got what they waited for.
    lulls: u64,
    /// Of a lock that looks at domains.
    locality: Option<Locality>,
    freed: Freed,
    /// Locks that were released by another thread than took them.
    sent: u64,
    waits_without_node: u64,
    slots: Slots,
    threads_created: u32,
    overlaps: u64,
    first_overlap: Option<Overlap>,
    notes: Vec<String>,
    /// Threads that did not end.
    stuck: Vec<Stuck>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Passed,
    ExclusionFailed,
    FreedMemoryTouched,
    NoProgress,
    Panicked,
    NotRun,
}

#[derive(Serialize)]
struct Ingredients {
    signals: bool,
    handlers_wait: bool,
    naps: bool,
    churn: bool,
    nesting: bool,
    trylock: bool,
    timed: bool,
    freed: bool,
    sending: bool,
    long_hold_ms: f64,
}

/// By worker; threads that follow one another at its place count together.
#[derive(Debug, Serialize)]
struct Turns {
    each: Vec<u64>,
    min: u64,
    median: u64,
    max: u64,
    /// Jain's index: 1, all the same; 1/n, one has it all.
    jain: Option<f64>,
    /// What the busier half of the workers got.
    busiest_half_share: Option<f64>,
    /// The most had more than twice what the least had.
    uneven: bool,
    verdict: &'static str,
}

#[derive(Serialize)]
struct Acquisitions {
    each: Vec<LockCount>,
    tries_failed: u64,
    timed_out: u64,
}

/// Locks that were freed as soon as they were released.
#[derive(Serialize)]
struct Freed {
    locks: u64,
    /// How often the memory of one was touched afterwards.
    touches: u64,
}

#[derive(Serialize)]
struct LockCount {
    lock: String,
    count: u64,
}

#[derive(Serialize)]
struct Handlers {
    run: u64,
    deepest: u32,
}

#[derive(Serialize)]
struct Slots {
    most: usize,
    /// When all workers were joined.
    left: usize,
}

#[derive(Serialize)]
struct Stuck {
    thread: u32,
    state: String,
}

impl Turns {
    fn new(each: Vec<u64>, fair: bool) -> Self {
        let mut sorted = each.clone();
        sorted.sort_unstable();
        let n = sorted.len();
        let sum: u64 = sorted.iter().sum();
        let squares: f64 = sorted.iter().map(|&x| (x as f64).powi(2)).sum();
        let (min, max) = (sorted.first().copied().unwrap_or(0), sorted.last().copied().unwrap_or(0));
        let uneven = max / 2 > min;
        let verdict = match (uneven, fair) {
            (false, _) => "even: nobody had more than twice the turns of another",
            (true, true) => {
                "??? uneven, though the lock serves in the order of arrival: the scheduler decides who arrives"
            }
            (true, false) => "??? uneven, and the lock promises no order",
        };
        Self {
            min,
            median: sorted.get(n / 2).copied().unwrap_or(0),
            max,
            jain: (sum > 0).then(|| (sum as f64).powi(2) / (n as f64 * squares)),
            busiest_half_share: (sum > 0).then(|| sorted[n / 2..].iter().sum::<u64>() as f64 / sum as f64),
            uneven,
            verdict,
            each,
        }
    }
}

impl Report {
    pub(super) fn new<L: Contender>(subject: Subject, run: &Run<L>, seen: Seen, stall_seconds: u64) -> Self {
        let Recipe { threads, seed, signals, handlers_wait, churn, long_hold_ns, .. } = run.recipe;
        let Recipe { nesting, trylock, timed, naps, freed, sending, .. } = run.recipe;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let slots = Slots { most: seen.most_slots, left: qspinlock::threads::slots_in_use() };
        let counts: Vec<u64> =
            (0..=FREED).map(|lock| run.places.iter().map(|p| p.acquired[lock].load(Relaxed)).sum()).collect();
        let sum = |field: fn(&Place) -> u64| run.workers().iter().map(field).sum();
        let most = |field: fn(&Place) -> u64| run.workers().iter().map(field).max().unwrap_or(0);

        let mut notes = Vec::new();
        if signals && !handlers_wait {
            notes.push(format!("handlers only held threads up: {subject} must not be waited for in a handler"));
        }
        let first_overlap = run.overlap.get();
        let failed = |what| format!("{subject}: exclusion failed: {what}");
        let (touches, toucher) = freed::touches();
        let (outcome, message) = match (&first_overlap, &seen.end) {
            (None, _) if touches > 0 => {
                let message = format!("{subject}: thread {toucher} touched the memory of a lock that was freed");
                (Outcome::FreedMemoryTouched, Some(message))
            }
            (Some(overlap), _) => (Outcome::ExclusionFailed, Some(failed(overlap.message(&lock_label(overlap.lock))))),
            (None, End::Hung) => (Outcome::NoProgress, Some(hung(subject, &seen))),
            (None, End::Panicked { index }) => (Outcome::Panicked, Some(format!("{subject}: worker {index} panicked"))),
            (None, End::NoThread { running, error }) => {
                let message = format!("cannot create another thread beside {running}: {error}; ask for fewer");
                (Outcome::NotRun, Some(message))
            }
            (None, End::Done) if !seen.left.is_empty() => (Outcome::Passed, None),
            (None, End::Done) => match lost_updates(run, &counts) {
                Some(what) => (Outcome::ExclusionFailed, Some(failed(what))),
                None => (Outcome::Passed, None),
            },
        };
        if outcome == Outcome::Passed {
            notes.extend(slow(&seen, std::time::Duration::from_secs(stall_seconds)));
            // The pest has ended as well: nobody is left who could have one.
            if seen.left.is_empty() && slots.left > 0 {
                notes.push(format!("{} queue slots are still taken, though all threads have ended", slots.left));
            }
        }
        let stuck = seen.left.into_iter().map(|(thread, state)| Stuck { thread, state }).collect();

        Self {
            lock: subject.name(),
            outcome,
            message,
            seconds: seen.took.as_secs_f64(),
            threads,
            cpus,
            seed,
            ingredients: Ingredients {
                signals,
                handlers_wait,
                naps,
                churn,
                nesting,
                trylock,
                timed,
                freed,
                sending,
                long_hold_ms: long_hold_ns as f64 / 1e6,
            },
            turns: Turns::new(run.workers().iter().map(|p| p.turns.load(Relaxed)).collect(), subject.is_fair()),
            acquisitions: Acquisitions {
                each: counts
                    .iter()
                    .enumerate()
                    .map(|(lock, &count)| LockCount { lock: lock_label(lock), count })
                    .collect(),
                tries_failed: sum(|p| p.tries_failed.load(Relaxed)),
                timed_out: sum(|p| p.timed_out.load(Relaxed)),
            },
            longest_wait_ns: most(|p| p.longest_wait.load(Relaxed)),
            longest_handler_wait_ns: most(|p| p.longest_handler_wait.load(Relaxed)),
            longest_standstill_ns: seen.longest_standstill.as_nanos() as u64,
            handlers: Handlers {
                run: sum(|p| p.handlers_run.load(Relaxed)),
                deepest: most(|p| p.deepest.load(Relaxed).into()) as u32,
            },
            naps: Naps::of(&run.places),
            stops: warden::times_stopped(),
            lulls: seen.lulls,
            locality: witness::seen(subject.looks_at_domains()),
            freed: Freed { locks: run.arena.created(), touches },
            sent: run.post.sent(),
            waits_without_node: qspinlock::threads::waits_without_node(),
            slots,
            threads_created: run.threads_created.load(Relaxed),
            overlaps: run.overlap.count(),
            first_overlap,
            notes,
            stuck,
        }
    }

    /// What went wrong.
    pub(super) fn failure(&self) -> Option<&str> {
        self.message.as_deref()
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data")
    }

    pub(super) fn to_text(&self) -> String {
        let mut table = ui::table(&["torture", self.lock], &[]);
        let mut row = |what: &str, value: String, tone: Tone| {
            table.add_row(vec![text(what, Tone::Dim), text(value, tone)]);
        };
        let turns = &self.turns;
        let on = |on: bool, what: &'static str| on.then_some(what);
        let Ingredients { signals, naps, churn, nesting, trylock, timed, .. } = self.ingredients;
        let Ingredients { freed, sending, long_hold_ms, .. } = self.ingredients;
        let ingredients: Vec<_> = [
            on(signals, "signals"),
            on(naps, "naps"),
            on(self.stops > 0, "stops"),
            on(self.lulls > 0, "lulls"),
            on(churn, "churn"),
            on(nesting, "nesting"),
            on(trylock, "trylock"),
            on(timed, "time limits"),
            on(freed, "freed locks"),
            on(sending, "sent locks"),
            on(long_hold_ms > 0.0, "long holds"),
        ]
        .into_iter()
        .flatten()
        .collect();
        row(
            "run",
            format!("{:.1} s, {} threads on {} CPUs, seed {}", self.seconds, self.threads, self.cpus, self.seed),
            Tone::Plain,
        );
        row(
            "with",
            if ingredients.is_empty() { "short holds only".into() } else { ingredients.join(", ") },
            Tone::Plain,
        );
        let total: u64 = turns.each.iter().sum();
        let per_second = ui::si(total as f64 / self.seconds);
        row("turns", format!("{total} ({per_second}/s), {} tries failed", self.acquisitions.tries_failed), Tone::Plain);
        row("per thread", format!("min {}, median {}, max {}", turns.min, turns.median, turns.max), Tone::Plain);
        if let (Some(jain), Some(share)) = (turns.jain, turns.busiest_half_share) {
            row("shares", format!("Jain {jain:.3}; the busier half had {:.0} %", share * 100.0), Tone::Plain);
            row("fairness", turns.verdict.into(), if turns.uneven { Tone::Warn } else { Tone::Good });
        }
        let wait = ui::nanos(self.longest_wait_ns as f64);
        row(
            "longest wait",
            format!("{wait}; in a handler {}", ui::nanos(self.longest_handler_wait_ns as f64)),
            Tone::Plain,
        );
        row("handlers", format!("{} run, up to {} nested", self.handlers.run, self.handlers.deepest), Tone::Plain);
        let Naps { holding, waiting, unlocking, sent_to_sleepers, crawls, .. } = self.naps;
        row(
            "naps",
            format!(
                "{} of up to {} ms: {holding} holding, {waiting} waiting ({sent_to_sleepers} of them asleep), {unlocking} \
                 unlocking; {crawls} unlocks crawled",
                self.naps.total(),
                naps::longest().as_millis(),
            ),
            Tone::Plain,
        );
        row("all threads", format!("stopped {} times, {} lulls", self.stops, self.lulls), Tone::Plain);
        if let Some(locality) = &self.locality {
            row("domains", locality.to_text(), Tone::Plain);
        }
        row("freed, sent", format!("{} locks freed after use, {} sent", self.freed.locks, self.sent), Tone::Plain);
        row("waits without node", self.waits_without_node.to_string(), Tone::Plain);
        row("threads created", self.threads_created.to_string(), Tone::Plain);
        row("queue slots", format!("at most {}, left {}", self.slots.most, self.slots.left), Tone::Plain);
        for note in &self.notes {
            row("note", note.clone(), Tone::Warn);
        }
        match self.outcome {
            Outcome::Passed => row("verdict", "passed: exclusion and progress held".into(), Tone::Good),
            _ => row("verdict", self.message.clone().unwrap_or_default(), Tone::Bad),
        }
        let mut shown = format!("{table}\n");
        if self.outcome == Outcome::NoProgress {
            let mut stuck = ui::table(&["thread", "state"], &[]);
            for Stuck { thread, state } in &self.stuck {
                stuck.add_row(vec![figure(thread, Tone::Plain), text(state, Tone::Plain)]);
            }
            shown.push_str(&format!("\n{stuck}\n"));
        }
        shown
    }
}

fn hung(subject: Subject, seen: &Seen) -> String {
    format!(
        "{subject}: no progress: nobody took a lock for {:.1} s, though every thread that wants the CPU had it; {} \
         threads are stuck",
        seen.longest_standstill.as_secs_f64(),
        seen.left.len()
    )
}

/// Notes on what took long. Not failures: with more threads than CPUs it may be the scheduler.
fn slow(seen: &Seen, stall: std::time::Duration) -> Vec<String> {
    let long = seen.longest_without_turn.iter().enumerate().filter(|(_, gap)| **gap >= stall);
    let mut notes: Vec<_> = long
        .map(|(index, gap)| format!("starved: worker {index} had no turn for {:.1} s", gap.as_secs_f64()))
        .collect();
    let starved = notes.len();
    if starved > 5 {
        notes.truncate(4);
        notes.push(format!("starved: {} more workers", starved - 4));
    }
    if seen.longest_standstill >= stall {
        notes.push(format!("slow: nobody took a lock for {:.1} s", seen.longest_standstill.as_secs_f64()));
    }
    if !seen.left.is_empty() {
        notes.push(format!(
            "slow: {} threads still waited for their turn when the run was cut off, so the sums were not compared",
            seen.left.len()
        ));
    }
    notes
}

/// Compares what the threads counted with what the plain counters under the locks say.
fn lost_updates<L: Contender>(run: &Run<L>, counts: &[u64]) -> Option<String> {
    run.locks.iter().zip(counts).enumerate().find_map(|(lock, (guarded, &count))| {
        let (entries, exits) = guarded.totals();
        ((entries, exits) != (count, count)).then(|| {
            format!(
                "{} was taken {count} times, but its data counts {entries} entries and {exits} exits",
                lock_label(lock)
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        let even = Turns::new(vec![10, 10, 10, 10], true);
        assert_eq!((even.min, even.median, even.max, even.uneven), (10, 10, 10, false));
        assert_eq!((even.jain, even.busiest_half_share), (Some(1.0), Some(0.5)));
        let one = Turns::new(vec![0, 0, 0, 8], false);
        assert_eq!((one.jain, one.busiest_half_share, one.uneven), (Some(0.25), Some(1.0), true));
        assert!(one.verdict.starts_with("???"));
    }

    #[test]
    fn uneven_is_more_than_twice() {
        assert!(!Turns::new(vec![5, 11], true).uneven);
        assert!(Turns::new(vec![5, 12], true).uneven);
    }

    #[test]
    fn no_turns_at_all_have_no_shares() {
        let none = Turns::new(vec![0, 0], true);
        assert_eq!((none.jain, none.busiest_half_share, none.uneven), (None, None, false));
    }
}
