//! What must hold of hand-offs where a lock stays in one domain for a while: who may be passed by whom, and for how long.
//! Told from arrivals, claims and grants, and from the time of each.

use std::cell::{Cell as StdCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use qspinlock::queue::Tail;

use crate::monitors;
use crate::vm::{Context, Monitor, Role, Spread, Step};

/// What a run showed, for tests that ask whether something happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Hand-offs past somebody, to one of the domain that the lock was in.
    pub(crate) near: usize,
    /// To an urgent one of another domain.
    pub(crate) inherited: usize,
    /// By such a one, to one of the domain that the lock was in before it.
    pub(crate) passed_on: usize,
    /// To the oldest, when those who were passed had waited for long enough.
    pub(crate) due: usize,
    /// The longest wait, and the longest time between two claims.
    pub(crate) longest: u64,
    pub(crate) gap: u64,
}

/// Contexts that have turned their interrupts off: bits of CPUs.
pub(crate) type Masked = Rc<StdCell<u64>>;

struct Waiter {
    node: Tail,
    who: Context,
    is_urgent: bool,
    came: u64,
    older: u64,
}

#[derive(Default)]
struct Line {
    /// In order of arrival, the head among them.
    waiting: Vec<Waiter>,
    head: Option<Tail>,
    /// When the head, or who was it and has the lock, became it; and whether it was let past as an urgent one from afar.
    became: u64,
    is_guest: bool,
    home: u32,
    /// When somebody who waits still was passed first.
    passed: Option<u64>,
    claimed: u64,
}

fn check(holds: bool, what: &str, step: &Step) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{what}: {step:x?}")) }
}

fn tail(word: u32) -> Option<Tail> {
    Tail::from_code(word >> 10)
}

/// All that must hold, and what was seen.
pub(crate) fn monitors(spread: Spread, masked: Masked) -> (Vec<Monitor>, Rc<RefCell<Seen>>) {
    let seen = Rc::new(RefCell::new(Seen::default()));
    let near = near(spread, masked, seen.clone());
    let mut all = vec![monitors::word_transitions(), near, monitors::hand_offs(), monitors::possible_tails()];
    all.extend([monitors::slips(), monitors::levels()]);
    (all, seen)
}

fn near(spread: Spread, masked: Masked, seen: Rc<RefCell<Seen>>) -> Monitor {
    let mut lines: BTreeMap<usize, Line> = BTreeMap::new();
    let domain = move |node: Tail| node.cpu().index() as u32 % spread.domains;
    let threshold = u64::from(spread.locality.threshold) >> spread.step_shift;
    Box::new(move |step| {
        let Some(new) = step.new else { return Ok(()) };
        let mut seen = seen.borrow_mut();
        match (step.role, step.access) {
            (Role::Word(lock), "tail.exchange") => {
                let (line, node) = (lines.entry(lock).or_default(), tail(new).expect("checked before"));
                if line.waiting.is_empty() {
                    *line = Line { head: Some(node), became: step.time, home: domain(node), ..Line::default() };
                    line.claimed = step.time;
                }
                let is_urgent = step.who.depth > 0 || masked.get() >> step.who.cpu & 1 == 1;
                let older = line.waiting.len() as u64;
                line.waiting.push(Waiter { node, who: step.who, is_urgent, came: step.time, older });
            }
            (Role::Word(lock), "word.claim-sole" | "word.claim-head" | "word.claim-bringing-back") => {
                let line = lines.entry(lock).or_default();
                let at = line.waiting.iter().position(|w| w.who == step.who && Some(w.node) == line.head);
                check(at.is_some(), "a claim by who is not the head", step)?;
                let waiter = line.waiting.remove(at.expect("checked"));
                let last = line.waiting.last().map(|w| w.node);
                let is_sure = step.access != "word.claim-head";
                check(!is_sure || tail(new) == last, "the last is not who came last", step)?;
                line.head = None;
                seen.gap = seen.gap.max(step.time - line.claimed);
                line.claimed = step.time;
                let wait = step.time - waiter.came;
                seen.longest = seen.longest.max(wait);
                // Whoever is older has waited for its own threshold at most, once it was the oldest.
                let most = (waiter.older + 1) * (threshold + 2 * seen.gap);
                check(wait <= most, &format!("waited for {wait} steps, and {most} are the most"), step)?;
            }
            (Role::Grant(node), "numa.grant") => {
                let line = lines.values_mut().find(|line| line.waiting.iter().any(|w| w.node == node));
                check(line.is_some(), "a grant to who is in no queue", step)?;
                let line = line.expect("checked");
                check(line.head.is_none(), "two heads", step)?;
                let at = line.waiting.iter().position(|w| w.node == node).expect("found by it");
                let to = &line.waiting[at];
                for whom in &line.waiting[..at] {
                    check(!whom.is_urgent, &format!("passes {:?}, which is urgent", whom.who), step)?;
                    let is_far = domain(whom.node) != line.home;
                    check(is_far, &format!("passes {:?} of the domain that the lock is in", whom.who), step)?;
                }
                // Who became the head when their time was over has seen that it was.
                let is_due = line.passed.is_some_and(|since| line.became >= since + threshold);
                check(!is_due || at == 0, "passes who has waited for long enough", step)?;
                let is_guest = to.is_urgent && domain(node) != line.home && at > 0;
                seen.inherited += usize::from(is_guest);
                seen.near += usize::from(at > 0 && domain(node) == line.home);
                seen.passed_on += usize::from(at > 0 && line.is_guest && !to.is_urgent);
                seen.due += usize::from(is_due);
                if at == 0 {
                    (line.home, line.passed) = (domain(node), None);
                } else {
                    line.passed = line.passed.or(Some(step.time));
                }
                (line.head, line.became, line.is_guest) = (Some(node), step.time, is_guest);
            }
            _ => {}
        }
        Ok(())
    })
}
