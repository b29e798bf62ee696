//! The simulator against published figures; and against itself, on any machine and in any year.

mod machines;

use qspinlock_vm::time::curves::{Curve, SOSP13_XEON, curves};
use qspinlock_vm::time::model::Model;
use qspinlock_vm::time::run::{LockKind, Overcommit, Setup, Span, Until, run};

/// The pause after a release, in cycles: as in `docs/simulator.md`. The published one is not known, and hardly matters: see below.
const PAUSE: u64 = 300;

/// The locks on which it is fitted, and from how many threads on: with fewer, pipelines count that the model has not.
const FITTED: [&str; 2] = ["mcs", "ticket"];
const FEWEST: u32 = 5;

fn xeon() -> Model {
    Model::built_in("sosp13-xeon").expect("it is built in")
}

fn published() -> Vec<Curve> {
    curves(SOSP13_XEON).expect("curves")
}

/// Million acquisitions in a second with that pause: the median of three seeds.
fn simulated(xeon: &Model, lock: LockKind, threads: u32, pause: u64) -> f64 {
    let setup = |seed| Setup {
        think: Span::Cycles(pause),
        until: Until::Time(Span::Nanos(3_000_000)),
        seed,
        ..Setup::new(lock, threads)
    };
    let mut of = [1, 2, 3].map(|seed| run(xeon, &setup(seed)).unwrap().throughput / 1e6);
    of.sort_by(f64::total_cmp);
    of[1]
}

/// For each number of threads, simulated to published.
fn ratios(xeon: &Model, curve: &Curve, pause: u64) -> Vec<(u32, f64)> {
    let lock = curve.name.parse().unwrap();
    let points = curve.points.iter().filter(|point| point.0 >= FEWEST);
    points.map(|&(n, published)| (n, simulated(xeon, lock, n, pause) / published)).collect()
}

/// Test-and-test-and-set is not among them: the published one backs off, for a time that is not known.
#[test]
fn figure_5_comes_out_as_published() {
    let xeon = xeon();
    for curve in published().iter().filter(|curve| curve.name != "ttas") {
        let ratios = ratios(&xeon, curve, PAUSE);
        println!("{} {ratios:.2?}", curve.name);
        let (least, most) = if FITTED.contains(&curve.name.as_str()) { (0.7, 1.4) } else { (0.55, 1.4) };
        for (threads, ratio) in ratios {
            assert!((least..most).contains(&ratio), "{} at {threads} threads: {ratio}", curve.name);
        }
    }
}

/// From a few threads on somebody always waits, and a pause is over before one's next turn.
#[test]
fn what_is_not_known_hardly_matters() {
    let xeon = xeon();
    for curve in published().iter().filter(|curve| FITTED.contains(&curve.name.as_str())) {
        let (short, long) = (ratios(&xeon, curve, 100), ratios(&xeon, curve, 430));
        for (short, long) in short.into_iter().zip(long) {
            assert!((0.85..1.15).contains(&(long.1 / short.1)), "{}: {short:?}, {long:?}", curve.name);
        }
    }
}

/// Curves that anybody would draw: a queue degrades slowly past a socket, others without end.
#[test]
fn queues_hold_where_others_fall() {
    let xeon = xeon();
    let of = |lock, threads| simulated(&xeon, lock, threads, PAUSE);
    for queue in [LockKind::Mcs, LockKind::Native] {
        assert!(of(queue, 80) > 0.7 * of(queue, 40), "{queue}");
    }
    for crowd in [LockKind::Ticket, LockKind::Tas, LockKind::Ttas, LockKind::TestAndSet] {
        assert!(of(crowd, 80) < 0.7 * of(crowd, 40), "{crowd}");
    }
}

/// If one of these changes so has what the simulator does: say why in the change that does it.
#[test]
fn a_run_is_the_same_everywhere() {
    let xeon = machines::xeon();
    let digests = DIGESTS.map(|(lock, _)| {
        let setup = Setup {
            think: Span::Nanos(700),
            section: Span::Cycles(99),
            lines: 2,
            locks: 3,
            until: Until::Acquisitions(50),
            seed: 42,
            overcommit: Some(Overcommit { slice: 100_000, ..Overcommit::on(16) }),
            ..Setup::new(lock, 24)
        };
        (lock, run(&xeon, &setup).unwrap().digest)
    });
    assert_eq!(digests, DIGESTS);
}

/// Of those locks that are only here to be compared with, and do not change.
const DIGESTS: [(LockKind, u64); 4] = [
    (LockKind::Tas, 1405813961952100260),
    (LockKind::Ttas, 3494292453699329944),
    (LockKind::Ticket, 4549926962201155926),
    (LockKind::Mcs, 8033477917040821648),
];
