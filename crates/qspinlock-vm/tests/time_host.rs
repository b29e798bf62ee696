//! Virtual CPUs on fewer physical ones: who runs when, and what it does to locks.

mod machines;

use std::cell::RefCell;

use qspinlock::machine::{Access, Cell, Machine};
use qspinlock::queue::Cpu;
use qspinlock::slowpath::{Locality, Patience};
use qspinlock_vm::time::cell::{Arena, LINE, SimCell};
use qspinlock_vm::time::machine::Virtual;
use qspinlock_vm::time::model::Domain;
use qspinlock_vm::time::run::{LockKind, Outcome, Overcommit, Setup, Span, Until, run};
use qspinlock_vm::time::world::{Conditions, World, memory_of};

const A: Access = Access::relaxed("test", "");

/// Cycles of a microsecond, of the slice below, and of a switch.
const US: u64 = 2_130;
const SLICE: u64 = 1_000 * US;
const SWITCH: u64 = 2 * US;

/// Runs `work` on so many virtual CPUs of one physical one, with slices of a millisecond; what they noted, in time's order.
fn on_one(cpus: u32, work: impl Fn(&Virtual, &[SimCell; 2], &dyn Fn(&Virtual))) -> Vec<(u64, u32)> {
    let xeon = machines::xeon();
    let conditions = Conditions {
        model: &xeon,
        places: vec![0],
        cpus,
        seed: 1,
        domain: Domain::Node,
        locality: Locality::DEFAULT,
        host: Overcommit { slice: 1_000_000, ..Overcommit::on(1) },
        patience: Patience::DEFAULT,
    };
    let arena = Arena::new(memory_of(cpus) + 2 * LINE);
    let world = World::new(&arena, &conditions).unwrap();
    let cells = arena.put(<[SimCell; 2]>::default());
    let log = RefCell::default();
    let note = |m: &Virtual| RefCell::<Vec<_>>::borrow_mut(&log).push((m.cycles(), m.cpu()));
    world.run(|m| work(m, cells, &note), |now| (now > 100 * SLICE).then(|| "no end".into())).unwrap();
    let mut log = log.into_inner();
    log.sort_unstable();
    log
}

#[test]
fn one_runs_at_a_time_and_each_has_its_slice() {
    // Each works for five slices, a hundredth at a time.
    let log = on_one(3, |m, cells, note| {
        for _ in 0..500 {
            m.work(SLICE / 100);
            cells[0].load(A);
            note(m);
        }
    });
    let times: Vec<u64> = log.iter().map(|note| note.0).collect();
    let turns: Vec<u32> = log.iter().map(|note| note.1).collect();
    let turns: Vec<u32> = turns.chunk_by(|a, b| a == b).map(|turn| turn[0]).collect();
    // The first slice of all is cut short, at random: so each has five or six turns, one after the other.
    assert!((15..=18).contains(&turns.len()), "{turns:?}");
    assert!(turns.windows(3).take(12).all(|t| t[0] != t[1] && t[1] != t[2] && t[2] != t[0]), "{turns:?}");
    // Never two at a time; and nothing is lost but the time to switch, and what is fetched again.
    let least = 1_500 * (SLICE / 100) + (turns.len() as u64 - 1) * SWITCH;
    let last = *times.last().unwrap();
    assert!((least..least + 1_500 * 5 + 1_000).contains(&last), "{last} {least}");
}

#[test]
fn who_is_preempted_is_said_to_be() {
    let seen = RefCell::new([0_u32; 2]);
    on_one(2, |m, cells, _| {
        let [me, other] = [m.cpu(), 1 - m.cpu()].map(|cpu| Cpu::new(cpu).unwrap());
        for _ in 0..200 {
            m.work(SLICE / 50);
            cells[0].load(A);
            assert!(!m.preempted(me));
            seen.borrow_mut()[usize::from(m.preempted(other))] += 1;
        }
    });
    // While one runs on the only physical CPU the other does not.
    assert_eq!(seen.into_inner(), [0, 400]);
}

#[test]
fn who_sleeps_leaves_its_cpu_to_others() {
    let log = on_one(2, |m, cells, note| {
        if m.cpu() == 0 {
            m.wait(&cells[0], 0, A, None);
            assert_eq!(cells[1].load(A), 1);
        } else {
            // Begins at once, not after a slice.
            assert!(m.cycles() < SLICE / 2, "{}", m.cycles());
            cells[1].store(1, A);
            m.kick(Cpu::new(0).unwrap());
            // The woken one is ready; it has its turn when this one gives way.
            note(m);
            m.yield_cpu();
        }
        note(m);
    });
    let order: Vec<u32> = log.iter().map(|note| note.1).collect();
    assert_eq!(order, [1, 0, 1], "{log:?}");
}

