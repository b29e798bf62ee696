//! What the CPU that runs does to memory, and what it pays.
//!
//! Stores go to a store buffer and from there to their lines, one after the other. The CPU goes on meanwhile, and reads its
//! own stores from the buffer. An atomic, a fence and a kick wait until it is empty.

use super::super::cell::SimCell;
use super::super::line::{Served, Want};
use super::{Standing, State, What};

/// Stores that a store buffer has room for, beside the one that is on its way.
const BUFFER: usize = 42;

/// A store that has not arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Store {
    cell: *const SimCell,
    line: usize,
    value: u32,
    mask: u32,
}

/// How a load of a cell finds the CPU's own stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Own {
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
    /// A CPU accesses a line; others are told.
    pub(super) fn access(&mut self, cpu: usize, line: usize, want: Want, at: u64) -> Served {
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

    pub(super) fn pay(&mut self, cpu: usize, served: Served) {
        let is_hit = served.start <= self.cpus[cpu].now && served.done - served.start <= self.own.atomic.into();
        self.cpus[cpu].now = served.done;
        if !is_hit {
            self.cpus[cpu].fetched = served.done;
        }
    }

    /// What a load of a cell finds in the CPU's store buffer.
    pub(in super::super) fn own_stores(&self, cell: *const SimCell) -> Own {
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
    pub(in super::super) fn load(&mut self, cell: &SimCell, line: usize, want: Want) -> u32 {
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
    pub(in super::super) fn store(&mut self, cell: &SimCell, line: usize, value: u32, mask: u32) -> bool {
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

    pub(super) fn stored(&mut self, cpu: usize, at: u64) {
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
    pub(in super::super) fn is_drained(&self) -> bool {
        self.cpus[self.current].flight.is_none()
    }

    /// The CPU that runs performs an atomic, its stores having arrived. What was there before.
    pub(in super::super) fn atomic(&mut self, cell: &SimCell, line: usize, f: &dyn Fn(u32) -> Option<u32>) -> u32 {
        let cpu = self.current;
        let served = self.access(cpu, line, Want::Atomic, self.cpus[cpu].now);
        self.pay(cpu, served);
        let old = cell.get();
        if let Some(new) = f(old) {
            cell.set(new);
        }
        old
    }
}
