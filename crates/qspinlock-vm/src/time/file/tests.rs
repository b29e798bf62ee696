//! What is refused, and where the blame is put; what the built-in machines are.

use super::*;
use crate::time::machines::DEFAULT;
use crate::time::model::Transfer;

/// Two sockets of two cores, complete. The tests spoil one line each.
const SOUND: &str = r#"name = "small"
about = "two sockets of two cores"
mhz = 2000
unit = "cycles"
[shape]
sockets = 2
l3s = 1
cores = 2
smt = 1
hops = [
  [0, 1],
  [1, 0],
]
[own]
load = 4
store = 1
atomic = 18
pause = 10
[transfer.l3]
load_modified = 100
load_shared = 40
load_shared_occupies = 40
store_modified = 110
store_shared = 110
atomic_modified = 120
atomic_shared = 115
[transfer."1 hop"]
load_modified = 280
load_shared = 220
load_shared_occupies = 120
store_modified = 310
store_shared = 310
atomic_modified = 320
atomic_shared = 315
[sources]
"own.load" = "made up"
"#;

/// [`SOUND`] with the line that begins so replaced is refused: in which line, what, and what would be right.
#[track_caller]
fn refused(line: usize, replaced: &str, by: &str, what: &str, right: &str) {
    let mut spoilt: Vec<_> = SOUND.lines().collect();
    let first = spoilt.iter().position(|text| text.starts_with(replaced)).expect("a line of the sound file");
    spoilt[first] = by;
    let error = Model::parse(&spoilt.join("\n")).expect_err("nonsense");
    assert_eq!(error.line, line, "{error}");
    assert!(error.what.contains(what), "{error}");
    assert!(error.right.contains(right), "{error}");
    assert!(error.to_string().starts_with(&format!("line {line}: ")), "{error}");
}

#[test]
fn a_sound_file_is_what_it_says() {
    let model = Model::parse(SOUND).expect("sound");
    assert_eq!((model.name.as_str(), model.mhz, model.shape.cpus()), ("small", 2000, 4));
    assert_eq!(model.shape.hops, [[0, 1], [1, 0]]);
    assert_eq!((model.own.load, model.own.store, model.own.atomic, model.own.pause), (4, 1, 18, 10));
    assert_eq!(model.transfers.iter().map(|&(d, _)| d).collect::<Vec<_>>(), [Distance::L3, Distance::Hops(1)]);
    let far = Transfer {
        load_modified: 280,
        load_shared: 220,
        load_shared_occupies: 120,
        store_modified: 310,
        store_shared: 310,
        atomic_modified: 320,
        atomic_shared: 315,
    };
    assert_eq!(model.transfers[1].1, far);
    assert_eq!(model.sources, [("own.load".to_owned(), "made up".to_owned())]);
}

#[test]
fn nanoseconds_are_cycles_of_the_clock() {
    let text = SOUND.replace("\"cycles\"", "\"ns\"").replace("load = 4", "load = 1.3");
    let model = Model::parse(&text).expect("sound");
    assert_eq!((model.own.load, model.own.atomic), (3, 36));
    assert_eq!(model.transfers[0].1.atomic_modified, 240);
}

#[test]
fn what_was_not_measured_is_derived_if_the_file_says_so() {
    let short: String = SOUND
        .lines()
        .filter(|line| !["load_", "store_", "atomic_shared"].iter().any(|field| line.starts_with(field)))
        .map(|line| format!("{line}\n"))
        .collect();
    let error = Model::parse(&short).expect_err("incomplete");
    assert_eq!(error.line, 19, "{error}");
    assert!(error.what.contains("transfer.l3.load_modified") && error.right.contains("derive = true"), "{error}");
    let model = Model::parse(&short.replace("unit =", "derive = true\nunit =")).expect("derived");
    let (near, far) = (model.transfers[0].1, model.transfers[1].1);
    // The Xeon's own 120 and 324 cycles, so its own table; and 320.
    assert_eq!((near.load_modified, near.load_shared, near.load_shared_occupies), (109, 44, 44));
    assert_eq!((far.load_modified, far.load_shared, far.load_shared_occupies), (285, 220, 119));
    let derived: Vec<_> = model.sources.iter().filter(|(_, source)| source.starts_with("derived")).collect();
    assert_eq!(derived.len(), 2, "{derived:?}");
    assert!(derived[0].1.contains("load_shared,") && derived[0].0 == "transfer.l3", "{derived:?}");
}

