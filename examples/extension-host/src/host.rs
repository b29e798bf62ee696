//! The host: its maps, the threads on which guests run, and what it notes of them.

use std::collections::BTreeMap;
use std::time::Duration;

use qspinlock::resilient::Report;
use qspinlock::threads::Threads;
use qspinlock::{LockErrorKind, Machine, Mutex};

use crate::map::{Map, Refusal};
use crate::program::Guest;
use crate::run::{Meeting, Outcome, run};

/// Longer than anybody should ever wait for one of these locks. A deadlock is told at once, whatever the limit.
const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(100);

/// What guests share. They know them by their numbers.
static MAPS: [Map; 6] = [
    Map::new("hits", LONG),
    Map::new("audit", LONG),
    Map::new("alpha", LONG),
    Map::new("beta", LONG),
    Map::new("gamma", SHORT),
    Map::new("delta", LONG),
];

/// What the host has seen.
#[derive(Default)]
pub(crate) struct Notes {
    /// How often a guest was refused something, by its name and the number that it was told.
    pub(crate) refusals: BTreeMap<(&'static str, i64), u64>,
    /// How guests ended, but for those that others have set off, if all was well with them.
    pub(crate) outcomes: Vec<Outcome>,
    /// Runs that other guests have set off.
    pub(crate) set_off: u64,
    /// Which guest runs on a thread, by the thread's number in reports.
    running: BTreeMap<usize, &'static str>,
}

static NOTES: Mutex<Notes> =
    Mutex::new(Notes { refusals: BTreeMap::new(), outcomes: Vec::new(), set_off: 0, running: BTreeMap::new() });

pub(crate) fn maps() -> &'static [Map] {
    &MAPS
}

pub(crate) fn map(number: u64) -> Option<&'static Map> {
    MAPS.get(usize::try_from(number).ok()?)
}

/// The map of that name, as the host itself uses it.
pub(crate) fn named(name: &str) -> &'static Map {
    MAPS.iter().find(|map| map.name == name).expect("a map of that name")
}

pub(crate) fn notes() -> Notes {
    std::mem::take(&mut NOTES.lock())
}

/// An event: guests on a thread each, or several that follow each other on one. Returns when all have ended.
pub(crate) fn fire(threads: &[&[&'static Guest]]) {
    let meeting = Meeting::of(threads.len());
    std::thread::scope(|s| {
        for &guests in threads {
            let meeting = meeting.clone();
            s.spawn(move || {
                for guest in guests {
                    let cpu = Threads.here().map(|cpu| cpu.index());
                    NOTES.lock().running.extend(cpu.map(|cpu| (cpu, guest.name)));
                    let outcome = run(guest, Some(meeting.clone()));
                    tell(&outcome);
                    NOTES.lock().outcomes.push(outcome);
                }
            });
        }
    });
}

/// A guest that another one has set off has ended.
pub(crate) fn ended(outcome: Outcome) {
    NOTES.lock().set_off += 1;
    if outcome.result.is_err() || outcome.stopped.is_some() || !outcome.left.is_empty() {
        tell(&outcome);
        NOTES.lock().outcomes.push(outcome);
    }
}

fn tell(Outcome { guest, result, stopped, left }: &Outcome) {
    let name = guest.name;
    let result = match result {
        Ok(value) => format!("{name}: returned {value}"),
        Err(why) => format!("{name}: failed: {why}"),
    };
    let stopped = stopped.map(|why| format!("\n{name}: was stopped: {why}")).unwrap_or_default();
    let left: String = left.iter().map(|map| format!("\n{name}: the host released the lock of {}", map.name)).collect();
    println!("{result}{stopped}{left}");
}

/// A guest was refused something. Told the first time; after that it is counted.
pub(crate) fn note(guest: &Guest, helper: &str, map: Option<&Map>, refusal: Refusal) {
    let (name, code) = (guest.name, refusal.code());
    let count = {
        let mut notes = NOTES.lock();
        let count = notes.refusals.entry((name, code)).or_default();
        *count += 1;
        *count
    };
    if count > 1 {
        return;
    }
    let on = map.map(|map| format!(" {}", map.name)).unwrap_or_default();
    // A report is kept for the last few dozen errors: long enough for who asks at once.
    let report = match refusal {
        Refusal::Lock(error) => error.report().map(|report| explain(&report)),
        _ => None,
    };
    println!("{name}: {helper}{on} was refused: {code}{}", report.unwrap_or_default());
}

/// A report, with the names of guests and maps for numbers and addresses. Printed as it is, it also tells places in
/// the source, which here are the helpers'.
fn explain(report: &Report) -> String {
    let lock = |address| MAPS.iter().find_map(|map| map.lock_at(address)).unwrap_or_else(|| format!("{address:#x}"));
    let who = |cpu: qspinlock::queue::Cpu| NOTES.lock().running.get(&cpu.index()).copied().unwrap_or("nobody");
    if report.kind() == LockErrorKind::TimedOut {
        let holder = report.holder().map_or("nobody says so", |(cpu, _)| who(cpu));
        return format!("\n    waited {:?} for {}; holder: {holder}", report.waited(), lock(report.lock()));
    }
    let links: Vec<_> = report.links().collect();
    let next = |at: usize| links[(at + 1) % links.len()].cpu;
    let line = |(at, link)| {
        let link: &&qspinlock::resilient::Link = link;
        format!("\n    {} wants {}, which {} holds", who(link.cpu), lock(link.wants), who(next(at)))
    };
    links.iter().enumerate().map(line).collect()
}
