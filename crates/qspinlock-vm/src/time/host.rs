//! Virtual CPUs on physical ones: who runs, who sleeps, and who was preempted.
//!
//! A physical CPU runs a virtual one for a time slice, if another is ready by then; ready ones have their turn in the
//! order in which they became ready, on whichever physical CPU comes free first. With a physical CPU for each there are
//! no slices, and only waiting and kicking is left of all this.
//!
//! A virtual CPU that does not run issues nothing. What it has issued completes: a line that it has asked for comes, its
//! store buffer empties.

use std::collections::VecDeque;

use super::engine::{Standing, State, What};
use super::random::Random;

/// Costs, in cycles.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostCosts {
    pub(super) slice: u64,
    pub(super) kick: u64,
    pub(super) wake: u64,
    pub(super) switch: u64,
}

#[derive(Debug)]
struct Physical {
    place: u32,
    runs: Option<u32>,
    /// Counts slices.
    slice: u32,
}

/// The physical CPUs.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) costs: HostCosts,
    physical: Vec<Physical>,
    ready: VecDeque<u32>,
    is_sliced: bool,
    pub(super) holder_preemptions: u64,
}

impl Host {
    pub(super) fn new(costs: HostCosts, places: &[u32]) -> Self {
        let physical = places.iter().map(|&place| Physical { place, runs: None, slice: 0 }).collect();
        Self { costs, physical, ready: VecDeque::new(), is_sliced: false, holder_preemptions: 0 }
    }

    /// The physical CPU to wake on: the one that it ran on, or any that is free.
    fn free_for(&self, place: u32) -> Option<usize> {
        let is_free = |p: &Physical| p.runs.is_none();
        self.physical
            .iter()
            .position(|p| is_free(p) && p.place == place)
            .or_else(|| self.physical.iter().position(is_free))
    }
}

impl State {
    /// All virtual CPUs begin, as many as can.
    pub(super) fn begin(&mut self, seed: u64) {
        self.host.is_sliced = self.cpus.len() > self.host.physical.len();
        let mut random = Random::new(seed, u64::MAX);
        for cpu in 0..self.cpus.len() {
            self.make_ready(cpu, 0, 0);
        }
        if self.host.is_sliced {
            // Slices do not end all at once.
            for physical in 0..self.host.physical.len() as u32 {
                let offset = random.below(self.host.costs.slice.max(1));
                self.push(offset, What::Slice(physical, 1));
            }
        }
    }

    /// A virtual CPU has something to do: on a free physical CPU, after `delay`, or when its turn comes.
    fn make_ready(&mut self, cpu: usize, at: u64, delay: u64) {
        match self.host.free_for(self.cpus[cpu].place) {
            Some(physical) => self.run_on(cpu, physical, at + delay),
            None => self.host.ready.push_back(cpu as u32),
        }
    }

    fn run_on(&mut self, cpu: usize, physical: usize, at: u64) {
        let p = &mut self.host.physical[physical];
        p.runs = Some(cpu as u32);
        p.slice += 1;
        let (place, slice) = (p.place, p.slice);
        if self.host.is_sliced && at > 0 {
            self.push(at + self.host.costs.slice, What::Slice(physical as u32, slice));
        }
        let it = &mut self.cpus[cpu];
        (it.on, it.on_since, it.place) = (Some(physical as u32), at, place);
        match it.standing {
            Standing::No => {
                let at = it.fetched.max(at) + std::mem::take(&mut it.left);
                self.resume(cpu, at);
            }
            Standing::Park(mut park) => {
                it.ticket += 1;
                it.now = it.now.max(at);
                if park.counts_looks {
                    park.deadline = Some(at + std::mem::take(&mut it.left));
                }
                it.standing = Standing::Park(park);
                let ticket = it.ticket;
                self.look_soon(cpu, at);
                if let Some(deadline) = park.deadline {
                    self.push(deadline.max(at), What::Expire(cpu as u32, ticket));
                }
            }
            Standing::Drain | Standing::Halt | Standing::Ended => {}
        }
    }

