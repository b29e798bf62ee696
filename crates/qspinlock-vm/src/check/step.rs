//! One step of a CPU: a block of operations that nobody comes between, along every answer that the memory can give.

use qspinlock::machine::{Access, Ordering};
use qspinlock::queue::LEVELS;

use super::automaton::{Keep, LocalId};
use super::op::{Answer, INTERRUPT, Kind, NO_CELL, Op, no};
use super::search::{Explorer, State, Stop};
use super::trace::Micro;

/// How far a block has come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Start,
    Loads,
    /// The same, after a bounded wait that gave up. Another one would be a loop, so it is a step of its own.
    GaveUp,
    Stores,
}

/// Blocks longer than this are loops that never await.
const MOST_IN_A_BLOCK: usize = 2_000;

impl Explorer<'_, '_> {
    /// Follows a CPU from an operation to the end of its block, along every answer.
    pub(super) fn block(
        &mut self,
        mut state: State,
        cpu: usize,
        phase: Phase,
        emit: &mut dyn FnMut(&mut Self, State),
    ) -> Result<(), Stop> {
        let local = state.locals[cpu];
        let op = *self.automaton.op(local);
        if self.depth > MOST_IN_A_BLOCK {
            return Err(Stop::Broken(format!("livelock: cpu {cpu} loops at {} without an await", op.access.name)));
        }
        if state.memory.is_full() {
            return Err(Stop::Broken(format!(
                "livelock: cpu {cpu} writes without end, lastly before {}",
                op.access.name
            )));
        }
        let goes_on = self.fits(phase, &op);
        if !goes_on || matches!(op.kind, Kind::Done) {
            if goes_on {
                state.ended |= 1 << cpu;
                state.memory.end(cpu);
            }
            if self.search.collect {
                if self.search.informed && self.search.bury {
                    self.bury(&mut state);
                }
                state.memory.collect(|cpu| state.ended & 1 << cpu == 0, self.fences, &self.ignorant);
            }
            emit(self, state);
            return Ok(());
        }
        if matches!(op.kind, Kind::Panicked) {
            return Err(Stop::Broken(format!("panic: cpu {cpu}: {}", self.automaton.panic(local))));
        }
        if self.model.interrupts > 0 && state.interrupts_left[cpu] > 0 {
            let mut state = state.clone();
            state.interrupts_left[cpu] -= 1;
            // It ends a sleep; the sleeper looks again.
            state.asleep &= !(1 << cpu);
            let answer = INTERRUPT | Answer::from(state.nesting[cpu]);
            state.nesting[cpu] += 1;
            self.answer(state, cpu, op, answer, || "an interrupt arrives".to_owned(), phase, emit)?;
        }
        self.answers(state, cpu, op, phase, emit)
    }

    /// Whether an operation may follow in the same block.
    fn fits(&self, phase: Phase, op: &Op) -> bool {
        if phase == Phase::Start {
            return true;
        }
        if !self.search.blocks {
            return false;
        }
        let is_private = op.cell != NO_CELL && self.infos[usize::from(op.cell)].private_to.is_some();
        let may_read = matches!(phase, Phase::Loads | Phase::GaveUp);
        match op.kind {
            _ if is_private => true,
            Kind::Await(_) | Kind::Wait { .. } | Kind::Yield | Kind::Done => false,
            Kind::AwaitFor(_) => phase == Phase::Loads,
            Kind::Load | Kind::Cas { .. } | Kind::Update(_) | Kind::Kick(_) | Kind::Free => may_read,
            Kind::Fence => may_read || self.order_of(op.access) != Ordering::SeqCst,
            Kind::Store(_) | Kind::Touch | Kind::Choose(_) | Kind::Return | Kind::Panicked => true,
        }
    }

    fn order_of(&self, access: Access) -> Ordering {
        self.search.orders.get(access.name).copied().unwrap_or(access.order)
    }

    /// Goes on with an answer.
    #[allow(clippy::too_many_arguments, reason = "one step: who, what, with which answer, and where to")]
    fn answer(
        &mut self,
        mut state: State,
        cpu: usize,
        op: Op,
        answer: Answer,
        how: impl Fn() -> String,
        phase: Phase,
        emit: &mut dyn FnMut(&mut Self, State),
    ) -> Result<(), Stop> {
        self.record(cpu, &op, how);
        state.locals[cpu] = self.automaton.step(state.locals[cpu], answer);
        self.depth += 1;
        let result = self.block(state, cpu, phase, emit);
        self.depth -= 1;
        if result.is_ok() && self.tracing {
            self.micros.pop();
        }
        result
    }

