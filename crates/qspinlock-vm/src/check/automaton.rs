//! Virtual CPUs as automata: a local state, the operation it stands at, and for each answer the next local state.
//!
//! The lock code runs only to learn a transition that is not known yet. A program is a pure function of the answers
//! it got, so a transition that was seen once holds for ever, for every memory and every ordering it is explored under.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Once;

use qspinlock::machine::Access;
use xxhash_rust::xxh3::xxh3_128;

#[cfg(target_arch = "x86_64")]
use super::fiber::{Fiber, ask_on_fiber};
use super::op::{Answer, INTERRUPT, Kind, NO_CELL, Op};

/// What a virtual CPU does: so many sections, one after the other, and what an interrupt on it does.
pub struct Program<'w> {
    /// How often `section` runs.
    pub sections: usize,
    /// One section. Called with its number.
    pub section: Box<dyn Fn(usize) + 'w>,
    /// What an interrupt does, if any may arrive. Called with the number of others that it nests over.
    pub interrupt: Option<Box<dyn Fn(usize) + 'w>>,
}

/// How local states are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// By the live stack. States that differ only in what is dead by now are one. x86-64 only.
    #[cfg(target_arch = "x86_64")]
    Stack,
    /// By all answers since the section began. Works everywhere; many more states.
    Log,
}

impl Keep {
    /// The better one of this target.
    #[cfg(target_arch = "x86_64")]
    pub const BEST: Self = Self::Stack;
    /// The better one of this target.
    #[cfg(not(target_arch = "x86_64"))]
    pub const BEST: Self = Self::Log;
}

pub(crate) type LocalId = u32;

struct Local {
    cpu: usize,
    section: usize,
    /// The live stack, or the answers since the section began.
    kept: Vec<u8>,
    op: Op,
    /// What is known of it: where answers lead, and what its function says. Few, so lists.
    steps: Vec<(Answer, LocalId)>,
    decisions: Vec<(u32, Option<u32>)>,
}

pub(crate) struct Automaton<'w> {
    shared: Rc<Shared<'w>>,
    keep: Keep,
    locals: Vec<Local>,
    by_key: HashMap<u128, LocalId>,
    /// The text of a panic, by the local state that stands at it.
    panics: HashMap<LocalId, String>,
}

/// What the explorer and the running virtual CPU exchange.
struct Shared<'w> {
    programs: Vec<Program<'w>>,
    #[cfg(target_arch = "x86_64")]
    fiber: Fiber,
    run: RefCell<Run>,
}

#[derive(Default)]
struct Run {
    cpu: usize,
    /// Where the virtual CPU stopped.
    op: Option<Op>,
    answer: Answer,
    panic: Option<String>,
    /// Answers that are still to be given, and a question to be asked at the end. Only with [`Keep::Log`].
    replay: Option<Replay>,
}

#[derive(Default)]
struct Replay {
    answers: std::vec::IntoIter<Answer>,
    question: Option<u32>,
    reply: Option<u32>,
    /// The run is being unwound: what its guards still do means nothing.
    over: bool,
}

thread_local! {
    /// The exploration that runs on this thread. Its lifetime is erased; it is set only while lock code runs.
    static CURRENT: RefCell<Option<Rc<Shared<'static>>>> = const { RefCell::new(None) };
}

fn current() -> Rc<Shared<'static>> {
    CURRENT.with(|c| c.borrow().clone()).expect("cells of a checker's world are used only by its programs")
}

/// Thrown to leave a replayed run where its answers end.
struct Suspended;

/// A virtual CPU asks. Called by the cells.
#[inline(always)]
pub(crate) fn ask(op: Op) -> Answer {
    #[cfg(target_arch = "x86_64")]
    if !is_replay() {
        return ask_on_fiber(op);
    }
    issue(op, || {})
}

#[inline(never)]
fn is_replay() -> bool {
    current().run.borrow().replay.is_some()
}

/// A virtual CPU asks. On the virtual CPU's stack; `stopping` is called each time it is about to stop.
pub(crate) fn issue(op: Op, stopping: impl Fn()) -> Answer {
    loop {
        stopping();
        let answer = match next_replayed(op) {
            Some(answer) => answer,
            #[cfg(target_arch = "x86_64")]
            None => stop_on_fiber(op),
            #[cfg(not(target_arch = "x86_64"))]
            None => unreachable!("only replays here"),
        };
        if answer & INTERRUPT == 0 {
            return answer;
        }
        let shared = current();
        let cpu = shared.run.borrow().cpu;
        let handler: *const dyn Fn(usize) =
            &**shared.programs[cpu].interrupt.as_ref().expect("an interrupt has a handler");
        // The frame below must hold nothing that needs dropping: it may be copied, or abandoned.
        drop(shared);
        // SAFETY: the programs outlive the run.
        unsafe { (*handler)((answer ^ INTERRUPT) as usize) }
        ask(ended(Kind::Return));
    }
}

