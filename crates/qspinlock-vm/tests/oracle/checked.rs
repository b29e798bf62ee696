//! What the checker says of a program.

use std::rc::Rc;

use qspinlock::machine::{Access, Budget, Cell, Machine};
use qspinlock_vm::check::{
    CheckCell, CheckMachine, Model, Outcome, Plain, Program as Checked, Promises, Search, Verdict, World, explore,
};

use super::Behaviour;
use super::program::{Action, CELLS, Program, Step};

struct Shared {
    cells: Vec<CheckCell>,
    data: Plain,
}

/// Explores a program. `symmetric`: its threads do the same.
pub(crate) fn outcome(program: &Program, symmetric: bool, search: &Search) -> Outcome {
    let world = World::new(program.0.len(), 1);
    let shared = Rc::new(Shared { cells: CELLS.map(|name| world.cell(name)).into(), data: world.plain("data") });
    let thread = |(cpu, steps): (usize, &Vec<Step>)| {
        let machine = CheckMachine::new(&world, cpu);
        let registers: Vec<CheckCell> = steps.iter().map(|step| world.register(cpu, step.to.clone())).collect();
        let (shared, steps) = (shared.clone(), steps.clone());
        Checked {
            sections: 1,
            section: Box::new(move |_| {
                for (step, register) in steps.iter().zip(&registers) {
                    run(&machine, &shared, step, register);
                }
            }),
            interrupt: None,
        }
    };
    explore(Model { symmetric, ..model(&world, program.0.iter().enumerate().map(thread).collect()) }, search)
}

/// Programs of which nothing is promised but that they end, without a race.
pub(crate) fn model<'w>(world: &'w World, programs: Vec<Checked<'w>>) -> Model<'w> {
    Model {
        world,
        programs,
        symmetric: false,
        interrupts: 0,
        words: Vec::new(),
        promises: Promises::default(),
        ends_clean: false,
    }
}

// Not inlined: its frame is gone when the next step begins, so that nothing of a finished step tells states apart.
#[inline(never)]
fn run(m: &CheckMachine<'_>, shared: &Shared, step: &Step, register: &CheckCell) {
    let access = Access { name: "step", order: step.order, pairs: "" };
    let cell = &shared.cells[step.cell];
    let either = |result: Result<u32, u32>| result.unwrap_or_else(|found| found);
    let value = match step.action {
        Action::Load => cell.load(access),
        Action::Glance => either(m.until_for(cell, access, Budget::Looks { most: 1, apart: 1 }, |v| v != 0)),
        Action::Await(want) => m.until(cell, access, |v| want.is_met(v)),
        Action::Cas { old, new } => either(cell.cas(old, new, access)),
        Action::Add(by) => either(cell.update(access, |v| Some(v.wrapping_add(by)))),
        Action::Store(value) => return cell.store(value, access),
        Action::Fence => return m.fence(access),
        Action::Touch => return shared.data.touch(),
    };
    register.store(value, Access::relaxed("register", "a test looks at it at the end"));
}

/// What the checker found, in the terms of the axioms. It stops at the first failure, so of `hangs` and `races` one is
/// true at most, and then `finals` are not all.
///
/// # Panics
/// If it did not finish, or found what a program of this kind cannot do.
pub(crate) fn behaviour(outcome: &Outcome) -> Behaviour {
    let mut behaviour = Behaviour { finals: outcome.finals.iter().cloned().collect(), ..Behaviour::default() };
    match &outcome.verdict {
        Verdict::Holds => {}
        Verdict::Broken(broken) => match broken.what.split(':').next() {
            Some("hang") => behaviour.hangs = true,
            Some("race") => behaviour.races = true,
            _ => panic!("no such failure is possible: {}", broken.what),
        },
        Verdict::Unfinished(why) => panic!("not explored: {why}"),
    }
    behaviour
}
