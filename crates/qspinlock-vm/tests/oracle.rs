//! The checker against brute force: random small programs, of which both must say exactly the same.
//!
//! `QSPINLOCK_ORACLE=80000` looks at so many programs, instead of those that fit in some seconds;
//! `QSPINLOCK_ORACLE_SEED=n` starts at another seed. A program that differs is printed in its smallest form, as a
//! line that `litmus.rs` can take.

#[path = "oracle/mod.rs"]
mod judges;
#[path = "oracle/random.rs"]
mod random;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use fastrand::Rng;
use itertools::Itertools;
use judges::program::Program;
use judges::watchdog::Watchdog;
use judges::{Behaviour, Final, axioms, checked};
use qspinlock::queue::{Cpu, Tail};
use qspinlock_vm::check::{Keep, Lock, Outcome, Scenario, Search, Verdict, Waiting, weaker};
use random::Mix;

/// Programs with more candidate executions than this are left out: brute force would take too long.
const MOST_CANDIDATES: u64 = 20_000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{variable}={text}: {e}")))
}

/// Random programs: as many as asked for, or as fit in this time, but at least `least`.
fn programs(what: &str, time: Duration, least: u64, mut judge: impl FnMut(u64, Mix, Program)) {
    let (asked, first) = (number("QSPINLOCK_ORACLE"), number("QSPINLOCK_ORACLE_SEED").unwrap_or(1));
    let limit = asked.map_or(time.saturating_mul(20), |n| Duration::from_millis(200 * n) + time * 20);
    let _watchdog = Watchdog::after(limit, "random programs");
    let start = Instant::now();
    let mut judged = 0;
    for seed in first.. {
        if asked.map_or(judged >= least && start.elapsed() > time, |n| judged >= n) {
            println!("{what}: {judged} programs, seeds {first} to {}, {:.1?}", seed - 1, start.elapsed());
            return;
        }
        let mut rng = Rng::with_seed(seed);
        let mix = Mix::any(&mut rng);
        let program = random::program(&mut rng, mix);
        if random::candidates(&program) <= MOST_CANDIDATES {
            judge(seed, mix, program);
            judged += 1;
        }
    }
}

/// The checker stops at the first failure, and then has seen a part of the ends only.
fn agrees(checked: &Behaviour, allowed: &Behaviour) -> bool {
    if checked.hangs || checked.races {
        (!checked.hangs || allowed.hangs)
            && (!checked.races || allowed.races)
            && checked.finals.is_subset(&allowed.finals)
    } else {
        checked == allowed
    }
}

fn check(program: &Program) -> Behaviour {
    checked::behaviour(&checked::outcome(program, false, &Search::default()))
}

#[test]
fn the_checker_says_what_the_axioms_say() {
    let (mut weaker, mut hangs, mut races, mut ends) = (0, 0, 0, 0);
    programs("axioms", Duration::from_secs(15), 300, |seed, _, program| {
        let allowed = axioms::allowed(&program);
        hangs += u64::from(allowed.ordered.hangs);
        races += u64::from(allowed.ordered.races);
        ends += allowed.ordered.finals.len();
        weaker += u64::from(allowed.rc11 != allowed.ordered);
        if !agrees(&check(&program), &allowed.ordered) {
            let differs = |p: &Program| !agrees(&check(p), &axioms::allowed(p).ordered);
            let program = random::shrink(program, differs);
            let (checked, allowed) = (check(&program), axioms::allowed(&program).ordered);
            panic!("seed {seed}: {program}\nchecker {checked}\naxioms  {allowed}");
        }
    });
    println!("axioms: {ends} ends, {hangs} programs hang, {races} race; RC11 alone allows more of {weaker}");
    assert!(ends > 0 && hangs > 0 && races > 0, "a comparison of nothing");
}

/// Every way to search, by name.
fn searches() -> Vec<(&'static str, Search)> {
    let all = Search::default;
    vec![
        ("no blocks", Search { blocks: false, ..all() }),
        ("no start order", Search { start_order: false, ..all() }),
        ("no collection", Search { collect: false, ..all() }),
        ("nobody is informed", Search { informed: false, bury: false, ..all() }),
        ("nothing is buried", Search { bury: false, ..all() }),
        ("every read", Search { oldest: false, ..all() }),
        ("local states by log", Search { keep: Keep::Log, ..all() }),
        (
            "no reduction",
            Search { blocks: false, start_order: false, collect: false, oldest: false, keep: Keep::Log, ..all() },
        ),
    ]
}

/// An end, whichever way its CPUs are numbered: the start order explores one of the ways.
fn up_to_numbering(end: &Final, cpus: usize) -> Final {
    let orders = (0..cpus).permutations(cpus);
    let renumbered = |order: Vec<usize>| {
        let mut end: Final = end.iter().map(|(name, value)| renumber(name, *value, &order)).collect();
        end.sort();
        end
    };
    orders.map(renumbered).min().expect("there is an order")
}

