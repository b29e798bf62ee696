//! A run of a guest, and what it may ask of the host meanwhile.
//!
//! A helper is called by the thread that runs the guest, so a run is found through its thread. What a run holds is in
//! the host's hands ([`Run::held`]): a guest says "unlock map 2", and that is looked up. When the run is over, however
//! that came, what is left there is released.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rbpf::EbpfVmNoData;

use crate::host;
use crate::map::{Map, Refusal, Section};
use crate::program::{Guest, HELPERS};

/// A guest whose loop goes on is stopped when so many have waited in vain for what it holds.
const COMPLAINTS: u32 = 2;

/// Where guests that were started together wait for each other.
pub(crate) struct Meeting {
    parties: u32,
    arrived: AtomicU32,
}

impl Meeting {
    pub(crate) fn of(parties: usize) -> Arc<Self> {
        Arc::new(Self { parties: parties as u32, arrived: AtomicU32::new(0) })
    }

    /// Not for ever: one of them may not come.
    fn meet(&self) -> Result<(), Refusal> {
        let number = self.arrived.fetch_add(1, Ordering::SeqCst) + 1;
        let end = Instant::now() + Duration::from_secs(10);
        while self.arrived.load(Ordering::SeqCst) < number.next_multiple_of(self.parties) {
            if Instant::now() > end {
                return Err(Refusal::Alone);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// A guest that runs on this thread.
struct Run {
    guest: &'static Guest,
    held: Vec<Section>,
    rounds: u64,
    stopped: Option<&'static str>,
    meeting: Option<Arc<Meeting>>,
}

std::thread_local! {
    /// The innermost is the last one: a guest that writes to a map may set off another.
    static RUNS: RefCell<Vec<Run>> = const { RefCell::new(Vec::new()) };
}

/// The run that has called a helper. Nothing that waits or calls guests may be done in `f`.
fn current<R>(f: impl FnOnce(&mut Run) -> R) -> R {
    RUNS.with_borrow_mut(|runs| f(runs.last_mut().expect("helpers are called by runs")))
}

/// How a run ended.
pub(crate) struct Outcome {
    pub(crate) guest: &'static Guest,
    /// What it returned, or how it failed.
    pub(crate) result: Result<i64, String>,
    /// Why a loop of its was not to go on.
    pub(crate) stopped: Option<&'static str>,
    /// Whose locks it had not released.
    pub(crate) left: Vec<&'static Map>,
}

/// Runs a guest to its end, on this thread.
pub(crate) fn run(guest: &'static Guest, meeting: Option<Arc<Meeting>>) -> Outcome {
    RUNS.with_borrow_mut(|runs| {
        runs.push(Run { guest, held: Vec::new(), rounds: guest.rounds, stopped: None, meeting });
    });
    // An interpreter that panics over what a guest does is the guest's end, and not the host's.
    let result = catch_unwind(AssertUnwindSafe(|| execute(guest)));
    let run = RUNS.with_borrow_mut(Vec::pop).expect("it was pushed above");
    let left = run.held.iter().map(Section::map).collect();
    drop(run.held);
    let result = result.unwrap_or_else(|_| Err("the interpreter panicked".to_owned()));
    Outcome { guest, result, stopped: run.stopped, left }
}

fn execute(guest: &Guest) -> Result<i64, String> {
    let functions: [rbpf::Helper; HELPERS.len()] = [lookup, update, lock, unlock, print, again, meet];
    let mut vm = EbpfVmNoData::new(Some(&guest.code)).map_err(|error| error.to_string())?;
    for (number, function) in (1..).zip(functions) {
        vm.register_helper(number, function).map_err(|error| error.to_string())?;
    }
    let first_line = |error: std::io::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
    vm.execute_program().map(|value| value as i64).map_err(first_line)
}

/// What a guest gets to see: a value, or a small negative number.
fn answer(helper: &'static str, map: Option<&Map>, result: Result<u64, Refusal>) -> u64 {
    result.unwrap_or_else(|refusal| {
        host::note(current(|run| run.guest), helper, map, refusal);
        refusal.code() as u64
    })
}

fn on_map(helper: &'static str, number: u64, f: impl FnOnce(&'static Map) -> Result<u64, Refusal>) -> u64 {
    let map = host::map(number);
    answer(helper, map, map.ok_or(Refusal::BadArgument).and_then(f))
}

fn lookup(map: u64, key: u64, _: u64, _: u64, _: u64) -> u64 {
    on_map("lookup", map, |map| map.lookup(key))
}

fn update(map: u64, key: u64, value: u64, _: u64, _: u64) -> u64 {
    on_map("update", map, |map| {
        let value = i64::try_from(value).map_err(|_| Refusal::BadArgument)?;
        map.update(key, value as u64, |guest| host::ended(run(guest, None))).map(|()| 0)
    })
}

fn lock(map: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    on_map("lock", map, |map| {
        let section = map.lock()?;
        current(|run| run.held.push(section));
        Ok(0)
    })
}

fn unlock(map: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    on_map("unlock", map, |map| {
        current(|run| {
            let at = run.held.iter().position(|held| std::ptr::eq(held.map(), map)).ok_or(Refusal::NotHeld)?;
            run.held.remove(at);
            Ok(0)
        })
    })
}

fn print(number: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    println!("{}: says {}", current(|run| run.guest.name), number as i64);
    0
}

/// 1 if the guest may go round its loop once more.
fn again(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    // A guest that begins again has often given way to somebody.
    std::thread::yield_now();
    current(|run| {
        let is_in_the_way = run.held.iter().any(|held| held.complaints() >= COMPLAINTS);
        if run.rounds == 0 {
            run.stopped = Some("it had used up its rounds");
        } else if is_in_the_way {
            run.stopped = Some("others waited in vain for what it held");
        } else {
            run.rounds -= 1;
        }
        u64::from(run.stopped.is_none())
    })
}

fn meet(_: u64, _: u64, _: u64, _: u64, _: u64) -> u64 {
    let meeting = current(|run| run.meeting.clone());
    answer("meet", None, meeting.ok_or(Refusal::BadArgument).and_then(|meeting| meeting.meet()).map(|()| 0))
}
