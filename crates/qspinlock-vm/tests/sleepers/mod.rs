//! A checked machine for locks whose waiters sleep: with the phases of waiting that a test asks for, and a clock by which
//! it may be late at any time.

#![allow(dead_code, reason = "each test uses its part")]

use std::time::Duration;

use qspinlock::RawSpinLock;
use qspinlock::machine::{Access, Budget, Event, Machine};
use qspinlock::queue::{Cpu, Slot};
use qspinlock::slowpath::{Patience, Sleeping};
use qspinlock_vm::check::{
    CellId, CheckCell, CheckMachine, Model, Outcome, Plain, Program, Promises, Search, Verdict, World, explore,
};

/// A moment that may have come, or not, whenever somebody looks at the clock.
pub(crate) const SOON: u64 = 1;

/// Nobody spins: newcomers lie down at once. Who was woken in vain once is handed the lock.
pub(crate) const SLEEP: Patience =
    Patience { spin: 0, yields: 0, lane: 0, ask_after: 0, poll: 0, nap: u32::MAX, nap_behind: u32::MAX, turns: 1 };

/// The same, with the lane before it.
pub(crate) const LANE: Patience = Patience { lane: 1, ..SLEEP };

/// The same, where the first to lie down watches the word for a while.
pub(crate) const POLL: Patience = Patience { poll: 1, ..SLEEP };

/// A virtual CPU with such a clock.
pub(crate) struct Sleeper<'w> {
    cpu: CheckMachine<'w>,
    patience: Patience,
    is_hasty: bool,
}

impl<'w> Sleeper<'w> {
    pub(crate) fn new(world: &'w World, cpu: usize, patience: Patience, is_hasty: bool) -> Self {
        Self { cpu: CheckMachine::new(world, cpu), patience, is_hasty }
    }
}

// SAFETY: all but the clock and the patience, on which nothing rests, is the checker's.
unsafe impl<'w> Machine for Sleeper<'w> {
    type Cell = CheckCell;

    fn here(&self) -> Option<Cpu> {
        self.cpu.here()
    }

    fn slot(&self, cpu: Cpu) -> &Slot<CheckCell> {
        self.cpu.slot(cpu)
    }

    #[track_caller]
    fn until(&self, cell: &CheckCell, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        self.cpu.until(cell, access, done)
    }

    #[track_caller]
    fn until_for(
        &self,
        cell: &CheckCell,
        access: Access,
        budget: Budget,
        done: impl Fn(u32) -> bool,
    ) -> Result<u32, u32> {
        self.cpu.until_for(cell, access, budget, done)
    }

    #[track_caller]
    fn fence(&self, access: Access) {
        self.cpu.fence(access);
    }

    fn signal_fence(&self) {}

    /// Late or not: tries both. It may even go back, which is more than a clock does. For who has no deadline it stands
    /// still: a nap ends at any time as it is.
    #[track_caller]
    fn now(&self) -> u64 {
        if self.is_hasty { self.cpu.choose(2).into() } else { 0 }
    }

    #[track_caller]
    fn wait(&self, cell: &CheckCell, value: u32, access: Access, until: Option<u64>) {
        self.cpu.wait(cell, value, access, until);
    }

    #[track_caller]
    fn kick(&self, cpu: Cpu) {
        self.cpu.kick(cpu);
    }

    fn patience(&self) -> Patience {
        self.patience
    }

    fn count(&self, event: Event) {
        self.cpu.count(event);
    }
}

/// A lock, and data that it protects.
pub(crate) struct Guarded<'w, S> {
    pub(crate) lock: RawSpinLock<Sleeper<'w>, S>,
    pub(crate) word: CellId,
    data: Plain,
}

impl<'w, S: Sleeping<Sleeper<'w>>> Guarded<'w, S> {
    pub(crate) fn new(world: &'w World) -> Self {
        let cell = world.cell("word");
        let word = cell.id();
        Self { lock: RawSpinLock::from_cell(cell), word, data: world.plain("data") }
    }

    /// Nobody else is in a section.
    #[track_caller]
    pub(crate) fn touch(&self) {
        self.data.touch();
    }

    pub(crate) fn acquire(&self, m: &Sleeper<'w>) {
        let Ok(()) = self.lock.acquire_on(m);
        self.data.touch();
    }

    /// A section, if it has the lock in time.
    pub(crate) fn section_until(&self, m: &Sleeper<'w>, deadline: u64) {
        if self.lock.try_acquire_until_on(m, deadline) {
            self.data.touch();
            self.release(m);
        }
    }

    pub(crate) fn section(&self, m: &Sleeper<'w>) {
        self.acquire(m);
        self.release(m);
    }

    /// The end of a section; nobody else has been in it.
    pub(crate) fn release(&self, m: &Sleeper<'w>) {
        self.data.touch();
        // SAFETY: every caller has acquired it.
        unsafe { self.lock.release_on(m) };
    }
}

/// What one CPU does.
pub(crate) type Step<'a> = Box<dyn Fn() + 'a>;

/// Explores programs that begin at the same time, one for each CPU. At the end the words that are named must be 0.
///
/// Three CPUs mostly have millions of states. They are explored with so many preemptions at most, that is places where another
/// CPU goes on though this one could; to leave one whose sleep may end by itself is one. With `QSPINLOCK_DEEP` set, all
/// executions are: minutes each, in a release build.
pub(crate) fn explored<'a>(
    name: &str,
    world: &'a World,
    words: Vec<CellId>,
    preemptions: Option<u8>,
    programs: Vec<Step<'a>>,
) -> Outcome {
    let (cpus, ends_clean) = (programs.len(), !words.is_empty());
    let program = |program: Step<'a>| Program { sections: 1, section: Box::new(move |_| program()), interrupt: None };
    let programs = programs.into_iter().map(program).collect();
    let promises = Promises::default();
    let model = Model { world, programs, symmetric: false, interrupts: 0, words, promises, ends_clean };
    let preemptions = preemptions.filter(|_| cpus > 2 && std::env::var_os("QSPINLOCK_DEEP").is_none());
    let outcome = explore(model, &Search { time: Duration::from_secs(1200), preemptions, ..Search::default() });
    println!("{name}: {} states, {:.1?}", outcome.states, outcome.time);
    outcome
}

/// What broke, with the steps that lead there; `holds` if nothing did.
pub(crate) fn verdict(outcome: &Outcome) -> String {
    match &outcome.verdict {
        Verdict::Holds => "holds".to_owned(),
        Verdict::Broken(broken) => format!("{}\n{}", broken.what, broken.trace),
        Verdict::Unfinished(why) => panic!("not explored: {why}"),
    }
}

/// Whether some execution counted the event: a scenario that does not come to what it is about shows nothing.
pub(crate) fn comes_to(outcome: &Outcome, event: Event) -> bool {
    outcome.events >> event as u64 & 1 == 1
}