/// A cell, or a register `r<cpu><step>`. A link names a node by its code.
fn renumber(name: &str, value: u32, order: &[usize]) -> (String, u32) {
    let Some(at) = name.find(|c: char| c.is_ascii_digit()) else { return (name.to_owned(), value) };
    let cpu = name[at..=at].parse::<usize>().expect("a digit");
    let renamed = format!("{}{}{}", &name[..at], order[cpu], &name[at + 1..]);
    let link = if name.ends_with(".next") { Tail::from_code(value) } else { None };
    let numbered = |link: Tail| {
        let cpu = Cpu::new(order[link.cpu().index()] as u32).expect("few CPUs");
        Tail::new(cpu, link.level()).code()
    };
    (renamed, link.map_or(value, numbered))
}

#[test]
fn no_reduction_changes_what_a_program_does() {
    let mut symmetric = 0;
    programs("reductions", Duration::from_secs(15), 200, |seed, mix, program| {
        symmetric += u64::from(mix.symmetric);
        let judge = |search: &Search| {
            let b = checked::behaviour(&checked::outcome(&program, mix.symmetric, search));
            let numbered =
                |end: &Final| if mix.symmetric { up_to_numbering(end, program.0.len()) } else { end.clone() };
            (b.hangs || b.races, b.finals.iter().map(numbered).collect::<BTreeSet<_>>())
        };
        let with = judge(&Search::default());
        for (name, search) in searches() {
            let without = judge(&search);
            // A failure ends a search, so the ends seen until then are any.
            assert_eq!(with.0, without.0, "seed {seed}, {name}: {program}");
            assert!(with.0 || with == without, "seed {seed}, {name}: {program}\n{with:?}\n{without:?}");
        }
    });
    assert!(symmetric > 0, "no program was symmetric");
}

#[test]
fn no_reduction_changes_what_a_lock_does() {
    let _watchdog = Watchdog::after(Duration::from_secs(600), "locks without reductions");
    let scenarios = [
        (Lock::Native, 2, 1),
        (Lock::Native, 2, 2),
        (Lock::Native, 3, 1),
        (Lock::TestAndSet, 2, 2),
        (Lock::TestAndSet, 3, 1),
        (Lock::ParkingExact, 2, 1),
        (Lock::ParkingExact, 2, 2),
        (Lock::Parking, 2, 1),
        (Lock::Paravirt, 2, 1),
    ];
    for (lock, cpus, acquires) in scenarios {
        let scenario = Scenario::new(lock, cpus, acquires).waiting(Waiting::Sleepers);
        // A search lists every cell that it ever touched; that is not the same cells for each way to search. And nodes out
        // of use hold what nobody reads.
        let means = |(name, value): &&(String, u32)| *value != 0 && !name.starts_with("node");
        let touched = |end: &Final| end.iter().filter(means).cloned().collect();
        let ends = |outcome: &Outcome| -> BTreeSet<Final> {
            outcome.finals.iter().map(|end| up_to_numbering(&touched(end), cpus)).collect()
        };
        let with = scenario.explore(&Search::default());
        assert!(matches!(with.verdict, Verdict::Holds), "{scenario}: {:?}", with.verdict);
        // Sleeps that end by themselves, and heads that are told of a release and look for it, any number of times, have
        // no end where states are told apart by answers; others take a minute.
        let is_long = |search: &Search| {
            search.keep == Keep::Log
                && (matches!(lock, Lock::Parking | Lock::Paravirt) || lock.sleeps() && acquires > 1)
        };
        for (name, search) in searches().into_iter().filter(|(_, search)| !is_long(search)) {
            let without = scenario.explore(&search);
            println!("{scenario}, {name}: {} states, {:.1?}", without.states, without.time);
            assert!(matches!(without.verdict, Verdict::Holds), "{scenario}, {name}: {:?}", without.verdict);
            assert_eq!(ends(&with), ends(&without), "{scenario}, {name}");
        }
    }
}

/// With an ordering taken away, a lock does what is presumed that none does. It must break, or not, all the same.
#[test]
fn no_presumption_hides_a_missing_order() {
    let _watchdog = Watchdog::after(Duration::from_secs(300), "missing orders without presumptions");
    for (lock, cpus, acquires) in [(Lock::Native, 2, 2), (Lock::ParkingExact, 2, 1), (Lock::Paravirt, 2, 1)] {
        let scenario = Scenario::new(lock, cpus, acquires);
        let breaks = |search: &Search| match scenario.explore(search).verdict {
            Verdict::Holds => false,
            Verdict::Broken(_) => true,
            Verdict::Unfinished(why) => panic!("not explored: {why}"),
        };
        for access in scenario.explore(&Search::default()).accesses {
            for &order in weaker(access.order) {
                let orders = HashMap::from([(access.name, order)]);
                let with = Search { orders, ..Search::default() };
                let without = Search { informed: false, bury: false, ..with.clone() };
                assert_eq!(breaks(&with), breaks(&without), "{scenario}, {} {order:?}", access.name);
            }
        }
    }
}
