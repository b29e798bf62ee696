//! Who truly holds and wants what: read off the lock words and from what the virtual CPUs are about, not from their
//! records. It judges each error of a resilient lock.
//!
//! * *None invented*: whoever is told of a deadlock was in that very circle, at some moment after it began to look.
//! * *None missed*: whoever looks while it is in a circle, of which all is recorded, is told.
//! * Whoever is told that its time is over, after a time in which everybody gets on, waits for what nobody can see: for
//!   a CPU that was interrupted while it took or released a lock.

use std::cell::RefCell;
use std::rc::Rc;

use qspinlock::machine::Event;
use qspinlock::queue::LEVELS;
use qspinlock::resilient::{ENTRIES, LockErrorKind, Report};

use crate::vm::{Context, Monitor, Role, Step, Vm};

/// CPUs and what they want. Each wants what the next one holds.
type Circle = Vec<(usize, usize)>;

struct Want {
    who: Context,
    lock: usize,
    /// Longer than anybody needs who gets on.
    is_long: bool,
    /// It has got the lock.
    is_done: bool,
    /// Circles that it was in since it last began to look.
    circles: Vec<Circle>,
    /// Waits of a circle that its last look has to find: unless one of them ends.
    must_find: Option<Vec<(usize, u32)>>,
    /// Waits of others which it closed a circle with when it began: then its only look has to find that.
    closes: Option<Vec<(usize, u32)>>,
}

/// What is held, wanted and recorded.
pub(crate) struct Truth {
    owners: Vec<Option<Context>>,
    words: Vec<u32>,
    wants: Vec<Vec<Want>>,
    depths: Vec<usize>,
    waits: Vec<u32>,
    names: Vec<[u32; ENTRIES]>,
    /// Nodes that somebody has reserved.
    places: Vec<[u32; 3]>,
    is_held: fn(u32) -> bool,
    /// Somebody has waited for a CPU that was interrupted while it took or released a lock.
    pub(crate) is_unseen: bool,
    pub(crate) deadlocks: usize,
    pub(crate) longest: usize,
    pub(crate) late: usize,
}

impl Truth {
    /// With the monitor that keeps it. `sleeping`: a lock may be granted to those who wait, and then nobody holds it.
    pub(crate) fn new(cpus: usize, locks: usize, sleeping: bool) -> (Rc<RefCell<Self>>, Monitor) {
        let truth = Rc::new(RefCell::new(Self {
            owners: vec![None; locks],
            words: vec![0; locks],
            wants: (0..cpus).map(|_| Vec::new()).collect(),
            depths: vec![0; cpus],
            waits: vec![0; cpus],
            names: vec![[0; ENTRIES]; cpus],
            places: vec![[0; 3]; cpus],
            is_held: if sleeping { |low| low == 1 } else { |low| low != 0 },
            is_unseen: false,
            deadlocks: 0,
            longest: 0,
            late: 0,
        }));
        let of_monitor = truth.clone();
        (truth, Box::new(move |step| of_monitor.borrow_mut().see(step)))
    }

    fn see(&mut self, step: &Step) -> Result<(), String> {
        match step.access {
            "detect.fence" => return self.looks(step.who),
            // It has found something. A sleeper that was woken meanwhile tries its luck before it says so.
            "keep" => self.wants[step.who.cpu].last_mut().expect("who looks wants something").must_find = None,
            _ => {}
        }
        let Some(new) = step.new else { return Ok(()) };
        match step.role {
            Role::Word(lock) => {
                self.words[lock] = new;
                let (was_held, is_held) = ((self.is_held)(step.old & 0xff), (self.is_held)(new & 0xff));
                let owner = &mut self.owners[lock];
                if was_held && !is_held && owner.map(|owner| owner.cpu) != Some(step.who.cpu) {
                    return Err(format!("released by another than its owner, {owner:?}: {step:?}"));
                }
                if was_held != is_held {
                    *owner = is_held.then_some(step.who);
                    // A sleeper from behind takes a lock that it finds free, and gives it to who is first.
                    let want = self.wants[step.who.cpu].last_mut();
                    if let Some(want) = want.filter(|want| want.who == step.who && want.lock == lock) {
                        want.is_done = is_held;
                    }
                }
            }
            Role::Wait(cpu) => self.waits[cpu] = new,
            Role::Name(cpu, entry) => self.names[cpu][entry] = new,
            Role::Grant(node) if node.level() >= LEVELS => self.places[node.cpu().index()][node.level() - LEVELS] = new,
            _ => {}
        }
        Ok(())
    }

