//! Litmus tests: small programs of which it is known, from the literature or from the standard's text, what they may
//! do. Each has its exact set of ends, so a model that is too strong fails as well as one that is too weak. The
//! language is that of `oracle/program.rs`.

#[path = "oracle/mod.rs"]
mod judges;

use std::collections::BTreeSet;
use std::time::Duration;

use Expected::{Anything, But, Hang, Only, Race};
use judges::program::Program;
use judges::watchdog::Watchdog;
use judges::{Behaviour, axioms, checked};
use qspinlock_vm::check::{Keep, Search};

/// What may be seen in the registers and cells named first: a digit for each.
#[derive(Clone, Copy, Debug)]
enum Expected {
    Only(&'static str, &'static str),
    /// Every combination of 0 and 1 but these.
    But(&'static str, &'static str),
    /// Every combination of 0 and 1.
    Anything(&'static str),
    Hang,
    Race,
}

type Shape = (&'static str, &'static str, Expected);

const COHERENCE: &[Shape] = &[
    ("CoRR", "x=1; x=2 | a=x; b=x", Only("ab", "00 01 02 11 12 22")),
    ("CoRR, two writers", "x=1 | x=2 | a=x; b=x", Only("ab", "00 01 02 11 12 21 22")),
    ("CoWR", "x=1; a=x | x=2", Only("ax", "11 12 22")),
    ("CoRW", "a=x; x=1 | x=2", Only("ax", "01 02 21")),
    ("CoWW", "x=1; x=2 | a=x", Only("ax", "02 12 22")),
    ("the same value twice, once released", "y=1; x=1.rel; x=1 | a=x.acq; b=y", Anything("ab")),
    ("a store in the middle", "x=1; x=2 | x=3; a=x", Only("ax", "12 22 32 33")),
];

const BUFFERING: &[Shape] = &[
    ("SB", "x=1; a=y | y=1; b=x", Anything("ab")),
    ("SB, release and acquire", "x=1.rel; a=y.acq | y=1.rel; b=x.acq", Anything("ab")),
    ("SB, SC fences", "x=1; F.sc; a=y | y=1; F.sc; b=x", But("ab", "00")),
    ("SB, one SC fence", "x=1; F.sc; a=y | y=1; b=x", Anything("ab")),
    ("SB, one SC fence and one AcqRel fence", "x=1; F.sc; a=y | y=1; F.ar; b=x", Anything("ab")),
    ("SB, AcqRel fences", "x=1; F.ar; a=y | y=1; F.ar; b=x", Anything("ab")),
    ("SB, AcqRel swaps of other cells", "x=1; c=z+1.ar; a=y | y=1; d=w+1.ar; b=x", Anything("ab")),
    ("SB, AcqRel swaps of one cell", "x=1; c=z+1.ar; a=y | y=1; d=z+1.ar; b=x", But("ab", "00")),
    ("SB, the stores are AcqRel swaps", "c=x+1.ar; a=y.acq | d=y+1.ar; b=x.acq", Anything("ab")),
    ("SB, a swap on one side and a fence on the other", "c=x+1.ar; a=y.acq | y=1; F.sc; b=x", Anything("ab")),
    ("LB: C11 allows 11, this model does not", "a=x; y=1 | b=y; x=1", But("ab", "11")),
    ("LB, release and acquire: C11 forbids it too", "a=x; y=1.rel | b=y.acq; x=1", But("ab", "11")),
    ("R", "x=1; y=1 | y=2; a=x", Only("ya", "10 11 20 21")),
    ("R, SC fences", "x=1; F.sc; y=1 | y=2; F.sc; a=x", Only("ya", "10 11 21")),
    ("S", "x=2; y=1 | a=y; x=1", Only("ax", "01 02 11 12")),
    ("S, release and acquire", "x=2; y=1.rel | a=y.acq; x=1", Only("ax", "01 02 11")),
    (
        "a store before what SC fences have seen",
        "x=1; F.sc; a=y | x=2 | y=1; F.sc; b=x",
        Only("abx", "011 012 022 101 102 111 112 121 122"),
    ),
    ("2+2W", "x=1; y=2 | y=1; x=2", Only("xy", "11 12 21 22")),
    ("2+2W, releases", "x=1.rel; y=2.rel | y=1.rel; x=2.rel", Only("xy", "11 12 21 22")),
    ("2+2W, SC fences", "x=1; F.sc; y=2 | y=1; F.sc; x=2", Only("xy", "12 21 22")),
    ("3.2W", "x=1; y=2 | y=1; z=2 | z=1; x=2", Only("xyz", "111 112 121 122 211 212 221 222")),
];

const PASSING: &[Shape] = &[
    ("MP", "x=1; y=1 | a=y; b=x", Anything("ab")),
    ("MP, release", "x=1; y=1.rel | a=y; b=x", Anything("ab")),
    ("MP, acquire", "x=1; y=1 | a=y.acq; b=x", Anything("ab")),
    ("MP, release and acquire", "x=1; y=1.rel | a=y.acq; b=x", But("ab", "10")),
    ("MP, fences", "x=1; F.rel; y=1 | a=y; F.acq; b=x", But("ab", "10")),
    ("MP, release fence and acquire", "x=1; F.rel; y=1 | a=y.acq; b=x", But("ab", "10")),
    ("MP, release and acquire fence", "x=1; y=1.rel | a=y; F.acq; b=x", But("ab", "10")),
    ("MP, SC fences", "x=1; F.sc; y=1 | a=y; F.sc; b=x", But("ab", "10")),
    ("MP, fences the wrong way round", "x=1; F.acq; y=1 | a=y; F.rel; b=x", Anything("ab")),
    ("MP, the fence before the data", "F.rel; x=1; y=1 | a=y; F.acq; b=x", Anything("ab")),
    ("MP, an acquire fence before the flag", "x=1; F.rel; y=1 | F.acq; a=y; b=x", Anything("ab")),
    ("MP, a bounded await", "x=1; y=1.rel | a=y~.acq; b=x", But("ab", "10")),
    ("MP, an await", "x=1; y=1.rel | a=y!.acq; b=x", Only("ab", "11")),
    ("MP, a relaxed await", "x=1; y=1.rel | a=y!; b=x", Only("ab", "10 11")),
    ("WRC", "x=1 | a=x; y=1 | b=y; c=x", Anything("abc")),
    ("WRC, release and acquire", "x=1 | a=x; y=1.rel | b=y.acq; c=x", But("abc", "110")),
    ("WRC, only the last reader acquires", "x=1.rel | a=x; y=1 | b=y.acq; c=x", Anything("abc")),
    ("ISA2, release and acquire", "x=1; y=1.rel | a=y.acq; z=1.rel | b=z.acq; c=x", But("abc", "110")),
    ("ISA2, the middle does not acquire", "x=1; y=1.rel | a=y; z=1.rel | b=z.acq; c=x", Anything("abc")),
    ("IRIW", "x=1 | y=1 | a=x; b=y | c=y; d=x", Anything("abcd")),
    ("IRIW, acquire", "x=1.rel | y=1.rel | a=x.acq; b=y.acq | c=y.acq; d=x.acq", Anything("abcd")),
    ("IRIW, SC fences", "x=1 | y=1 | a=x; F.sc; b=y | c=y; F.sc; d=x", But("abcd", "1010")),
    ("RWC, SC fences", "x=1 | a=x; F.sc; b=y | y=1; F.sc; c=x", But("abc", "100")),
    ("W+RWC, SC fences", "x=1; y=1.rel | a=y.acq; F.sc; b=z | z=1; F.sc; c=x", But("abc", "100")),
    (
        "Z6.3, release and acquire",
        "x=1; y=1.rel | y=2; z=1.rel | a=z.acq; b=x",
        Only("yab", "100 101 110 111 200 201 210 211"),
    ),
    ("Z6.3, SC fences", "x=1; F.sc; y=1 | y=2; F.sc; z=1 | a=z; F.sc; b=x", Only("yab", "100 101 110 111 200 201 211")),
    ("Z6.0, SC fences", "x=1; F.sc; y=1 | a=y; F.sc; z=1 | z=2; F.sc; b=x", Only("azb", "010 011 020 021 110 111 121")),
];

const MODIFYING: &[Shape] = &[
    ("two increments", "a=x+1 | b=x+1", Only("abx", "012 102")),
    ("three increments", "a=x+1 | b=x+1 | c=x+1", Only("x", "3")),
    ("an increment and a store", "a=x+1 | x=5", Only("ax", "05 56")),
    ("two swaps", "a=x?0:1 | b=x?0:2", Only("abx", "011 202")),
    ("a swap that fails may read what is stale", "x=1; x=2 | a=x?7:9", Only("a", "0 1 2")),
    ("a swap that fails acquires nothing", "x=1; y=1.rel | a=y?0:2.ar; b=x", Anything("ab")),
    ("a swap that succeeds acquires", "x=1; y=1.rel | a=y?1:2.acq; b=x", But("ab", "10")),
    ("a release sequence", "x=1; y=1.rel | a=y?1:2 | b=y.acq; c=x", Only("bc", "00 01 11 21")),
    ("from a release fence", "x=1; F.rel; y=1 | a=y?1:2 | b=y.acq; c=x", Only("bc", "00 01 11 21")),
    ("to an acquire fence", "x=1; y=1.rel | a=y?1:2 | b=y; F.acq; c=x", Only("bc", "00 01 11 21")),
    ("broken by a store", "x=1; y=1.rel | a=y; y=2 | b=y.acq; c=x", Only("bc", "00 01 11 20 21")),
    ("broken by the same thread's store", "x=1; y=1.rel; y=2 | b=y.acq; c=x", Only("bc", "00 01 11 20 21")),
    ("no release to begin with", "x=1; y=1 | a=y?1:2.acq | b=y.acq; c=x", Only("bc", "00 01 10 11 20 21")),
];

const WAITING: &[Shape] = &[
    ("an await takes any value that satisfies", "x=1; x=2 | a=x!", Only("a", "1 2")),
    ("but none older than what it knows", "x=1; x=2; y=1.rel | a=y!.acq; b=x!", Only("b", "2")),
    ("an await for one value", "x=1 | a=x!1", Only("a", "1")),
    ("a bounded await gives up", "x=1 | a=x~", Anything("a")),
    ("a bounded await of nothing", "y=1 | a=x~", Only("a", "0")),
    ("an await of nothing", "y=1 | a=x!", Hang),
    ("the newest value does not satisfy", "x=1; x=0 | a=x!", Hang),
    ("of two stores the wrong one is last", "x=1 | x=2 | a=x!1", Hang),
    ("two that wait for each other", "a=x!; y=1 | b=y!; x=1", Hang),
    ("one of two waits for ever", "x=1 | a=x! | b=y!", Hang),
    ("a hang behind a swap that fails", "a=x?0:1; x=0 | b=x?0:2 | c=x!2", Hang),
];

const PLAIN: &[Shape] = &[
    ("MP of plain data", "T; y=1.rel | a=y!.acq; T", Only("a", "1")),
    ("by fences", "T; F.rel; y=1 | a=y!; F.acq; T", Only("a", "1")),
    ("along a release sequence", "T; y=1.rel | a=y!; b=y+1 | c=y!2.acq; T", Only("c", "2")),
    ("twice", "T; y=1.rel; a=z!.acq; T | b=y!.acq; T; z=1.rel", Only("ab", "11")),
    ("a relaxed store", "T; y=1 | a=y!.acq; T", Race),
    ("a relaxed await", "T; y=1.rel | a=y!; T", Race),
    ("touched after the release", "y=1.rel; T | a=y!.acq; T", Race),
    ("a fence on the wrong side", "T; y=1; F.rel | a=y!; F.acq; T", Race),
    ("the sequence is broken", "T; y=1.rel | a=y!; y=2 | c=y!2.acq; T", Race),
    ("no order at all", "T | T", Race),
];

fn expected(expected: Expected) -> (&'static str, BTreeSet<String>) {
    let all =
        |names: &'static str| (0..1_u32 << names.len()).map(move |n| format!("{n:0width$b}", width = names.len()));
    let listed = |text: &str| text.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
    match expected {
        Only(names, only) => (names, listed(only)),
        But(names, never) => (names, all(names).filter(|seen| !listed(never).contains(seen)).collect()),
        Anything(names) => (names, all(names).collect()),
        Hang | Race => ("", BTreeSet::new()),
    }
}

fn seen(behaviour: &Behaviour, names: &str) -> BTreeSet<String> {
    let value = |end: &judges::Final, name: char| {
        let is_it = |(n, _): &&(String, u32)| n.chars().eq([name]);
        end.iter().find(is_it).unwrap_or_else(|| panic!("nothing is called {name}")).1.to_string()
    };
    behaviour.finals.iter().map(|end| names.chars().map(|name| value(end, name)).collect()).collect()
}

fn assert_shape(who: &str, (name, text, wanted): Shape, behaviour: &Behaviour) {
    let failures = (behaviour.hangs, behaviour.races);
    assert_eq!(failures, (matches!(wanted, Hang), matches!(wanted, Race)), "{who}: {name}: {text}: hangs, races");
    let (names, wanted) = expected(wanted);
    if !names.is_empty() {
        assert_eq!(seen(behaviour, names), wanted, "{who}: {name}: {text}");
    }
}

fn check(shapes: &[Shape]) {
    let _watchdog = Watchdog::after(Duration::from_secs(300), "litmus tests");
    let plain = Search { blocks: false, collect: false, oldest: false, keep: Keep::Log, ..Search::default() };
    for &shape in shapes {
        let (name, text, _) = shape;
        let program: Program = text.parse().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(program.to_string(), text, "{name}: is written in another way");
        assert_shape("checker", shape, &checked::behaviour(&checked::outcome(&program, false, &Search::default())));
        assert_shape("checker, no reduction", shape, &checked::behaviour(&checked::outcome(&program, false, &plain)));
        // The axioms' own test: an oracle that nobody checks says nothing.
        let axioms = axioms::allowed(&program);
        assert_shape("axioms", shape, &axioms.ordered);
        assert_shape("axioms of RC11", shape, &axioms.rc11);
    }
}

#[test]
fn one_cell_is_coherent() {
    check(COHERENCE);
}

#[test]
fn stores_are_buffered() {
    check(BUFFERING);
}

#[test]
fn messages_are_passed() {
    check(PASSING);
}

#[test]
fn modifications_are_atomic_and_carry_releases_on() {
    check(MODIFYING);
}

#[test]
fn waits_end_or_hang() {
    check(WAITING);
}

#[test]
fn races_on_plain_data_are_found() {
    check(PLAIN);
}

/// Where the model is stronger than C11 on purpose, besides load buffering: its SC fences happen in their order, so the
/// first of these is before the second, which follows it through relaxed reads; in RC11 it may also be the other
/// way round. Only a CPU that makes a store visible before an earlier load of its own can show that (the middle
/// thread), and then it shows load buffering too. Compiled code that keeps a load before a later store never does.
#[test]
fn fences_are_ordered_as_they_happen() {
    let text = "x=1; F.sc; y=1 | a=y; z=1 | b=z; F.sc; c=x";
    let program: Program = text.parse().expect("it is a program");
    let axioms = axioms::allowed(&program);
    let checked = checked::behaviour(&checked::outcome(&program, false, &Search::default()));
    assert_shape("checker", ("", text, But("abc", "110")), &checked);
    assert_shape("axioms", ("", text, But("abc", "110")), &axioms.ordered);
    assert_shape("axioms of RC11", ("", text, Anything("abc")), &axioms.rc11);
}