    /// Notes an access, if this is for a trace.
    pub(super) fn record(&mut self, cpu: usize, op: &Op, how: impl Fn() -> String) {
        if self.tracing {
            self.micros.push(Micro::new(cpu, op, self.order_of(op.access), how(), self.name(op.cell)));
        }
    }

    /// Every answer that the memory can give.
    fn answers(
        &mut self,
        mut state: State,
        cpu: usize,
        op: Op,
        phase: Phase,
        emit: &mut dyn FnMut(&mut Self, State),
    ) -> Result<(), Stop> {
        let order = self.order_of(op.access);
        let is_access = (op.cell != NO_CELL && op.access.name != "plain") || matches!(op.kind, Kind::Fence);
        if is_access && !self.accesses.iter().any(|a| a.name == op.access.name) {
            self.accesses.push(op.access);
        }
        let loads = if phase == Phase::Start { Phase::Loads } else { phase };
        if op.cell == NO_CELL {
            return match op.kind {
                Kind::Fence => {
                    if !self.fences {
                        self.fences = true;
                        return Err(Stop::Restart);
                    }
                    state.memory.fence(cpu, order);
                    let then = if order == Ordering::SeqCst { Phase::Stores } else { loads };
                    self.answer(state, cpu, op, 0, String::new, then, emit)
                }
                Kind::Kick(target) => {
                    self.kicks(&mut state, cpu, op, target)?;
                    state.kicked |= 1 << target;
                    state.memory.kick(cpu, usize::from(target));
                    self.answer(state, cpu, op, 0, || format!("cpu {target}"), Phase::Stores, emit)
                }
                Kind::Yield => self.answer(state, cpu, op, 0, String::new, loads, emit),
                Kind::Return => {
                    state.nesting[cpu] -= 1;
                    self.answer(state, cpu, op, 0, String::new, phase, emit)
                }
                Kind::Choose(n) => (0..n).try_for_each(|choice| {
                    let mut state = state.clone();
                    if op.access.name == "locality.due" && choice == 1 {
                        self.told_due(&mut state, cpu);
                    }
                    self.answer(state, cpu, op, choice.into(), || choice.to_string(), loads, emit)
                }),
                _ => unreachable!("every other operation has a cell"),
            };
        }
        let info = &self.infos[usize::from(op.cell)];
        let (is_plain, private_to) = (info.plain, info.private_to);
        let cell = self.place(op.cell)?;
        if state.freed & 1 << cell != 0 {
            self.record(cpu, &op, || "freed before".to_owned());
            return Err(Stop::Broken(format!("freed: cpu {cpu} touches {}, which has been freed", self.name(op.cell))));
        }
        if matches!(op.kind, Kind::Free) {
            state.freed |= 1 << cell;
            return self.answer(state, cpu, op, 0, String::new, Phase::Stores, emit);
        }
        if is_plain {
            if !state.memory.touch(cpu, cell) {
                self.record(cpu, &op, || "not after the last touch".to_owned());
                return Err(Stop::Broken(format!("race: cpu {cpu} touches {} too early", self.name(op.cell))));
            }
            return self.answer(state, cpu, op, 0, String::new, loads, emit);
        }
        if let Some(owner) = private_to {
            return self.private(state, cpu, owner, cell, op, loads, emit);
        }
        self.presumptions(&state, cpu, cell, op)?;
        match op.kind {
            Kind::Store(value) => {
                let places: Vec<usize> = state.memory.places(cpu, cell).collect();
                for at in places {
                    let mut state = state.clone();
                    let last = state.memory.of(cell).len();
                    state.memory.write(cpu, cell, at, value, order);
                    if matches!(op.access.name, "node.grant" | "numa.grant") {
                        self.granted(&mut state, cpu, op)?;
                    } else if op.access.name == "leaving.vacate" {
                        self.leaves(&mut state, cpu, op, (value, value))?;
                    }
                    let how = || match last - at {
                        0 => format!("{value:#x}"),
                        n => format!("{value:#x}, {n} before the newest"),
                    };
                    self.answer(state, cpu, op, 0, how, Phase::Stores, emit)?;
                }
                Ok(())
            }
            Kind::Wait { value, timed } => self.wait(state, cpu, cell, op, (value, timed), emit),
            _ => self.reads(state, cpu, cell, op, loads, emit),
        }
    }

