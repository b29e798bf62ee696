//! What happens when: the CPUs of a world, what is under way, and the clock.
//!
//! Events are in the order of time, and of their making where that is equal. A CPU that runs issues an access when no
//! event comes before it; then its value takes effect, in one order for all CPUs. What the CPU pays is added to its own
//! clock, and it goes on when all others have come so far.
//!
//! * **Stores** go to a store buffer and from there to their lines, one after the other. The CPU goes on meanwhile, and
//!   reads its own stores from the buffer. An atomic, a fence and a kick wait until it is empty.
//! * **Waiters** whose copy of the line is valid are *parked*: nothing happens, at no cost, until the line is
//!   taken from them. Then they look again, each when its loop comes to it, and queue for the line with all others.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::cell::{LINE, SimCell};
use super::host::Host;
use super::line::{Lines, Served, Want};
use super::model::OwnCosts;
use super::random::Random;

/// Stores that a store buffer has room for, beside the one that is on its way.
const BUFFER: usize = 42;

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

/// A store that has not arrived.
#[derive(Clone, Copy, Debug)]
struct Store {
    cell: *const SimCell,
    line: usize,
    value: u32,
    mask: u32,
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

/// How a load of a cell finds the CPU's own stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// There are none of that cell.
    None,
    /// The whole cell is in the buffer.
    Buffered(u32),
    /// The whole cell is on its way to the line.
    Arriving,
    /// Part of it is in the buffer: the load waits until it has arrived.
    Part,
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

    /// A CPU accesses a line; others are told.
    fn access(&mut self, cpu: usize, line: usize, want: Want, at: u64) -> Served {
        let served = self.lines.access(line, self.cpus[cpu].place, want, at);
        // A write that hits finds nobody else parked, but for who shares a physical CPU with it.
        let is_write = matches!(want, Want::Store | Want::Atomic);
        if !self.parked[line].is_empty() && (served.takes || served.shares || is_write) {
            let all = !served.shares;
            let mut parked = std::mem::take(&mut self.parked[line]);
            parked.retain(|&other| {
                let other = other as usize;
                let Standing::Park(park) = self.cpus[other].standing else { return false };
                if other == cpu || !(all || park.want == Want::LoadMine) {
                    return true;
                }
                let waits = self.cpus[other].now.max(served.start);
                let jitter = self.cpus[other].random.below(park.apart + 1);
                self.push(waits + jitter, What::Look(other as u32, self.cpus[other].ticket));
                false
            });
            self.parked[line] = parked;
        }
        served
    }

    fn pay(&mut self, cpu: usize, served: Served) {
        let is_hit = served.start <= self.cpus[cpu].now && served.done - served.start <= self.own.atomic.into();
        self.cpus[cpu].now = served.done;
        if !is_hit {
            self.cpus[cpu].fetched = served.done;
        }
    }

    /// What a load of a cell finds in the CPU's store buffer.
    pub(super) fn own_stores(&self, cell: *const SimCell) -> Own {
        let cpu = &self.cpus[self.current];
        if let Some(store) = cpu.buffer.iter().rev().find(|s| s.cell == cell) {
            return if store.mask == !0 { Own::Buffered(store.value) } else { Own::Part };
        }
        match &cpu.flight {
            Some((store, _)) if store.cell == cell && store.mask == !0 => Own::Arriving,
            Some((store, done)) if store.cell == cell && *done > cpu.now => Own::Part,
            _ => Own::None,
        }
    }

    /// The CPU that runs loads a cell. Its turn has come.
    pub(super) fn load(&mut self, cell: &SimCell, line: usize, want: Want) -> u32 {
        let cpu = self.current;
        match self.own_stores(cell) {
            Own::Buffered(value) => {
                self.cpus[cpu].now += u64::from(self.own.load);
                return value;
            }
            Own::Arriving if self.lines.is_alone(line, self.cpus[cpu].place) => {
                self.cpus[cpu].now += u64::from(self.own.load);
                return cell.get();
            }
            _ => {}
        }
        let served = self.access(cpu, line, want, self.cpus[cpu].now);
        self.pay(cpu, served);
        cell.get()
    }

    /// The CPU that runs stores to a cell, or to the part of it in the mask. False if it has to wait for room first.
    pub(super) fn store(&mut self, cell: &SimCell, line: usize, value: u32, mask: u32) -> bool {
        let cpu = self.current;
        if self.cpus[cpu].buffer.len() >= BUFFER {
            return false;
        }
        let store = Store { cell, line, value, mask };
        if self.cpus[cpu].flight.is_some() {
            self.cpus[cpu].buffer.push_back(store);
        } else {
            self.send(cpu, store, self.cpus[cpu].now);
        }
        self.cpus[cpu].now += 1;
        true
    }

    /// A store leaves for its line, and takes effect.
    fn send(&mut self, cpu: usize, store: Store, at: u64) {
        let served = self.access(cpu, store.line, Want::Store, at);
        // SAFETY: cells of a running world lie in its arena, which outlives it.
        let cell = unsafe { &*store.cell };
        cell.set(cell.get() & !store.mask | store.value & store.mask);
        self.cpus[cpu].flight = Some((store, served.done));
        self.push(served.done, What::Stored(cpu as u32));
    }

    fn stored(&mut self, cpu: usize, at: u64) {
        self.cpus[cpu].flight = None;
        if let Some(next) = self.cpus[cpu].buffer.pop_front() {
            self.send(cpu, next, at);
        } else if let Standing::Drain = self.cpus[cpu].standing {
            let at = at.max(self.cpus[cpu].now);
            self.cpus[cpu].fetched = at;
            self.resume(cpu, at);
        }
    }

    /// Whether all stores of the CPU that runs have arrived.
    pub(super) fn is_drained(&self) -> bool {
        self.cpus[self.current].flight.is_none()
    }

    /// The CPU that runs performs an atomic, its stores having arrived. What was there before.
    pub(super) fn atomic(&mut self, cell: &SimCell, line: usize, f: &dyn Fn(u32) -> Option<u32>) -> u32 {
        let cpu = self.current;
        let served = self.access(cpu, line, Want::Atomic, self.cpus[cpu].now);
        self.pay(cpu, served);
        let old = cell.get();
        if let Some(new) = f(old) {
            cell.set(new);
        }
        old
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
