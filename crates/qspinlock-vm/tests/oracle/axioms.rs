//! What C11 says of a program, by brute force over execution graphs.
//!
//! Nothing here knows of views, messages, or an order of execution. A candidate says, for each read, which write it
//! reads from (`rf`), and for each cell, in which order its writes are (`mo`). It is an execution of the program if
//!
//! * `sb ∪ rf` has no cycle (no load buffering, no value out of thin air);
//! * `hb ; eco?` is irreflexive, where `hb = (sb ∪ sw)+` and `eco = (rf ∪ mo ∪ fr)+`: coherence;
//! * a read-modify-write comes in `mo` right after what it reads: atomicity;
//! * `[F] ; (hb ∪ hb;eco;hb) ; [F]` over SC fences has no cycle: RC11's `psc`.
//!
//! `sw` is that of C++20: release sequences go on through read-modify-writes only. A compare-and-swap that fails is a
//! relaxed load.

use std::collections::BTreeSet;

use qspinlock::machine::Ordering;

use super::program::{Action, CELLS, Program, Step};
use super::{Behaviour, Final};

/// A relation over events: for each, the set of those it relates to, a bit each.
type Relation = [u32; 32];

const NONE: Relation = [0; 32];

fn bits(set: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |bit| set >> bit & 1 != 0)
}

fn union(a: &Relation, b: &Relation) -> Relation {
    std::array::from_fn(|i| a[i] | b[i])
}

fn closure(relation: &Relation) -> Relation {
    let mut all = *relation;
    for via in 0..32 {
        let beyond = all[via];
        all.iter_mut().filter(|to| **to >> via & 1 != 0).for_each(|to| *to |= beyond);
    }
    all
}

fn is_acyclic(relation: &Relation) -> bool {
    closure(relation).iter().enumerate().all(|(i, to)| to >> i & 1 == 0)
}

fn inverse(relation: &Relation) -> Relation {
    let mut inverse = NONE;
    relation.iter().enumerate().for_each(|(from, to)| bits(*to).for_each(|to| inverse[to] |= 1 << from));
    inverse
}

fn acquires(order: Ordering) -> bool {
    matches!(order, Ordering::Acquire | Ordering::AcqRel | Ordering::SeqCst)
}

fn releases(order: Ordering) -> bool {
    matches!(order, Ordering::Release | Ordering::AcqRel | Ordering::SeqCst)
}

/// What a program may do, by the axioms as they stand, and with one more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowed {
    /// By RC11.
    pub rc11: Behaviour,
    /// If `sb ∪ rf ∪ psc` as a whole must have no cycle: SC fences have an order in which things can also happen.
    pub(crate) ordered: Behaviour,
}

/// All behaviours of a program.
pub(crate) fn allowed(program: &Program) -> Allowed {
    let mut allowed = Allowed::default();
    // Threads end, or stand at an await for ever: each combination is a shorter program.
    let ends: Vec<Vec<usize>> = program.0.iter().map(|steps| ends(steps)).collect();
    let mut chosen = vec![0; ends.len()];
    loop {
        let lengths: Vec<usize> = ends.iter().zip(&chosen).map(|(ends, &n)| ends[n]).collect();
        Graph::new(program, &lengths).enumerate(&mut allowed);
        let Some(next) = (0..ends.len()).find(|&t| chosen[t] + 1 < ends[t].len()) else { return allowed };
        chosen[..next].fill(0);
        chosen[next] += 1;
    }
}

fn ends(steps: &[Step]) -> Vec<usize> {
    let awaits = (0..steps.len()).filter(|&n| matches!(steps[n].action, Action::Await(_)));
    std::iter::once(steps.len()).chain(awaits).collect()
}

/// The events of a program, and the part of a candidate that is fixed by now.
struct Graph<'p> {
    program: &'p Program,
    /// The awaits that the threads which have not ended stand at.
    stuck: Vec<&'p Step>,
    /// Events 0.. are the first values of the cells.
    events: Vec<Option<&'p Step>>,
    sb: Relation,
    reads: Vec<usize>,
    rf: [usize; 32],
}

/// What follows from a choice of `rf`.
struct Values {
    read: [u32; 32],
    written: [Option<u32>; 32],
}

impl<'p> Graph<'p> {
    fn new(program: &'p Program, lengths: &[usize]) -> Self {
        let mut events: Vec<Option<&Step>> = vec![None; CELLS.len()];
        let mut sb = NONE;
        for (steps, &length) in program.0.iter().zip(lengths) {
            let start = events.len();
            events.extend(steps[..length].iter().map(Some));
            for event in start..events.len() {
                (0..CELLS.len()).chain(start..event).for_each(|before| sb[before] |= 1 << event);
            }
        }
        let stuck = program.0.iter().zip(lengths).filter_map(|(steps, &length)| steps.get(length)).collect();
        let reads = (0..events.len()).filter(|&e| events[e].is_some_and(|step| step.action.reads())).collect();
        Self { program, stuck, events, sb, reads, rf: [usize::MAX; 32] }
    }

