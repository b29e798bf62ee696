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
//! * **Presumptions.** See [`presume`](super::presume).
//! * **Oldest reads.** Of relaxed reads (awaits and failed swaps included) after which the code is in the same local
//!   state, only that of the oldest message is followed: it leaves the CPU's view the smallest, and whatever it can
//!   do with a larger view, it can do with this one. Not once a program has fences, which remember what was read.
//! * **Local states** that agree in what is live are one: see [`Keep`](super::Keep).
//!
//! Each can be switched off, and tests compare.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic;
use std::time::Instant;

use qspinlock::machine::Access;
use xxhash_rust::xxh3::xxh3_128;

use super::automaton::{Automaton, LocalId, Program};
use super::ghost::Ghost;
use super::machine::CellInfo;
use super::memory::{MAX_CELLS, Memory};
use super::model::{Broken, Finals, MAX_CPUS, MAX_WORDS, Model, Outcome, Search, Verdict};
use super::op::{CellId, NO_CELL};
use super::presume::{EVERYBODY, Presumed};
use super::step::Phase;
use super::store::Store;
use super::trace::{Micro, Trace};

#[derive(Clone)]
pub(super) struct State {
    pub(super) memory: Memory,
    pub(super) locals: [LocalId; MAX_CPUS],
    pub(super) started: u8,
    pub(super) ended: u8,
    pub(super) kicked: u8,
    /// Sleeps, and will not look at the cell again.
    pub(super) asleep: u8,
    /// Cells whose memory was given back.
    pub(super) freed: u32,
    /// Has woken for no reason.
    pub(super) roused: u8,
    pub(super) interrupts_left: [u8; MAX_CPUS],
    /// Handlers that run on each CPU, one over the other.
    pub(super) nesting: [u8; MAX_CPUS],
    pub(super) ghosts: [Ghost; MAX_WORDS],
    last: u8,
    preemptions: u8,
}

/// The search cannot go on as it is.
pub(super) enum Stop {
    Broken(String),
    /// A cell, or a fence, that was not known, or a presumption that does not hold: begin anew, knowing that.
    Restart,
}

