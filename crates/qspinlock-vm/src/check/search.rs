//! The search: every state that some execution reaches, breadth first, so that the first failure has a shortest trace.
//!
//! # Reductions
//! * **Blocks.** A plain load can be moved later past what others do (a message once readable stays so), a plain store
//!   earlier (its place in modification order is chosen anyway, and whoever comes later may choose a place before
//!   it); a read-modify-write and an SC fence can not. So loads, then at most one of those, then stores are one step
//!   that nobody comes between. An await starts a block. What is private to a CPU, and a touch of plain data (whose
//!   races are found by views, not by time), goes with either.
//! * **Start order.** While CPUs with the same program have not started, they are interchangeable: they start in
//!   the order of their numbers.
//! * **Collection.** See [`Memory::collect`].
//! * **Oldest reads.** Of relaxed reads (awaits and failed swaps included) after which the code is in the same local
//!   state, only that of the oldest message is followed: it leaves the CPU's view the smallest, and whatever it can
//!   do with a larger view, it can do with this one. Not once a program has fences, which remember what was read.
//! * **Local states** that agree in what is live are one: see [`Keep`].
//!
//! Each can be switched off, and tests compare.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{self, AtomicUsize};
use std::time::{Duration, Instant};

use qspinlock::machine::{Access, Ordering};
use qspinlock::queue::{Cpu, Tail};
use xxhash_rust::xxh3::xxh3_128;

use super::automaton::{Automaton, Keep, LocalId, Program};
use super::ghost::{Ghost, Promises};
use super::machine::{CellInfo, World};
use super::memory::{MAX_CELLS, Memory};
use super::op::{Answer, CellId, INTERRUPT, Kind, NO_CELL, Op, no};
use super::trace::{Micro, Trace};

/// CPUs that one exploration may have.
pub const MAX_CPUS: usize = 8;

/// Lock words whose waiters one exploration may judge.
pub(crate) const MAX_WORDS: usize = 4;

/// What is explored: programs on the CPUs of a world, and what is promised.
pub struct Model<'w> {
    /// The cells.
    pub world: &'w World,
    /// A program for each CPU.
    pub programs: Vec<Program<'w>>,
    /// All programs do the same, so that CPUs are interchangeable until they start.
    pub symmetric: bool,
    /// Interrupts that may arrive on each CPU.
    pub interrupts: u8,
    /// Words whose waiters are judged by [`Promises`], as numbers of cells.
    pub words: Vec<CellId>,
    /// What their slow path promises.
    pub promises: Promises,
    /// Whether every cell must hold 0 at the end.
    pub ends_clean: bool,
}

/// How the search goes about it. The default is the fastest that is complete.
#[derive(Clone, Debug)]
pub struct Search {
    /// Give up after this time.
    pub time: Duration,
    /// Give up when the process takes so many bytes of memory. Where the system does not tell, there is no limit.
    pub memory: usize,
    /// Told how many states are known, now and then.
    pub gauge: Option<Arc<AtomicUsize>>,
    /// Explore only executions in which a CPU that could go on is interrupted by another at most so often.
    pub preemptions: Option<u8>,
    /// See the module's docs.
    pub blocks: bool,
    /// See the module's docs.
    pub start_order: bool,
    /// See the module's docs.
    pub collect: bool,
    /// See the module's docs.
    pub oldest: bool,
    /// How local states are told apart.
    pub keep: Keep,
    /// Accesses that have another ordering than the code gives them.
    pub orders: HashMap<&'static str, Ordering>,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(600),
            memory: 8 << 30,
            gauge: None,
            preemptions: None,
            blocks: true,
            start_order: true,
            collect: true,
            oldest: true,
            keep: Keep::BEST,
            orders: HashMap::new(),
        }
    }
}

/// How it ended.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Every execution within the bounds was explored, and every property holds.
    Holds,
    /// A property is broken.
    Broken(Broken),
    /// A limit was reached first. Nothing is known but that no failure was found so far.
    Unfinished(&'static str),
}

