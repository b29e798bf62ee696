//! Virtual CPUs for tests: coroutines, one of which runs at a time, chosen anew before every access to a cell.
//!
//! The choice comes from a seed, so a failing schedule can be run again. An await blocks until its cell changes, hence
//! "nobody can run" is a hang and is found at once. Between any two accesses, and during any wait, a CPU may be
//! interrupted: a handler runs on top of what it was doing, as deep as the setup allows.
//!
//! Memory is sequentially consistent, but for one thing: `load_high24` is as stale, and as torn, as x86-64 may make it.

use std::cell::{Cell as StdCell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use corosensei::{Coroutine, CoroutineResult, Yielder};
use qspinlock::machine::{Access, Budget, Cell, Event, Ordering};
use qspinlock::queue::{Cpu, LEVELS, Node, Slot, Tail};
use qspinlock::slowpath::{Flavour, SlowPath, walk};
use qspinlock::word::LockWord;
use qspinlock::{Machine, RawSpinLock};

/// Steps after which a schedule counts as a livelock. A passing one takes a few thousand.
const TOO_LONG: u64 = 200_000;
const TRACE: usize = 150;

/// What a cell is for, so that a step can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Word(usize),
    Next(Tail),
    Grant(Tail),
    Depth(usize),
}

/// Who takes a step: a CPU, and how many handlers deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Context {
    pub(crate) cpu: usize,
    pub(crate) depth: usize,
}

/// One access. `new` is what it wrote, if it wrote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) who: Context,
    pub(crate) access: &'static str,
    pub(crate) order: Ordering,
    pub(crate) role: Role,
    pub(crate) old: u32,
    pub(crate) new: Option<u32>,
}

/// Judges every step.
pub(crate) type Monitor = Box<dyn FnMut(&Step) -> Result<(), String>>;

/// Changes what a step writes (`None`: it writes nothing), to plant a bug.
pub(crate) type Sabotage = fn(Step, &mut fastrand::Rng) -> Option<u32>;

enum Wake {
    Go,
    Interrupt,
}

enum Pause {
    Ready,
    /// Until the cell no longer holds this.
    Blocked(Rc<StdCell<u32>>, u32),
}

type Handler = Box<dyn Fn(Context)>;

/// What the virtual CPUs share, and the scheduler.
pub(crate) struct Shared {
    rng: RefCell<fastrand::Rng>,
    running: StdCell<Option<usize>>,
    /// After a failure coroutines are unwound, and what their destructors do must not count or pause.
    stopped: StdCell<bool>,
    time: StdCell<u64>,
    cpus: Vec<Own>,
    trace: RefCell<VecDeque<Step>>,
    monitors: RefCell<Vec<Monitor>>,
    sabotage: Option<Sabotage>,
    torn: bool,
    failure: RefCell<Option<String>>,
    handler: RefCell<Option<Rc<Handler>>>,
    events: RefCell<Vec<Event>>,
}

#[derive(Default)]
struct Own {
    yielder: StdCell<Option<*const Yielder<Wake, Pause>>>,
    depth: StdCell<usize>,
    /// When it last loaded. On x86-64 loads stay in order, so no later load sees what was before.
    loaded: StdCell<u64>,
}

impl Shared {
    fn who(&self) -> Context {
        let cpu = self.running.get().unwrap_or(0);
        Context { cpu, depth: self.cpus[cpu].depth.get() }
    }

    /// Lets others run, and handlers.
    fn pause(&self, wait: Option<(&Rc<StdCell<u32>>, u32)>) {
        let Some(cpu) = self.running.get() else { return };
        while !self.stopped.get() {
            let why = wait.map_or(Pause::Ready, |(cell, value)| Pause::Blocked(cell.clone(), value));
            let yielder = self.cpus[cpu].yielder.get().expect("a running CPU has started");
            // SAFETY: the coroutine that owns it is the one that runs.
            match unsafe { &*yielder }.suspend(why) {
                Wake::Go => return,
                Wake::Interrupt => self.interrupt(cpu),
            }
        }
    }

    fn interrupt(&self, cpu: usize) {
        let handler = self.handler.borrow().clone().expect("interrupts have a handler");
        let own = &self.cpus[cpu];
        own.depth.set(own.depth.get() + 1);
        handler(self.who());
        own.depth.set(own.depth.get() - 1);
    }

    fn record(&self, step: Step) {
        if self.stopped.get() || self.running.get().is_none() {
            return;
        }
        let mut trace = self.trace.borrow_mut();
        if trace.len() == TRACE {
            trace.pop_front();
        }
        trace.push_back(step);
        if self.failure.borrow().is_none() {
            let verdict = self.monitors.borrow_mut().iter_mut().try_for_each(|monitor| monitor(&step));
            *self.failure.borrow_mut() = verdict.err();
        }
    }