#[cfg(target_arch = "x86_64")]
fn stop_on_fiber(op: Op) -> Answer {
    let fiber: *const Fiber = {
        let shared = current();
        shared.run.borrow_mut().op = Some(op);
        &raw const shared.fiber
    };
    // SAFETY: the automaton holds the fiber for as long as it runs.
    unsafe { (*fiber).switch() };
    current().run.borrow().answer
}

/// The next answer of a replay; unwinds where they end. `None` if this is no replay.
fn next_replayed(op: Op) -> Option<Answer> {
    let shared = current();
    let mut run = shared.run.borrow_mut();
    let replay = run.replay.as_mut()?;
    if replay.over {
        return Some(0);
    }
    if let Some(answer) = replay.answers.next() {
        return Some(answer);
    }
    if let (Some(value), Kind::Update(f) | Kind::Await(f) | Kind::AwaitFor(f)) = (replay.question, op.kind) {
        // SAFETY: the frame that holds the function is live: it called us.
        replay.reply = unsafe { (*f)(value) };
    }
    replay.over = true;
    run.op = Some(op);
    drop(run);
    drop(shared);
    resume_unwind(Box::new(Suspended))
}

/// An operation that is none: the program, or a handler, has ended.
fn ended(kind: Kind) -> Op {
    const END: Access = Access::relaxed("end", "no access");
    Op { kind, cell: NO_CELL, access: END, site: std::panic::Location::caller() }
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

/// Panics of the code under test are verdicts, not messages.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if CURRENT.with(|c| c.try_borrow().is_ok_and(|c| c.is_none())) {
                before(info);
            }
        }));
    });
}

#[cfg(target_arch = "x86_64")]
extern "C" fn fiber_entry() -> ! {
    let (program, shared): (*const Program<'static>, *const Shared<'static>) = {
        let shared = current();
        let cpu = shared.run.borrow().cpu;
        (&raw const shared.programs[cpu], Rc::as_ptr(&shared))
    };
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the automaton holds the programs for as long as they run.
        let program = unsafe { &*program };
        (0..program.sections).for_each(|n| (program.section)(n));
    }));
    let kind = match result {
        Ok(()) => Kind::Done,
        Err(payload) => {
            // SAFETY: as above.
            unsafe { (*shared).run.borrow_mut().panic = Some(panic_text(&*payload)) };
            Kind::Panicked
        }
    };
    loop {
        ask(ended(kind));
    }
}

impl<'w> Automaton<'w> {
    pub(crate) fn new(programs: Vec<Program<'w>>, keep: Keep) -> Self {
        quiet_panics();
        Self {
            shared: Rc::new(Shared {
                programs,
                #[cfg(target_arch = "x86_64")]
                fiber: Fiber::new(),
                run: RefCell::default(),
            }),
            keep,
            locals: Vec::new(),
            by_key: HashMap::new(),
            panics: HashMap::new(),
        }
    }

    pub(crate) fn cpus(&self) -> usize {
        self.shared.programs.len()
    }

    pub(crate) fn op(&self, local: LocalId) -> &Op {
        &self.locals[local as usize].op
    }

    pub(crate) fn panic(&self, local: LocalId) -> &str {
        self.panics.get(&local).map_or("a panic", String::as_str)
    }

    /// Where a CPU stands before its first answer.
    pub(crate) fn start(&mut self, cpu: usize) -> LocalId {
        *self.shared.run.borrow_mut() = Run { cpu, ..Run::default() };
        match self.keep {
            #[cfg(target_arch = "x86_64")]
            Keep::Stack => {
                self.shared.fiber.start(fiber_entry);
                self.run_fiber(cpu)
            }
            Keep::Log => self.run_replay(cpu, 0, Vec::new()),
        }
    }

    /// Where a CPU stands after an answer.
    pub(crate) fn step(&mut self, local: LocalId, answer: Answer) -> LocalId {
        let from = &self.locals[local as usize];
        if let Some(&(_, next)) = from.steps.iter().find(|(a, _)| *a == answer) {
            return next;
        }
        let (cpu, section) = (from.cpu, from.section);
        let next = match self.keep {
            #[cfg(target_arch = "x86_64")]
            Keep::Stack => {
                self.shared.fiber.restore(&from.kept);
                *self.shared.run.borrow_mut() = Run { cpu, answer, ..Run::default() };
                self.run_fiber(cpu)
            }
            Keep::Log => {
                let kept = [&from.kept[..], &answer.to_ne_bytes()].concat();
                self.run_replay(cpu, section, kept)
            }
        };
        self.locals[local as usize].steps.push((answer, next));
        next
    }

