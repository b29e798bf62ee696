//! Virtual CPUs that give up waiting, explored: whoever gives up, wherever it stands, leaves nobody behind without a head, takes
//! nobody's wake-up away, and has the lock if and only if it says so.

#[path = "oracle/watchdog.rs"]
mod watchdog;

use std::collections::HashMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use qspinlock::machine::{Access, Budget, Cell, Event, Machine, Ordering};
use qspinlock::queue::{Cpu, Slot};
use qspinlock::slowpath::{Fallible, Paravirt, Patience, SlowPath, Vigil};
use qspinlock::word::LockWord;
use qspinlock_vm::check::{
    CellId, CheckCell, CheckMachine, Halting, Model, Outcome, Plain, Program, Promises, Search, Verdict, World,
    explore, free,
};
use watchdog::Watchdog;

/// Nobody spins: newcomers queue at once, and sleep. Who was woken in vain once starves.
const SLEEP: Patience = Patience { spin: 0, yields: 0, lane: 0, poll: 0, turns: 1, ..Patience::DEFAULT };

/// They look at their node, or the lock, before they sleep.
const SPIN: Patience = Patience { lane: 1, ..SLEEP };

/// What a CPU does with the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// Takes it, for as long as it lasts, as a plain lock does.
    Plainly,
    /// The same, twice.
    PlainlyTwice,
    /// The same, but under a vigil that looks, and takes the lock past all if it stands still.
    Patiently,
    /// Gives up at some time.
    Hastily,
    /// The same, twice.
    HastilyTwice,
}

use Waits::{Hastily, HastilyTwice, Patiently, Plainly, PlainlyTwice};

/// Ends the wait at any look, or not; or says that a look was due.
struct Whim {
    may_end: bool,
}

impl Vigil<Waiter<'_>> for Whim {
    type Error = ();

    fn due(&self) -> Option<u64> {
        Some(0)
    }

    fn look(&mut self, m: &Waiter<'_>) -> Result<bool, ()> {
        match m.choose(if self.may_end { 3 } else { 2 }) {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(()),
        }
    }

    fn look_before_sleep(&mut self, m: &Waiter<'_>) -> Result<(), ()> {
        if self.may_end && m.choose(2) == 1 { Err(()) } else { Ok(()) }
    }
}

struct Waiter<'w> {
    cpu: CheckMachine<'w>,
    patience: Patience,
}

// SAFETY: all but the patience, on which nothing rests, is the checker's.
unsafe impl<'w> Machine for Waiter<'w> {
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

    fn now(&self) -> u64 {
        0
    }

    #[track_caller]
    fn wait(&self, cell: &CheckCell, value: u32, access: Access, until: Option<u64>) {
        self.cpu.wait(cell, value, access, until);
    }

    #[track_caller]
    fn kick(&self, cpu: Cpu) {
        self.cpu.kick(cpu);
    }

    #[track_caller]
    fn yield_cpu(&self) {
        self.cpu.yield_cpu();
    }

    fn patience(&self) -> Patience {
        self.patience
    }

    #[track_caller]
    fn choose(&self, n: u32) -> u32 {
        self.cpu.choose(n)
    }

    fn count(&self, event: Event) {
        self.cpu.count(event);
    }
}

/// A lock, and data that it protects.
struct Guarded {
    word: LockWord<CheckCell>,
    id: CellId,
    data: Plain,
    /// How many have done with the lock, if the last one is to free it.
    done: Option<CheckCell>,
}

const DONE: Access = Access::acq_rel("lock.done", "itself: the last one comes after all others");

impl Guarded {
    fn new(world: &World, name: &str, is_freed: bool) -> Self {
        let cell = world.cell(name);
        let id = cell.id();
        let done = is_freed.then(|| world.cell(format!("{name}.done")));
        Self { word: LockWord::from_cell(cell), id, data: world.plain(format!("{name}.data")), done }
    }