/// A spinner looks at its cell when it has its CPU again, and not before.
#[test]
fn a_preempted_spinner_sees_nothing_until_it_runs() {
    let log = on_one(2, |m, cells, note| {
        if m.cpu() == 0 {
            m.until(&cells[0], A, |v| v == 1);
        } else {
            cells[0].store(1, A);
            m.work(SLICE / 4);
            cells[1].load(A);
        }
        note(m);
    });
    let [(one, 1), (zero, 0)] = log[..] else { panic!("{log:?}") };
    assert!(zero > one && zero < one + SLICE, "{log:?}");
}

/// Looks are counted while it looks; a moment comes whoever runs.
#[test]
fn a_budget_of_looks_lasts_longer_for_who_does_not_run() {
    use qspinlock::machine::Budget;
    let spent = RefCell::new([0; 2]);
    on_one(3, |m, cells, _| match m.cpu() {
        2 => (0..1_000).for_each(|_| {
            m.work(SLICE / 100);
            cells[1].load(A);
        }),
        cpu => {
            let begun = m.cycles();
            // Each two and a half slices.
            let looks = Budget::Looks { most: (SLICE * 5 / 2 / 10) as u32, apart: 1 };
            let time = Budget::Until(m.now() + 2_500_000);
            let budget = if cpu == 0 { looks } else { time };
            assert_eq!(m.until_for(&cells[0], A, budget, |v| v != 0), Err(0));
            spent.borrow_mut()[cpu as usize] = m.cycles() - begun;
        }
    });
    let [looks, time] = spent.into_inner();
    assert!(looks > 4 * SLICE && (SLICE * 5 / 2..5 * SLICE).contains(&time), "{looks} {time}");
}

fn crowd(lock: LockKind, cpus: u32, physical: u32, ms: u64) -> Outcome {
    let setup = Setup {
        section: Span::Nanos(1_000),
        until: Until::Time(Span::Nanos(ms * 1_000_000)),
        overcommit: Some(Overcommit { slice: 3_000_000, ..Overcommit::on(physical) }),
        ..Setup::new(lock, cpus)
    };
    run(&machines::xeon(), &setup).unwrap_or_else(|error| panic!("{lock}: {error}"))
}

#[test]
fn a_queue_that_spins_collapses_and_one_that_sleeps_does_not() {
    let [native, paravirt, unfair] =
        [LockKind::Native, LockKind::Paravirt, LockKind::TestAndSet].map(|lock| crowd(lock, 24, 8, 100));
    assert!(native.throughput * 20.0 < paravirt.throughput, "{native:?} {paravirt:?}");
    assert!(native.throughput * 20.0 < unfair.throughput, "{native:?} {unfair:?}");
    assert!(native.next_waiter_preemptions > native.total() / 8, "{native:?}");
    assert!(paravirt.next_waiter_preemptions < paravirt.total() / 100, "{paravirt:?}");
    assert!(unfair.holder_preemptions > 0, "{unfair:?}");
}

#[test]
fn with_a_cpu_for_each_nobody_is_preempted() {
    for lock in LockKind::ALL {
        let (crowd, alone) = (crowd(lock, 8, 8, 4), crowd(lock, 8, 16, 4));
        assert_eq!((crowd.holder_preemptions, crowd.next_waiter_preemptions), (0, 0), "{lock}");
        assert_eq!(crowd, alone, "{lock}");
    }
}

#[test]
fn all_locks_serve_all_where_cpus_are_shared() {
    for lock in LockKind::ALL {
        let setup = Setup {
            until: Until::Acquisitions(20),
            overcommit: Some(Overcommit { slice: 50_000, ..Overcommit::on(3) }),
            ..Setup::new(lock, 7)
        };
        let xeon = machines::xeon();
        let outcome = run(&xeon, &setup).unwrap_or_else(|error| panic!("{lock}: {error}"));
        assert_eq!(outcome.acquisitions, [20; 7], "{lock}");
        assert_eq!(outcome, run(&xeon, &setup).unwrap(), "{lock}");
    }
}
