//! What happens when: the CPUs of a world, what is under way, and the clock.
//!
//! Events are in the order of time, and of their making where that is equal. A CPU that runs issues an access when no
//! event comes before it; then its value takes effect, in one order for all CPUs. What the CPU pays is added to its own
//! clock, and it goes on when all others have come so far.
//!
//! Waiters whose copy of the line is valid are *parked*: nothing happens, at no cost, until the line is taken from them. Then
//! they look again, each when its loop comes to it, and queue for the line with all others.

mod access;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::cell::{LINE, SimCell};
use super::host::Host;
use super::line::{Lines, Want};
use super::model::OwnCosts;
use super::random::Random;
use access::Store;

pub(super) use access::Own;

/// Something that will happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// A CPU goes on, if this is the last time it was told so.
    Resume(u32),
    /// The store of a CPU that was on its way has arrived.
    Stored(u32),
    /// A parked CPU looks again, if it is still in that wait.
    Look(u32, u32),
    /// The time of a wait is over.
    Expire(u32, u32),
    /// A kick has come through.
    Kicked(u32, u32),
    /// The time slice of who runs on a physical CPU is over, if it is still that slice.
    Slice(u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at: u64,
    seq: u64,
    what: What,
}

/// Whether a value is one that is waited for. The closure is in a frame of the CPU that waits.
pub(super) type Done = *const (dyn Fn(u32) -> bool + 'static);

/// A wait for a cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Park {
    pub(super) cell: *const SimCell,
    pub(super) line: usize,
    pub(super) done: Done,
    pub(super) want: Want,
    /// Cycles between two looks of the loop.
    pub(super) apart: u64,
    /// When it gives up.
    pub(super) deadline: Option<u64>,
    /// That is so much time of its own, not a moment.
    pub(super) counts_looks: bool,
    pub(super) last: u32,
    /// The name of the access, for who asks what it waits for.
    pub(super) name: &'static str,
}

/// Why a CPU stands still.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing {
    /// It does not, or it goes on at a known time.
    No,
    /// Its store buffer is to be empty.
    Drain,
    /// For a cell.
    Park(Park),
    /// Asleep, until a kick or a time.
    Halt,
    /// Done with all it had to do.
    Ended,
}

#[derive(Debug)]
pub(super) struct Cpu {
    /// Its own clock.
    pub(super) now: u64,
    /// Up to when it waits for a line: it need not run for that.
    pub(super) fetched: u64,
    /// Where it runs, or ran last.
    pub(super) place: u32,
    /// Number of the physical CPU that it runs on.
    pub(super) on: Option<u32>,
    /// Since when it runs there.
    pub(super) on_since: u64,
    /// Why it did not run before: it slept.
    pub(super) slept: bool,
    /// The last `Resume` for it, and when.
    pub(super) resume: Option<(u64, u64)>,
    /// What it still has to do when it runs again, in cycles.
    pub(super) left: u64,
    pub(super) standing: Standing,
    /// Counts its waits.
    pub(super) ticket: u32,
    /// How its last wait ended.
    pub(super) result: Result<u32, u32>,
    /// A kick that has not woken anybody yet.
    pub(super) token: bool,
    /// It has a lock.
    pub(super) holds: u32,
    flight: Option<(Store, u64)>,
    buffer: VecDeque<Store>,
    pub(super) random: Random,
}

impl Cpu {
    fn new(place: u32, random: Random) -> Self {
        Self {
            now: 0,
            fetched: 0,
            place,
            on: None,
            on_since: 0,
            slept: false,
            resume: None,
            left: 0,
            standing: Standing::No,
            ticket: 0,
            result: Ok(0),
            token: false,
            holds: 0,
            flight: None,
            buffer: VecDeque::new(),
            random,
        }
    }
}

/// The state of a world.
#[derive(Debug)]
pub(super) struct State {
    pub(super) own: OwnCosts,
    pub(super) lines: Lines,
    /// Who is parked on each line.
    parked: Vec<Vec<u32>>,
    pub(super) cpus: Vec<Cpu>,
    events: BinaryHeap<Reverse<Event>>,
    seq: u64,
    /// The CPU that runs.
    pub(super) current: usize,
    pub(super) clock: u64,
    pub(super) host: Host,
}

impl State {
    pub(super) fn new(own: OwnCosts, lines: Lines, count: usize, places: &[u32], seed: u64, host: Host) -> Self {
        let cpu = |(i, &place): (usize, &u32)| Cpu::new(place, Random::new(seed, i as u64));
        Self {
            own,
            lines,
            parked: vec![Vec::new(); count],
            cpus: places.iter().enumerate().map(cpu).collect(),
            events: BinaryHeap::new(),
            seq: 0,
            current: 0,
            clock: 0,
            host,
        }
    }

    pub(super) fn push(&mut self, at: u64, what: What) -> u64 {
        self.seq += 1;
        self.events.push(Reverse(Event { at, seq: self.seq, what }));
        self.seq
    }

    /// Whether the CPU that runs may act now, before all else.
    pub(super) fn is_first(&self) -> bool {
        let now = self.cpus[self.current].now;
        self.events.peek().is_none_or(|Reverse(event)| event.at > now)
    }

