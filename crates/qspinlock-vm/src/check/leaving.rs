//! Locks whose waiters may give up, with a vigil that does so at any time.

use std::rc::Rc;

use qspinlock::machine::{Access, Cell, Machine};
use qspinlock::slowpath::{Fallible, Vigil};
use qspinlock::word::LockWord;

use super::automaton::Program;
use super::ghost::Promises;
use super::machine::{CheckCell, CheckMachine, Plain, World};
use super::model::Model;
use super::op::CellId;
use super::scenario::{Handler, Scenario};
use super::usage::Usage;

/// A vigil that says whatever a vigil may say, whenever it is asked. No clock, no count: so nothing in it is state.
#[derive(Clone, Copy, Debug)]
pub struct Whim {
    /// It may end the wait.
    pub is_hasty: bool,
    /// It may say that a look was due.
    pub looks: bool,
}

/// The wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivesUp;

impl Whim {
    /// A wait that nothing ends, and in which no look is ever due: nobody in it can help itself.
    pub const PATIENT: Self = Self { is_hasty: false, looks: false };
    /// A wait that may end at any time.
    pub const HASTY: Self = Self { is_hasty: true, looks: false };
}

impl<M: Machine> Vigil<M> for Whim {
    type Error = GivesUp;

    /// Soon; or never. The clock stands still, and a sleep with an end ends at any time.
    fn due(&self) -> Option<u64> {
        self.is_hasty.then_some(1)
    }

    fn look(&mut self, m: &M) -> Result<bool, GivesUp> {
        let ways = 1 + u32::from(self.is_hasty) + u32::from(self.looks);
        match if ways > 1 { m.choose(ways) } else { 0 } {
            0 => Ok(false),
            1 if self.is_hasty => Err(GivesUp),
            _ => Ok(true),
        }
    }

    fn look_before_sleep(&mut self, m: &M) -> Result<(), GivesUp> {
        self.look(m).map(drop)
    }
}

const PENDING: u32 = 1 << 8;
// As the lock itself calls them, for the ghost of the word.
const PEND: Access = Access::relaxed("word.pend", "enters nothing");
const UNPEND: Access = Access::relaxed("word.unpend", "nothing is passed on");
const BEGUN: Access = Access::release("crowd.begun", "crowd.begin: they find the lock taken");
const BEGIN: Access = Access::acquire("crowd.begin", "crowd.begun");

/// A lock that may be given up, and the data that it protects.
struct Guarded<'w, S> {
    word: LockWord<CheckCell>,
    /// The same cell.
    cell: CheckCell,
    id: CellId,
    data: Plain,
    slow_path: std::marker::PhantomData<fn(&'w World) -> S>,
}

impl<'w, S: Fallible<CheckMachine<'w>>> Guarded<'w, S> {
    fn new(world: &'w World, word: &str, data: &str) -> Self {
        let cell = world.cell(word);
        let id = cell.id();
        let (same, word) = (cell.same(), LockWord::from_cell(cell));
        Self { word, cell: same, id, data: world.plain(data), slow_path: std::marker::PhantomData }
    }

    /// A section, if the lock is had before the wait ends.
    fn section(&self, m: &CheckMachine<'w>, mut whim: Whim) {
        if S::try_acquire(&self.word) || S::acquire_under(m, &self.word, &mut whim).is_ok() {
            self.leave(m);
        }
    }

    /// The same, beside any queue.
    fn section_beside(&self, m: &CheckMachine<'w>, mut whim: Whim) {
        if S::try_acquire(&self.word) || S::acquire_beside(m, &self.word, &mut whim).is_ok() {
            self.leave(m);
        }
    }

    /// The same, by the first of all, which is in the pending lane as well: the others find it taken.
    fn section_crowding(&self, m: &CheckMachine<'w>, begun: &CheckCell) {
        assert!(S::try_acquire(&self.word), "the others have not begun");
        let _ = self.cell.update(PEND, |bits| Some(bits | PENDING));
        begun.store(1, BEGUN);
        self.data.touch();
        let _ = self.cell.update(UNPEND, |bits| Some(bits & !PENDING));
        S::release(m, &self.word);
    }

    fn leave(&self, m: &CheckMachine<'w>) {
        self.data.touch();
        S::release(m, &self.word);
    }
}

/// How a CPU waits, of so many.
fn whim(usage: Usage, cpu: usize, cpus: usize) -> Whim {
    let is_last = cpu + 1 == cpus;
    match usage {
        Usage::Hasty | Usage::Crowd => Whim::HASTY,
        Usage::Rescued => Whim { is_hasty: is_last, looks: true },
        _ => Whim { is_hasty: is_last, looks: false },
    }
}

pub(super) fn model<'w, S>(scenario: &Scenario, world: &'w World) -> Model<'w>
where
    S: Fallible<CheckMachine<'w>> + 'static,
{
    let Scenario { cpus, usage, handler, interrupts, .. } = *scenario;
    let lock = Rc::new(Guarded::<S>::new(world, "word", "data"));
    let others = if handler == Handler::Other { interrupts } else { 0 };
    // One for each depth of nesting: a handler must not wait for whom it interrupted.
    let others: Rc<Vec<_>> =
        Rc::new((0..others).map(|n| Guarded::<S>::new(world, &format!("word/{n}"), &format!("data/{n}"))).collect());
    let begun = Rc::new((usage == Usage::Crowd).then(|| world.cell("begun")));
    let programs = (0..cpus).map(|cpu| {
        let (mine, same, others, begun) = (lock.clone(), lock.clone(), others.clone(), begun.clone());
        let whim = whim(usage, cpu, cpus);
        let interrupt: Box<dyn Fn(usize) + 'w> = match handler {
            Handler::Other => Box::new(move |depth| others[depth].section(&CheckMachine::new(world, cpu), whim)),
            // What it waits for may be held by whom it has interrupted, so it has to end by itself.
            Handler::Same => Box::new(move |_| same.section_beside(&CheckMachine::new(world, cpu), Whim::HASTY)),
        };
        Program {
            sections: if begun.is_some() && cpu == 0 { 1 } else { scenario.acquires },
            section: Box::new(move |_| {
                let m = CheckMachine::new(world, cpu);
                match &*begun {
                    Some(begun) if cpu == 0 => mine.section_crowding(&m, begun),
                    Some(begun) => {
                        m.until(begun, BEGIN, |begun| begun != 0);
                        mine.section(&m, whim);
                    }
                    None => mine.section(&m, whim),
                }
            }),
            interrupt: (interrupts > 0).then_some(interrupt),
        }
    });
    let programs = programs.collect();
    let promises = scenario.lock.promises();
    // Sleepers' promises are about those who stay: the suite of deadlines says why they are not judged. An unlock that
    // looks and then stores may leave an abandoned node in the queue.
    let is_judged = promises.sleeping.is_none_or(|promised| promised.holes == 0);
    let mut words = std::iter::once(lock.id).chain(others.iter().map(|other| other.id)).collect::<Vec<_>>();
    if !is_judged {
        words.clear();
    }
    let mut promises = Promises { sleeping: None, halting: None, ..promises };
    if handler == Handler::Same {
        promises.bypass = promises.bypass.map(|most| most + interrupts);
    }
    Model {
        world,
        programs,
        symmetric: usage == Usage::Hasty && scenario.domains == 1 && scenario.nodeless == 0,
        interrupts,
        words,
        promises,
        ends_clean: is_judged,
    }
}