    /// Begins anew if this access is one that was presumed not to be.
    fn presumptions(&mut self, state: &State, cpu: usize, cell: usize, op: Op) -> Result<(), Stop> {
        let info = &self.infos[usize::from(op.cell)];
        if self.ignorant[cell] & 1 << cpu == 0 && !state.memory.is_informed(cpu, cell) {
            self.presumed.was_ignorant(info, cpu);
            return Err(Stop::Restart);
        }
        let reads = !matches!(op.kind, Kind::Store(_));
        if reads && state.memory.of(cell)[state.memory.readable(cpu, cell)].iter().any(|m| m.buried) {
            self.presumed.was_read(info);
            return Err(Stop::Restart);
        }
        Ok(())
    }

    /// Buries what is in nodes whose level is not in use.
    fn bury(&self, state: &mut State) {
        for (cell, &id) in self.order.iter().enumerate() {
            let info = &self.infos[usize::from(id)];
            let Some((owner, level)) = info.node else { continue };
            // Of those beyond the levels it is not known when they are in use.
            if level < LEVELS && self.presumed.is_buried(info) && self.depth_of(state, owner) as usize <= level {
                state.memory.bury(cell, owner, state.ended & 1 << owner == 0);
            }
        }
    }

    /// The levels that are in use on a CPU.
    fn depth_of(&self, state: &State, cpu: usize) -> u32 {
        let depth = self.model.world.depth_of(cpu);
        self.dense.get(&depth).map_or(0, |&place| state.memory.newest(usize::from(place)))
    }

    /// A cell of one CPU's own: no messages, no order.
    #[allow(clippy::too_many_arguments, reason = "one step: who, what, and where to")]
    fn private(
        &mut self,
        mut state: State,
        cpu: usize,
        owner: usize,
        cell: usize,
        op: Op,
        phase: Phase,
        emit: &mut dyn FnMut(&mut Self, State),
    ) -> Result<(), Stop> {
        if cpu != owner {
            return Err(Stop::Broken(format!("private: cpu {cpu} touches {}", self.name(op.cell))));
        }
        let value = state.memory.private(cell);
        let (answer, shown) = match op.kind {
            Kind::Load => (Answer::from(*value), *value),
            Kind::Store(new) => {
                *value = new;
                (0, new)
            }
            _ => return Err(Stop::Broken(format!("private: {} is only loaded and stored", self.name(op.cell)))),
        };
        self.answer(state, cpu, op, answer, || format!("{shown:#x}"), phase, emit)
    }