    fn enumerate(&mut self, allowed: &mut Allowed) {
        let before = self.sb;
        self.choose_rf(0, &before, allowed);
    }

    /// Chooses what read `n` and those after it read from. `before` is the closure of `sb` and the choices so far.
    fn choose_rf(&mut self, n: usize, before: &Relation, allowed: &mut Allowed) {
        let Some(&read) = self.reads.get(n) else {
            if let Some(values) = self.values(before) {
                self.choose_mo(&values, allowed);
            }
            return;
        };
        for write in 0..self.events.len() {
            if write != read && self.may_write(write, self.cell(read)) && before[read] >> write & 1 == 0 {
                self.rf[read] = write;
                let mut edges = *before;
                edges[write] |= 1 << read;
                self.choose_rf(n + 1, &closure(&edges), allowed);
            }
        }
    }

    fn cell(&self, event: usize) -> usize {
        self.events[event].map_or(event, |step| step.cell)
    }

    fn may_write(&self, event: usize, cell: usize) -> bool {
        self.events[event].is_none_or(|step| step.action.writes()) && self.cell(event) == cell
    }

    /// What is read and written, or `None` if a read finds nothing there, or not what it waits for, or two
    /// read-modify-writes read the same.
    fn values(&self, before: &Relation) -> Option<Values> {
        let mut values = Values { read: [0; 32], written: [None; 32] };
        let mut order: Vec<usize> = (0..self.events.len()).collect();
        let earlier = inverse(before);
        order.sort_by_key(|&event| earlier[event].count_ones());
        let mut modified = 0_u32;
        for event in order {
            let Some(step) = self.events[event] else {
                values.written[event] = Some(0);
                continue;
            };
            if step.action.reads() {
                values.read[event] = values.written[self.rf[event]]?;
            }
            let read = values.read[event];
            values.written[event] = match step.action {
                Action::Store(value) => Some(value),
                Action::Cas { old, new } => (read == old).then_some(new),
                Action::Add(by) => Some(read.wrapping_add(by)),
                Action::Await(want) if !want.is_met(read) => return None,
                _ => None,
            };
            if step.action.reads() && values.written[event].is_some() {
                let source = 1 << self.rf[event];
                if modified & source != 0 {
                    return None;
                }
                modified |= source;
            }
        }
        Some(values)
    }

    /// The ordering of the write, if it is not a first value.
    fn write_order(&self, event: usize) -> Option<Ordering> {
        self.events[event].map(|step| step.order)
    }

    fn fences(&self, kind: impl Fn(Ordering) -> bool) -> u32 {
        let is = |e: &usize| self.events[*e].is_some_and(|s| s.action == Action::Fence && kind(s.order));
        (0..self.events.len()).filter(is).fold(0, |set, e| set | 1 << e)
    }

    fn synchronizes(&self, values: &Values) -> Relation {
        let mut sw = NONE;
        let (release_fences, acquire_fences) = (self.fences(releases), self.fences(acquires));
        let earlier = inverse(&self.sb);
        for &read in &self.reads {
            let step = self.events[read].expect("a read is a step");
            let has_failed = step.action.writes() && values.written[read].is_none();
            let own = if acquires(step.order) && !has_failed { 1 << read } else { 0 };
            let targets = own | self.sb[read] & acquire_fences;
            let mut head = self.rf[read];
            // Each write whose release sequence the read reads from, last to first.
            loop {
                if self.write_order(head).is_some_and(releases) {
                    sw[head] |= targets;
                }
                bits(earlier[head] & release_fences).for_each(|fence| sw[fence] |= targets);
                if !self.reads.contains(&head) {
                    break;
                }
                head = self.rf[head];
            }
        }
        sw
    }