    /// Lets others run.
    pub(crate) fn yield_now(&self) {
        self.pause(None);
    }

    pub(crate) fn random(&self, below: usize) -> usize {
        self.rng.borrow_mut().usize(..below)
    }
}

/// A shared word of the virtual machine.
pub(crate) struct VmCell {
    shared: Rc<Shared>,
    role: Role,
    value: Rc<StdCell<u32>>,
    /// Values and when they were written, of lock words.
    history: RefCell<Vec<(u64, u32)>>,
}

impl VmCell {
    fn new(shared: &Rc<Shared>, role: Role) -> Self {
        Self { shared: shared.clone(), role, value: Rc::default(), history: RefCell::new(vec![(0, 0)]) }
    }

    /// One indivisible step: `f` gives what to write.
    fn step(&self, access: Access, loads: bool, f: impl FnOnce(u32) -> Option<u32>) -> Result<u32, u32> {
        let s = &*self.shared;
        s.pause(None);
        let (old, who) = (self.value.get(), s.who());
        let intended = f(old);
        let mut step = Step { who, access: access.name, order: access.order, role: self.role, old, new: intended };
        if let (Some(_), Some(sabotage)) = (intended, s.sabotage) {
            step.new = sabotage(step, &mut s.rng.borrow_mut());
        }
        s.time.set(s.time.get() + 1);
        if let Some(new) = step.new {
            self.value.set(new);
            if matches!(self.role, Role::Word(_)) {
                self.history.borrow_mut().push((s.time.get(), new));
            }
        }
        if loads {
            s.cpus[who.cpu].loaded.set(s.time.get());
        }
        s.record(step);
        if intended.is_some() { Ok(old) } else { Err(old) }
    }

    /// What the word held at a moment from `from` on, and that moment.
    fn sometime(&self, from: u64) -> (u64, u32) {
        let now = self.shared.time.get();
        let at = from + self.shared.random((now - from) as usize + 1) as u64;
        let history = self.history.borrow();
        let index = history.partition_point(|&(time, _)| time <= at) - 1;
        (at, history[index].1)
    }
}

// SAFETY: one thread runs all virtual CPUs, and none is left between reading and writing in `step`.
unsafe impl Cell for VmCell {
    fn load(&self, access: Access) -> u32 {
        self.step(access, true, |_| None).unwrap_or_else(|seen| seen)
    }

    fn store(&self, value: u32, access: Access) {
        let _ = self.step(access, false, |_| Some(value));
    }

    fn cas(&self, old: u32, new: u32, access: Access) -> Result<u32, u32> {
        self.step(access, true, |v| (v == old).then_some(new))
    }

    fn update(&self, access: Access, f: impl Fn(u32) -> Option<u32>) -> Result<u32, u32> {
        self.step(access, true, f)
    }

    fn load_high24(&self, access: Access) -> u32 {
        let s = &*self.shared;
        s.pause(None);
        let (first, middle) = self.sometime(s.cpus[s.who().cpu].loaded.get());
        let (second, upper) = if s.torn { self.sometime(first) } else { (first, middle) };
        s.cpus[s.who().cpu].loaded.set(second);
        let seen = middle & 0xff00 | upper & 0xffff_0000;
        s.record(Step {
            who: s.who(),
            access: access.name,
            order: access.order,
            role: self.role,
            old: seen,
            new: None,
        });
        seen
    }

    fn store_low8(&self, value: u8, access: Access) {
        let _ = self.step(access, false, |v| Some(v & !0xff | u32::from(value)));
    }
}

/// The machine: its CPU is whichever runs.
pub(crate) struct Vm {
    shared: Rc<Shared>,
    slots: Vec<Slot<VmCell>>,
}

// SAFETY: each coroutine is a CPU; handlers run to their end on top of it; slots live as long as the machine; the
// awaits return what they loaded.
unsafe impl Machine for Vm {
    type Cell = VmCell;

    fn here(&self) -> Option<Cpu> {
        Cpu::new(self.shared.running.get()? as u32)
    }

    fn slot(&self, cpu: Cpu) -> &Slot<VmCell> {
        &self.slots[cpu.index()]
    }

    fn until(&self, cell: &VmCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        loop {
            let seen = cell.load(access);
            if done(seen) || self.shared.stopped.get() {
                return seen;
            }
            self.shared.pause(Some((&cell.value, seen)));
        }
    }