    /// What a CPU waits for, with all that it is about.
    fn wanted(&self, cpu: usize) -> Option<usize> {
        let want = self.wants[cpu].last()?;
        (want.who.depth == self.depths[cpu] && !want.is_done).then_some(want.lock)
    }

    /// Who waits for whom, from a CPU on: until somebody who does not wait, or until all repeats.
    fn chain(&self, cpu: usize) -> Circle {
        let (mut chain, mut next): (Circle, _) = (Vec::new(), Some(cpu));
        while let Some(cpu) = next.filter(|&cpu| chain.iter().all(|&(seen, _)| seen != cpu)) {
            let Some(lock) = self.wanted(cpu) else { break };
            chain.push((cpu, lock));
            next = self.owners[lock].map(|owner| owner.cpu);
        }
        chain
    }

    /// All circles through the innermost want of a CPU.
    fn circles(&self, cpu: usize) -> Vec<Circle> {
        let mut found = Vec::new();
        let want = self.wants[cpu].last().expect("it wants something");
        self.go_on(vec![(cpu, want.lock)], want.who.depth, &mut found);
        found
    }

    /// Who owns a lock goes on when it has got what it wants, and when those have that have interrupted it: any of them
    /// may be in a circle.
    fn go_on(&self, so_far: Circle, depth: usize, found: &mut Vec<Circle>) {
        let (first, last) = (so_far[0].0, so_far[so_far.len() - 1].1);
        let Some(owner) = self.owners[last] else { return };
        if owner.cpu == first && owner.depth <= depth {
            found.push(so_far);
        } else if so_far.iter().all(|&(cpu, _)| cpu != owner.cpu) {
            let theirs = self.wants[owner.cpu].iter().filter(|want| want.who.depth >= owner.depth && !want.is_done);
            theirs.for_each(|want| self.go_on([&so_far[..], &[(owner.cpu, want.lock)]].concat(), depth, found));
        }
    }

    /// The innermost want of a CPU may just have closed circles.
    fn changed(&mut self, cpu: usize) {
        for circle in self.circles(cpu) {
            for n in 0..circle.len() {
                let mut theirs = circle.clone();
                theirs.rotate_left(n);
                let (cpu, lock) = theirs[0];
                let wants = self.wants[cpu].iter_mut().filter(|want| want.lock == lock && !want.is_done);
                wants.for_each(|want| want.circles.push(theirs.clone()));
            }
        }
    }

    /// Whether a CPU says that it holds a lock, in a way that whoever looks can see while it waits.
    fn is_noted(&self, cpu: usize, lock: usize) -> bool {
        let below = (self.waits[cpu] >> 5 & 0x1f) as usize;
        self.names[cpu][..below.min(ENTRIES)].contains(&(Vm::name_of(lock) as u32))
    }

    /// What a CPU says that it waits for.
    fn published(&self, cpu: usize) -> Option<usize> {
        let entry = (self.waits[cpu] & 0x1f).checked_sub(1)?;
        let name = self.names[cpu][entry as usize];
        (name & 3 == 1).then(|| name as usize / 4 - 1)
    }

    /// A circle of which all is recorded: the CPUs in it, and their waits.
    fn recorded(&self, cpu: usize) -> Option<Vec<(usize, u32)>> {
        let (mut waits, mut next) = (Vec::new(), cpu);
        loop {
            waits.push((next, self.waits[next]));
            let lock = self.published(next)?;
            next = self.owners[lock]?.cpu;
            if !self.is_noted(next, lock) {
                return None;
            }
            if next == cpu {
                return Some(waits);
            }
            if waits.iter().any(|&(seen, _)| seen == next) {
                return None;
            }
        }
    }

    /// The others in a circle that a CPU closes by waiting for a lock, if all that they do is recorded, and what it holds is.
    fn closed(&self, me: usize, lock: usize) -> Option<Vec<(usize, u32)>> {
        let (mut waits, mut wanted): (Vec<(usize, u32)>, _) = (Vec::new(), lock);
        loop {
            let next = self.owners[wanted]?.cpu;
            if next == me {
                let is_recorded = self.names[me].contains(&(Vm::name_of(wanted) as u32));
                return (is_recorded && !waits.is_empty()).then_some(waits);
            }
            if !self.is_noted(next, wanted) || waits.iter().any(|&(seen, _)| seen == next) {
                return None;
            }
            waits.push((next, self.waits[next]));
            wanted = self.published(next)?;
        }
    }

    /// A context begins to look for circles.
    fn looks(&mut self, who: Context) -> Result<(), String> {
        self.has_looked(who)?;
        let (circles, must_find) = (self.circles(who.cpu), self.recorded(who.cpu));
        let want = self.wants[who.cpu].last_mut().expect("who looks wants something");
        (want.circles, want.must_find) = (circles, must_find);
        Ok(())
    }