    fn choose_mo(&self, values: &Values, allowed: &mut Allowed) {
        let hb = closure(&union(&self.sb, &self.synchronizes(values)));
        let mut choices: Vec<Vec<(Relation, u32)>> = Vec::new();
        for cell in 0..CELLS.len() {
            let mut coherent = Vec::new();
            self.extend_mo(&mut vec![cell], values, &hb, &mut coherent);
            if coherent.is_empty() {
                return;
            }
            choices.push(coherent);
        }
        let races = self.races(&hb);
        let mut chosen = vec![0; choices.len()];
        loop {
            let picked: Vec<&(Relation, u32)> = choices.iter().zip(&chosen).map(|(c, &n)| &c[n]).collect();
            let eco = picked.iter().fold(NONE, |all, (eco, _)| union(&all, eco));
            let newest: Vec<u32> = picked.iter().map(|(_, newest)| *newest).collect();
            let psc = self.psc(&hb, &eco);
            if is_acyclic(&psc) {
                self.record(&mut allowed.rc11, values, &newest, races);
                let rf = self.reads.iter().fold(NONE, |mut rf, &read| {
                    rf[self.rf[read]] |= 1 << read;
                    rf
                });
                if is_acyclic(&union(&union(&self.sb, &rf), &psc)) {
                    self.record(&mut allowed.ordered, values, &newest, races);
                }
            }
            let Some(next) = (0..choices.len()).find(|&c| chosen[c] + 1 < choices[c].len()) else { return };
            chosen[..next].fill(0);
            chosen[next] += 1;
        }
    }

    /// Completes a modification order in every coherent way: its `eco`, and the last value.
    fn extend_mo(&self, mo: &mut Vec<usize>, values: &Values, hb: &Relation, coherent: &mut Vec<(Relation, u32)>) {
        let cell = mo[0];
        let last = mo[mo.len() - 1];
        let writes = |e: &usize| self.cell(*e) == cell && values.written[*e].is_some() && !mo.contains(e);
        let left: Vec<usize> = (0..self.events.len()).filter(writes).collect();
        if left.is_empty() {
            let eco = self.eco(mo);
            if (0..32).all(|event| bits(hb[event]).all(|later| eco[later] >> event & 1 == 0)) {
                coherent.push((eco, values.written[last].expect("it is in mo")));
            }
        }
        let modifies = |e: usize| self.reads.contains(&e).then(|| self.rf[e]);
        let must = left.iter().copied().find(|&e| modifies(e) == Some(last));
        for &next in &left {
            let is_adjacent = modifies(next).is_none_or(|source| source == last);
            let is_next = left.iter().all(|&other| hb[other] >> next & 1 == 0);
            if is_next && is_adjacent && must.is_none_or(|must| must == next) {
                mo.push(next);
                self.extend_mo(mo, values, hb, coherent);
                mo.pop();
            }
        }
    }

    fn eco(&self, mo: &[usize]) -> Relation {
        let mut edges = NONE;
        for (n, &write) in mo.iter().enumerate() {
            let later = mo[n + 1..].iter().fold(0, |set, &w| set | 1 << w);
            edges[write] |= later;
            for &read in self.reads.iter().filter(|&&read| self.rf[read] == write) {
                edges[write] |= 1 << read;
                edges[read] |= later & !(1 << read);
            }
        }
        closure(&edges)
    }

    fn psc(&self, hb: &Relation, eco: &Relation) -> Relation {
        let fences = self.fences(|order| order == Ordering::SeqCst);
        let earlier = inverse(hb);
        let mut psc = NONE;
        for from in bits(fences) {
            let beyond = bits(hb[from]).fold(0, |set, event| set | eco[event]);
            for to in bits(fences) {
                let is_ordered = hb[from] >> to & 1 != 0 || beyond & earlier[to] != 0;
                psc[from] |= u32::from(is_ordered) << to;
            }
        }
        psc
    }

    fn races(&self, hb: &Relation) -> bool {
        let touches = |e: &usize| self.events[*e].is_some_and(|step| step.action == Action::Touch);
        let touches: Vec<usize> = (0..self.events.len()).filter(touches).collect();
        let ordered = |a: usize, b: usize| hb[a] >> b & 1 != 0 || hb[b] >> a & 1 != 0;
        touches.iter().any(|&a| touches.iter().any(|&b| a != b && !ordered(a, b)))
    }

    fn record(&self, to: &mut Behaviour, values: &Values, newest: &[u32], races: bool) {
        to.races |= races;
        if self.stuck.is_empty() {
            to.finals.insert(self.last_values(values, newest));
        } else {
            let is_met = |step: &&Step| matches!(step.action, Action::Await(want) if want.is_met(newest[step.cell]));
            to.hangs |= !self.stuck.iter().any(is_met);
        }
    }

    fn last_values(&self, values: &Values, newest: &[u32]) -> Final {
        let registers =
            self.reads.iter().map(|&e| (self.events[e].expect("a read is a step").to.clone(), values.read[e]));
        let cells = self.program.cells().into_iter().map(|cell| (CELLS[cell].to_string(), newest[cell]));
        let all: BTreeSet<_> = registers.chain(cells).collect();
        all.into_iter().collect()
    }
}
