//! What must hold of a state: somebody can go on, or all have ended and left nothing behind.

use qspinlock::queue::LEVELS;

use super::op::{CellId, Kind};
use super::search::{Explorer, State};

impl Explorer<'_, '_> {
    /// Whether a CPU that stands at an await, or sleeps, can go on.
    pub(super) fn can_go(&mut self, state: &State, cpu: usize) -> bool {
        let op = *self.automaton.op(state.locals[cpu]);
        match op.kind {
            Kind::Await(_) => {
                let Some(&cell) = self.dense.get(&op.cell) else { return true };
                let readable = state.memory.readable(cpu, usize::from(cell));
                let values: Vec<u32> = state.memory.of(usize::from(cell))[readable].iter().map(|m| m.value).collect();
                values.into_iter().any(|v| self.automaton.decide(state.locals[cpu], v).is_some())
            }
            Kind::Wait { timed, .. } => timed || state.asleep & !state.kicked & 1 << cpu == 0,
            _ => true,
        }
    }

    /// A CPU that has not ended, if none can go on. Interrupts may arrive, but nothing says that they will.
    pub(super) fn hang(&mut self, state: &State) -> Option<String> {
        let running: Vec<usize> = (0..self.cpus()).filter(|cpu| state.ended & 1 << cpu == 0).collect();
        if running.is_empty() || running.iter().any(|&cpu| self.goes_on(state, cpu)) {
            return None;
        }
        let at: Vec<String> = running
            .iter()
            .map(|&cpu| {
                let op = self.automaton.op(state.locals[cpu]);
                format!("cpu {cpu} waits for ever at {} ({})", op.access.name, self.name(op.cell))
            })
            .collect();
        Some(format!("hang: {}", at.join("; ")))
    }

    /// Whether a CPU is sure to go on. An await may still find an old value that satisfies, but nothing makes it find
    /// that one; sooner or later it sees the newest. A sleeper may wake for no reason, but need not.
    fn goes_on(&mut self, state: &State, cpu: usize) -> bool {
        let op = *self.automaton.op(state.locals[cpu]);
        let Some(&cell) = self.dense.get(&op.cell) else { return true };
        match op.kind {
            Kind::Await(_) => {
                let newest = state.memory.newest(usize::from(cell));
                self.automaton.decide(state.locals[cpu], newest).is_some()
            }
            Kind::Wait { timed, .. } => {
                timed && self.naps_may_help(state) || state.asleep & !state.kicked & 1 << cpu == 0
            }
            _ => true,
        }
    }

    /// Whether it is right that everybody sleeps until a nap ends. Of a lock whose promises are known: only if an unlock
    /// has passed a queue that it had not seen.
    fn naps_may_help(&self, state: &State) -> bool {
        self.model.promises.sleeping.is_none() || state.ghosts.iter().any(|ghost| ghost.sleepers.is_passed)
    }

    /// What is left behind when all have ended, if that must be nothing.
    pub(super) fn unclean(&self, state: &State) -> Option<String> {
        let all = (1_u16 << self.cpus()) - 1;
        if !self.model.ends_clean || u16::from(state.ended) != all {
            return None;
        }
        if let Some((cpu, whom)) = state.ghosts.iter().find_map(|ghost| ghost.halted.owes()) {
            return Some(format!("kick: cpu {cpu} owes cpu {whom} a kick, and has ended"));
        }
        let stays = |id: &CellId| {
            let info = &self.infos[usize::from(*id)];
            // A node for a wait that may end is idle when it lies in no queue.
            let is_left = info.node.is_some_and(|(_, level)| level >= LEVELS) && info.name.ends_with(".grant");
            self.model.words.contains(id) || info.private_to.is_some() || is_left
        };
        self.order.iter().filter(|id| stays(id)).find_map(|id| {
            let value = state.memory.newest(usize::from(self.dense[id]));
            (value != 0).then(|| format!("trace: {} ends as {value:#x}", self.name(*id)))
        })
    }
}