/// A property that is broken, and an execution that shows it.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which, and how. The first word names the property.
    pub what: String,
    /// The execution.
    pub trace: Trace,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// States that differ.
    pub states: usize,
    /// Steps from one to another.
    pub steps: u64,
    /// How long it took.
    pub time: Duration,
    /// Every access that some execution made, as the code has it, in the order of their first use.
    pub accesses: Vec<Access>,
    /// Bits of the events that some execution counted, by [`qspinlock::machine::Event`].
    pub events: u64,
    /// Distinct final memories: the name of each cell that was touched, and its last value in modification order.
    pub finals: HashSet<Vec<(String, u32)>>,
}

#[derive(Clone)]
struct State {
    memory: Memory,
    locals: [LocalId; MAX_CPUS],
    started: u8,
    ended: u8,
    kicked: u8,
    /// Sleeps, and will not look at the cell again.
    asleep: u8,
    /// Has woken for no reason.
    roused: u8,
    interrupts_left: [u8; MAX_CPUS],
    /// Handlers that run on each CPU, one over the other.
    nesting: [u8; MAX_CPUS],
    ghosts: [Ghost; MAX_WORDS],
    last: u8,
    preemptions: u8,
}

/// How far a block has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    Loads,
    Stores,
}

/// A state key is a hash already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u128");
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

/// The search cannot go on as it is.
enum Stop {
    Broken(String),
    /// A cell, or a fence, that was not known: begin anew, knowing it.
    Restart,
}

struct Explorer<'m, 'w> {
    model: &'m Model<'w>,
    search: &'m Search,
    automaton: Automaton<'w>,
    infos: Vec<CellInfo>,
    /// The place of a cell in views; the cells that were touched, in that order.
    dense: HashMap<CellId, u8>,
    order: Vec<CellId>,
    fences: bool,
    accesses: Vec<Access>,
    steps: u64,
    /// How many operations the block has that is being followed; and which, if that is for a trace.
    depth: usize,
    tracing: bool,
    micros: Vec<Micro>,
    bytes: Vec<u8>,
}

/// Blocks longer than this are loops that never await.
const MOST_IN_A_BLOCK: usize = 2_000;

/// Explores a model.
#[must_use]
pub fn explore(model: Model<'_>, search: &Search) -> Outcome {
    let mut model = model;
    let programs = std::mem::take(&mut model.programs);
    let mut explorer = Explorer::new(&model, search, programs);
    explorer.run()
}

/// Follows one execution, by the number of the successor that it takes in each state.
///
/// # Errors
/// If a state has no such successor: the choices are of another model, or of other code.
pub fn replay(model: Model<'_>, search: &Search, choices: &[u32]) -> Result<(Option<String>, Trace), String> {
    let mut model = model;
    let programs = std::mem::take(&mut model.programs);
    let mut explorer = Explorer::new(&model, search, programs);
    'anew: loop {
        let mut state = explorer.initial();
        let mut trace = Trace::default();
        let mut broken = None;
        for (n, &choice) in choices.iter().enumerate() {
            match explorer.successor(&state, choice) {
                Ok(Some((next, micros))) => {
                    trace.push(choice, micros);
                    state = next;
                }
                Ok(None) => return Err(format!("step {n} has no choice {choice}: this seed is of other code")),
                Err(Stop::Restart) => continue 'anew,
                Err(Stop::Broken(what)) => {
                    trace.push(choice, explorer.micros.clone());
                    broken = Some(what);
                    break;
                }
            }
        }
        if broken.is_none() {
            broken = explorer.hang(&state).or_else(|| explorer.unclean(&state));
        }
        return Ok((broken, trace));
    }
}

impl<'m, 'w> Explorer<'m, 'w> {
    fn new(model: &'m Model<'w>, search: &'m Search, programs: Vec<Program<'w>>) -> Self {
        assert!(programs.len() <= MAX_CPUS, "at most {MAX_CPUS} CPUs");
        assert!(model.words.len() <= MAX_WORDS, "at most {MAX_WORDS} judged words");
        Self {
            model,
            search,
            automaton: Automaton::new(programs, search.keep),
            infos: model.world.infos(),
            dense: HashMap::new(),
            order: Vec::new(),
            fences: false,
            accesses: Vec::new(),
            steps: 0,
            depth: 0,
            tracing: false,
            micros: Vec::new(),
            bytes: Vec::new(),
        }
    }

