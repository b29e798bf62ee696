//! Random programs, and smaller ones when one of them is of interest.

use fastrand::Rng;
use qspinlock::machine::Ordering;

use crate::judges::program::{Action, CELLS, Program, Step, Want};

/// What kind of programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    /// All threads do the same.
    pub(crate) symmetric: bool,
    /// With awaits.
    pub(crate) awaits: bool,
    /// With touches of plain data.
    pub(crate) touches: bool,
    /// With an SC fence amid each thread: such fences say something only to one another.
    pub(crate) fenced: bool,
}

impl Mix {
    pub(crate) fn any(rng: &mut Rng) -> Self {
        Self {
            symmetric: rng.u8(..6) == 0,
            awaits: rng.u8(..4) == 0,
            touches: rng.u8(..4) == 0,
            fenced: rng.u8(..3) == 0,
        }
    }
}

/// A program of two or three threads, with two to four steps each, on one to three cells.
///
/// Fences, releases and acquires are far more frequent than in code that people write: the rules that are easy to get
/// wrong are those where several of them meet.
pub(crate) fn program(rng: &mut Rng, mix: Mix) -> Program {
    let threads = rng.usize(2..=3);
    let cells = rng.usize(1..=3);
    let mut thread = |_| {
        let length = rng.usize(if mix.fenced { 3..=4 } else { 2..=4 });
        let mut steps: Vec<Step> = (0..length).map(|_| step(rng, mix, cells)).collect();
        if mix.fenced {
            let amid = rng.usize(1..length - 1);
            steps[amid] = Step { action: Action::Fence, cell: 0, order: Ordering::SeqCst, to: String::new() };
        }
        steps
    };
    let mut threads: Vec<Vec<Step>> =
        if mix.symmetric { vec![thread(0); threads] } else { (0..threads).map(thread).collect() };
    for (n, steps) in threads.iter_mut().enumerate() {
        for (m, step) in steps.iter_mut().enumerate().filter(|(_, step)| step.action.reads()) {
            step.to = format!("r{n}{m}");
        }
    }
    Program(threads)
}

fn step(rng: &mut Rng, mix: Mix, cells: usize) -> Step {
    use Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
    let mut one_of = |orders: &[Ordering]| *rng.choice(orders).expect("it lists some");
    let load = one_of(&[Relaxed, Relaxed, Acquire]);
    let store = one_of(&[Relaxed, Relaxed, Release]);
    let modify = one_of(&[Relaxed, Acquire, Release, AcqRel]);
    let fence = one_of(&[SeqCst, SeqCst, SeqCst, AcqRel, Acquire, Release]);
    let value = rng.u32(1..=3);
    let (action, order) = match rng.u8(..24) {
        0..7 => (Action::Store(value), store),
        7..12 => (Action::Load, load),
        12 => (Action::Glance, load),
        13 if mix.awaits => (Action::Await(Want::Something), load),
        14 if mix.awaits => (Action::Await(Want::Exactly(value)), load),
        13..15 => (Action::Load, load),
        15 => (Action::Cas { old: rng.u32(..3), new: value }, modify),
        16..18 => (Action::Add(value), modify),
        18..20 if mix.touches => (Action::Touch, Relaxed),
        _ => (Action::Fence, fence),
    };
    let is_on_a_cell = !matches!(action, Action::Fence | Action::Touch);
    Step { action, cell: if is_on_a_cell { rng.usize(..cells) } else { 0 }, order, to: String::new() }
}

/// How many candidates a program has, roughly: how much work the axioms will be.
pub(crate) fn candidates(program: &Program) -> u64 {
    let writers = |steps: &[Step], cell| steps.iter().filter(|s| s.action.writes() && s.cell == cell).count() as u64;
    let all_writers = |cell| program.0.iter().map(|steps| writers(steps, cell)).sum::<u64>();
    let reads = program.0.iter().flatten().filter(|step| step.action.reads());
    let choices_of_rf: u64 = reads.map(|step| 1 + all_writers(step.cell)).product();
    let factorial = |n: u64| (1..=n).product::<u64>();
    let choices_of_mo = |cell| {
        let within_threads: u64 = program.0.iter().map(|steps| factorial(writers(steps, cell))).product();
        factorial(all_writers(cell)) / within_threads
    };
    choices_of_rf * (0..CELLS.len()).map(choices_of_mo).product::<u64>()
}

/// The smallest program that is still of interest, by leaving out a step or a thread at a time.
pub(crate) fn shrink(program: Program, is_of_interest: impl Fn(&Program) -> bool) -> Program {
    let smaller = |program: &Program| {
        let without = |t: usize, n: usize| {
            let mut program = program.clone();
            program.0[t].remove(n);
            program.0.retain(|steps| !steps.is_empty());
            program
        };
        let places = program.0.iter().enumerate().flat_map(|(t, steps)| (0..steps.len()).map(move |n| (t, n)));
        places.map(|(t, n)| without(t, n)).find(|p| !p.0.is_empty() && is_of_interest(p))
    };
    std::iter::successors(Some(program), smaller).last().expect("there is a first")
}
