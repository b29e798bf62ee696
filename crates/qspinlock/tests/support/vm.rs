//! Virtual CPUs for tests: coroutines, one of which runs at a time, chosen anew before every access to a cell.
//!
//! The choice comes from a seed, so a failing schedule can be run again. An await blocks until its cell changes, hence
//! "nobody can run" is a hang and is found at once. Between any two accesses, and during any wait, a CPU may be
//! interrupted: a handler runs on top of what it was doing, as deep as the setup allows.
//!
//! Memory is sequentially consistent, but for one thing: `load_byte1` is as stale as x86-64 may make it.

mod recorder;
mod world;

use std::cell::{Cell as StdCell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;

use corosensei::Yielder;
use qspinlock::Machine;
use qspinlock::machine::{Access, Budget, Cell, Event, Ordering};
use qspinlock::queue::{Cpu, Slot, Tail};
use qspinlock::slowpath::{Flavour, Locality, Patience, SlowPath, walk};
use qspinlock::word::LockWord;

#[allow(unused_imports, reason = "each test file uses a part")]
pub(crate) use world::{Failure, Machinery, PATIENT, SLEEPY, Setup, Spread, World, play, run};

const KICK: Access = Access::release("kick", "the sleep that it ends");
const TRACE: usize = 150;

/// What a cell is for, so that a step can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Word(usize),
    Next(Tail),
    Grant(Tail),
    Depth(usize),
    /// What the queue of sleepers keeps in a node beside its state.
    Sleeper(Tail),
    Token(usize),
    /// The wait in a CPU's record; an entry of it; and what else it counts.
    Wait(usize),
    Name(usize, usize),
    Count(usize),
    /// None: a fence of the CPU.
    Fence(usize),
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
    /// When, in steps of the machine. Filled in as it is recorded.
    pub(crate) time: u64,
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
    patience: Patience,
    spread: Spread,
    /// A sleep goes on when a handler has interrupted it: a machine as it must not be.
    stubborn: bool,
    hints: bool,
    failure: RefCell<Option<String>>,
    handler: RefCell<Option<Rc<Handler>>>,
    events: RefCell<Vec<Event>>,
}

#[derive(Default)]
struct Own {
    yielder: StdCell<Option<*const Yielder<Wake, Pause>>>,
    depth: StdCell<usize>,
    /// Interrupts are off.
    masked: StdCell<bool>,
    /// When it last loaded. On x86-64 loads stay in order, so no later load sees what was before.
    loaded: StdCell<u64>,
}

impl Shared {
    pub(crate) fn who(&self) -> Context {
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
        let step = Step { time: self.time.get(), ..step };
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

    /// Sleeps until kicked, or until a nap is over, at some time. Ends with a handler, which may have slept itself, and
    /// then the kick that was meant for this sleep has ended that one.
    fn sleep(&self, token: &VmCell, naps: bool) {
        let Some(cpu) = self.running.get() else { return };
        // A halt turns interrupts on, and must leave them as they were.
        let masked = self.cpus[cpu].masked.replace(false);
        self.sleep_unmasked(cpu, token, naps);
        self.cpus[cpu].masked.set(masked && !self.stubborn);
    }

    fn sleep_unmasked(&self, cpu: usize, token: &VmCell, naps: bool) {
        while !self.stopped.get() && token.value.replace(0) == 0 && !(naps && self.random(16) == 0) {
            let why = if naps { Pause::Ready } else { Pause::Blocked(token.value.clone(), 0) };
            let yielder = self.cpus[cpu].yielder.get().expect("a running CPU has started");
            // SAFETY: the coroutine that owns it is the one that runs.
            if let Wake::Interrupt = unsafe { &*yielder }.suspend(why) {
                self.interrupt(cpu);
                if !self.stubborn {
                    return;
                }
            }
        }
    }

    /// Lets others run.
    pub(crate) fn yield_now(&self) {
        self.pause(None);
    }

    /// Turns interrupts of the CPU that runs off, or on. Whether they were off.
    pub(crate) fn mask(&self, off: bool) -> bool {
        self.cpus[self.who().cpu].masked.replace(off)
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
        let mut step = Step {
            who,
            access: access.name,
            order: access.order,
            role: self.role,
            old,
            new: intended,
            time: s.time.get(),
        };
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

    fn load_byte1(&self, access: Access) -> u32 {
        let s = &*self.shared;
        s.pause(None);
        let (at, word) = self.sometime(s.cpus[s.who().cpu].loaded.get());
        s.cpus[s.who().cpu].loaded.set(at);
        let seen = word & 0xff00;
        s.record(Step {
            who: s.who(),
            access: access.name,
            order: access.order,
            role: self.role,
            old: seen,
            new: None,
            time: 0,
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
    recorder: recorder::Recorded,
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

    /// Nothing to do here. Monitors are told.
    fn fence(&self, access: Access) {
        let s = &*self.shared;
        let who = s.who();
        let (role, order) = (Role::Fence(who.cpu), access.order);
        s.record(Step { who, access: access.name, order, role, old: 0, new: None, time: 0 });
    }

    fn signal_fence(&self) {}

    fn now(&self) -> u64 {
        self.shared.time.get() << self.shared.spread.step_shift
    }

    fn domain(&self) -> u32 {
        self.shared.who().cpu as u32 % self.shared.spread.domains
    }

    /// A handler, or with interrupts off.
    fn is_urgent(&self) -> bool {
        {
            let who = self.shared.who();
            who.depth > 0 || self.shared.cpus[who.cpu].masked.get()
        }
    }

    fn locality(&self) -> Locality {
        self.shared.spread.locality
    }

    fn choose(&self, n: u32) -> u32 {
        self.shared.random(n as usize) as u32
    }

    fn wait(&self, cell: &VmCell, value: u32, access: Access, until: Option<u64>) {
        if cell.load(access) == value {
            let cpu = self.shared.who().cpu;
            self.shared.sleep(self.slots[cpu].token(), until.is_some());
        }
    }

    fn kick(&self, cpu: Cpu) {
        self.slot(cpu).token().store(1, KICK);
    }

    fn yield_cpu(&self) {
        self.shared.yield_now();
    }

    fn patience(&self) -> Patience {
        self.shared.patience
    }

    /// Where nobody may ask: a CPU that seems to be away is no reason to do anything: waiters that went to sleep because the one before them
    /// did so pulled the whole queue down.
    fn preempted(&self, cpu: Cpu) -> bool {
        let s = &*self.shared;
        let (role, order) = (Role::Token(cpu.index()), Ordering::Relaxed);
        s.record(Step { who: s.who(), access: "preempted", order, role, old: 0, new: None, time: 0 });
        assert!(s.hints, "a waiter asks whether {cpu:?} is preempted");
        s.random(2) == 0
    }

    fn count(&self, event: Event) {
        self.shared.events.borrow_mut().push(event);
    }
}

impl Vm {
    pub(crate) fn shared(&self) -> Rc<Shared> {
        self.shared.clone()
    }
}

/// The walk without its pending lane: more queueing.
pub(crate) struct QueueOnly;

impl Flavour<Vm> for QueueOnly {
    type Error = Infallible;
    type Baton = ();
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
