//! The condition variable, explored: no notification is lost or spent twice, whoever notifies, with the lock or without.

#[path = "sleepers/mod.rs"]
mod sleepers;
#[path = "oracle/watchdog.rs"]
mod watchdog;

use std::rc::Rc;
use std::time::Duration;

use qspinlock::machine::{Access, Cell, Event, Machine};
use qspinlock::slowpath::{Parking, ParkingExact, Patience, RawCondvar, Sleeping, TestAndSet, Waited};
use qspinlock_vm::check::{CheckCell, Outcome, World};
use sleepers::{Guarded, POLL, SLEEP, SOON, Sleeper, Step, comes_to, explored, verdict};
use watchdog::Watchdog;

const DATA: Access = Access::relaxed("data", "the lock orders it");
const SAY: Access = Access::release("say", "hear: whoever waits is listed");
const HEAR: Access = Access::acquire("hear", "say");

/// What a CPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Waits until there is a token, and takes it.
    Takes,
    /// Waits until it is late or notified. Then it passes the notification on.
    PassesOn,
    /// Waits once, until it is late or notified, and notes which.
    Notes,
    /// Adds a token, unlocks, and notifies one.
    AddsOne,
    /// Adds a token, and notifies one before it unlocks.
    AddsOneInside,
    /// The same, when there is a waiter.
    AddsTwo,
    /// Adds two tokens, unlocks, and notifies all.
    AddsTwoForAll,
    /// Adds two tokens, and notifies all before it unlocks.
    AddsTwoForAllInside,
    /// Notifies one, and notes whether there was one.
    NotifiesOne,
    /// Notifies all, and notes how many.
    NotifiesAll,
    /// Takes the lock and releases it.
    Passes,
    /// Takes the lock and releases it, unless it is late.
    Hurries,
    /// Adds a token, and says so, but notifies nobody.
    Adds,
    /// When a token was added, notifies one.
    NotifiesWhenAdded,
}

use Does::*;

struct Tokens<'w, S> {
    lock: Guarded<'w, S>,
    condition: RawCondvar<Sleeper<'w>, TestAndSet>,
    tokens: CheckCell,
    added: CheckCell,
}

impl<'w, S: Sleeping<Sleeper<'w>>> Tokens<'w, S> {
    fn new(world: &'w World) -> Self {
        let cell = |name| world.cell(name);
        let condition = RawCondvar::from_cells(cell("inner"), cell("oldest"), cell("newest"));
        Self { lock: Guarded::new(world), condition, tokens: cell("tokens"), added: cell("added") }
    }

    fn wait(&self, m: &Sleeper<'w>, deadline: Option<u64>) -> Waited {
        self.lock.touch();
        // SAFETY: every caller has the lock.
        let waited = unsafe { self.condition.wait_on(m, &self.lock.lock, deadline, |_| true) };
        self.lock.touch();
        waited
    }

    fn add(&self, tokens: u32) {
        self.tokens.store(self.tokens.load(DATA) + tokens, DATA);
    }

    fn notify_one(&self, m: &Sleeper<'w>) -> bool {
        self.condition.notify_one_on(m, || Some(&self.lock.lock))
    }

    fn notify_all(&self, m: &Sleeper<'w>) -> usize {
        self.condition.notify_all_on(m, || Some(&self.lock.lock))
    }

    fn run(&self, m: &Sleeper<'w>, does: Does, noted: &CheckCell) {
        match does {
            Passes => self.lock.section(m),
            Hurries => self.lock.section_until(m, SOON),
            Adds => {
                self.lock.acquire(m);
                self.add(1);
                self.added.store(1, SAY);
                self.lock.release(m);
            }
            NotifiesWhenAdded => {
                m.until(&self.added, HEAR, |added| added == 1);
                self.notify_one(m);
            }
            NotifiesOne => noted.store(self.notify_one(m).into(), DATA),
            NotifiesAll => noted.store(self.notify_all(m) as u32, DATA),
            AddsOne => {
                self.lock.acquire(m);
                self.add(1);
                self.lock.release(m);
                self.notify_one(m);
            }
            AddsTwo => {
                (0..2).for_each(|_| self.run(m, AddsOne, noted));
            }
            AddsTwoForAll => {
                self.lock.acquire(m);
                self.add(2);
                self.lock.release(m);
                self.notify_all(m);
            }
            AddsOneInside | AddsTwoForAllInside => {
                self.lock.acquire(m);
                self.add(if does == AddsOneInside { 1 } else { 2 });
                match does {
                    AddsOneInside => drop(self.notify_one(m)),
                    _ => drop(self.notify_all(m)),
                }
                self.lock.release(m);
            }
            Takes => {
                self.lock.acquire(m);
                while self.tokens.load(DATA) == 0 {
                    self.wait(m, None);
                }
                self.tokens.store(self.tokens.load(DATA) - 1, DATA);
                self.lock.release(m);
            }
            PassesOn => {
                self.lock.acquire(m);
                let is_notified = self.tokens.load(DATA) == 0 && self.wait(m, Some(SOON)) == Waited::Notified;
                self.lock.release(m);
                if is_notified {
                    self.notify_one(m);
                }
            }
            Notes => {
                self.lock.acquire(m);
                let waited = self.wait(m, Some(SOON));
                self.lock.release(m);
                noted.store((waited == Waited::Notified).into(), DATA);
            }
        }
    }
}