    /// What the function of the operation says to a value.
    pub(crate) fn decide(&mut self, local: LocalId, value: u32) -> Option<u32> {
        let from = &self.locals[local as usize];
        if let Some(&(_, decision)) = from.decisions.iter().find(|(v, _)| *v == value) {
            return decision;
        }
        let decision = match (self.keep, from.op.kind) {
            #[cfg(target_arch = "x86_64")]
            (Keep::Stack, Kind::Update(f) | Kind::Await(f) | Kind::AwaitFor(f)) => {
                self.shared.fiber.restore(&from.kept);
                // SAFETY: the frame that holds the function is on the stack just taken up, and stands still.
                unsafe { (*f)(value) }
            }
            (Keep::Log, Kind::Update(_) | Kind::Await(_) | Kind::AwaitFor(_)) => {
                let replay = self.replay(from.cpu, from.section, &from.kept, Some(value));
                replay.reply
            }
            _ => unreachable!("only these have a function"),
        };
        self.locals[local as usize].decisions.push((value, decision));
        decision
    }

    /// Runs `f` with this exploration as the one that cells speak to.
    fn entered<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: only the lifetime of the programs changes; the entry is removed before this function returns, and a
        // virtual CPU keeps no clone across an operation.
        let shared = unsafe { std::mem::transmute::<Rc<Shared<'w>>, Rc<Shared<'static>>>(self.shared.clone()) };
        let before = CURRENT.with(|c| c.replace(Some(shared)));
        let result = f();
        CURRENT.with(|c| c.replace(before));
        result
    }

    #[cfg(target_arch = "x86_64")]
    fn run_fiber(&mut self, cpu: usize) -> LocalId {
        self.entered(|| self.shared.fiber.switch());
        let kept = self.shared.fiber.live().to_vec();
        let own = self.shared.fiber.own();
        self.stopped(cpu, 0, kept, own)
    }

    fn replay(&self, cpu: usize, section: usize, kept: &[u8], question: Option<u32>) -> Replay {
        let answers: Vec<_> = kept.as_chunks().0.iter().map(|b| Answer::from_ne_bytes(*b)).collect();
        let replay = Replay { answers: answers.into_iter(), question, ..Replay::default() };
        *self.shared.run.borrow_mut() = Run { cpu, replay: Some(replay), ..Run::default() };
        let program = &self.shared.programs[cpu];
        let result = self.entered(|| catch_unwind(AssertUnwindSafe(|| (program.section)(section))));
        let mut run = self.shared.run.borrow_mut();
        if let Err(payload) = result
            && !payload.is::<Suspended>()
        {
            run.op = Some(ended(Kind::Panicked));
            run.panic = Some(panic_text(&*payload));
        }
        run.replay.take().expect("set above")
    }

    /// Replays a section; if it ends, goes on to the next, whose answers start anew.
    fn run_replay(&mut self, cpu: usize, mut section: usize, mut kept: Vec<u8>) -> LocalId {
        while section < self.shared.programs[cpu].sections {
            self.replay(cpu, section, &kept, None);
            if self.shared.run.borrow().op.is_some() {
                return self.stopped(cpu, section, kept, 0);
            }
            section += 1;
            kept.clear();
        }
        self.shared.run.borrow_mut().op = Some(ended(Kind::Done));
        self.stopped(cpu, section, kept, 0)
    }

    /// Interns the state that the last run stopped in. The first `own` bytes of what is kept tell nothing.
    fn stopped(&mut self, cpu: usize, section: usize, kept: Vec<u8>, own: usize) -> LocalId {
        let mut run = self.shared.run.borrow_mut();
        let op = run.op.take().expect("a run ends at an operation");
        let mut key = kept[own..].to_vec();
        key.extend_from_slice(&(cpu as u64).to_ne_bytes());
        key.extend_from_slice(&(section as u64).to_ne_bytes());
        // The operation was passed in registers.
        key.extend_from_slice(format!("{:?}{}{}", op.kind, op.cell, op.access.name).as_bytes());
        let panic = run.panic.take();
        drop(run);
        let id = self.locals.len() as LocalId;
        let id = *self.by_key.entry(xxh3_128(&key)).or_insert(id);
        if id as usize == self.locals.len() {
            self.locals.push(Local { cpu, section, kept, op, steps: Vec::new(), decisions: Vec::new() });
            if let Some(text) = panic {
                self.panics.insert(id, text);
            }
        }
        id
    }
}