    /// A CPU goes on at a time; if it does not run, when it runs again.
    pub(super) fn resume(&mut self, cpu: usize, at: u64) {
        self.cpus[cpu].standing = Standing::No;
        if self.cpus[cpu].on.is_some() {
            let at = at.max(self.cpus[cpu].on_since);
            let seq = self.push(at, What::Resume(cpu as u32));
            self.cpus[cpu].resume = Some((seq, at));
        } else {
            self.cpus[cpu].left = 0;
            self.cpus[cpu].fetched = at;
        }
    }

    /// The next thing happens. A CPU that goes on, `None` when there is nothing more.
    pub(super) fn step(&mut self) -> Option<Option<usize>> {
        let Reverse(Event { at, seq, what }) = self.events.pop()?;
        self.clock = at;
        match what {
            What::Resume(cpu) => {
                let cpu = cpu as usize;
                if self.cpus[cpu].resume.is_some_and(|r| r.0 == seq) {
                    self.cpus[cpu].resume = None;
                    self.cpus[cpu].now = at;
                    self.current = cpu;
                    return Some(Some(cpu));
                }
            }
            What::Stored(cpu) => self.stored(cpu as usize, at),
            What::Look(cpu, ticket) if self.cpus[cpu as usize].ticket == ticket => self.look(cpu as usize, at),
            What::Expire(cpu, ticket) if self.cpus[cpu as usize].ticket == ticket => self.expire(cpu as usize, at),
            What::Kicked(cpu, ticket) if self.cpus[cpu as usize].ticket == ticket => self.kicked(cpu as usize, at),
            What::Slice(physical, number) => self.slice_is_over(physical, number, at),
            What::Look(..) | What::Expire(..) | What::Kicked(..) => {}
        }
        Some(None)
    }

    pub(super) fn line_of(offset: usize) -> usize {
        offset / LINE
    }

    /// The CPU that runs waits for a cell, having just looked at it.
    pub(super) fn park(&mut self, park: Park) {
        let cpu = self.current;
        self.cpus[cpu].ticket += 1;
        self.cpus[cpu].standing = Standing::Park(park);
        self.parked[park.line].push(cpu as u32);
        if let Some(deadline) = park.deadline {
            self.push(deadline, What::Expire(cpu as u32, self.cpus[cpu].ticket));
        }
    }

    /// A parked CPU looks again.
    fn look(&mut self, cpu: usize, at: u64) {
        let Standing::Park(mut park) = self.cpus[cpu].standing else { return };
        let served = self.access(cpu, park.line, park.want, at);
        self.pay(cpu, served);
        // SAFETY: cells of a running world lie in its arena; the closure is in a frame that stands still in this wait.
        let (value, is_done) = unsafe {
            let value = (*park.cell).get();
            (value, (*park.done)(value))
        };
        if is_done {
            self.end_wait(cpu, Ok(value), served.done);
        } else {
            park.last = value;
            self.cpus[cpu].standing = Standing::Park(park);
            self.parked[park.line].push(cpu as u32);
        }
    }

    fn end_wait(&mut self, cpu: usize, result: Result<u32, u32>, at: u64) {
        self.cpus[cpu].ticket += 1;
        self.cpus[cpu].result = result;
        self.resume(cpu, at);
    }

    /// Takes a CPU from the list of its line, if it is there.
    pub(super) fn unpark(&mut self, cpu: usize, line: usize) {
        if let Some(at) = self.parked[line].iter().position(|&c| c as usize == cpu) {
            self.parked[line].remove(at);
        }
    }

    fn expire(&mut self, cpu: usize, at: u64) {
        match self.cpus[cpu].standing {
            Standing::Park(park) => {
                self.unpark(cpu, park.line);
                self.end_wait(cpu, Err(park.last), at.max(self.cpus[cpu].now));
            }
            Standing::Halt => self.wake(cpu, at),
            _ => {}
        }
    }

    /// A parked CPU that has begun to run looks at its cell.
    pub(super) fn look_soon(&mut self, cpu: usize, at: u64) {
        self.push(at, What::Look(cpu as u32, self.cpus[cpu].ticket));
    }

    /// Who waits, and for what; if anybody does.
    pub(super) fn stuck(&self) -> Option<String> {
        const NAMED: usize = 8;
        let waits = |(i, cpu): (usize, &Cpu)| match cpu.standing {
            Standing::Ended => None,
            Standing::Park(park) => Some(format!(
                "cpu {i} waits at {} for line {}, which holds {:#x}, since {}",
                park.name, park.line, park.last, cpu.now
            )),
            Standing::Halt => Some(format!("cpu {i} sleeps since {}", cpu.now)),
            Standing::No | Standing::Drain => Some(format!("cpu {i} does not run since {}", cpu.now)),
        };
        let all: Vec<String> = self.cpus.iter().enumerate().filter_map(waits).collect();
        let more = all.len().saturating_sub(NAMED);
        let named = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
        match (all.is_empty(), more) {
            (true, _) => None,
            (_, 0) => Some(named),
            _ => Some(format!("{named}; and {more} more")),
        }
    }
}