fn explored_with<S>(patience: Patience, cpus: &[Does], is_judged: bool) -> Outcome
where
    S: for<'w> Sleeping<Sleeper<'w>> + 'static,
{
    let name = format!("{cpus:?}, poll {}", patience.poll);
    let world = World::new(cpus.len(), 1);
    let tokens = Rc::new(Tokens::<S>::new(&world));
    let program = |(cpu, &does): (usize, &Does)| -> Step<'_> {
        let (tokens, m) =
            (tokens.clone(), Sleeper::new(&world, cpu, patience, matches!(does, PassesOn | Notes | Hurries)));
        let noted = world.register(cpu, format!("noted{cpu}"));
        Box::new(move || tokens.run(&m, does, &noted))
    };
    let words = if is_judged { vec![tokens.lock.word] } else { Vec::new() };
    let preemptions = match cpus {
        // Small enough.
        [Takes, Adds, NotifiesWhenAdded] => None,
        // Who sleeps with an end must be left to come to another, and so must an owner amid its unlock.
        _ if cpus.contains(&Notes) || cpus.contains(&Hurries) => Some(2),
        _ => Some(1),
    };
    explored(&name, &world, words, preemptions, cpus.iter().enumerate().map(program).collect())
}

fn exact(patience: Patience, cpus: &[Does]) -> Outcome {
    let outcome = explored_with::<ParkingExact>(patience, cpus, true);
    assert_eq!(verdict(&outcome), "holds", "{cpus:?}");
    outcome
}

/// The unlock in two steps: a moved waiter that nobody kicks sleeps for ever if the unlock has not seen it.
fn in_two_steps(patience: Patience, cpus: &[Does]) -> Outcome {
    let outcome = explored_with::<Parking>(patience, cpus, false);
    assert_eq!(verdict(&outcome), "holds", "{cpus:?}");
    outcome
}

fn watched(test: &'static str) -> Watchdog {
    Watchdog::after(Duration::from_secs(3600), test)
}

#[test]
fn one_waits_for_one() {
    let _watchdog = watched("one_waits_for_one");
    for adds in [AddsOne, AddsOneInside, AddsTwoForAll, AddsTwoForAllInside] {
        let outcome = exact(SLEEP, &[Takes, adds]);
        assert!(comes_to(&outcome, Event::Requeued) || adds == AddsOne || adds == AddsTwoForAll);
        exact(POLL, &[Takes, adds]);
        in_two_steps(SLEEP, &[Takes, adds]);
        in_two_steps(POLL, &[Takes, adds]);
    }
}

#[test]
fn two_wait_for_two() {
    let _watchdog = watched("two_wait_for_two");
    for adds in [AddsTwo, AddsTwoForAll, AddsTwoForAllInside] {
        let outcome = exact(SLEEP, &[Takes, Takes, adds]);
        assert!(comes_to(&outcome, Event::Requeued));
    }
}

/// Who notifies without the lock meets an owner in the middle of its unlock.
#[test]
fn somebody_else_unlocks() {
    let _watchdog = watched("somebody_else_unlocks");
    exact(SLEEP, &[Takes, Adds, NotifiesWhenAdded]);
    let outcome = in_two_steps(SLEEP, &[Takes, Adds, NotifiesWhenAdded]);
    assert!(comes_to(&outcome, Event::Requeued));
    exact(SLEEP, &[Takes, AddsOne, Passes]);
    in_two_steps(SLEEP, &[Takes, AddsOne, Passes]);
}

/// The only one in the queue who watches for that owner is hasty, and gives up.
#[test]
fn behind_one_who_may_give_up() {
    let _watchdog = watched("behind_one_who_may_give_up");
    in_two_steps(SLEEP, &[Takes, Adds, NotifiesWhenAdded, Hurries]);
}

#[test]
fn a_notification_is_not_spent_on_who_is_late() {
    let _watchdog = watched("a_notification_is_not_spent_on_who_is_late");
    exact(SLEEP, &[PassesOn, AddsOne]);
    for adds in [AddsOne, AddsOneInside] {
        exact(SLEEP, &[PassesOn, Takes, adds]);
    }
}

/// As many waits report a notification as waiters were notified.
#[test]
fn a_notification_is_spent_once() {
    let _watchdog = watched("a_notification_is_spent_once");
    for notifies in [NotifiesOne, NotifiesAll] {
        for cpus in [&[Notes, notifies][..], &[Notes, Notes, notifies]] {
            let outcome = explored_with::<ParkingExact>(SLEEP, cpus, false);
            assert_eq!(verdict(&outcome), "holds", "{cpus:?}");
            let mut most = 0;
            for end in &outcome.finals {
                let noted = |cpu| end.iter().find(|(name, _)| *name == format!("noted{cpu}")).map_or(0, |(_, v)| *v);
                let (waiters, notified) = (cpus.len() - 1, noted(cpus.len() - 1));
                assert_eq!((0..waiters).map(noted).sum::<u32>(), notified, "{cpus:?}: {end:?}");
                most = most.max(notified);
            }
            assert_eq!(most as usize, if notifies == NotifiesAll { cpus.len() - 1 } else { 1 });
        }
    }
}