    /// A physical CPU is free: whoever is ready has it.
    fn vacate(&mut self, physical: usize, at: u64) {
        self.host.physical[physical].runs = None;
        if let Some(next) = self.host.ready.pop_front() {
            let at = at + self.host.costs.switch;
            self.run_on(next as usize, physical, at);
        }
    }

    pub(super) fn slice_is_over(&mut self, physical: u32, number: u32, at: u64) {
        let p = &self.host.physical[physical as usize];
        let Some(cpu) = p.runs.filter(|_| p.slice == number) else { return };
        if self.host.ready.is_empty() {
            self.push(at + self.host.costs.slice, What::Slice(physical, number));
        } else {
            self.preempt(cpu as usize, at);
        }
    }

    fn preempt(&mut self, cpu: usize, at: u64) {
        let it = &mut self.cpus[cpu];
        let Some(physical) = it.on.take() else { return };
        it.slept = false;
        self.host.holder_preemptions += u64::from(it.holds > 0);
        match it.standing {
            Standing::No => {
                // What is left of its work, without the time in which it only waits for a line.
                let (_, until) = it.resume.take().unwrap_or((0, at));
                it.left = until.saturating_sub(it.fetched.max(at));
            }
            Standing::Park(park) => {
                it.ticket += 1;
                it.left = park.deadline.map_or(0, |deadline| deadline.saturating_sub(at));
                self.unpark(cpu, park.line);
            }
            Standing::Drain | Standing::Halt | Standing::Ended => {}
        }
        self.host.ready.push_back(cpu as u32);
        self.vacate(physical as usize, at);
    }

    /// The CPU that runs lets another one run that is ready, if there is any: it goes on when its turn comes. True if it
    /// has to stand still for that.
    pub(super) fn give_way(&mut self) -> bool {
        let cpu = self.current;
        if self.host.ready.is_empty() {
            return false;
        }
        let now = self.cpus[cpu].now;
        self.resume(cpu, now);
        self.preempt(cpu, now);
        true
    }

    /// The CPU that runs sleeps.
    pub(super) fn halt(&mut self, until: Option<u64>) {
        let cpu = self.current;
        let it = &mut self.cpus[cpu];
        it.ticket += 1;
        it.standing = Standing::Halt;
        let (now, ticket, physical) = (it.now, it.ticket, it.on.take());
        if let Some(until) = until {
            self.push(until.max(now), What::Expire(cpu as u32, ticket));
        }
        if let Some(physical) = physical {
            self.vacate(physical as usize, now);
        }
    }

    /// The CPU that runs wakes another one.
    pub(super) fn kick(&mut self, target: usize) {
        let at = self.cpus[self.current].now;
        self.cpus[self.current].now += self.host.costs.kick;
        self.cpus[target].token = true;
        if let Standing::Halt = self.cpus[target].standing {
            self.kicked_at(target, at);
        }
    }

    fn kicked_at(&mut self, target: usize, at: u64) {
        let ticket = self.cpus[target].ticket;
        self.push(at, What::Kicked(target as u32, ticket));
    }

    pub(super) fn kicked(&mut self, cpu: usize, at: u64) {
        if let Standing::Halt = self.cpus[cpu].standing {
            self.cpus[cpu].token = false;
            self.wake(cpu, at);
        }
    }

    /// A virtual CPU that sleeps is woken.
    pub(super) fn wake(&mut self, cpu: usize, at: u64) {
        let it = &mut self.cpus[cpu];
        it.ticket += 1;
        it.standing = Standing::No;
        (it.left, it.fetched, it.slept) = (0, at, true);
        self.make_ready(cpu, at, self.host.costs.wake);
    }

    /// The CPU that runs has nothing more to do.
    pub(super) fn end(&mut self, cpu: usize) {
        let it = &mut self.cpus[cpu];
        it.standing = Standing::Ended;
        let (now, physical) = (it.now, it.on.take());
        if let Some(physical) = physical {
            self.vacate(physical as usize, now);
        }
    }
}
