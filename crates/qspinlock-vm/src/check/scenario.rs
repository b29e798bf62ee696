//! Scenarios: a lock, so many CPUs, and what they do with it.

use std::convert::Infallible;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use qspinlock::RawSpinLock;
use qspinlock::slowpath::{Fallible, Native, Numa, Paravirt, Parking, ParkingExact, SlowPath, TestAndSet};

use super::automaton::Program;
use super::ghost::Promises;
use super::halting::Halting;
use super::leaving;
use super::machine::{CheckMachine, Plain, Sorting, Waiting, World};
use super::model::{MAX_CPUS, MAX_WORDS, Model, Outcome, Search};
use super::near::Near;
use super::queued::QueuedNuma;
use super::resilient;
use super::search::{explore, replay};
use super::sleepers::Sleeping;
use super::trace::Trace;
use super::usage::{Beside, Usage};

macro_rules! locks {
    ($($(#[doc = $about:literal])* $variant:ident = $path:ty, fifo: $fifo:literal, bypass: $bypass:literal $(, holes: $holes:literal)? $(, slips: $slips:literal)?;)*) => {
        /// A slow path that can be explored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Lock {
            $($(#[doc = $about])* $variant,)*
        }

        impl Lock {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, as the user writes it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => <$path as SlowPath<CheckMachine<'_>>>::NAME,)* }
            }

            /// What it promises beyond exclusion and progress.
            #[must_use]
            pub const fn promises(self) -> Promises {
                match self {
                    $(Self::$variant => Promises {
                        fifo: $fifo,
                        near: None,
                        bypass: if $bypass { Some(1) } else { None },
                        // In the checker's machine, as many turns in vain as there must be for there to be any.
                        sleeping: [$(Some(Sleeping { holes: $holes, turns: 1 }),)? None][0],
                        halting: [$(Some(Halting { turns: 1, slips: $slips }),)? None][0],
                    },)*
                }
            }

            /// Whether its waiters are virtual CPUs, which halt.
            #[must_use]
            pub const fn halts(self) -> bool {
                self.promises().halting.is_some()
            }

            /// Whether its waiters are threads, which sleep.
            #[must_use]
            pub const fn sleeps(self) -> bool {
                self.promises().sleeping.is_some()
            }

            /// Whether a lock stays in one domain for a while.
            #[must_use]
            pub const fn sorts(self) -> bool {
                matches!(self, Self::Numa)
            }

            fn model(self, scenario: &Scenario, world: &World, with: impl FnOnce(Model<'_>)) {
                match self {
                    Self::Numa if scenario.waiting == Waiting::Queue => with(scenario.model::<QueuedNuma>(world)),
                    $(Self::$variant => with(scenario.model::<$path>(world)),)* }
            }
        }
    };
}

locks! {
    /// The queued spinlock.
    Native = Native, fifo: true, bypass: true;
    /// CPUs of several domains.
    Numa = Numa, fifo: false, bypass: true;
    /// Virtual CPUs.
    Paravirt = Paravirt, fifo: false, bypass: false, slips: 1;
    /// Waiters that sleep.
    Parking = Parking, fifo: false, bypass: false, holes: 1;
    /// The same, with nothing that covers a mistake.
    ParkingExact = ParkingExact, fifo: false, bypass: false, holes: 0;
    /// The fallback without a queue.
    TestAndSet = TestAndSet, fifo: false, bypass: false;
}

impl FromStr for Lock {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|lock| lock.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|lock| lock.name()).collect();
            format!("unknown lock '{name}'; known are {}", names.join(", "))
        })
    }
}

/// What an interrupt does with locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handler {
    /// Takes and releases another lock, which only interrupts take that nest as deep.
    Other,
    /// Tries the same lock, and does a section if it gets it. Waiting for it could be waiting for whom it interrupted.
    Same,
}

/// What is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scenario {
    /// The slow path.
    pub lock: Lock,
    /// CPUs that contend.
    pub cpus: usize,
    /// Acquisitions by each.
    pub acquires: usize,
    /// Memory domains that the CPUs are spread over.
    pub domains: u32,
    /// Interrupts that may arrive on each CPU, before any access.
    pub interrupts: u8,
    /// What they do.
    pub handler: Handler,
    /// CPUs, the last ones, that have no queue node.
    pub nodeless: usize,
    /// Where a lock stays in one domain for a while: what heads do about waiters of others. Nothing to other locks.
    pub sorting: Sorting,
    /// CPUs, the last ones, whose waiters are urgent. Nothing to other locks.
    pub urgent: usize,
    /// What those do before they sleep who wait for a lock whose waiters sleep. Nothing to others.
    pub waiting: Waiting,
    /// What is done with the lock beside.
    pub usage: Usage,
}

