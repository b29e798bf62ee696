//! Resilient locks: each error must be true, and nobody may wait for ever.

use std::rc::Rc;

use qspinlock::RawResilientLock;
use qspinlock::machine::{Access, Cell};
use qspinlock::slowpath::Fallible;

use super::automaton::Program;
use super::ghost::Promises;
use super::machine::{CheckCell, CheckMachine, Plain, World};
use super::model::Model;
use super::op::CellId;
use super::scenario::{Handler, Scenario};
use super::usage::Usage;

/// Locks that a CPU holds and wants at a time: two, and one for each interrupt.
pub(super) fn room(scenario: &Scenario) -> usize {
    2 + usize::from(scenario.interrupts)
}

/// Known to the ghost of the word.
const IS_MINE: Access = Access::relaxed("judge.is-mine", "no access of the lock's");
const PHASE: Access = Access::relaxed("judge.phase", "no access of the lock's");
const REGISTER: Access = Access::relaxed("judge.register", "its CPU's own");

/// A resilient lock and the data that it protects.
struct Guarded<'w, S> {
    lock: RawResilientLock<CheckMachine<'w>, S>,
    /// The same cell as the lock's.
    word: CheckCell,
    data: Plain,
}

impl<'w, S: Fallible<CheckMachine<'w>>> Guarded<'w, S> {
    fn new(world: &'w World, n: usize) -> Self {
        let cell = world.cell(format!("word{n}"));
        let word = cell.same();
        Self { lock: RawResilientLock::from_cell(cell), word, data: world.plain(format!("data{n}")) }
    }

    fn is_had(&self, m: &CheckMachine<'w>) -> bool {
        match self.lock.acquire_on(m) {
            Ok(()) => {
                self.data.touch();
                true
            }
            Err(error) => {
                assert!(error.is_deadlock(), "time ends no wait here");
                false
            }
        }
    }

    fn release(&self, m: &CheckMachine<'w>) {
        self.data.touch();
        // SAFETY: its callers have acquired it, or want to be told that they have not.
        unsafe { self.lock.release_on(m) }.expect("it is held");
    }

    /// It is held by this very CPU, in whatever context.
    fn is_mine(&self) {
        let _ = self.word.update(IS_MINE, Some);
    }
}

/// What the CPUs do, and how far each has come: written by read-modify-writes alone, so that a read of it is never old.
struct Shared<'w, S> {
    usage: Usage,
    locks: Vec<Guarded<'w, S>>,
    phases: Vec<CheckCell>,
    /// For each CPU: it has its lock, so far as it knows; and it has looked for a deadlock, and will not look again.
    holds: Vec<CheckCell>,
    looked: Vec<CheckCell>,
}

/// Of a section of a CPU that takes two locks.
const STARTS: u32 = 0;
const WANTS: u32 = 1;
const HAS: u32 = 2;
const FAILED: u32 = 3;
const PHASES: u32 = 4;