    fn section(&self, m: &Waiter<'_>, waits: Waits, users: u32) {
        let is_ours = self.word.try_acquire()
            || match waits {
                Plainly | PlainlyTwice => {
                    let Ok::<(), Infallible>(()) = Paravirt::acquire(m, &self.word);
                    true
                }
                Patiently => {
                    let came = Paravirt::acquire_under(m, &self.word, &mut Whim { may_end: false });
                    assert!(came.is_ok(), "gave up");
                    true
                }
                Hastily | HastilyTwice => Paravirt::acquire_under(m, &self.word, &mut Whim { may_end: true }).is_ok(),
            };
        // Who leaves cannot know whether an unlock is still to come, so it is an owner that frees the lock.
        let is_last = self.done.as_ref().is_some_and(|done| done.update(DONE, |n| Some(n + 1)) == Ok(users - 1));
        if is_ours {
            self.data.touch();
            <Paravirt as SlowPath<Waiter<'_>>>::release(m, &self.word);
            if is_last {
                free(self.id);
            }
        }
    }
}

/// What is explored.
#[derive(Clone, Copy)]
struct Scenario<'a> {
    patience: Patience,
    cpus: &'a [Waits],
    nodeless: usize,
    /// Interrupts on each CPU, which take another lock of their own, hastily.
    interrupts: u8,
    is_freed: bool,
    /// So many at most, where there are many states.
    preemptions: u8,
}

impl<'a> Scenario<'a> {
    const fn new(patience: Patience, cpus: &'a [Waits]) -> Self {
        Self { patience, cpus, nodeless: 0, interrupts: 0, is_freed: false, preemptions: 2 }
    }

    /// Three CPUs have too many states for every run of the tests: so many preemptions at most, unless `QSPINLOCK_DEEP` is set.
    fn explored(&self, orders: HashMap<&'static str, Ordering>) -> Outcome {
        let world = World::new(self.cpus.len(), 1).with_nodeless(self.nodeless);
        let lock = Rc::new(Guarded::new(&world, "word", self.is_freed));
        let other = Rc::new((self.interrupts > 0).then(|| Guarded::new(&world, "word/0", false)));
        let users = self.cpus.len() as u32;
        let program = |(cpu, &waits): (usize, &Waits)| {
            let m = |patience| Waiter { cpu: CheckMachine::new(&world, cpu), patience };
            let (lock, other, mine, handlers) = (lock.clone(), other.clone(), m(self.patience), m(self.patience));
            let interrupt: Box<dyn Fn(usize) + '_> = Box::new(move |_| {
                if let Some(other) = &*other {
                    other.section(&handlers, Hastily, 0);
                }
            });
            Program {
                sections: if matches!(waits, PlainlyTwice | HastilyTwice) { 2 } else { 1 },
                section: Box::new(move |_| lock.section(&mine, waits, users)),
                interrupt: (self.interrupts > 0).then_some(interrupt),
            }
        };
        let model = Model {
            world: &world,
            programs: self.cpus.iter().enumerate().map(program).collect(),
            symmetric: false,
            interrupts: self.interrupts,
            words: std::iter::once(lock.id).chain(other.iter().map(|other| other.id)).collect(),
            promises: Promises { halting: Some(Halting { turns: 1, slips: 1 }), ..Promises::default() },
            ends_clean: true,
        };
        let is_large = users > 2 || self.interrupts > 0;
        let preemptions = (is_large && std::env::var_os("QSPINLOCK_DEEP").is_none()).then_some(self.preemptions);
        let outcome =
            explore(model, &Search { time: Duration::from_secs(1200), preemptions, orders, ..Search::default() });
        let Self { patience, cpus, nodeless, interrupts, is_freed, .. } = self;
        println!(
            "{cpus:?}, lane {}, {nodeless} without a node, {interrupts} interrupts, freed {is_freed}: {} states, {:.1?}",
            patience.lane, outcome.states, outcome.time
        );
        outcome
    }

    fn holds(&self) -> Outcome {
        let outcome = self.explored(HashMap::new());
        assert_eq!(verdict(&outcome), "holds", "{:?}", self.cpus);
        // Whoever has left, no node says that it is in use. (Those of the levels say what they last said.)
        for (name, value) in outcome.finals.iter().flatten() {
            let is_place = name.contains('/') && name.ends_with(".grant");
            let level = name.split(['/', '.']).nth(1).and_then(|level| level.parse::<usize>().ok());
            assert!(!is_place || level < Some(4) || *value == 0, "{name} is in use: {value}");
        }
        outcome
    }
}