#[test]
fn an_unknown_key_is_refused() {
    refused(2, "about", "abuot = \"x\"", "unknown field `abuot`", "`about`");
    refused(6, "sockets", "sokets = 2", "unknown field `sokets`", "`sockets`");
    refused(15, "load = ", "loads = 4", "unknown field `loads`", "`load`");
    refused(21, "load_shared = ", "load_shred = 4", "unknown field `load_shred`", "`load_shared`");
    refused(36, "\"own.load\"", "\"own.lode\" = \"x\"", "`own.lode` is the source of nothing", "own.load");
    refused(27, "[transfer.\"1", "[transfer.far]", "`far` is no distance", "\"1 hop\"");
}

#[test]
fn what_is_missing_is_named() {
    refused(1, "about", "", "missing field `about`", "docs/simulator.md");
    refused(5, "sockets", "", "missing field `sockets`", "docs/simulator.md");
    refused(19, "load_modified", "", "transfer.l3.load_modified` is missing", "derive = true");
    refused(19, "atomic_modified", "", "transfer.l3.atomic_modified` is missing", "compare-exchange");
    refused(4, "unit", "unit = \"hours\"", "unknown variant `hours`", "`cycles` or `ns`");
}

#[test]
fn a_machine_has_cpus_and_not_too_many() {
    refused(6, "sockets", "sockets = 0", "`shape.sockets` is 0", "from 1 to");
    refused(7, "l3s", "l3s = 0", "`shape.l3s` is 0", "from 1 to");
    refused(8, "cores", "cores = 0", "`shape.cores` is 0", "from 1 to");
    refused(8, "cores", "cores = -4", "`shape.cores` is -4", "from 1 to");
    refused(9, "smt", "smt = 0", "`shape.smt` is 0", "from 1 to");
    refused(8, "cores", "cores = 4097", "`shape.cores` is 4097", "to 4096");
    refused(5, "cores", "cores = 2049", "4098 CPUs", "4096 are the most");
    refused(3, "mhz", "mhz = 0", "`mhz` is 0", "from 1 to");
    refused(3, "mhz", "mhz = -1", "`mhz` is -1", "from 1 to");
    refused(1, "name", "name = \" \"", "`name` is empty", "needs a name");
    let huge = Model::parse(&SOUND.replace("cores = 2", "cores = 2048").replace("smt = 1", "smt = 4096"));
    assert_eq!(huge.expect_err("too many").line, 5);
}

#[test]
fn links_between_sockets_are_a_symmetric_square() {
    refused(12, "  [1, 0],", "  [2, 0],", "socket 1 is 2 hops from socket 0, which is 1 from it", "symmetric");
    refused(12, "  [1, 0],", "  [1, 1],", "socket 1 is 1 hops from socket 1", "0 hops from itself");
    refused(11, "  [0, 1],", "  [0, 0],", "socket 0 is 0 hops from socket 1", "1 to 255");
    refused(11, "  [0, 1],", "  [0, -1],", "socket 0 is -1 hops from socket 1", "1 to 255");
    refused(11, "  [0, 1],", "  [0, 256],", "socket 0 is 256 hops", "1 to 255");
    refused(11, "  [0, 1],", "  [0, 1, 1],", "row 0 of `shape.hops` has 3 numbers", "2 sockets");
    refused(10, "  [1, 0],", "", "`shape.hops` has 1 rows", "2 sockets");
    let none = SOUND.replace("hops = [\n  [0, 1],\n  [1, 0],\n]\n", "");
    let error = Model::parse(&none).expect_err("no links");
    assert_eq!((error.line, error.what.as_str()), (5, "`shape.hops` is missing"));
}

#[test]
fn costs_are_more_than_nothing_and_less_than_for_ever() {
    refused(15, "load = ", "load = 0", "`own.load` is 0", "more than 0");
    refused(16, "store = ", "store = -1", "`own.store` is -1", "more than 0");
    refused(17, "atomic = ", "atomic = 0.2", "`own.atomic` is 0.2", "a cycle or more");
    refused(18, "pause = ", "pause = nan", "`own.pause` is NaN", "more than 0");
    refused(25, "atomic_modified", "atomic_modified = 0", "`transfer.l3.atomic_modified` is 0", "more than 0");
    refused(25, "atomic_modified", "atomic_modified = inf", "`transfer.l3.atomic_modified` is inf", "a million");
    refused(20, "load_modified", "load_modified = \"fast\"", "string \"fast\"", "a number");
}

