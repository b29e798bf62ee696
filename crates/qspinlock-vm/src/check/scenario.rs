//! Scenarios: a lock, so many CPUs, and what they do with it.

use qspinlock::RawSpinLock;
use qspinlock::slowpath::{Native, SlowPath, TestAndSet};

use super::automaton::Program;
use super::ghost::Promises;
use super::machine::{CheckMachine, World};
use super::search::{Model, Outcome, Search, explore};

/// A lock that can be explored. A slow path joins by a line here and one in `with`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lock {
    /// The queued spinlock.
    Native,
    /// The fallback without a queue.
    TestAndSet,
}

impl Lock {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Native, Self::TestAndSet];

    /// Its name, as the user writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::TestAndSet => "test-and-set",
        }
    }

    /// What it promises beyond exclusion and progress.
    #[must_use]
    pub const fn promises(self) -> Promises {
        match self {
            Self::Native => Promises { fifo: true, bypass_once: true },
            Self::TestAndSet => Promises { fifo: false, bypass_once: false },
        }
    }
}

/// What is explored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scenario {
    /// The lock.
    pub lock: Lock,
    /// CPUs that contend.
    pub cpus: usize,
    /// Acquisitions by each.
    pub acquires: usize,
    /// Memory domains that the CPUs are spread over.
    pub domains: u32,
    /// Interrupts that may arrive on each CPU, at any step.
    pub interrupts: u8,
}

impl Scenario {
    /// Explores it.
    #[must_use]
    pub fn explore(&self, search: &Search) -> Outcome {
        let world = World::new(self.cpus, self.domains);
        match self.lock {
            Lock::Native => explore(self.model::<Native>(&world), search),
            Lock::TestAndSet => explore(self.model::<TestAndSet>(&world), search),
        }
    }

    fn model<'w, S>(&self, world: &'w World) -> Model<'w>
    where
        S: for<'a> SlowPath<CheckMachine<'a>, Error = std::convert::Infallible> + 'static,
    {
        let cell = world.cell("word");
        let id = cell.id();
        let lock = std::rc::Rc::new(RawSpinLock::<CheckMachine<'w>, S>::from_cell(cell));
        let data = std::rc::Rc::new(world.plain("data"));
        let programs = (0..self.cpus)
            .map(|cpu| {
                let machine = CheckMachine::new(world, cpu);
                let (lock, data) = (lock.clone(), data.clone());
                Program {
                    sections: self.acquires,
                    section: Box::new(move |_| {
                        let Ok(()) = lock.acquire_on(&machine);
                        data.touch();
                        // SAFETY: acquired above.
                        unsafe { lock.release_on(&machine) };
                    }),
                    interrupt: None,
                }
            })
            .collect();
        Model {
            world,
            programs,
            symmetric: true,
            interrupts: 0,
            words: if std::env::var("NOGHOST").is_ok() { vec![] } else { vec![id] },
            promises: self.lock.promises(),
            ends_clean: true,
        }
    }
}
