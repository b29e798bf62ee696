//! A run of resilient locks on the virtual machine, each of whose errors is judged.

use std::cell::{Cell as StdCell, RefCell};
use std::rc::Rc;

use qspinlock::RawResilientLock;
use qspinlock::queue::Cpu;
use qspinlock::resilient::{LockErrorKind, Recorder};
use qspinlock::slowpath::Fallible;

use crate::truth::{Came, Truth};
use crate::vm::{Context, Failure, Machinery, Monitor, Setup, Shared, Vm, play};

/// Longer than anybody waits who gets on, in steps of all CPUs.
pub(crate) const LONG: u64 = 15_000;

/// A machine with records, its resilient locks, and who is in their sections.
pub(crate) struct Resilient<S: Fallible<Vm>> {
    pub(crate) vm: Vm,
    pub(crate) locks: Vec<RawResilientLock<Vm, S>>,
    shared: Rc<Shared>,
    inside: Vec<StdCell<Option<Context>>>,
    truth: Rc<RefCell<Truth>>,
    /// CPUs whose tasks are done, but for what they have forgotten; and those that are done with that.
    done: StdCell<usize>,
    ended: StdCell<usize>,
}

impl<S: Fallible<Vm>> Resilient<S> {
    pub(crate) fn random(&self, below: usize) -> usize {
        self.shared.random(below)
    }

    pub(crate) fn yield_now(&self) {
        self.shared.yield_now();
    }

    pub(crate) fn me(&self) -> Context {
        self.shared.who()
    }

    /// Takes a lock, or says why not.
    pub(crate) fn acquire(&self, lock: usize, limit: u64) -> Result<(), LockErrorKind> {
        let me = self.me();
        self.truth.borrow_mut().begins(me, lock, limit >= LONG);
        let result = self.locks[lock].acquire_within_on(&self.vm, limit).map_err(|error| error.kind());
        let report = self.vm.report_of(me);
        self.truth.borrow_mut().ends(me, result, report).unwrap_or_else(|what| panic!("{what}"));
        if result.is_ok() {
            self.comes_in(lock);
        }
        result
    }

    /// Takes a lock if it is to be had.
    pub(crate) fn try_acquire(&self, lock: usize) -> bool {
        let taken = self.locks[lock].try_acquire_on(&self.vm);
        if taken {
            self.comes_in(lock);
        }
        taken
    }

    fn comes_in(&self, lock: usize) {
        if let Some(other) = self.inside[lock].replace(Some(self.me())) {
            panic!("exclusion: {:?} and {other:?} are both in lock {lock}", self.me());
        }
        for _ in 0..self.random(3) {
            self.yield_now();
        }
    }

    pub(crate) fn release(&self, lock: usize) {
        assert_eq!(self.inside[lock].take(), Some(self.me()), "exclusion: somebody else was in lock {lock}");
        // SAFETY: acquired by this context.
        let released = unsafe { self.locks[lock].release_on(&self.vm) };
        assert_eq!(released, Ok(()), "it was held");
    }

    /// Releases locks in any order.
    pub(crate) fn release_all(&self, mut held: Vec<usize>) {
        while !held.is_empty() {
            self.release(held.swap_remove(self.random(held.len())));
        }
    }

    /// At the end of a task: waits for the others, and only then releases what was forgotten.
    fn end(&self, forgotten: Vec<usize>) {
        self.done.set(self.done.get() + 1);
        if !forgotten.is_empty() {
            while self.done.get() < self.vm.recorded() as usize {
                self.yield_now();
            }
            self.release_all(forgotten);
        }
        self.ended.set(self.ended.get() + 1);
        if S::NAME == "parking" && self.ended.get() == self.vm.recorded() as usize {
            // An unlock may have passed one that lay down, and has given up since: the next one takes its node out.
            for lock in 0..self.locks.len() {
                assert_eq!(self.acquire(lock, LONG), Ok(()), "everybody has gone");
                self.release(lock);
            }
        }
    }
}

/// Runs a task on every CPU, which gives the locks that it still holds, forgotten; and a handler as interrupts.
pub(crate) fn run<S: Fallible<Vm> + 'static>(
    setup: &Setup,
    more: Vec<Monitor>,
    task: impl Fn(&Resilient<S>, usize) -> Vec<usize> + 'static,
    handler: impl Fn(&Resilient<S>, Context) + 'static,
) -> Result<Came, Failure> {
    let (truth, monitor) = Truth::new(setup.cpus, setup.locks, S::NAME.starts_with("parking"));
    let Machinery { vm, words, .. } = Machinery::new(setup, std::iter::once(monitor).chain(more).collect(), true);
    let locks: Vec<_> = words.into_iter().map(RawResilientLock::from_cell).collect();
    vm.locks_are_at(&locks);
    let shared = vm.shared();
    let world = Rc::new(Resilient::<S> {
        vm,
        locks,
        shared: shared.clone(),
        inside: (0..setup.locks).map(|_| StdCell::new(None)).collect(),
        truth: truth.clone(),
        done: StdCell::new(0),
        ended: StdCell::new(0),
    });
    let task = move |world: &Resilient<S>, cpu: usize| {
        let forgotten = task(world, cpu);
        world.end(forgotten);
    };
    let handler = move |world: &Resilient<S>, who: Context| {
        world.truth.borrow_mut().enters_handler(who);
        handler(world, who);
        world.truth.borrow_mut().leaves_handler(who);
    };
    let left = |world: &Resilient<S>| {
        truth.borrow().nothing_is_left()?;
        let records = (0..world.vm.recorded()).filter_map(Cpu::new).map(|cpu| world.vm.record(cpu));
        match records.map(qspinlock::resilient::Record::clear).sum::<u32>() {
            0 => Ok(()),
            held => Err(format!("{held} locks are left in records")),
        }
    };
    let events = play(setup, &shared, &world, task, handler, left)?;
    let Truth { deadlocks, longest, late, is_unseen, .. } = *truth.borrow();
    Ok(Came { events, deadlocks, longest, late, is_unseen })
}