    fn cpus(&self) -> usize {
        self.automaton.cpus()
    }

    fn initial(&mut self) -> State {
        let mut locals = [0; MAX_CPUS];
        for (cpu, local) in locals.iter_mut().enumerate().take(self.cpus()) {
            *local = self.automaton.start(cpu);
        }
        State {
            memory: Memory::new(self.order.len(), self.cpus()),
            locals,
            started: 0,
            ended: 0,
            kicked: 0,
            asleep: 0,
            roused: 0,
            interrupts_left: [self.model.interrupts; MAX_CPUS],
            nesting: [0; MAX_CPUS],
            ghosts: [Ghost::default(); MAX_WORDS],
            last: u8::MAX,
            preemptions: 0,
        }
    }

    fn run(&mut self) -> Outcome {
        let start = Instant::now();
        loop {
            if let Some((verdict, states, finals)) = self.once(start) {
                return Outcome {
                    verdict,
                    states,
                    steps: self.steps,
                    time: start.elapsed(),
                    accesses: self.accesses.clone(),
                    events: self.model.world.events(),
                    finals,
                };
            }
        }
    }

    /// One search from the start. `None` if it must begin anew, since it met a cell that it had no place for.
    #[allow(clippy::type_complexity, reason = "read once, by the caller above")]
    fn once(&mut self, start: Instant) -> Option<(Verdict, usize, HashSet<Vec<(String, u32)>>)> {
        let mut known = HashMap::<u128, u32, BuildHasherDefault<Hashed>>::default();
        // The state that a state was first reached from, and the number of the step that led here.
        let mut parents: Vec<(u32, u32)> = vec![(u32::MAX, 0)];
        let mut frontier = VecDeque::new();
        let mut finals = HashSet::new();
        let first = self.initial();
        known.insert(self.key(&first), 0);
        frontier.push_back((first, 0_u32));
        let mut next = Vec::new();
        while let Some((state, index)) = frontier.pop_front() {
            let broken = match self.expand(&state, &mut next) {
                Ok(()) => None,
                Err(Stop::Restart) => return None,
                Err(Stop::Broken(what)) => Some((what, Some(next.len() as u32))),
            };
            let broken = broken.or_else(|| self.hang(&state).or_else(|| self.unclean(&state)).map(|what| (what, None)));
            if let Some((what, last)) = broken {
                let trace = self.trace(&parents, index, last);
                return Some((Verdict::Broken(Broken { what, trace }), parents.len(), finals));
            }
            if usize::from(state.ended).count_ones() as usize == self.cpus() {
                finals.insert(self.values(&state));
            }
            for (choice, state) in next.drain(..).enumerate() {
                self.steps += 1;
                let fresh = parents.len() as u32;
                if *known.entry(self.key(&state)).or_insert(fresh) == fresh {
                    parents.push((index, choice as u32));
                    frontier.push_back((state, fresh));
                }
            }
            if index % 1024 == 0 {
                if let Some(gauge) = &self.search.gauge {
                    gauge.store(parents.len(), atomic::Ordering::Relaxed);
                }
                let over_time = start.elapsed() > self.search.time;
                let over = if over_time { Some("the time is up") } else { self.over_memory() };
                if let Some(why) = over {
                    return Some((Verdict::Unfinished(why), parents.len(), finals));
                }
            }
        }
        Some((Verdict::Holds, parents.len(), finals))
    }