impl Scenario {
    /// So many CPUs that acquire so often; no interrupts, one domain.
    #[must_use]
    pub const fn new(lock: Lock, cpus: usize, acquires: usize) -> Self {
        let (handler, sorting, waiting, usage) = (Handler::Other, Sorting::Always, Waiting::All, Usage::Plain);
        let (domains, interrupts, nodeless, urgent) = (1, 0, 0, 0);
        Self { lock, cpus, acquires, domains, interrupts, handler, nodeless, sorting, urgent, waiting, usage }
    }

    /// The same, with interrupts.
    #[must_use]
    pub const fn interrupted(self, interrupts: u8, handler: Handler) -> Self {
        Self { interrupts, handler, ..self }
    }

    /// The same, with CPUs of so many domains, and heads that treat waiters of others so.
    #[must_use]
    pub const fn spread(self, domains: u32, sorting: Sorting) -> Self {
        Self { domains, sorting, ..self }
    }

    /// The same, with waiters that do this before they sleep.
    #[must_use]
    pub const fn waiting(self, waiting: Waiting) -> Self {
        Self { waiting, ..self }
    }

    /// The same, with the lock used in this way.
    #[must_use]
    pub const fn used(self, usage: Usage) -> Self {
        Self { usage, ..self }
    }

    /// Whether it can be explored at all.
    ///
    /// # Errors
    /// What makes no sense, and what would.
    pub fn validate(&self) -> Result<(), String> {
        let ranges = [
            ("CPUs", self.cpus, 1, MAX_CPUS),
            ("acquisitions", self.acquires, 1, 16),
            ("domains", self.domains as usize, 1, MAX_CPUS),
            ("interrupts", self.interrupts.into(), 0, MAX_WORDS - 1),
            ("CPUs without a node", self.nodeless, 0, self.cpus),
            ("urgent CPUs", self.urgent, 0, self.cpus),
        ];
        for (what, is, least, most) in ranges {
            if !(least..=most).contains(&is) {
                return Err(format!("{is} {what}: at least {least} and at most {most} can be explored"));
            }
        }
        let is_sorted = self.waiting == Waiting::Queue || self.sorting != Sorting::Always || self.urgent > 0;
        if is_sorted && !(self.lock.sorts() && self.usage == Usage::Plain) {
            return Err(format!("{} sets no waiter aside: --lock numa, with no --usage", self.lock.name()));
        }
        if self.lock.halts() && self.waiting == Waiting::Lane {
            return Err(format!("{} has no lane that a waiter could be in", self.lock.name()));
        }
        if self.usage == Usage::Moved && self.cpus < 2 {
            return Err("a guard can not be moved: at least 2 CPUs".to_owned());
        }
        if matches!(self.usage, Usage::Circle | Usage::Once) && !(2..=3).contains(&self.cpus) {
            return Err("a circle of 2 or 3 CPUs can be explored".to_owned());
        }
        if self.usage.is_resilient()
            && self.interrupts > 0
            && (self.handler, self.usage) != (Handler::Same, Usage::Alone)
        {
            return Err(
                "an interrupt of a resilient lock takes the same lock: --handler same --usage resilient".to_owned()
            );
        }
        if self.usage == Usage::Freed && self.interrupts > 0 && self.handler == Handler::Same {
            return Err("an interrupt may not try a lock that may be freed".to_owned());
        }
        Ok(())
    }

    /// Explores it.
    #[must_use]
    pub fn explore(&self, search: &Search) -> Outcome {
        let world = self.world();
        let mut outcome = None;
        self.lock.model(self, &world, |model| outcome = Some(explore(model, search)));
        outcome.expect("every lock has a model")
    }

    /// Follows one execution of it. What broke in it, if anything did.
    ///
    /// # Errors
    /// If the choices lead nowhere: they are of other code.
    pub fn replay(&self, search: &Search, choices: &[u32]) -> Result<(Option<String>, Trace), String> {
        let world = self.world();
        let mut result = Ok((None, Trace::default()));
        self.lock.model(self, &world, |model| result = replay(model, search, choices));
        result
    }

    fn world(&self) -> World {
        let mut world =
            World::new(self.cpus, self.domains).with_nodeless(self.nodeless).with_sorting(self.sorting, self.urgent);
        if self.usage.is_resilient() {
            world = world.with_records(resilient::room(self));
        }
        match self.lock.halts() {
            true => world.with_patience(self.waiting.patience_of_halting()),
            false => world.with_waiting(self.waiting),
        }
    }