    fn until_for(&self, cell: &VmCell, access: Access, _: Budget, done: impl Fn(u32) -> bool) -> Result<u32, u32> {
        // A budget of looks is some looks: how many is a choice like any other.
        loop {
            let seen = cell.load(access);
            if done(seen) {
                return Ok(seen);
            }
            if self.shared.random(3) == 0 {
                return Err(seen);
            }
        }
    }

    fn fence(&self, _: Access) {}

    fn signal_fence(&self) {}

    fn now(&self) -> u64 {
        self.shared.time.get()
    }

    fn count(&self, event: Event) {
        self.shared.events.borrow_mut().push(event);
    }
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) cpus: usize,
    pub(crate) locks: usize,
    /// What the locks hold at the start.
    pub(crate) word: u32,
    /// How many interrupts there are in all, and how deep they nest.
    pub(crate) interrupts: usize,
    pub(crate) nesting: usize,
    /// Bits 8-31 may be read in two parts, as on x86-64.
    pub(crate) torn: bool,
    pub(crate) sabotage: Option<Sabotage>,
}

/// A machine, its locks, and who is in their sections.
pub(crate) struct World<S: SlowPath<Vm>> {
    pub(crate) vm: Vm,
    pub(crate) locks: Vec<RawSpinLock<Vm, S>>,
    inside: Vec<StdCell<Option<Context>>>,
}

impl<S: SlowPath<Vm, Error = Infallible>> World<S> {
    pub(crate) fn shared(&self) -> &Shared {
        &self.vm.shared
    }

    /// Takes a lock, works and gives it back.
    pub(crate) fn section(&self, lock: usize) {
        let Ok(()) = self.locks[lock].acquire_on(&self.vm);
        self.work_and_release(lock);
    }

    /// The same, if nobody holds it or waits.
    pub(crate) fn try_section(&self, lock: usize) -> bool {
        let taken = self.locks[lock].try_acquire_on(&self.vm);
        if taken {
            self.work_and_release(lock);
        }
        taken
    }

    pub(crate) fn who_is_inside(&self, lock: usize) -> Option<Context> {
        self.inside[lock].get()
    }

    fn work_and_release(&self, lock: usize) {
        let me = self.shared().who();
        if let Some(other) = self.inside[lock].replace(Some(me)) {
            panic!("exclusion: {me:?} and {other:?} are both in lock {lock}");
        }
        for _ in 0..self.shared().random(3) {
            self.shared().yield_now();
        }
        self.inside[lock].set(None);
        // SAFETY: the callers acquired it.
        unsafe { self.locks[lock].release_on(&self.vm) };
    }
}

/// A run that went wrong: what, with which setup, and the last steps.
pub(crate) struct Failure {
    pub(crate) what: String,
    setup: Setup,
    trace: VecDeque<Step>,
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\nwith {:?}; the last steps:", self.what, self.setup)?;
        self.trace.iter().try_for_each(|step| {
            let Step { who: Context { cpu, depth }, access, role, old, new, .. } = step;
            let wrote = new.map(|new| format!(" -> {new:#x}")).unwrap_or_default();
            writeln!(f, "  cpu {cpu} level {depth} {access:20} {role:?} {old:#x}{wrote}")
        })
    }
}