    fn over_memory(&self) -> Option<&'static str> {
        (resident()? > self.search.memory).then_some("the memory is used up")
    }

    /// The execution that leads to a state, and the step that broke after it.
    fn trace(&mut self, parents: &[(u32, u32)], mut index: u32, last: Option<u32>) -> Trace {
        let mut choices: Vec<u32> = last.into_iter().collect();
        while index != 0 {
            let (parent, choice) = parents[index as usize];
            choices.push(choice);
            index = parent;
        }
        choices.reverse();
        let mut trace = Trace::default();
        let mut state = self.initial();
        for choice in choices {
            match self.successor(&state, choice) {
                Ok(Some((next, micros))) => {
                    trace.push(choice, micros);
                    state = next;
                }
                _ => trace.push(choice, self.micros.clone()),
            }
        }
        trace
    }

    /// The successor of this number, and what the CPU does on the way.
    fn successor(&mut self, state: &State, choice: u32) -> Result<Option<(State, Vec<Micro>)>, Stop> {
        self.tracing = true;
        let mut found = Vec::new();
        let mut paths = Vec::new();
        for cpu in 0..self.cpus() {
            self.micros.clear();
            self.depth = 0;
            if let Some(state) = self.starts(state, cpu) {
                self.block(state, cpu, Phase::Start, &mut |me, state| {
                    found.push(state);
                    paths.push(me.micros.clone());
                })?;
            }
        }
        let choice = choice as usize;
        Ok(if choice < found.len() { Some((found.swap_remove(choice), paths.swap_remove(choice))) } else { None })
    }

    /// All successors, in an order that is always the same.
    fn expand(&mut self, state: &State, next: &mut Vec<State>) -> Result<(), Stop> {
        next.clear();
        for cpu in 0..self.cpus() {
            self.depth = 0;
            if let Some(state) = self.starts(state, cpu) {
                self.block(state, cpu, Phase::Start, &mut |_, state| next.push(state))?;
            }
        }
        Ok(())
    }

    /// The state in which it is this CPU's turn. `None` if it has ended, or may not go now.
    fn starts(&mut self, state: &State, cpu: usize) -> Option<State> {
        let bit = 1 << cpu;
        if state.ended & bit != 0 {
            return None;
        }
        let before_me = bit - 1;
        if self.model.symmetric && self.search.start_order && state.started & before_me != before_me {
            return None;
        }
        let mut state = state.clone();
        if let Some(most) = self.search.preemptions {
            let last = usize::from(state.last);
            if last != cpu && last < self.cpus() && state.ended & 1 << last == 0 && self.can_go(&state, last) {
                if state.preemptions >= most {
                    return None;
                }
                state.preemptions += 1;
            }
            state.last = cpu as u8;
        }
        state.started |= bit;
        Some(state)
    }

    /// Whether a CPU that stands at an await, or sleeps, can go on.
    fn can_go(&mut self, state: &State, cpu: usize) -> bool {
        let op = *self.automaton.op(state.locals[cpu]);
        match op.kind {
            Kind::Await(_) => {
                let Some(&cell) = self.dense.get(&op.cell) else { return true };
                let readable = state.memory.readable(cpu, usize::from(cell));
                let values: Vec<u32> = state.memory.of(usize::from(cell))[readable].iter().map(|m| m.value).collect();
                values.into_iter().any(|v| self.automaton.decide(state.locals[cpu], v).is_some())
            }
            Kind::Wait(_) => state.asleep & !state.kicked & 1 << cpu == 0,
            _ => true,
        }
    }

    /// A CPU that has not ended, if none can go on. Interrupts may arrive, but nothing says that they will.
    fn hang(&mut self, state: &State) -> Option<String> {
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
            Kind::Wait(_) => state.asleep & !state.kicked & 1 << cpu == 0,
            _ => true,
        }
    }

    /// What is left behind when all have ended, if that must be nothing.
    fn unclean(&self, state: &State) -> Option<String> {
        let all = (1_u16 << self.cpus()) - 1;
        if !self.model.ends_clean || u16::from(state.ended) != all {
            return None;
        }
        let is_word_or_depth =
            |id: &CellId| self.model.words.contains(id) || self.infos[usize::from(*id)].private_to.is_some();
        self.order.iter().filter(|id| is_word_or_depth(id)).find_map(|id| {
            let value = state.memory.newest(usize::from(self.dense[id]));
            (value != 0).then(|| format!("trace: {} ends as {value:#x}", self.name(*id)))
        })
    }

    fn values(&self, state: &State) -> Vec<(String, u32)> {
        let atomic = self.order.iter().filter(|id| !self.infos[usize::from(**id)].plain);
        let mut values: Vec<_> =
            atomic.map(|id| (self.name(*id), state.memory.newest(usize::from(self.dense[id])))).collect();
        values.sort();
        values
    }

    fn name(&self, id: CellId) -> String {
        if id == NO_CELL { "no cell".to_owned() } else { self.infos[usize::from(id)].name.clone() }
    }

    fn key(&mut self, state: &State) -> u128 {
        let cpus = self.cpus();
        let out = &mut self.bytes;
        out.clear();
        state.memory.bytes(out, self.order.len());
        state.locals[..cpus].iter().for_each(|local| out.extend_from_slice(&local.to_ne_bytes()));
        out.extend_from_slice(&[state.started, state.ended, state.kicked, state.asleep, state.roused]);
        out.extend_from_slice(&[state.last, state.preemptions]);
        out.extend_from_slice(&state.interrupts_left[..cpus]);
        out.extend_from_slice(&state.nesting[..cpus]);
        state.ghosts[..self.model.words.len()].iter().for_each(|ghost| ghost.bytes(out));
        xxh3_128(out)
    }

    /// The place of a cell in views.
    fn place(&mut self, id: CellId) -> Result<usize, Stop> {
        if let Some(&place) = self.dense.get(&id) {
            return Ok(usize::from(place));
        }
        if self.order.len() == MAX_CELLS {
            return Err(Stop::Broken(format!("limit: the programs touch more than {MAX_CELLS} cells")));
        }
        self.dense.insert(id, self.order.len() as u8);
        self.order.push(id);
        Err(Stop::Restart)
    }

    /// Follows a CPU from an operation to the end of its block, along every answer.
    fn block(
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
        if !self.fits(phase, &op) {
            if self.search.collect {
                state.memory.collect(|cpu| state.ended & 1 << cpu == 0, self.fences);
            }
            emit(self, state);
            return Ok(());
        }
        match op.kind {
            Kind::Done => {
                state.ended |= 1 << cpu;
                state.memory.end(cpu);
                if self.search.collect {
                    state.memory.collect(|cpu| state.ended & 1 << cpu == 0, self.fences);
                }
                emit(self, state);
                return Ok(());
            }
            Kind::Panicked => return Err(Stop::Broken(format!("panic: cpu {cpu}: {}", self.automaton.panic(local)))),
            _ => {}
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
        match op.kind {
            _ if is_private => true,
            Kind::Await(_) | Kind::Wait(_) | Kind::Done => false,
            Kind::Load | Kind::AwaitFor(_) | Kind::Cas { .. } | Kind::Update(_) | Kind::Kick(_) => {
                phase == Phase::Loads
            }
            Kind::Fence => phase == Phase::Loads || self.order_of(op.access) != Ordering::SeqCst,
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
    fn record(&mut self, cpu: usize, op: &Op, how: impl Fn() -> String) {
        if self.tracing {
            self.micros.push(Micro::new(cpu, op, self.order_of(op.access), how(), self.name(op.cell)));
        }
    }

    /// Every answer that the memory can give.
    fn answers(
        &mut self,
        state: State,
        cpu: usize,
        op: Op,
        phase: Phase,
        emit: &mut dyn FnMut(&mut Self, State),
    ) -> Result<(), Stop> {
        let order = self.order_of(op.access);
        if op.cell != NO_CELL && op.access.name != "plain" && !self.accesses.iter().any(|a| a.name == op.access.name) {
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
                    let mut state = state;
                    state.memory.fence(cpu, order);
                    let then = if order == Ordering::SeqCst { Phase::Stores } else { loads };
                    self.answer(state, cpu, op, 0, String::new, then, emit)
                }
                Kind::Kick(target) => {
                    let mut state = state;
                    state.kicked |= 1 << target;
                    state.memory.kick(cpu, usize::from(target));
                    self.answer(state, cpu, op, 0, || format!("cpu {target}"), Phase::Stores, emit)
                }
                Kind::Return => {
                    let mut state = state;
                    state.nesting[cpu] -= 1;
                    self.answer(state, cpu, op, 0, String::new, phase, emit)
                }
                Kind::Choose(n) => (0..n).try_for_each(|choice| {
                    self.answer(state.clone(), cpu, op, choice.into(), || choice.to_string(), loads, emit)
                }),
                _ => unreachable!("every other operation has a cell"),
            };
        }
        let info = &self.infos[usize::from(op.cell)];
        let (is_plain, private_to) = (info.plain, info.private_to);
        let cell = self.place(op.cell)?;
        let mut state = state;
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
        match op.kind {
            Kind::Store(value) => {
                let places: Vec<usize> = state.memory.places(cpu, cell).collect();
                for at in places {
                    let mut state = state.clone();
                    let last = state.memory.of(cell).len();
                    state.memory.write(cpu, cell, at, value, order);
                    if op.access.name == "node.grant" {
                        self.granted(&mut state, cpu, op)?;
                    }
                    let how = || match last - at {
                        0 => format!("{value:#x}"),
                        n => format!("{value:#x}, {n} before the newest"),
                    };
                    self.answer(state, cpu, op, 0, how, Phase::Stores, emit)?;
                }
                Ok(())
            }
            Kind::Wait(value) => self.wait(state, cpu, cell, op, value, emit),
            _ => self.reads(state, cpu, cell, op, loads, emit),
        }
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
        // Of relaxed reads after which the code goes on alike, the oldest stands for all: see the module's docs.
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
                            let step = state.ghosts[n].step(self.model.promises, cpu, op.access.name, new);
                            self.judge(step, cpu, op, || format!("{value:#x} -> {new:#x}"))?;
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
            if !is_dominated(self, &mut gone_on, order, answer) {
                let mut state = state.clone();
                state.memory.read(cpu, cell, index, order);
                let how = || {
                    let verb = if answer == no(value) { "no: " } else { "" };
                    format!("{verb}{value:#x}{}", age())
                };
                self.answer(state, cpu, op, answer, how, loads, emit)?;
            }
        }
        Ok(())
    }

    /// A sleep: over if the cell no longer holds the value, when kicked, before or after, and once for no reason. More
    /// often would be loops without end, to a search that tells local states apart by what was answered.
    ///
    /// The look comes first: who has fallen asleep does not notice that the cell changes.
    fn wait(
        &mut self,
        state: State,
        cpu: usize,
        cell: usize,
        op: Op,
        value: u32,
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
        if is_kicked || state.roused & bit == 0 {
            let mut state = state;
            state.memory.wake(cpu);
            state.roused |= if is_kicked { 0 } else { bit };
            state.kicked &= !bit;
            state.asleep &= !bit;
            let how = || if is_kicked { "kicked".to_owned() } else { "wakes for no reason".to_owned() };
            self.answer(state, cpu, op, 0, how, Phase::Loads, emit)?;
        }
        Ok(())
    }

    fn granted(&mut self, state: &mut State, cpu: usize, op: Op) -> Result<(), Stop> {
        let name = self.name(op.cell);
        let code = node_code(&name);
        let Some(ghost) = state.ghosts.iter_mut().find(|ghost| ghost.has(code)) else { return Ok(()) };
        let verdict = ghost.granted(self.model.promises, cpu, code);
        self.judge(verdict, cpu, op, String::new)
    }

    fn judge(&mut self, verdict: Result<(), String>, cpu: usize, op: Op, how: impl Fn() -> String) -> Result<(), Stop> {
        verdict.map_err(|what| {
            self.record(cpu, &op, how);
            Stop::Broken(what)
        })
    }
}

/// Bytes of memory that this process takes, where the system tells.
fn resident() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(pages.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
}

/// The code of the node that a cell's name, `node1.grant` or `node1/2.grant`, speaks of.
fn node_code(name: &str) -> u16 {
    let of = name.trim_start_matches("node").split('.').next().unwrap_or_default();
    let (cpu, level) = of.split_once('/').unwrap_or((of, "0"));
    let number = |text: &str| text.parse::<u32>().expect("the world named it");
    let cpu = Cpu::new(number(cpu)).expect("an exploration has few");
    Tail::new(cpu, number(level) as usize).code() as u16
}