    fn model<'w, S>(&self, world: &'w World) -> Model<'w>
    where
        S: Fallible<CheckMachine<'w>> + 'static,
    {
        if self.usage.may_leave() {
            return leaving::model::<S>(self, world);
        }
        if self.usage.is_resilient() {
            return resilient::model::<S>(self, world);
        }
        let lock = Rc::new(Guarded::<S>::new(world, "word", "data"));
        // One for each depth of nesting: a handler must not wait for whom it interrupted.
        let others: Rc<Vec<_>> = Rc::new(
            (0..if self.handler == Handler::Other { self.interrupts } else { 0 })
                .map(|n| Guarded::<S>::new(world, &format!("word/{n}"), &format!("data/{n}")))
                .collect(),
        );
        let shared = Rc::new(Beside::new(world, self.usage));
        let takers = if self.usage == Usage::Moved { self.cpus - 1 } else { self.cpus };
        let all = takers * self.acquires;
        let programs = (0..self.cpus)
            .map(|cpu| {
                let beside = shared.clone();
                let (mine, same, others) = (lock.clone(), lock.clone(), others.clone());
                let interrupt: Box<dyn Fn(usize) + 'w> = match self.handler {
                    Handler::Other => Box::new(move |depth| others[depth].section(&CheckMachine::new(world, cpu))),
                    Handler::Same => Box::new(move |_| same.try_section(&CheckMachine::new(world, cpu))),
                };
                let m = CheckMachine::new(world, cpu);
                Program {
                    sections: if cpu < takers { self.acquires } else { all },
                    section: Box::new(move |_| match cpu < takers {
                        true => beside.section(&m, &mine, all),
                        false => beside.release(&m, &mine),
                    }),
                    interrupt: (self.interrupts > 0).then_some(interrupt),
                }
            })
            .collect();
        let mut promises = self.lock.promises();
        if self.lock.sorts() {
            let urgent_from = (self.cpus - self.urgent) as u8;
            match self.domains {
                1 => promises.fifo = true,
                domains => promises.near = Some(Near { domains, urgent_from }),
            }
        }
        if self.handler == Handler::Same {
            // Each context that looked before may pass once.
            promises.bypass = promises.bypass.map(|most| most + self.interrupts);
            promises.halting = promises.halting.map(|p| Halting { slips: p.slips + self.interrupts, ..p });
        }
        Model {
            world,
            programs,
            symmetric: self.domains == 1 && self.nodeless == 0 && self.urgent == 0 && self.usage != Usage::Moved,
            interrupts: self.interrupts,
            words: std::iter::once(lock.word).chain(others.iter().map(|other| other.word)).collect(),
            promises,
            ends_clean: true,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}x{}", self.lock.name(), self.cpus, self.acquires)?;
        if self.waiting != Waiting::All {
            write!(f, ", {}", self.waiting.name())?;
        }
        if self.interrupts > 0 {
            let handler = if self.handler == Handler::Same { "same" } else { "other" };
            let s = if self.interrupts == 1 { "" } else { "s" };
            write!(f, ", {} interrupt{s} on the {handler} lock", self.interrupts)?;
        }
        if self.nodeless > 0 {
            write!(f, ", {} without a node", self.nodeless)?;
        }
        if self.domains > 1 {
            write!(f, ", {} domains", self.domains)?;
        }
        if self.sorting != Sorting::Always {
            write!(f, ", {}", self.sorting.name())?;
        }
        if self.urgent > 0 {
            write!(f, ", {} urgent", self.urgent)?;
        }
        if self.usage != Usage::Plain {
            write!(f, ", {}", self.usage.name())?;
        }
        Ok(())
    }
}

/// A lock and the data that it protects.
pub(super) struct Guarded<'w, S> {
    pub(super) lock: RawSpinLock<CheckMachine<'w>, S>,
    pub(super) word: super::op::CellId,
    pub(super) data: Plain,
}

impl<'w, S> Guarded<'w, S>
where
    S: SlowPath<CheckMachine<'w>, Error = Infallible>,
{
    fn new(world: &'w World, word: &str, data: &str) -> Self {
        let cell = world.cell(word);
        let word = cell.id();
        Self { lock: RawSpinLock::from_cell(cell), word, data: world.plain(data) }
    }

    pub(super) fn section(&self, m: &CheckMachine<'w>) {
        let Ok(()) = self.lock.acquire_on(m);
        self.data.touch();
        // SAFETY: acquired above.
        unsafe { self.lock.release_on(m) };
    }

    fn try_section(&self, m: &CheckMachine<'w>) {
        if self.lock.try_acquire_on(m) {
            self.data.touch();
            // SAFETY: acquired above.
            unsafe { self.lock.release_on(m) };
        }
    }
}
