//! A run on the virtual machine: CPUs with a task each, locks, a schedule, and what it came to.

use std::cell::{Cell as StdCell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use corosensei::{Coroutine, CoroutineResult, Yielder};
use qspinlock::RawSpinLock;
use qspinlock::machine::Event;
use qspinlock::queue::{Cpu, NODES, Node, Slot, Tail};
use qspinlock::slowpath::{Locality, Patience, SlowPath};

use super::recorder::Recorded;
use super::{Context, Monitor, Own, Pause, Role, Sabotage, Shared, Step, Vm, VmCell, Wake};

/// Steps after which a schedule counts as a livelock. A passing one takes a few thousand.
const TOO_LONG: u64 = 200_000;
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
    pub(crate) sabotage: Option<Sabotage>,
    /// Where waiters sleep. How long each phase is does not matter, but one of 0 there is not.
    pub(crate) patience: Patience,
    /// Whether a sleep goes on when a handler has interrupted it.
    pub(crate) stubborn: bool,
    /// Whether CPUs seem to be preempted, now and then. Else nobody may ask.
    pub(crate) hints: bool,
    pub(crate) spread: Spread,
}

/// How CPUs are spread over domains, in turn, and what heads do about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) domains: u32,
    pub(crate) locality: Locality,
    /// A step of the machine is 2 to this nanoseconds.
    pub(crate) step_shift: u32,
}

impl Spread {
    /// One domain.
    pub(crate) const NONE: Self = Self { domains: 1, locality: Locality::DEFAULT, step_shift: 0 };
}

/// Waiters do everything that they may do, for some time.
pub(crate) const PATIENT: Patience =
    Patience { spin: 1, yields: 1, lane: 1, ask_after: 1, poll: 1, nap: 1, nap_behind: 1, turns: 2 };
/// Waiters sleep.
pub(crate) const SLEEPY: Patience = Patience { spin: 0, yields: 0, lane: 0, poll: 0, ..PATIENT };

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
    setup: Box<Setup>,
    trace: VecDeque<Step>,
}

impl Failure {
    /// One that shows only at the end.
    #[allow(dead_code, reason = "each test file uses a part")]
    pub(crate) fn of(what: &str, setup: &Setup) -> Self {
        Self { what: what.to_owned(), setup: Box::new(setup.clone()), trace: VecDeque::new() }
    }
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
    let Machinery { vm, words, depths } = Machinery::new(setup, monitors, false);
    let shared = vm.shared.clone();
    let world = Rc::new(World::<S> {
        vm,
        locks: words.into_iter().map(RawSpinLock::from_cell).collect(),
        inside: (0..setup.locks).map(|_| StdCell::new(None)).collect(),
    });
    let nothing_left = |world: &World<S>| match world.locks.iter().find(|lock| lock.is_taken() || lock.is_contended()) {
        Some(lock) => Err(format!("a trace is left in {lock:?}")),
        None if depths.iter().any(|depth| depth.get() != 0) => Err("a level is left in use".to_owned()),
        None => Ok(()),
    };
    play(setup, &shared, &world, task, handler, nothing_left)
}

/// A machine, the cells of its locks, and the nesting levels of its CPUs.
pub(crate) struct Machinery {
    pub(crate) vm: Vm,
    pub(crate) words: Vec<VmCell>,
    depths: Vec<Rc<StdCell<u32>>>,
}

impl Machinery {
    /// Its CPUs have records of the locks that they hold, if so wanted.
    pub(crate) fn new(setup: &Setup, monitors: Vec<Monitor>, recorded: bool) -> Self {
        let shared = Rc::new(Shared {
            rng: RefCell::new(fastrand::Rng::with_seed(setup.seed)),
            running: StdCell::new(None),
            stopped: StdCell::new(false),
            time: StdCell::new(0),
            cpus: (0..setup.cpus).map(|_| Own::default()).collect(),
            trace: RefCell::default(),
            monitors: RefCell::new(monitors),
            sabotage: setup.sabotage,
            patience: setup.patience,
            stubborn: setup.stubborn,
            hints: setup.hints,
            spread: setup.spread,
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
                let [prev, first] = [(); 2].map(|()| VmCell::new(&shared, Role::Sleeper(me)));
                let [next, grant] = [Role::Next(me), Role::Grant(me)].map(|role| VmCell::new(&shared, role));
                Node::from_cells(next, grant, prev, first)
            };
            Slot::from_cells(depth, VmCell::new(&shared, Role::Token(cpu)), std::array::from_fn::<_, NODES, _>(node))
        };
        let slots = (0..setup.cpus).map(slot).collect();
        let word = |n| {
            let cell = VmCell::new(&shared, Role::Word(n));
            cell.value.set(setup.word);
            *cell.history.borrow_mut() = vec![(0, setup.word)];
            cell
        };
        let words = (0..setup.locks).map(word).collect();
        let recorder = Recorded::new(&shared, if recorded { setup.cpus } else { 0 });
        Self { vm: Vm { shared, slots, recorder }, words, depths }
    }
}

/// Runs `task` on every CPU of a world, under one schedule; what is `left` then, is looked at. Gives the events counted.
pub(crate) fn play<W: 'static>(
    setup: &Setup,
    shared: &Rc<Shared>,
    world: &Rc<W>,
    task: impl Fn(&W, usize) + 'static,
    handler: impl Fn(&W, Context) + 'static,
    left: impl FnOnce(&W) -> Result<(), String>,
) -> Result<Vec<Event>, Failure> {
    let (task, of_handler) = (Rc::new(task), world.clone());
    *shared.handler.borrow_mut() = Some(Rc::new(Box::new(move |who| handler(&of_handler, who))));
    let cpus = (0..setup.cpus)
        .map(|cpu| {
            let (world, task, shared) = (world.clone(), task.clone(), shared.clone());
            Coroutine::new(move |yielder: &Yielder<Wake, Pause>, _| {
                shared.cpus[cpu].yielder.set(Some(yielder));
                task(&world, cpu);
            })
        })
        .collect();
    let result = schedule(setup, shared, cpus);
    shared.running.set(None);
    // The handler holds the world, which holds the handler.
    shared.handler.take();
    match result.and_then(|()| left(world)) {
        Err(what) => Err(Failure { what, setup: Box::new(setup.clone()), trace: shared.trace.take() }),
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
            if cpus[victim].started()
                && states[victim].is_some()
                && s.cpus[victim].depth.get() < setup.nesting
                && !s.cpus[victim].masked.get()
            {
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
