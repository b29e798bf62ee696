//! Every lock excludes, counts, and takes the same time again.

mod machines;

use qspinlock_vm::time::model::{Model, Placement};
use qspinlock_vm::time::run::{LockKind, Outcome, Overcommit, RunError, Setup, Span, Until, run};

fn all(cpus: u32, seed: u64) -> impl Iterator<Item = Setup> {
    LockKind::ALL.into_iter().map(move |lock| Setup {
        seed,
        lines: 2,
        think: Span::Cycles(300),
        until: Until::Acquisitions(40),
        ..Setup::new(lock, cpus)
    })
}

fn of(model: &Model, setup: &Setup) -> Outcome {
    run(model, setup).unwrap_or_else(|error| panic!("{}: {error}", setup.lock))
}

/// A run itself checks that nobody has a lock that somebody has, and that no increment of a data line is lost.
#[test]
fn all_locks_exclude_and_serve_all() {
    let xeon = machines::xeon();
    for (cpus, seed) in [(1, 1), (2, 2), (3, 3), (9, 4), (25, 5), (80, 6)] {
        for setup in all(cpus, seed) {
            let outcome = of(&xeon, &setup);
            assert_eq!(outcome.acquisitions, vec![40; cpus as usize], "{}", setup.lock);
            assert_eq!(outcome.handoffs.total(), outcome.total() - 1, "{}", setup.lock);
            assert!(outcome.waits.p50 <= outcome.waits.max && outcome.cycles > 0, "{}", setup.lock);
        }
    }
}

#[test]
fn a_run_is_the_same_again_and_another_with_another_seed() {
    let xeon = machines::xeon();
    for setup in all(20, 7) {
        let (one, other) = (of(&xeon, &setup), of(&xeon, &Setup { seed: 8, ..setup.clone() }));
        assert_eq!(one, of(&xeon, &setup), "{}", setup.lock);
        assert_ne!(one.digest, other.digest, "{}", setup.lock);
    }
}

#[test]
fn several_locks_are_all_taken() {
    let xeon = machines::xeon();
    // Where waiters sleep, more of them do when they are woken less often.
    for setup in all(16, 9).filter(|s| !matches!(s.lock, LockKind::Paravirt | LockKind::Parking)) {
        let one = of(&xeon, &Setup { think: Span::Cycles(0), ..setup.clone() });
        let four =
            of(&xeon, &Setup { think: Span::Cycles(0), locks: 4, placement: Placement::Spread, ..setup.clone() });
        assert_eq!(four.total(), 640);
        assert!(four.waits.mean < one.waits.mean, "{}: {:?} {:?}", setup.lock, four.waits, one.waits);
    }
}

#[test]
fn a_run_of_a_length_of_time_has_that_length() {
    let xeon = machines::xeon();
    for setup in all(10, 1) {
        let setup = Setup { until: Until::Time(Span::Nanos(200_000)), section: Span::Nanos(100), ..setup };
        let outcome = of(&xeon, &setup);
        assert!((200_000..260_000).contains(&outcome.nanos), "{}: {} ns", setup.lock, outcome.nanos);
        assert!(outcome.total() > 100, "{}", setup.lock);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let xeon = machines::xeon();
    let good = Setup::new(LockKind::Native, 8);
    let refused = |setup: &Setup| match run(&xeon, setup) {
        Err(RunError::Setup(why)) => why,
        other => panic!("{other:?}"),
    };
    for (setup, why) in [
        (Setup { cpus: 0, ..good.clone() }, "a run needs a CPU"),
        (Setup { cpus: 81, ..good.clone() }, "xeon has 80 CPUs, not 81; more need overcommit"),
        (Setup { locks: 0, ..good.clone() }, "a run needs a lock"),
        (Setup { until: Until::Acquisitions(0), ..good.clone() }, "a run needs acquisitions"),
        (Setup { until: Until::Time(Span::Nanos(0)), ..good.clone() }, "a run needs time"),
        (
            Setup { lines: u32::MAX, locks: u32::MAX, ..good.clone() },
            "8 CPUs, 4294967295 locks of 4294967295 lines are too many",
        ),
        (Setup { overcommit: Some(Overcommit::on(0)), ..good.clone() }, "virtual CPUs need a physical one"),
        (Setup { overcommit: Some(Overcommit::on(81)), ..good.clone() }, "xeon has 80 CPUs, not 81"),
    ] {
        assert_eq!(refused(&setup), why);
    }
    let mut poor = xeon.clone();
    poor.transfers.truncate(2);
    let why = run(&poor, &good).unwrap_err().to_string();
    assert_eq!(why, "xeon has CPUs at a distance of 2 hops, and no costs for it");
    assert_eq!("mcs".parse(), Ok(LockKind::Mcs));
    assert!("mcz".parse::<LockKind>().unwrap_err().starts_with("unknown lock 'mcz'; known are native, "));
}
