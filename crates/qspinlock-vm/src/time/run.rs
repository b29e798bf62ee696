//! A run of a [`Setup`] on a [`Model`].

use std::cell::RefCell;

use qspinlock::machine::Access;
use qspinlock::machine::Cell;
use qspinlock::slowpath::{Locality, Native, Numa, Paravirt, Parking, Patience, TestAndSet};

use super::cell::{Arena, LINE, SimCell};
use super::locks::{Queued, Resilient, SimLock};
use super::machine::Virtual;
use super::model::Model;
pub use super::outcome::{Handoffs, Outcome, RunError, Waits};
use super::random::mix;
use super::reference::{Mcs, McsNode, Tas, Ticket, Ttas};
pub use super::setup::{LockKind, Overcommit, Setup, Span, Until};
use super::waits::Histogram;
use super::world::{Conditions, Stopped, World, memory_of};

/// Memory of a world, at most; most of it is never touched.
const MOST_MEMORY: usize = 1 << 31;

/// Nobody has had a lock for so many seconds of virtual time: nobody ever will.
const STUCK: u64 = 60;

fn check(model: &Model, setup: &Setup) -> Result<(), RunError> {
    let no = |why: String| Err(RunError::Setup(why));
    let cpus = model.shape.cpus();
    if model.mhz == 0 {
        return no(format!("{} has a clock that stands still", model.name));
    }
    if setup.cpus == 0 {
        return no("a run needs a CPU".into());
    }
    match &setup.overcommit {
        None if setup.cpus > cpus => {
            return no(format!("{} has {cpus} CPUs, not {}; more need overcommit", model.name, setup.cpus));
        }
        Some(Overcommit { physical: 0, .. }) => return no("virtual CPUs need a physical one".into()),
        Some(o) if o.physical > cpus => return no(format!("{} has {cpus} CPUs, not {}", model.name, o.physical)),
        Some(o) if o.slice == 0 => return no("a time slice needs some time".into()),
        _ => {}
    }
    if setup.locks == 0 {
        return no("a run needs a lock".into());
    }
    if memory(setup).is_none_or(|bytes| bytes > MOST_MEMORY) {
        return no(format!("{} CPUs, {} locks of {} lines are too many", setup.cpus, setup.locks, setup.lines));
    }
    match setup.until {
        Until::Acquisitions(0) => no("a run needs acquisitions".into()),
        Until::Time(span) if span.cycles(model) == 0 => no("a run needs time".into()),
        _ => Ok(()),
    }
}

/// Bytes that locks, data and queue nodes take.
fn memory(setup: &Setup) -> Option<usize> {
    let nodes = memory_of(setup.cpus).checked_add((setup.cpus as usize + 1) * LINE)?;
    let lines = (setup.lines as usize).checked_add(4)?;
    nodes.checked_add(lines.checked_mul(setup.locks as usize)?.checked_mul(LINE)?)
}

/// A lock, and what it protects.
struct Site<'a, L> {
    lock: &'a L,
    lines: Vec<&'a SimCell>,
    /// What must be true of it.
    owner: Option<u32>,
    acquired: u64,
    /// Where the last owner was, and when it began to release.
    last: Option<(u32, u32, u64)>,
}

/// What a run has shown so far.
#[derive(Default)]
struct Seen {
    acquisitions: Vec<u64>,
    /// When the first CPU was done.
    first: Option<Vec<u64>>,
    done: u64,
    progress: u64,
    end: u64,
    waits: Histogram,
    handoffs: Handoffs,
    domains: Vec<u64>,
    first_domains: Option<Vec<u64>>,
    next_preempted: u64,
    next_asleep: u64,
    digest: u64,
}

const READ: Access = Access::relaxed("run.read", "the lock orders it");
const WRITE: Access = Access::relaxed("run.write", "the lock orders it");

