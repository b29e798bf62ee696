//! A world: memory, virtual CPUs as coroutines, and the loop that lets them have their turns.

mod turns;

use std::cell::{Cell as StdCell, RefCell};
use std::ptr;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, Yielder};
use qspinlock::machine::Event;
use qspinlock::queue::Slot;
use qspinlock::slowpath::{Locality, Patience};

use super::cell::{Arena, SimCell};
use super::engine::State;
use super::host::{Host, HostCosts};
use super::line::{Distances, Lines};
use super::machine::Virtual;
use super::model::{Domain, Model};
use super::recorder::{self, SimRecord};
use super::setup::Overcommit;

/// Bytes of a virtual CPU's stack. Pages that are not touched take no memory; a panic with its text needs some.
const STACK: usize = 256 * 1024;

thread_local! {
    /// The world whose CPU runs on this thread now.
    static RUNNING: StdCell<*const ()> = const { StdCell::new(ptr::null()) };
}

/// What a world is made of, beside its memory.
#[derive(Clone, Debug)]
pub struct Conditions<'m> {
    /// The machine.
    pub model: &'m Model,
    /// For each virtual CPU the CPU of the machine that it runs on; or if these are fewer, the physical CPUs they share.
    pub places: Vec<u32>,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Seeds jitter and choices.
    pub seed: u64,
    /// What a domain is.
    pub domain: Domain,
    /// How long a lock stays in one domain.
    pub locality: Locality,
    /// What waiting and sharing cost.
    pub host: Overcommit,
    /// How long waiters try what.
    pub patience: Patience,
}

/// What the virtual CPUs of a run have: memory, queue nodes, and a clock.
pub struct World<'a> {
    state: RefCell<State>,
    yielders: Vec<StdCell<*const Yielder<(), ()>>>,
    pub(super) arena: &'a Arena,
    pub(super) slots: Vec<&'a Slot<SimCell>>,
    pub(super) records: Vec<&'a SimRecord>,
    mhz: u64,
    seed: u64,
    /// For each place.
    domains: Vec<u32>,
    pub(super) patience: Patience,
    pub(super) locality: Locality,
    counts: RefCell<Vec<(Event, u64)>>,
    failure: RefCell<Option<String>>,
}

/// Why a run has ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// CPUs wait, and nothing is under way.
    Deadlock(String),
    /// A CPU has called `World::fail`.
    Failed(String),
}

/// Bytes of memory that a world of so many CPUs needs for their queue nodes and records.
#[must_use]
pub fn memory_of(cpus: u32) -> usize {
    cpus as usize * (size_of::<Slot<SimCell>>() + size_of::<SimRecord>() + 2 * 128)
}

impl<'a> World<'a> {
    /// A world in this memory, in which nothing has happened.
    ///
    /// # Errors
    /// The model lacks costs.
    pub fn new(arena: &'a Arena, conditions: &Conditions<'_>) -> Result<Self, String> {
        let Conditions { model, cpus, seed, host, .. } = conditions;
        let distances = Distances::new(model)?;
        let physical: Vec<u32> = conditions.places.iter().map(|&cpu| distances.place(cpu)).collect();
        let count = *cpus as usize;
        let places: Vec<u32> = physical.iter().copied().cycle().take(count).collect();
        let mut domains = vec![0; model.shape.cpus() as usize];
        for cpu in 0..model.shape.cpus() {
            domains[distances.place(cpu) as usize] = model.shape.domain(cpu, conditions.domain);
        }
        let mhz = u64::from(model.mhz);
        let cycles = |ns: u64| ns * mhz / 1000;
        let costs = HostCosts {
            slice: cycles(host.slice),
            kick: cycles(host.kick),
            wake: cycles(host.wake),
            switch: cycles(host.switch),
        };
        let lines = Lines::new(model.own, distances, arena.lines());
        let host = Host::new(costs, &physical);
        Ok(Self {
            state: RefCell::new(State::new(model.own, lines, arena.lines(), &places, *seed, host)),
            yielders: (0..count).map(|_| StdCell::new(ptr::null())).collect(),
            arena,
            slots: (0..count).map(|_| arena.put(Slot::new())).collect(),
            records: (0..count).map(|_| arena.put(recorder::record())).collect(),
            mhz,
            seed: *seed,
            domains,
            patience: conditions.patience,
            locality: conditions.locality,
            counts: RefCell::default(),
            failure: RefCell::default(),
        })
    }

    /// Lets each CPU do its work, until all are done. `limit` is asked now and then, at a time in cycles, whether it
    /// has lasted too long.
    ///
    /// # Errors
    /// See [`Stopped`].
    ///
    /// # Panics
    /// If a CPU's work does, or the system has no memory for its stack.
    pub fn run(&self, work: impl Fn(&Virtual), mut limit: impl FnMut(u64) -> Option<String>) -> Result<(), Stopped> {
        let count = self.yielders.len();
        let mut stacks = Stacks(Vec::with_capacity(count));
        for cpu in 0..count {
            let stack = DefaultStack::new(STACK).expect("memory for the stack of a virtual CPU");
            let work = &work;
            // SAFETY: dropped before this function returns, and with it what it borrows; the virtual CPU is lent to `work`,
            // which cannot keep it.
            stacks.0.push(unsafe {
                Coroutine::with_stack_unchecked(stack, move |yielder: &Yielder<(), ()>, ()| {
                    self.yielders[cpu].set(yielder);
                    work(&Virtual::new(self, cpu as u32));
                    drop(self.turn());
                })
            });
        }
        self.state.borrow_mut().begin(self.seed);
        let _running = Running::enter(self);
        let mut steps = 0_u64;
        loop {
            steps += 1;
            let next = self.state.borrow_mut().step();
            match next {
                None => break,
                Some(None) => {}
                Some(Some(cpu)) => {
                    if stacks.0[cpu].resume(()).as_return().is_some() {
                        self.state.borrow_mut().end(cpu);
                    }
                    if let Some(failure) = self.failure.take() {
                        return Err(Stopped::Failed(failure));
                    }
                }
            }
            if steps.is_multiple_of(1024)
                && let Some(why) = limit(self.state.borrow().clock)
            {
                return Err(Stopped::Deadlock(why));
            }
        }
        self.state.borrow().stuck().map_or(Ok(()), |who| Err(Stopped::Deadlock(who)))
    }