#[test]
fn a_distance_has_costs_if_two_cpus_are_at_it() {
    refused(27, "[transfer.\"1", "[transfer.\"2 hops\"]", "no two CPUs", "correct the shape");
    refused(27, "[transfer.\"1", "[transfer.socket]", "no two CPUs of this shape are `socket`", "correct the shape");
    refused(27, "[transfer.\"1", "[transfer.l3]", "duplicate key", "TOML");
    let alone = &SOUND[..SOUND.find("[transfer.\"1").expect("there")];
    let error = Model::parse(alone).expect_err("half a machine");
    assert!(error.what.contains("the distance `1 hop`") && error.right.contains("[transfer.\"1 hop\"]"), "{error}");
    let twice = SOUND.replace("[sources]", "[transfer.\"1 hops\"]\natomic_modified = 400\n[sources]");
    let error = Model::parse(&twice).expect_err("the same distance twice");
    assert!(error.what.contains("`1 hop` has two tables"), "{error}");
}

#[test]
fn what_is_farther_away_takes_no_less() {
    for (line, field) in [(28, "load_modified"), (31, "store_modified"), (32, "store_shared")] {
        let value = SOUND.lines().nth(line - 1).expect("a line");
        refused(
            line,
            value,
            &format!("{field} = 39"),
            &format!("`transfer.1 hop.{field}` is 39, less than"),
            "no less",
        );
    }
    refused(
        29,
        "load_shared = 40",
        "load_shared = 221",
        "`transfer.1 hop.load_shared` is 220, less than the 221",
        "no less",
    );
    refused(33, "atomic_modified = 320", "atomic_modified = 119", "less than the 120 at `l3`", "no less");
    refused(34, "atomic_shared = 315", "atomic_shared = 114", "less than the 115 at `l3`", "no less");
}

#[test]
fn a_load_keeps_the_line_no_longer_than_it_takes() {
    refused(22, "load_shared_occupies = 40", "load_shared_occupies = 41", "keeps it for 41", "a part of `load_shared`");
    refused(30, "load_shared_occupies = 120", "load_shared_occupies = 221", "keeps it for 221", "a part of");
}

#[test]
fn what_is_no_toml_is_refused_where_it_ends() {
    refused(6, "sockets", "sockets = = 2", "extra `=`", "TOML");
    assert_eq!(Model::parse("").expect_err("empty").line, 1);
}

#[test]
fn every_built_in_machine_is_sane() {
    let all = Model::built_ins();
    assert!(all.len() >= 6 && all[0].name == DEFAULT);
    for model in &all {
        let name = &model.name;
        assert_eq!(Model::built_in(name).as_ref(), Some(model), "found by its name");
        let shape = &model.shape;
        let cpus = shape.cpus();
        assert!((2..=MAX_CPUS).contains(&cpus), "{name}");
        for a in 0..cpus {
            for b in 0..cpus {
                assert_eq!(shape.distance(a, b), shape.distance(b, a), "{name}: {a} and {b}");
                let known = model.transfers.iter().any(|(distance, _)| *distance == shape.distance(a, b));
                assert!(known || a == b, "{name}: {a} and {b}");
            }
        }
        let costs = |t: &Transfer| {
            [t.load_modified, t.load_shared, t.store_modified, t.store_shared, t.atomic_modified, t.atomic_shared]
        };
        for pair in model.transfers.windows(2) {
            for (near, far) in costs(&pair[0].1).into_iter().zip(costs(&pair[1].1)) {
                assert!(near <= far, "{name}: {pair:?}");
            }
        }
        let nearest = costs(&model.transfers[0].1).into_iter().min().expect("some");
        assert!(model.own.load <= nearest && model.own.store <= nearest, "{name}: a hit is no slower than a miss");
        assert!(model.own.atomic <= model.transfers[0].1.atomic_modified, "{name}");
    }
    assert_eq!(Model::built_in("pdp-11"), None);
}

/// Each number of a built-in machine says where it comes from: measured, published, fitted, estimated or derived.
#[test]
fn every_built_in_number_has_a_source() {
    let kinds = ["measured: ", "published: ", "fitted: ", "estimated: ", "derived: "];
    for model in Model::built_ins() {
        let source = |keys: &[String]| {
            let found = model.sources.iter().find(|(key, _)| keys.contains(key));
            let (_, text) = found.unwrap_or_else(|| panic!("{}: no source for {keys:?}", model.name));
            assert!(kinds.iter().any(|kind| text.starts_with(kind)), "{}: {text}", model.name);
        };
        source(&["mhz".to_owned()]);
        source(&["shape".to_owned()]);
        Own::FIELDS.iter().for_each(|field| source(&[format!("own.{field}")]));
        for (distance, _) in &model.transfers {
            for field in Table::FIELDS {
                source(&[
                    format!("transfer.{field}"),
                    format!("transfer.{distance}"),
                    format!("transfer.{distance}.{field}"),
                ]);
            }
        }
    }
}