/// Runs it. The same model and setup have the same outcome, wherever and whenever.
///
/// # Errors
/// See [`RunError`].
///
/// # Panics
/// If the system has no memory for the stacks of the virtual CPUs.
pub fn run(model: &Model, setup: &Setup) -> Result<Outcome, RunError> {
    check(model, setup)?;
    let arena = Arena::new(memory(setup).unwrap_or(MOST_MEMORY));
    let host = setup.overcommit.unwrap_or(Overcommit::on(setup.cpus));
    // Virtual CPUs that sleep have nobody to yield to.
    let patience = if setup.lock == LockKind::Paravirt { Patience::VIRTUAL } else { Patience::DEFAULT };
    let mut locality = Locality::DEFAULT;
    locality.threshold = setup.threshold.unwrap_or(locality.threshold);
    locality.one_in = setup.one_in.unwrap_or(locality.one_in);
    let conditions = Conditions {
        model,
        places: model.shape.place(host.physical.min(setup.cpus), setup.placement),
        cpus: setup.cpus,
        seed: setup.seed,
        domain: setup.domain,
        locality,
        host,
        patience,
    };
    let world = World::new(&arena, &conditions).map_err(RunError::Setup)?;
    let bench = Bench { model, setup, arena: &arena, world: &world };
    match setup.lock {
        LockKind::Native => bench.run(Queued::<Native>::default),
        LockKind::Numa => bench.run(Queued::<Numa>::default),
        LockKind::TestAndSet => bench.run(Queued::<TestAndSet>::default),
        LockKind::Paravirt => bench.run(Queued::<Paravirt>::default),
        LockKind::Parking => bench.run(Queued::<Parking>::default),
        LockKind::Resilient => bench.run(Resilient::<Native>::default),
        LockKind::ResilientNuma => bench.run(Resilient::<Numa>::default),
        LockKind::Tas => bench.run(Tas::default),
        LockKind::Ttas => bench.run(Ttas::default),
        LockKind::Ticket => bench.run(Ticket::default),
        LockKind::Mcs => {
            let nodes = arena.put_all(setup.cpus as usize, |_| McsNode::default());
            bench.run(|| Mcs::new(nodes))
        }
    }
}

/// A run that is set up, but for its locks.
struct Bench<'a> {
    model: &'a Model,
    setup: &'a Setup,
    arena: &'a Arena,
    world: &'a World<'a>,
}