    /// Calls `f` with the world that runs on this thread.
    pub(super) fn with<R>(f: impl FnOnce(&World<'_>) -> R) -> Option<R> {
        let world = RUNNING.get().cast::<World<'_>>();
        // SAFETY: `Running` keeps the pointer there only while the world is borrowed.
        unsafe { world.as_ref() }.map(f)
    }

    /// Ends the run, once the CPU that runs next stands still.
    pub(super) fn fail(&self, why: String) {
        self.failure.borrow_mut().get_or_insert(why);
        self.suspend();
    }

    fn suspend(&self) {
        let yielder = self.yielders[self.state.borrow().current].get();
        // SAFETY: the current CPU runs, so we are on its stack, on which its yielder lies.
        unsafe { &*yielder }.suspend(());
    }

    pub(super) fn spend(&self, cycles: u64) {
        let mut state = self.state.borrow_mut();
        let cpu = state.current;
        state.cpus[cpu].now += cycles;
    }

    pub(super) fn now(&self) -> u64 {
        let state = self.state.borrow();
        state.cpus[state.current].now
    }

    pub(super) fn below(&self, n: u64) -> u64 {
        let mut state = self.state.borrow_mut();
        let cpu = state.current;
        state.cpus[cpu].random.below(n)
    }

    pub(super) fn around(&self, mean: u64) -> u64 {
        let mut state = self.state.borrow_mut();
        let cpu = state.current;
        state.cpus[cpu].random.around(mean)
    }

    /// Whether a CPU runs now, by the clock of the one that does.
    pub(super) fn is_running(&self, cpu: usize) -> bool {
        let state = self.state.borrow();
        let (now, cpu) = (state.cpus[state.current].now, &state.cpus[cpu]);
        cpu.on.is_some() && cpu.on_since <= now
    }

    /// The domain of where a CPU runs.
    pub(super) fn domain(&self, cpu: usize) -> u32 {
        self.domains[self.state.borrow().cpus[cpu].place as usize]
    }

    pub(super) fn domain_count(&self) -> usize {
        self.domains.iter().max().map_or(0, |&last| last as usize + 1)
    }

    /// Where the CPU that runs is, and since when, and whether it slept before.
    pub(super) fn whereabouts(&self) -> (u32, u64, bool) {
        let state = self.state.borrow();
        let cpu = &state.cpus[state.current];
        (cpu.place, cpu.on_since, cpu.slept)
    }

    /// How far two places are apart, from near to far: core, last-level cache, socket, then links.
    pub(super) fn apart(&self, a: u32, b: u32) -> usize {
        self.state.borrow().lines.distances().apart(a, b)
    }

    /// The CPU that runs has a lock more, or one less.
    pub(super) fn holds(&self, more: bool) {
        let mut state = self.state.borrow_mut();
        let cpu = state.current;
        let holds = &mut state.cpus[cpu].holds;
        *holds = if more { *holds + 1 } else { *holds - 1 };
    }

    pub(super) fn holder_preemptions(&self) -> u64 {
        self.state.borrow().host.holder_preemptions
    }

    pub(super) fn count(&self, event: Event) {
        let mut counts = self.counts.borrow_mut();
        match counts.iter_mut().find(|c| c.0 == event) {
            Some(count) => count.1 += 1,
            None => counts.push((event, 1)),
        }
    }

    /// What was counted, in the order in which the library names it.
    pub(super) fn counts(&self) -> Vec<(Event, u64)> {
        let mut counts = self.counts.borrow().clone();
        counts.sort();
        counts
    }

    pub(super) fn nanos(&self, cycles: u64) -> u64 {
        u64::try_from(u128::from(cycles) * 1000 / u128::from(self.mhz)).unwrap_or(u64::MAX)
    }

    /// The first cycle at which that time has come.
    fn cycles(&self, ns: u64) -> u64 {
        u64::try_from((u128::from(ns) * u128::from(self.mhz)).div_ceil(1000)).unwrap_or(u64::MAX)
    }
}

/// The world is the one that runs on this thread, for as long as this lives.
struct Running(*const ());

impl Running {
    fn enter(world: &World<'_>) -> Self {
        Self(RUNNING.replace(ptr::from_ref(world).cast()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(self.0);
    }
}

/// The virtual CPUs. What still stands on their stacks at the end of a run is forgotten.
struct Stacks(Vec<Coroutine<(), (), ()>>);

impl Drop for Stacks {
    fn drop(&mut self) {
        for stack in &mut self.0 {
            // SAFETY: lock code and ours keeps only numbers and references on these stacks. A nesting level that is not
            // given back is one of this world, which has ended.
            unsafe { stack.force_reset() };
        }
    }
}
