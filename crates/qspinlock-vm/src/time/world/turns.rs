//! What the CPU that runs asks of its world: each when it is its turn, and what has to wait lets others run meanwhile.

use std::cell::RefMut;

use qspinlock::machine::Budget;

use super::super::cell::SimCell;
use super::super::engine::{Done, Own, Park, Standing, State};
use super::super::line::Want;
use super::World;

/// Pauses between two looks of a wait that has a deadline, as on real CPUs.
const FARTHEST: u64 = 32;

impl World<'_> {
    /// Waits until the CPU that runs is the first to act.
    pub(super) fn turn(&self) -> RefMut<'_, State> {
        let mut state = self.state.borrow_mut();
        if state.is_first() {
            return state;
        }
        let (cpu, now) = (state.current, state.cpus[state.current].now);
        state.resume(cpu, now);
        self.stand(state)
    }

    /// Lets others run until the CPU that runs is told to go on.
    fn stand<'s>(&'s self, state: RefMut<'s, State>) -> RefMut<'s, State> {
        drop(state);
        self.suspend();
        self.state.borrow_mut()
    }

    fn drain<'s>(&'s self, mut state: RefMut<'s, State>) -> RefMut<'s, State> {
        if state.is_drained() {
            return state;
        }
        let cpu = state.current;
        state.cpus[cpu].standing = Standing::Drain;
        self.stand(state)
    }

    fn line(&self, cell: &SimCell) -> usize {
        State::line_of(self.arena.offset(cell))
    }

    /// `is_hint`: need not show the CPU's own store to a part of it.
    pub(in super::super) fn load(&self, cell: &SimCell, is_hint: bool) -> u32 {
        let mut state = self.turn();
        if !is_hint && state.own_stores(cell) == Own::Part {
            state = self.drain(state);
        }
        state.load(cell, self.line(cell), Want::Load)
    }

    pub(in super::super) fn store(&self, cell: &SimCell, value: u32, mask: u32) {
        let mut state = self.turn();
        let line = self.line(cell);
        if !state.store(cell, line, value, mask) {
            state = self.drain(state);
            state.store(cell, line, value, mask);
        }
    }

    pub(in super::super) fn atomic(&self, cell: &SimCell, f: &dyn Fn(u32) -> Option<u32>) -> u32 {
        let mut state = self.drain(self.turn());
        state.atomic(cell, self.line(cell), f)
    }

    pub(in super::super) fn fence(&self) {
        let mut state = self.drain(self.turn());
        let (cpu, cost) = (state.current, state.own.atomic);
        state.cpus[cpu].now += u64::from(cost);
    }

    /// Waits for a cell.
    pub(in super::super) fn until(
        &self,
        cell: &SimCell,
        name: &'static str,
        want: Want,
        budget: Option<Budget>,
        done: &dyn Fn(u32) -> bool,
    ) -> Result<u32, u32> {
        let line = self.line(cell);
        let mut state = self.turn();
        let begun = state.cpus[state.current].now;
        if state.own_stores(cell) == Own::Part {
            state = self.drain(state);
        }
        let mut seen = state.load(cell, line, want);
        if done(seen) {
            return Ok(seen);
        }
        if state.own_stores(cell) != Own::None {
            // What it has seen is its own store, and until that has arrived there is nothing to be told of.
            state = self.drain(state);
            seen = state.load(cell, line, want);
            if done(seen) {
                return Ok(seen);
            }
        }
        let cpu = state.current;
        let pause = u64::from(state.own.pause);
        let (apart, deadline, counts_looks) = match budget {
            None => (pause, None, false),
            Some(Budget::Looks { most, apart }) => {
                let apart = pause * u64::from(apart.max(1));
                (apart, Some(begun + u64::from(most.saturating_sub(1)) * apart), true)
            }
            Some(Budget::Until(ns)) => (pause * FARTHEST, Some(self.cycles(ns)), false),
        };
        if deadline.is_some_and(|deadline| deadline <= state.cpus[cpu].now) {
            return Err(seen);
        }
        let done: *const (dyn Fn(u32) -> bool + '_) = done;
        // SAFETY: only the lifetime bound of the trait object changes. It is called only while this frame stands still below.
        let done = unsafe { std::mem::transmute::<*const (dyn Fn(u32) -> bool + '_), Done>(done) };
        state.park(Park { cell, line, done, want, apart, deadline, counts_looks, last: seen, name });
        let state = self.stand(state);
        state.cpus[cpu].result
    }

    /// Sleeps, if the cell holds a value.
    pub(in super::super) fn wait(&self, cell: &SimCell, value: u32, until: Option<u64>) {
        let mut state = self.drain(self.turn());
        if state.load(cell, self.line(cell), Want::Load) != value {
            return;
        }
        let cpu = state.current;
        let until = until.map(|ns| self.cycles(ns));
        if std::mem::take(&mut state.cpus[cpu].token) || until.is_some_and(|until| until <= state.cpus[cpu].now) {
            return;
        }
        state.halt(until);
        drop(self.stand(state));
    }

    pub(in super::super) fn kick(&self, target: usize) {
        self.drain(self.turn()).kick(target);
    }

    pub(in super::super) fn give_way(&self) {
        let mut state = self.turn();
        if state.give_way() {
            drop(self.stand(state));
        }
    }
}