impl<'w, S: Fallible<CheckMachine<'w>>> Shared<'w, S> {
    fn machine(&self, world: &'w World, cpu: usize) -> CheckMachine<'w> {
        CheckMachine::new(world, cpu)
    }

    fn set(&self, cpu: usize, section: usize, phase: u32) {
        let _ = self.phases[cpu].update(PHASE, |_| Some(section as u32 * PHASES + phase));
    }

    fn others(&self, cpu: usize) -> impl Iterator<Item = u32> {
        let of = |(_, phase): (usize, &CheckCell)| phase.update(PHASE, Some).unwrap_or_else(|phase| phase);
        self.phases.iter().enumerate().filter(move |&(other, _)| other != cpu).map(of)
    }

    /// One lock and then another one; who is told of a deadlock makes do with the first.
    fn two(&self, m: &CheckMachine<'w>, section: usize) {
        let cpu = m.cpu();
        let is_circle = self.usage != Usage::Ordered;
        let (first, second) = match is_circle {
            true => (&self.locks[cpu], &self.locks[(cpu + 1) % self.locks.len()]),
            false => (&self.locks[0], &self.locks[1]),
        };
        self.begins_to_wait(m);
        assert!(first.is_had(m), "deadlock: cpu {cpu} holds nothing, and is told of a deadlock");
        let mut before = [0; 2];
        if is_circle {
            before.iter_mut().zip(self.others(cpu)).for_each(|(before, phase)| *before = phase);
            self.set(cpu, section, WANTS);
        }
        self.begins_to_wait(m);
        let has_both = second.is_had(m);
        if has_both {
            if is_circle {
                self.set(cpu, section, HAS);
            }
            second.release(m);
        } else {
            assert!(is_circle, "deadlock: all take their locks in the same order, and cpu {cpu} is told of a deadlock");
            // Each other one has wanted its second lock at some time since we had our first.
            for (before, now) in before.into_iter().zip(self.others(cpu)) {
                let has_wanted = (before..=now).any(|phase| phase % PHASES == WANTS);
                assert!(has_wanted, "deadlock: cpu {cpu} is told of one in which somebody did not wait");
            }
            self.set(cpu, section, FAILED);
        }
        first.release(m);
        self.begins_to_wait(m);
        if is_circle {
            self.set(cpu, section + 1, STARTS);
        }
    }

    fn begins_to_wait(&self, m: &CheckMachine<'w>) {
        if self.usage == Usage::Once {
            self.looked[m.cpu()].store(0, REGISTER);
        }
    }

    /// The same lock again, by one of them.
    fn again(&self, m: &CheckMachine<'w>) {
        let lock = &self.locks[0];
        assert!(lock.is_had(m), "deadlock: cpu {} holds nothing, and is told of a deadlock", m.cpu());
        self.holds[m.cpu()].store(1, REGISTER);
        if self.usage == Usage::Again && m.cpu() == 0 {
            assert!(!lock.is_had(m), "a lock is held twice");
            lock.is_mine();
        }
        self.holds[m.cpu()].store(0, REGISTER);
        lock.release(m);
    }

    /// An interrupt wants the lock of whom it interrupts, or that another CPU has.
    fn interrupt(&self, m: &CheckMachine<'w>) {
        let lock = &self.locks[0];
        let is_held = self.holds[m.cpu()].load(REGISTER) == 1;
        if lock.is_had(m) {
            assert!(!is_held, "a lock is held twice");
            lock.release(m);
        } else {
            lock.is_mine();
        }
    }
}

pub(super) fn model<'w, S>(scenario: &Scenario, world: &'w World) -> Model<'w>
where
    S: Fallible<CheckMachine<'w>> + 'static,
{
    let Scenario { cpus, usage, handler, interrupts, .. } = *scenario;
    let locks = match usage {
        Usage::Circle | Usage::Once => cpus,
        Usage::Ordered => 2,
        _ => 1,
    };
    let registers = |what: &str| (0..cpus).map(|cpu| world.register(cpu, format!("cpu{cpu}.{what}"))).collect();
    let shared = Rc::new(Shared::<S> {
        usage,
        locks: (0..locks).map(|n| Guarded::new(world, n)).collect(),
        phases: (0..cpus).map(|cpu| world.cell(format!("phase{cpu}"))).collect(),
        holds: registers("holds"),
        looked: registers("looked"),
    });
    let programs = (0..cpus).map(|cpu| {
        let (mine, same) = (shared.clone(), shared.clone());
        let interrupt: Box<dyn Fn(usize) + 'w> = Box::new(move |_| same.interrupt(&CheckMachine::new(world, cpu)));
        let looked = (usage == Usage::Once).then(|| shared.looked[cpu].id());
        Program {
            sections: scenario.acquires,
            section: Box::new(move |section| {
                let m = mine.machine(world, cpu).looking_once(looked);
                match usage {
                    Usage::Again | Usage::Alone => mine.again(&m),
                    _ => mine.two(&m, section),
                }
            }),
            interrupt: (interrupts > 0 && handler == Handler::Same).then_some(interrupt),
        }
    });
    let programs = programs.collect();
    let promises = scenario.lock.promises();
    let words: Vec<CellId> = shared.locks.iter().map(|lock| lock.word.id()).collect();
    let is_clean = promises.sleeping.is_none_or(|promised| promised.holes == 0);
    Model {
        world,
        programs,
        symmetric: false,
        interrupts: if handler == Handler::Same { interrupts } else { 0 },
        words: if is_clean { words } else { Vec::new() },
        // What is promised to waiters of one lock is explored of locks that can be left.
        promises: Promises::default(),
        ends_clean: is_clean,
    }
}
