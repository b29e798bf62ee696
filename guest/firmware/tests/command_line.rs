//! Words of the command line, and what they do not break.

use guest_firmware::{LeafError, Leaves, Why, Words};
use proptest::prelude::*;
use qspinlock::select::{Beneath, Hypervisor, NumaWish, SlowPathKind};

/// What is said, and the words that are ignored, each with the reason in words.
fn read(line: &str) -> (Words<'_>, Vec<(String, String)>) {
    let mut ignored = Vec::new();
    let words = Words::read(line, |complaint| ignored.push((complaint.word.to_owned(), complaint.to_string())));
    (words, ignored)
}

#[test]
fn wishes_come_from_three_words() {
    let wishes = |line| {
        let (words, ignored) = read(line);
        assert_eq!(ignored, [], "{line}");
        let wishes = words.wishes;
        (wishes.slow_path, wishes.no_paravirt, wishes.dedicated, wishes.numa)
    };
    assert_eq!(wishes(""), (None, false, false, NumaWish::Auto));
    assert_eq!(wishes("qspinlock=auto  nopvspin\t numa_spinlock=off"), (None, true, false, NumaWish::Off));
    assert_eq!(wishes("numa_spinlock=on qspinlock=dedicated"), (None, false, true, NumaWish::On));
    assert_eq!(wishes("qspinlock=numa"), (Some(SlowPathKind::Numa), false, false, NumaWish::Auto));
    assert_eq!(wishes("numa_spinlock=off qspinlock=nopvspin"), (None, true, false, NumaWish::Off));
}

#[test]
fn what_makes_no_sense_is_ignored_and_nothing_else() {
    let line = "qspinlock=fast quiet nopvspin qspinlock=paravirt ms=0 ms=x maxcpus=-1 cpuid=1 numa_spinlock=yes \
                nopvspin=1 test=order ms=20 maxcpus=4 qspinlock=native";
    let (words, ignored) = read(line);
    let ignored: Vec<_> = ignored.iter().map(|(word, _)| word.as_str()).collect();
    let expected = [
        "qspinlock=fast",
        "quiet",
        "qspinlock=paravirt",
        "ms=0",
        "ms=x",
        "maxcpus=-1",
        "cpuid=1",
        "numa_spinlock=yes",
        "nopvspin=1",
    ];
    assert_eq!(ignored, expected);
    assert!(words.wishes.no_paravirt);
    assert_eq!(words.wishes.slow_path, Some(SlowPathKind::Native));
    assert_eq!((words.phase_ms, words.most_cpus, words.tests), (Some(20), Some(4), Some("order")));
}

#[test]
fn a_complaint_says_what_is_wrong() {
    let (_, ignored) = read("\u{7}\u{1b}[2J qspinlock=native,numa cpuid=zz:0,0,0,0");
    let texts: Vec<_> = ignored.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts[0], r"'\u{7}\u{1b}[2J' is ignored: no such word");
    assert!(texts[1].contains("exclude each other"), "{}", texts[1]);
    assert!(texts[2].contains("hexadecimal"), "{}", texts[2]);
}

/// What a machine that says this with these words seems to be.
fn beneath(line: &str, cpu: impl Fn(u32) -> [u32; 4]) -> Beneath {
    let (words, ignored) = read(line);
    assert_eq!(ignored, []);
    Beneath::ask(|leaf, subleaf| words.leaves.seen(leaf, subleaf, cpu(leaf)))
}

#[test]
fn each_line_of_the_table_seems_to_be_what_it_says() {
    let emulator = |leaf| match leaf {
        0 => [0x10, 0, 0, 0],
        1 => [0x60fb1, 0, 0x8000_2001 | 1 << 31, 0x0783_fbff],
        0x4000_0000 => [0x4000_0001, 0x5447_4354, 0x4354_4743, 0x4743_5447],
        _ => [0; 4],
    };
    assert_eq!(beneath("", emulator).hypervisor, Hypervisor::Tcg);
    let text = include_str!("../src/leaves.rs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | ")?.strip_suffix("` |")?.split_once(" | `"));
    let mut seen = Vec::new();
    for (what, words) in rows {
        let beneath = beneath(words, emulator);
        seen.push((what, beneath.hypervisor, beneath.features.wait_kick, beneath.features.dedicated_hint));
    }
    let expected = [
        ("bare metal", Hypervisor::None, false, false),
        ("KVM with wait and kick", Hypervisor::Kvm, true, false),
        ("KVM that promises not to preempt", Hypervisor::Kvm, true, true),
        ("Xen", Hypervisor::Xen, false, false),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_leaf_is_replaced_where_it_is_named() {
    let mut leaves = Leaves::default();
    assert!(leaves.is_empty());
    assert_eq!(leaves.add("d.1:-,2,-,ffffffff"), Ok(()));
    assert_eq!(leaves.seen(0xd, 1, [5; 4]), [5, 2, 5, u32::MAX]);
    assert_eq!((leaves.seen(0xd, 0, [5; 4]), leaves.seen(1, 1, [5; 4])), ([5; 4], [5; 4]));
    // The last word counts, for what it names.
    assert_eq!(leaves.add("d.1:-,3,-,-"), Ok(()));
    assert_eq!(leaves.seen(0xd, 1, [5; 4]), [5, 3, 5, u32::MAX]);
    for (text, error) in [
        ("", LeafError::Form),
        ("1", LeafError::Form),
        ("1:0,0,0", LeafError::Form),
        ("1:0,0,0,0,0", LeafError::Form),
        ("1:0,0,0,", LeafError::Number),
        ("1.:0,0,0,0", LeafError::Number),
        ("1:0,0,0,100000000", LeafError::Number),
        ("100000000:0,0,0,0", LeafError::Number),
        ("1:0,0,0,--", LeafError::Number),
    ] {
        assert_eq!(leaves.add(text), Err(error), "{text}");
    }
    assert!((2..16).all(|n| leaves.add(&format!("{n:x}:0,0,0,0")).is_ok()));
    assert_eq!(leaves.add("1:0,0,0,0"), Err(LeafError::Many));
    assert_eq!(leaves.seen(0xd, 1, [5; 4]), [5, 3, 5, u32::MAX]);
}

proptest! {
    #[test]
    fn no_line_causes_a_panic(line in "(qspinlock=|cpuid=|ms=|numa_spinlock=|\\PC| |,|:|-|[0-9a-f]{1,9}){0,30}") {
        let (words, ignored) = read(&line);
        prop_assert!(words.wishes.validate().is_ok());
        prop_assert!(ignored.iter().all(|(word, text)| line.contains(word.as_str()) && !text.is_empty()));
    }
}

#[test]
fn a_number_out_of_range_is_no_number() {
    let mut why = None;
    let words = Words::read("ms=4294967296", |complaint| why = Some(complaint.why));
    assert!(matches!(why, Some(Why::Number)) && words.phase_ms.is_none());
}

#[test]
fn a_machine_pretends_to_lack_only_what_can_be_lacking() {
    let words = Words::read("pretend=no-slots,no-low-memory", |complaint| panic!("{complaint}"));
    assert!(words.pretends("no-slots") && words.pretends("no-low-memory") && !words.pretends("no"));
    let mut why = None;
    let words = Words::read("pretend=no-slots,no-clock", |complaint| why = Some(complaint.why));
    assert!(matches!(why, Some(Why::Unknown)) && !words.pretends("no-slots"));
}