pub(super) struct Explorer<'m, 'w> {
    pub(super) model: &'m Model<'w>,
    pub(super) search: &'m Search,
    pub(super) automaton: Automaton<'w>,
    pub(super) infos: Vec<CellInfo>,
    /// The place of a cell in views; the cells that were touched, in that order.
    pub(super) dense: HashMap<CellId, u8>,
    pub(super) order: Vec<CellId>,
    pub(super) fences: bool,
    pub(super) presumed: Presumed,
    /// For each place, who may touch the cell without knowing its last write.
    pub(super) ignorant: [u8; MAX_CELLS],
    pub(super) accesses: Vec<Access>,
    steps: u64,
    /// How many operations the block has that is being followed; and which, if that is for a trace.
    pub(super) depth: usize,
    pub(super) tracing: bool,
    pub(super) micros: Vec<Micro>,
    bytes: Vec<u8>,
}

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
            presumed: Presumed::default(),
            ignorant: [EVERYBODY; MAX_CELLS],
            accesses: Vec::new(),
            steps: 0,
            depth: 0,
            tracing: false,
            micros: Vec::new(),
            bytes: Vec::new(),
        }
    }

    pub(super) fn cpus(&self) -> usize {
        self.automaton.cpus()
    }

    fn initial(&mut self) -> State {
        let mut locals = [0; MAX_CPUS];
        for (cpu, local) in locals.iter_mut().enumerate().take(self.cpus()) {
            *local = self.automaton.start(cpu);
        }
        if self.search.collect && self.search.informed {
            for (place, &id) in self.order.iter().enumerate() {
                self.ignorant[place] = self.presumed.ignorant(&self.infos[usize::from(id)]);
            }
        }
        State {
            memory: Memory::new(&self.ignorant[..self.order.len()], self.cpus()),
            locals,
            started: 0,
            ended: 0,
            kicked: 0,
            asleep: 0,
            roused: 0,
            freed: 0,
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
    fn once(&mut self, start: Instant) -> Option<(Verdict, usize, Finals)> {
        self.steps = 0;
        let mut store = Store::default();
        let mut frontier = VecDeque::new();
        let mut finals = Finals::new();
        let first = self.initial();
        store.insert(self.key(&first), None);
        frontier.push_back(first);
        let mut next = Vec::new();
        let mut index = 0;
        let verdict = loop {
            let Some(state) = frontier.pop_front() else { break self.ends(&store) };
            let broken = match self.expand(&state, &mut next) {
                Ok(()) => self.hang(&state).or_else(|| self.unclean(&state)).map(|what| (what, None)),
                Err(Stop::Restart) => return None,
                Err(Stop::Broken(what)) => Some((what, Some(next.len() as u32))),
            };
            if let Some((what, last)) = broken {
                break Verdict::Broken(Broken { what, trace: self.trace(store.path(index), last) });
            }
            let is_final = state.ended.count_ones() as usize == self.cpus();
            if is_final {
                finals.insert(self.values(&state));
            }
            for (choice, state) in next.drain(..).enumerate() {
                self.steps += 1;
                if store.insert(self.key(&state), Some((index, choice as u32))) {
                    frontier.push_back(state);
                }
            }
            store.expanded(is_final);
            if index % 1024 == 0
                && let Some(why) = self.over_limit(start, store.len())
            {
                break Verdict::Unfinished(why);
            }
            index += 1;
        };
        Some((verdict, store.len(), finals))
    }

    /// All states are known. The end must be reachable from each, unless the way there may be cut off by a bound.
    fn ends(&mut self, store: &Store) -> Verdict {
        match store.dead_end() {
            Some(index) if self.search.preemptions.is_none() => {
                let what = "livelock: from here no execution comes to an end".to_owned();
                Verdict::Broken(Broken { what, trace: self.trace(store.path(index), None) })
            }
            _ => Verdict::Holds,
        }
    }

    fn over_limit(&self, start: Instant, states: usize) -> Option<&'static str> {
        if let Some(gauge) = &self.search.gauge {
            gauge.store(states, atomic::Ordering::Relaxed);
        }
        if start.elapsed() > self.search.time {
            return Some("the time is up");
        }
        (resident()? > self.search.memory).then_some("the memory is used up")
    }

    /// The execution that these choices lead along, and the step that broke after it.
    fn trace(&mut self, choices: Vec<u32>, last: Option<u32>) -> Trace {
        let mut trace = Trace::default();
        let mut state = self.initial();
        for choice in choices.into_iter().chain(last) {
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

    fn values(&self, state: &State) -> Vec<(String, u32)> {
        let atomic = self.order.iter().filter(|id| !self.infos[usize::from(**id)].plain);
        let mut values: Vec<_> =
            atomic.map(|id| (self.name(*id), state.memory.newest(usize::from(self.dense[id])))).collect();
        values.sort();
        values
    }

    pub(super) fn name(&self, id: CellId) -> String {
        if id == NO_CELL { "no cell".to_owned() } else { self.infos[usize::from(id)].name.clone() }
    }

    fn key(&mut self, state: &State) -> u128 {
        let cpus = self.cpus();
        let out = &mut self.bytes;
        out.clear();
        state.memory.bytes(out, self.order.len());
        state.locals[..cpus].iter().for_each(|local| out.extend_from_slice(&local.to_ne_bytes()));
        out.extend_from_slice(&[state.started, state.ended, state.kicked, state.asleep, state.roused]);
        out.extend_from_slice(&state.freed.to_ne_bytes());
        out.extend_from_slice(&[state.last, state.preemptions]);
        out.extend_from_slice(&state.interrupts_left[..cpus]);
        out.extend_from_slice(&state.nesting[..cpus]);
        state.ghosts[..self.model.words.len()].iter().for_each(|ghost| ghost.bytes(out));
        xxh3_128(out)
    }

    /// The place of a cell in views.
    pub(super) fn place(&mut self, id: CellId) -> Result<usize, Stop> {
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
}

/// Bytes of memory that this process takes, where the system tells.
fn resident() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(pages.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
}