    /// Loads, awaits and read-modify-writes: one answer, or two, for each message that may be read.
    fn reads(
        &mut self,
        state: State,
        cpu: usize,
        cell: usize,
        op: Op,
        loads: Phase,
        emit: &mut dyn FnMut(&mut Self, State),
    ) -> Result<(), Stop> {
        let order = self.order_of(op.access);
        let local = state.locals[cpu];
        let last = state.memory.of(cell).len() - 1;
        // Of relaxed reads after which the code goes on alike, the oldest stands for all: see `search`.
        let mut gone_on: Vec<LocalId> = Vec::new();
        let is_dominated = |me: &mut Self, gone_on: &mut Vec<LocalId>, order: Ordering, answer: Answer| {
            if !me.search.oldest || me.fences || order != Ordering::Relaxed {
                return false;
            }
            let next = me.automaton.step(local, answer);
            let seen = gone_on.contains(&next);
            gone_on.push(next);
            seen
        };
        for index in state.memory.readable(cpu, cell) {
            let value = state.memory.of(cell)[index].value;
            let decision = match op.kind {
                Kind::Load => Some(value),
                Kind::Cas { old, new } => (value == old).then_some(new),
                _ => self.automaton.decide(local, value),
            };
            let age = || if index == last { String::new() } else { format!(", {} before the newest", last - index) };
            let (order, answer) = match (op.kind, decision) {
                (Kind::Cas { .. } | Kind::Update(_), Some(new)) => {
                    if state.memory.modifiable(cell, index) {
                        let mut state = state.clone();
                        state.memory.modify(cpu, cell, index, new, order);
                        if let Some(n) = self.model.words.iter().position(|&word| word == op.cell) {
                            let who = (cpu, state.nesting[cpu]);
                            let step = state.ghosts[n].step(self.model.promises, who, op.access.name, (value, new));
                            self.judge(step, cpu, op, || format!("{value:#x} -> {new:#x}"))?;
                        } else if op.access.name == "node.tell" {
                            self.told(&mut state, cpu, op, (value, new))?;
                        } else if op.access.name == "turn.promote" {
                            self.promoted(&mut state, cpu, op, (value, new))?;
                        } else if is_of_leaving(op.access.name) {
                            self.leaves(&mut state, cpu, op, (value, new))?;
                        } else if op.access.name == "turn.wake" {
                            self.woken(&mut state, cpu, op, (value, new))?;
                        }
                        let how = || format!("{value:#x} -> {new:#x}{}", age());
                        self.answer(state, cpu, op, value.into(), how, Phase::Stores, emit)?;
                    }
                    continue;
                }
                (Kind::Cas { .. } | Kind::Update(_), None) => (Ordering::Relaxed, no(value)),
                (Kind::Await(_), None) => continue,
                (Kind::AwaitFor(_), None) => (order, no(value)),
                _ => (order, value.into()),
            };
            let then = match (op.kind, loads) {
                (Kind::AwaitFor(_), Phase::Loads) if decision.is_none() => Phase::GaveUp,
                _ => loads,
            };
            if !is_dominated(self, &mut gone_on, order, answer) {
                let mut state = state.clone();
                state.memory.read(cpu, cell, index, order);
                let how = || {
                    let verb = if answer == no(value) { "no: " } else { "" };
                    format!("{verb}{value:#x}{}", age())
                };
                self.answer(state, cpu, op, answer, how, then, emit)?;
            }
        }
        Ok(())
    }

    /// A sleep: over if the cell no longer holds the value, when kicked, before or after, and for no reason; but that
    /// only once in a search that tells local states apart by what was answered, to which more would be loops without end.
    /// One that has an end of its own may end at any time.
    ///
    /// The look comes first: who has fallen asleep does not notice that the cell changes.
    fn wait(
        &mut self,
        state: State,
        cpu: usize,
        cell: usize,
        op: Op,
        (value, timed): (u32, bool),
        emit: &mut dyn FnMut(&mut Self, State),
    ) -> Result<(), Stop> {
        let bit = 1 << cpu;
        let (is_kicked, is_asleep) = (state.kicked & bit != 0, state.asleep & bit != 0);
        let mut may_hold = false;
        for index in state.memory.readable(cpu, cell).filter(|_| !is_asleep) {
            let seen = state.memory.of(cell)[index].value;
            may_hold |= seen == value;
            if seen != value {
                let mut state = state.clone();
                state.memory.read(cpu, cell, index, self.order_of(op.access));
                self.answer(state, cpu, op, 0, || format!("not asleep: {seen:#x}"), Phase::Loads, emit)?;
            }
        }
        if may_hold && !is_kicked {
            let mut state = state.clone();
            state.asleep |= bit;
            self.record(cpu, &op, || "falls asleep".to_owned());
            emit(self, state);
            if self.tracing {
                self.micros.pop();
            }
        }
        if is_kicked || timed || state.roused & bit == 0 {
            let mut state = state;
            state.memory.wake(cpu);
            state.roused |= if is_kicked || timed || self.search.keep != Keep::Log { 0 } else { bit };
            state.kicked &= !bit;
            state.asleep &= !bit;
            let how = || if is_kicked { "kicked".to_owned() } else { "wakes for no reason".to_owned() };
            self.answer(state, cpu, op, 0, how, Phase::Loads, emit)?;
        }
        Ok(())
    }
}

/// Whether it is a step on a node of a queue that one may leave, by which its waiters' places change.
fn is_of_leaving(access: &str) -> bool {
    matches!(access, "leaving.promote" | "numa.promote" | "leaving.abandon" | "leaving.hand-on")
}