/// What broke, with the steps that lead there; `holds` if nothing did.
fn verdict(outcome: &Outcome) -> String {
    match &outcome.verdict {
        Verdict::Holds => "holds".to_owned(),
        Verdict::Broken(broken) => format!("{}\n{}", broken.what, broken.trace),
        Verdict::Unfinished(why) => panic!("not explored: {why}"),
    }
}

/// Whether some execution counted the event: a scenario that does not come to what it is about shows nothing.
fn comes_to(outcome: &Outcome, event: Event) -> bool {
    outcome.events >> event as u64 & 1 == 1
}

fn watched(test: &'static str) -> Watchdog {
    Watchdog::after(Duration::from_secs(3600), test)
}

#[test]
fn two_of_whom_one_gives_up() {
    let _watchdog = watched("two_of_whom_one_gives_up");
    for patience in [SLEEP, SPIN] {
        for cpus in [[Plainly, Hastily], [Patiently, Hastily], [PlainlyTwice, Hastily], [Hastily, Hastily]] {
            Scenario::new(patience, &cpus).holds();
        }
    }
    let outcome = Scenario::new(SLEEP, &[PlainlyTwice, HastilyTwice]).holds();
    // A head that slept has left its node to the unlock that was to wake it.
    assert!(comes_to(&outcome, Event::Abandoned));
}

/// The last of them cannot wait for a successor, and leaves an empty queue.
#[test]
fn all_give_up() {
    let _watchdog = watched("all_give_up");
    Scenario::new(SLEEP, &[Hastily, Hastily, Hastily]).holds();
    Scenario::new(SPIN, &[HastilyTwice, HastilyTwice]).holds();
}

#[test]
fn three_of_whom_some_give_up() {
    let _watchdog = watched("three_of_whom_some_give_up");
    for cpus in [[Plainly, Plainly, Hastily], [Plainly, Patiently, Hastily], [Plainly, Hastily, Hastily]] {
        let outcome = Scenario::new(SLEEP, &cpus).holds();
        assert!(comes_to(&outcome, Event::Abandoned));
    }
}

/// The last one to own the lock, when all others have left it or unlock it, gives its memory back.
#[test]
fn a_lock_that_is_freed() {
    let _watchdog = watched("a_lock_that_is_freed");
    Scenario { is_freed: true, ..Scenario::new(SPIN, &[Plainly, Hastily]) }.holds();
    Scenario { is_freed: true, ..Scenario::new(SLEEP, &[Plainly, Hastily, Hastily]) }.holds();
}

/// A handler that gives up on a lock of its own takes nothing away from whom it interrupts.
#[test]
fn interrupts_that_give_up() {
    let _watchdog = watched("interrupts_that_give_up");
    Scenario { interrupts: 1, ..Scenario::new(SLEEP, &[Plainly, Hastily]) }.holds();
}

#[test]
fn who_has_no_node_is_in_nobodys_way() {
    let _watchdog = watched("who_has_no_node_is_in_nobodys_way");
    let outcome = Scenario { nodeless: 1, ..Scenario::new(SLEEP, &[Plainly, Hastily, Hastily]) }.holds();
    assert!(comes_to(&outcome, Event::NoNode));
}

/// Every order that leaving rests on: each is needed.
#[test]
fn a_missing_order_is_found() {
    let _watchdog = watched("a_missing_order_is_found");
    let three = Scenario { preemptions: 3, ..Scenario::new(SLEEP, &[PlainlyTwice, Plainly, Hastily]) };
    for name in ["turn.head", "turn.promote", "turn.wake", "word.step-down"] {
        let outcome = three.explored(HashMap::from([(name, Ordering::Relaxed)]));
        assert_ne!(verdict(&outcome), "holds", "{name}");
    }
    let outcome = three.holds();
    assert!(outcome.accesses.iter().any(|access| access.name == "word.take-back"));
    assert!(outcome.accesses.iter().any(|access| access.name == "sleepers.disband"));
}