impl<'a> Bench<'a> {
    fn run<L: SimLock + 'a>(&self, mut lock: impl FnMut() -> L) -> Result<Outcome, RunError> {
        let Self { model, setup, arena, world } = *self;
        let site = |_| Site {
            lock: arena.put(lock()),
            lines: (0..setup.lines).map(|_| arena.put(SimCell::default())).collect(),
            owner: None,
            acquired: 0,
            last: None,
        };
        let sites: RefCell<Vec<Site<'_, L>>> = RefCell::new((0..setup.locks).map(site).collect());
        let domains = world.domain_count();
        let seen = RefCell::new(Seen {
            acquisitions: vec![0; setup.cpus as usize],
            domains: vec![0; domains],
            ..Seen::default()
        });
        let (section, think) = (setup.section.cycles(model), setup.think.cycles(model));
        let per_second = u64::from(model.mhz) * 1_000_000;
        let stuck = STUCK.saturating_mul(per_second).saturating_add(section.saturating_add(think).saturating_mul(4));
        let limit = |now: u64| {
            let progress = seen.borrow().progress;
            (now.saturating_sub(progress) > stuck).then(|| format!("nobody has had a lock since cycle {progress}"))
        };
        let work = |m: &Virtual| self.work(m, &sites, &seen, (section, think));
        match world.run(work, limit) {
            Ok(()) => {}
            Err(Stopped::Deadlock(who)) => return Err(RunError::Deadlock(who)),
            Err(Stopped::Failed(who)) => return Err(RunError::Exclusion(who)),
        }
        for (number, site) in sites.into_inner().iter().enumerate() {
            // The sections counted with plain loads and stores.
            if let Some(line) = site.lines.iter().find(|line| line.get() != site.acquired as u32) {
                let is = line.get();
                let why =
                    format!("lock {number} was had {} times, and a line of it was written {is} times", site.acquired);
                return Err(RunError::Exclusion(why));
            }
        }
        Ok(self.outcome(seen.into_inner()))
    }

    /// What one CPU does.
    fn work<L: SimLock>(
        &self,
        m: &Virtual,
        sites: &RefCell<Vec<Site<'_, L>>>,
        seen: &RefCell<Seen>,
        (section, think): (u64, u64),
    ) {
        let Self { model, setup, world, .. } = *self;
        let me = m.cpu();
        let end = match setup.until {
            Until::Acquisitions(_) => u64::MAX,
            Until::Time(span) => span.cycles(model),
        };
        // Not all at once, and in any order: with little to do in between they would go round in that order for ever.
        let others = u64::from(setup.cpus).saturating_sub(1);
        m.work(world.below(think.max(others * Span::Nanos(1_000).cycles(model)).saturating_add(1)));
        let mut rounds = 0;
        loop {
            match setup.until {
                Until::Acquisitions(most) if rounds >= most => break,
                Until::Time(_) if m.cycles() >= end => break,
                _ => rounds += 1,
            }
            let number = world.below(setup.locks.into()) as usize;
            let lock = sites.borrow()[number].lock;
            let asked = m.cycles();
            lock.acquire(m);
            let lines = {
                let site = &mut sites.borrow_mut()[number];
                if let Some(owner) = site.owner.replace(me) {
                    world.fail(format!("cpu {me} has lock {number}, and so has cpu {owner}"));
                    return;
                }
                self.acquired(m, site, &mut seen.borrow_mut(), number, asked);
                std::mem::take(&mut site.lines)
            };
            world.holds(true);
            for line in &lines {
                line.store(line.load(READ).wrapping_add(1), WRITE);
            }
            m.work(section);
            world.holds(false);
            {
                let site = &mut sites.borrow_mut()[number];
                site.lines = lines;
                site.owner = None;
                site.last = Some((me, world.whereabouts().0, m.cycles()));
            }
            lock.release(m);
            {
                let seen = &mut seen.borrow_mut();
                seen.end = seen.end.max(m.cycles());
            }
            m.work(world.around(think));
        }
        let seen = &mut *seen.borrow_mut();
        seen.done += 1;
        if seen.first.is_none() {
            seen.first = Some(seen.acquisitions.clone());
            seen.first_domains = Some(seen.domains.clone());
        }
    }

    /// Notes that the CPU that runs has a lock, for which it asked at some time.
    fn acquired<L>(&self, m: &Virtual, site: &mut Site<'_, L>, seen: &mut Seen, number: usize, asked: u64) {
        let (world, me, now) = (self.world, m.cpu(), m.cycles());
        let (place, since, slept) = world.whereabouts();
        site.acquired += 1;
        seen.acquisitions[me as usize] += 1;
        seen.domains[world.domain(me as usize) as usize] += 1;
        seen.progress = seen.progress.max(now);
        seen.waits.add(now - asked);
        seen.digest = mix(seen.digest ^ mix(now) ^ u64::from(me) << 32 ^ number as u64);
        let Some((last, from, released)) = site.last else { return };
        let handoffs = &mut seen.handoffs;
        *match world.apart(from, place) {
            _ if last == me => &mut handoffs.same,
            0 => &mut handoffs.core,
            1 => &mut handoffs.l3,
            2 => &mut handoffs.socket,
            _ => &mut handoffs.remote,
        } += 1;
        if asked < released && since > released {
            *if slept { &mut seen.next_asleep } else { &mut seen.next_preempted } += 1;
        }
    }

    fn outcome(&self, seen: Seen) -> Outcome {
        let nanos = self.world.nanos(seen.end);
        let mut until_first = seen.first.unwrap_or_default();
        until_first.sort_unstable();
        let half = until_first.iter().rev().take(until_first.len().div_ceil(2)).sum::<u64>();
        let all = until_first.iter().sum::<u64>().max(1);
        let total: u64 = seen.acquisitions.iter().sum();
        Outcome {
            cycles: seen.end,
            nanos,
            throughput: total as f64 * 1e9 / nanos.max(1) as f64,
            waits: seen.waits.waits(|cycles| self.world.nanos(cycles)),
            handoffs: seen.handoffs,
            fairness: half as f64 / all as f64,
            domains: seen.first_domains.unwrap_or_default(),
            events: self.world.counts(),
            holder_preemptions: self.world.holder_preemptions(),
            next_waiter_preemptions: seen.next_preempted,
            next_waiter_asleep: seen.next_asleep,
            digest: mix(seen.digest ^ seen.end),
            acquisitions: seen.acquisitions,
        }
    }
}
