//! Steps that are none on a lock's word, and that its promises judge all the same: what is written into a waiter's
//! node, and
//! kicks.

use qspinlock::queue::{Cpu, Tail};

use super::op::Op;
use super::search::{Explorer, State, Stop};

impl Explorer<'_, '_> {
    pub(super) fn granted(&mut self, state: &mut State, cpu: usize, op: Op) -> Result<(), Stop> {
        let name = self.name(op.cell);
        let code = node_code(&name);
        let verdict = match state.ghosts.iter_mut().find(|ghost| ghost.has(code)) {
            Some(ghost) => ghost.granted(self.model.promises, cpu, code),
            None if self.model.promises.near.is_some() => {
                Err(format!("promotion: cpu {cpu} grants {name}, which is in no queue"))
            }
            None => Ok(()),
        };
        self.judge(verdict, cpu, op, String::new)
    }

    /// A head is told that those whom it has passed have waited for long enough: that of the queue in which its CPU waits now.
    pub(super) fn told_due(&self, state: &mut State, cpu: usize) {
        let led = state.ghosts.iter_mut().filter_map(|ghost| ghost.led_by(cpu).map(|level| (level, ghost)));
        if let Some((_, ghost)) = led.max_by_key(|&(level, _)| level) {
            ghost.told_due();
        }
    }

    /// A step on a node of a queue that one may leave.
    pub(super) fn leaves(&mut self, state: &mut State, cpu: usize, op: Op, (old, new): (u32, u32)) -> Result<(), Stop> {
        let name = self.name(op.cell);
        let code = node_code(&name);
        let promises = self.model.promises;
        let Some(ghost) = state.ghosts.iter_mut().find(|ghost| ghost.knows(code)) else { return Ok(()) };
        let verdict = match op.access.name {
            "leaving.promote" | "numa.promote" => ghost.granted(promises, cpu, code),
            "leaving.abandon" => ghost.abandoned(promises, cpu, code),
            "leaving.hand-on" if old != 0 => Ok(()),
            "leaving.hand-on" => ghost.left(promises, cpu, code),
            _ => ghost.gone(promises, cpu, code),
        };
        self.judge(verdict, cpu, op, || format!("{old:#x} -> {new:#x}"))
    }

    pub(super) fn told(&mut self, state: &mut State, cpu: usize, op: Op, (old, new): (u32, u32)) -> Result<(), Stop> {
        let Some(promised) = self.model.promises.sleeping else { return Ok(()) };
        let name = self.name(op.cell);
        let code = node_code(&name);
        let who = (cpu, state.nesting[cpu]);
        let verdict = match state.ghosts.iter_mut().find(|ghost| ghost.sleepers.has(code)) {
            Some(ghost) => ghost.sleepers.told(promised, who, code, (old, new)),
            None => Err(format!("sleepers: cpu {cpu} wakes {name}, which lies in no queue")),
        };
        self.judge(verdict, cpu, op, || format!("{old:#x} -> {new:#x}"))
    }

    /// A waiter that may halt is made the head.
    pub(super) fn promoted(
        &mut self,
        state: &mut State,
        cpu: usize,
        op: Op,
        (old, new): (u32, u32),
    ) -> Result<(), Stop> {
        if self.model.promises.halting.is_none() {
            return Ok(());
        }
        let name = self.name(op.cell);
        let (who, code) = ((cpu, state.nesting[cpu]), node_code(&name));
        let verdict = match state.ghosts.iter_mut().find(|ghost| ghost.halted.has(code)) {
            Some(ghost) => ghost.halted.promoted(who, code, (old, new)),
            None => Err(format!("promotion: cpu {cpu} promotes {name}, which is in no queue")),
        };
        self.judge(verdict, cpu, op, || format!("{old:#x} -> {new:#x}"))
    }

    /// Who is the head, or becomes it, is told to get going.
    pub(super) fn woken(&mut self, state: &mut State, cpu: usize, op: Op, (old, new): (u32, u32)) -> Result<(), Stop> {
        if self.model.promises.halting.is_none() {
            return Ok(());
        }
        let name = self.name(op.cell);
        let (who, code) = ((cpu, state.nesting[cpu]), node_code(&name));
        let verdict = match state.ghosts.iter_mut().find(|ghost| ghost.halted.has(code)) {
            Some(ghost) => ghost.halted.woken(who, code, old),
            None => Err(format!("wake: cpu {cpu} writes {name}, which is in no queue")),
        };
        self.judge(verdict, cpu, op, || format!("{old:#x} -> {new:#x}"))
    }

    pub(super) fn kicks(&mut self, state: &mut State, cpu: usize, op: Op, target: u16) -> Result<(), Stop> {
        if self.model.promises.halting.is_none() {
            return Ok(());
        }
        let who = (cpu, state.nesting[cpu]);
        let owes = state.ghosts.iter_mut().find_map(|ghost| ghost.halted.kicks(who));
        let verdict = match owes {
            Some(whom) if whom == usize::from(target) => Ok(()),
            Some(whom) => {
                Err(format!("kick: cpu {cpu} kicks cpu {target}, and the head that it owes one is cpu {whom}"))
            }
            None => Err(format!("kick: cpu {cpu} kicks cpu {target} and owes nobody a kick")),
        };
        self.judge(verdict, cpu, op, || format!("cpu {target}"))
    }

    pub(super) fn judge(
        &mut self,
        verdict: Result<(), String>,
        cpu: usize,
        op: Op,
        how: impl Fn() -> String,
    ) -> Result<(), Stop> {
        verdict.map_err(|what| {
            self.record(cpu, &op, how);
            Stop::Broken(what)
        })
    }
}

/// The code of the node that a cell's name, `node1.grant` or `node1/2.grant`, speaks of.
fn node_code(name: &str) -> u16 {
    let of = name.trim_start_matches("node").split('.').next().unwrap_or_default();
    let (cpu, level) = of.split_once('/').unwrap_or((of, "0"));
    let number = |text: &str| text.parse::<u32>().expect("the world named it");
    let cpu = Cpu::new(number(cpu)).expect("an exploration has few");
    Tail::new(cpu, number(level) as usize).code() as u16
}