/// Runs `task` on every CPU, with `handler` as the interrupt handler, under one schedule. Gives the events counted.
pub(crate) fn run<S: SlowPath<Vm, Error = Infallible> + 'static>(
    setup: &Setup,
    monitors: Vec<Monitor>,
    task: impl Fn(&World<S>, usize) + 'static,
    handler: impl Fn(&World<S>, Context) + 'static,
) -> Result<Vec<Event>, Failure> {
    let shared = Rc::new(Shared {
        rng: RefCell::new(fastrand::Rng::with_seed(setup.seed)),
        running: StdCell::new(None),
        stopped: StdCell::new(false),
        time: StdCell::new(0),
        cpus: (0..setup.cpus).map(|_| Own::default()).collect(),
        trace: RefCell::default(),
        monitors: RefCell::new(monitors),
        sabotage: setup.sabotage,
        torn: setup.torn,
        failure: RefCell::default(),
        handler: RefCell::default(),
        events: RefCell::default(),
    });
    let mut depths = Vec::new();
    let slot = |cpu: usize| {
        let depth = VmCell::new(&shared, Role::Depth(cpu));
        depths.push(depth.value.clone());
        let node = |level| {
            let me = Tail::new(Cpu::new(cpu as u32).expect("a small number"), level);
            Node::from_cells(VmCell::new(&shared, Role::Next(me)), VmCell::new(&shared, Role::Grant(me)))
        };
        Slot::from_cells(depth, std::array::from_fn::<_, LEVELS, _>(node))
    };
    let word = |n| {
        let cell = VmCell::new(&shared, Role::Word(n));
        cell.value.set(setup.word);
        *cell.history.borrow_mut() = vec![(0, setup.word)];
        cell
    };
    let world = Rc::new(World::<S> {
        vm: Vm { shared: shared.clone(), slots: (0..setup.cpus).map(slot).collect() },
        locks: (0..setup.locks).map(word).map(RawSpinLock::from_cell).collect(),
        inside: (0..setup.locks).map(|_| StdCell::new(None)).collect(),
    });
    let (task, of_handler) = (Rc::new(task), world.clone());
    *shared.handler.borrow_mut() = Some(Rc::new(Box::new(move |who| handler(&of_handler, who))));
    let cpus = (0..setup.cpus)
        .map(|cpu| {
            let (world, task) = (world.clone(), task.clone());
            Coroutine::new(move |yielder: &Yielder<Wake, Pause>, _| {
                world.shared().cpus[cpu].yielder.set(Some(yielder));
                task(&world, cpu);
            })
        })
        .collect();
    let result = schedule(setup, &shared, cpus);
    shared.running.set(None);
    // The handler holds the world, which holds the handler.
    shared.handler.take();
    let nothing_left = || match world.locks.iter().find(|lock| lock.is_taken()) {
        Some(lock) => Err(format!("a trace is left in {lock:?}")),
        None if depths.iter().any(|depth| depth.get() != 0) => Err("a level is left in use".to_owned()),
        None => Ok(()),
    };
    match result.and_then(|()| nothing_left()) {
        Err(what) => Err(Failure { what, setup: setup.clone(), trace: shared.trace.take() }),
        Ok(()) => Ok(shared.events.take()),
    }
}

fn schedule(setup: &Setup, s: &Shared, mut cpus: Vec<Coroutine<Wake, Pause, ()>>) -> Result<(), String> {
    let mut states: Vec<Option<Pause>> = cpus.iter().map(|_| Some(Pause::Ready)).collect();
    let mut interrupts = setup.interrupts;
    // Some schedules run a CPU for long stretches, some switch at every step: bugs hide in either.
    let sticky = [0, 50, 90][s.random(3)];
    let mut last = 0;
    let result = loop {
        if states.iter().all(Option::is_none) {
            break Ok(());
        }
        if s.time.get() > TOO_LONG {
            break Err("livelock".to_owned());
        }
        let can_run = |state: &Option<Pause>| match state {
            Some(Pause::Ready) => true,
            Some(Pause::Blocked(cell, value)) => cell.get() != *value,
            None => false,
        };
        let ready: Vec<usize> = (0..cpus.len()).filter(|&cpu| can_run(&states[cpu])).collect();
        if ready.is_empty() {
            break Err("hang: nobody can run".to_owned());
        }
        let mut cpu = if ready.contains(&last) && s.random(100) < sticky { last } else { ready[s.random(ready.len())] };
        let mut wake = Wake::Go;
        if interrupts > 0 && s.random(8) == 0 {
            // Also one that waits.
            let victim = s.random(cpus.len());
            if cpus[victim].started() && states[victim].is_some() && s.cpus[victim].depth.get() < setup.nesting {
                (cpu, wake) = (victim, Wake::Interrupt);
                interrupts -= 1;
            }
        }
        last = cpu;
        s.time.set(s.time.get() + 1);
        s.running.set(Some(cpu));
        match catch_unwind(AssertUnwindSafe(|| cpus[cpu].resume(wake))) {
            Ok(CoroutineResult::Yield(pause)) => states[cpu] = Some(pause),
            Ok(CoroutineResult::Return(())) => states[cpu] = None,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                break Err(text.unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap_or(&"a panic").to_string()));
            }
        }
        if let Some(what) = s.failure.take() {
            break Err(what);
        }
    };
    s.stopped.set(true);
    result
}

/// The walk without its pending lane: more queueing.
pub(crate) struct QueueOnly;

impl Flavour<Vm> for QueueOnly {
    type Error = Infallible;
    const PENDING_LANE: bool = false;
}

// SAFETY: the walk returns when it has claimed the byte, and this flavour changes none of its waits.
unsafe impl SlowPath<Vm> for QueueOnly {
    type Error = Infallible;
    const NAME: &'static str = "queue-only";

    fn acquire(m: &Vm, word: &LockWord<VmCell>) -> Result<(), Infallible> {
        walk::<_, Self>(m, word)
    }
}