    /// Its last look has found nothing.
    fn has_looked(&mut self, who: Context) -> Result<(), String> {
        let want = self.wants[who.cpu].last_mut().expect("who looks wants something");
        assert_eq!(want.who, who);
        match want.must_find.take() {
            Some(waits) if waits.iter().all(|&(cpu, wait)| self.waits[cpu] == wait) => {
                Err(format!("missed: {who:?} has looked, and not found {:?}", self.circles(who.cpu)))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn enters_handler(&mut self, who: Context) {
        self.depths[who.cpu] = who.depth;
    }

    pub(crate) fn leaves_handler(&mut self, who: Context) {
        self.depths[who.cpu] = who.depth - 1;
    }

    pub(crate) fn begins(&mut self, who: Context, lock: usize, is_long: bool) {
        let want = Want {
            who,
            lock,
            is_long,
            is_done: false,
            circles: Vec::new(),
            must_find: None,
            closes: self.closed(who.cpu, lock),
        };
        self.wants[who.cpu].push(want);
        self.changed(who.cpu);
    }

    /// What an acquire has come to.
    pub(crate) fn ends(
        &mut self,
        who: Context,
        result: Result<(), LockErrorKind>,
        report: Option<Report>,
    ) -> Result<(), String> {
        let verdict = match result {
            Ok(()) => self.has(who),
            Err(LockErrorKind::Deadlock) => self.is_told(who, &report.expect("an error has a report")),
            Err(_) => self.has_looked(who).and_then(|()| self.is_late(who)),
        };
        self.wants[who.cpu].pop();
        verdict
    }

    fn has(&self, who: Context) -> Result<(), String> {
        let lock = self.wants[who.cpu].last().expect("it began").lock;
        let owner = self.owners[lock];
        if owner == Some(who) { Ok(()) } else { Err(format!("{who:?} was told that it has {lock}, {owner:?} has it")) }
    }

    fn is_told(&mut self, who: Context, report: &Report) -> Result<(), String> {
        self.deadlocks += 1;
        self.longest = self.longest.max(report.length());
        let want = self.wants[who.cpu].last().expect("it began");
        let told: Circle = report.links().map(|link| (link.cpu.index(), (link.wants / 4).wrapping_sub(1))).collect();
        if want.is_done {
            return Err(format!("invented: {who:?} has lock {}, and was told of {told:?}", want.lock));
        }
        if want.circles.contains(&told) {
            return Ok(());
        }
        Err(format!("invented: {who:?} was told of {told:?}, and there was {:?}", want.circles))
    }

    fn is_late(&mut self, who: Context) -> Result<(), String> {
        self.late += 1;
        let want = self.wants[who.cpu].last().expect("it began");
        if want.is_done {
            return Err(format!("{who:?} has lock {}, and was told that its time is over", want.lock));
        }
        if want.closes.as_ref().is_some_and(|waits| waits.iter().all(|&(cpu, wait)| self.waits[cpu] == wait)) {
            return Err(format!("missed: {who:?} has closed a circle, {:?}", self.circles(who.cpu)));
        }
        let chain = self.chain(who.cpu);
        self.is_unseen |= chain.iter().any(|&(_, lock)| {
            self.owners[lock].is_some_and(|owner| {
                self.wanted(owner.cpu).is_some() && !self.names[owner.cpu].contains(&(Vm::name_of(lock) as u32))
            })
        });
        if self.is_unseen || !want.is_long {
            return Ok(());
        }
        let owners = chain.iter().map(|&(_, lock)| self.owners[lock]).collect::<Vec<_>>();
        Err(format!("missed: the time of {who:?} was over, in {chain:?} of {owners:?}"))
    }

    /// Nothing is held, wanted or recorded any more, and nobody lies in a queue.
    pub(crate) fn nothing_is_left(&self) -> Result<(), String> {
        let words = self.words.iter().any(|&word| word != 0);
        let records =
            self.names.iter().flatten().any(|&name| name != 0) || self.waits.iter().any(|wait| wait & 0x1f != 0);
        let nodes = self.places.iter().flatten().any(|&grant| grant != 0);
        if words || records || nodes {
            let Self { words, waits, places, .. } = self;
            return Err(format!("something is left: {words:x?}, {waits:x?}, {:?}, nodes {places:?}", self.names));
        }
        Ok(())
    }
}

/// Counts of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Came {
    pub(crate) events: Vec<Event>,
    pub(crate) deadlocks: usize,
    pub(crate) longest: usize,
    pub(crate) late: usize,
    pub(crate) is_unseen: bool,
}
