//! The table in the documentation is the table that is tested; and, by hand, what is known to have gone wrong elsewhere.

extern crate alloc;

use alloc::string::ToString;
use alloc::vec::Vec;

use super::SlowPathKind::{Native, Numa, Paravirt, Parking, TestAndSet};
use super::*;

const GUESTS: [Hypervisor; 6] =
    [Hypervisor::Kvm, Hypervisor::Xen, Hypervisor::HyperV, Hypervisor::VMware, Hypervisor::Tcg, Hypervisor::Other];

/// Each bit a feature.
const fn features(bits: u32) -> Features {
    Features {
        wait_kick: bits & 1 != 0,
        dedicated_hint: bits & 2 != 0,
        local_apic: bits & 4 != 0,
        cluster_ipi: bits & 8 != 0,
        guest_idle: bits & 16 != 0,
    }
}
const ALL_FEATURES: Features = features(!0);

/// Every combination of facts.
fn all() -> impl Iterator<Item = Facts> {
    let wishes = || [None].into_iter().chain(SlowPathKind::ALL.iter().copied().map(Some));
    let numbers = (0..2 * 4 * 4 * 4 * 32 * 3_u32).flat_map(move |n| wishes().map(move |wish| (n, wish)));
    numbers.flat_map(|(n, slow_path)| {
        Hypervisor::ALL.iter().map(move |&hypervisor| Facts {
            setting: if n & 1 != 0 { Setting::Kernel } else { Setting::UserSpace },
            cpus: [0, 1, 2, 64][n as usize / 2 % 4],
            domains: [0, 1, 2, 8][n as usize / 8 % 4],
            wishes: Wishes {
                slow_path,
                no_paravirt: n & 32 != 0,
                dedicated: n & 64 != 0,
                numa: NumaWish::ALL[n as usize / 128 / 32],
            },
            features: features(n / 128 % 32),
            hypervisor,
        })
    })
}

/// The cells of the table's rows, as the documentation has them.
fn table() -> Vec<Vec<&'static str>> {
    let rows = include_str!("../select.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let cells = rows.map(|row| row.trim_end_matches('|').split('|').map(str::trim).collect::<Vec<_>>());
    cells.filter(|cells| cells[0].bytes().all(|b| b.is_ascii_digit())).collect()
}

/// Whether a row applies: what its cells mean.
fn applies(row: &[&str], facts: &Facts) -> bool {
    let Facts { setting, cpus, domains, hypervisor, features, wishes } = facts;
    let setting = match row[1] {
        "·" => true,
        "threads" => *setting == Setting::UserSpace,
        "kernel" => *setting == Setting::Kernel,
        other => panic!("setting {other}"),
    };
    let wish = match row[2] {
        "·" => true,
        "–" => Wishes { numa: NumaWish::Auto, ..*wishes } == Wishes::NONE,
        "`numa=on`" => wishes.numa == NumaWish::On,
        "a slow path" => wishes.slow_path.is_some(),
        "not dedicated" => !wishes.dedicated,
        "dedicated" => wishes.dedicated,
        "`nopvspin`" => wishes.no_paravirt,
        other => panic!("wish {other}"),
    };
    let cpus = match row[3] {
        "·" => true,
        "1" => *cpus == 1,
        "2+, ?" => *cpus != 1,
        other => panic!("CPUs {other}"),
    };
    let beneath = match row[4] {
        "·" => true,
        "bare" => matches!(hypervisor, Hypervisor::None | Hypervisor::Unknown),
        "none" => *hypervisor == Hypervisor::None,
        "not known" => *hypervisor == Hypervisor::Unknown,
        "any" => GUESTS.contains(hypervisor),
        "KVM" => *hypervisor == Hypervisor::Kvm,
        "Xen" => *hypervisor == Hypervisor::Xen,
        "Hyper-V" => *hypervisor == Hypervisor::HyperV,
        "KVM, Hyper-V" => matches!(hypervisor, Hypervisor::Kvm | Hypervisor::HyperV),
        "VMware, TCG, others" => matches!(hypervisor, Hypervisor::VMware | Hypervisor::Tcg | Hypervisor::Other),
        other => panic!("beneath {other}"),
    };
    let offers = match row[5] {
        "·" | "not that" => true,
        "a promise not to preempt" => features.dedicated_hint,
        "wait and kick" => features.wait_kick,
        "local APIC, cluster IPI, guest idle: all" => {
            features.local_apic && features.cluster_ipi && features.guest_idle
        }
        other => panic!("offers {other}"),
    };
    let domains = if wishes.numa == NumaWish::Off { 1 } else { *domains };
    let domains = match row[6] {
        "·" => true,
        "0, 1" => domains <= 1,
        "2+" => domains > 1,
        other => panic!("domains {other}"),
    };
    setting && wish && cpus && beneath && offers && domains
}

const REASONS: [Reason; 18] = [
    Reason::AskedFor,
    Reason::NumaOn,
    Reason::Preemptible,
    Reason::OneCpuForThreads,
    Reason::OwnCpusManyNodes,
    Reason::OwnCpus,
    Reason::OneCpu,
    Reason::BareMetalManyNodes,
    Reason::BareMetal,
    Reason::NothingKnown,
    Reason::NoParavirt,
    Reason::OwnVirtualCpus,
    Reason::HostPromise,
    Reason::WaitKick,
    Reason::WaitKick,
    Reason::WaitKick,
    Reason::NoWaitKick,
    Reason::NeverWaitKick,
];

#[test]
fn every_combination_of_facts_gets_what_the_first_row_says_that_applies() {
    let table = table();
    assert_eq!(table.len(), REASONS.len());
    let mut uses = [0_u32; REASONS.len()];
    for facts in all() {
        let n = table.iter().position(|row| applies(row, &facts)).unwrap_or_else(|| panic!("no row for {facts:?}"));
        uses[n] += 1;
        assert_eq!(table[n][0], (n + 1).to_string(), "rows are numbered");
        let slow_path = match table[n][7].trim_matches('`') {
            "the wish" => facts.wishes.slow_path.expect("the row is for wishes"),
            name => SlowPathKind::from_name(name).unwrap_or_else(|| panic!("a slow path `{name}`")),
        };
        assert_eq!(choose(&facts), Choice { slow_path, reason: REASONS[n] }, "row {}: {facts:?}", n + 1);
    }
    assert!(uses.iter().all(|&n| n > 0), "a row that never applies: {uses:?}");
}

fn kernel(cpus: u32, hypervisor: Hypervisor, features: Features) -> Facts {
    Facts { hypervisor, features, ..Facts::new(Setting::Kernel, cpus) }
}

fn wish(facts: Facts, words: &str) -> Facts {
    Facts { wishes: words.parse().expect("wishes"), ..facts }
}

#[track_caller]
fn gets(facts: Facts, slow_path: SlowPathKind) {
    assert_eq!(choose(&facts).slow_path, slow_path, "{facts:?}");
}

const WAIT_KICK: Features = features(1);
const PROMISE: Features = features(2);
const HYPER_V: Features = features(4 | 8 | 16);

#[test]
fn kvm() {
    gets(kernel(2, Hypervisor::Kvm, WAIT_KICK), Paravirt);
    gets(kernel(0, Hypervisor::Kvm, WAIT_KICK), Paravirt);
    gets(kernel(2, Hypervisor::Kvm, Features::NONE), TestAndSet);
    gets(kernel(1, Hypervisor::Kvm, WAIT_KICK), Native);
    gets(kernel(1, Hypervisor::Kvm, Features::NONE), Native);
    // What only Hyper-V needs is of no use.
    gets(kernel(2, Hypervisor::Kvm, HYPER_V), TestAndSet);
}

#[test]
fn xen_waits_and_kicks_by_default() {
    gets(kernel(2, Hypervisor::Xen, Features::NONE), Paravirt);
    gets(kernel(1, Hypervisor::Xen, Features::NONE), Native);
    gets(wish(kernel(2, Hypervisor::Xen, Features::NONE), "nopvspin"), Native);
}

#[test]
fn hyper_v_needs_all_three() {
    gets(kernel(2, Hypervisor::HyperV, HYPER_V), Paravirt);
    for missing in [4, 8, 16] {
        gets(kernel(2, Hypervisor::HyperV, features(!missing)), TestAndSet);
    }
    gets(kernel(1, Hypervisor::HyperV, HYPER_V), Native);
    gets(wish(kernel(2, Hypervisor::HyperV, HYPER_V), "nopvspin"), Native);
}

#[test]
fn others_never_wait_and_kick() {
    for hypervisor in [Hypervisor::VMware, Hypervisor::Tcg, Hypervisor::Other] {
        gets(kernel(2, hypervisor, ALL_FEATURES), TestAndSet);
        gets(kernel(1, hypervisor, ALL_FEATURES), Native);
    }
}

#[test]
fn trap_14_what_is_not_known_to_be_a_guest_never_runs_test_and_set() {
    gets(Facts::new(Setting::Kernel, 0), Native);
    gets(Facts::new(Setting::Kernel, 64), Native);
    for facts in all().filter(|facts| facts.wishes.slow_path.is_none()) {
        let choice = choose(&facts);
        if matches!(choice.slow_path, TestAndSet | Paravirt) {
            assert!(GUESTS.contains(&facts.hypervisor) && facts.setting == Setting::Kernel, "{facts:?}");
        }
    }
    assert_eq!(
        choose(&Facts::new(Setting::Kernel, 64)).to_string(),
        "native: nothing says that there is a hypervisor, so the CPUs are taken for real ones"
    );
}

#[test]
fn trap_15_wishes_and_promises_come_before_capabilities() {
    for has in [Features::NONE, WAIT_KICK] {
        let promised = Features { dedicated_hint: true, ..has };
        gets(kernel(64, Hypervisor::Kvm, promised), Native);
        for hypervisor in GUESTS {
            gets(wish(kernel(64, hypervisor, has), "nopvspin"), Native);
            gets(wish(kernel(64, hypervisor, has), "dedicated"), Native);
            gets(wish(kernel(64, hypervisor, promised), "paravirt"), Paravirt);
            gets(wish(kernel(64, hypervisor, promised), "test-and-set"), TestAndSet);
        }
    }
    // A promise of KVM's is not another's.
    gets(kernel(64, Hypervisor::VMware, PROMISE), TestAndSet);
}

#[test]
fn domains_count_on_bare_metal_and_not_in_a_guest() {
    for domains in [0, 1, 2, 8] {
        let bare = Facts { domains, ..kernel(64, Hypervisor::None, ALL_FEATURES) };
        gets(bare, if domains > 1 { Numa } else { Native });
        gets(wish(bare, "nopvspin"), if domains > 1 { Numa } else { Native });
        let mine =
            wish(Facts { domains, hypervisor: Hypervisor::None, ..Facts::new(Setting::UserSpace, 64) }, "dedicated");
        gets(mine, if domains > 1 { Numa } else { Native });
        for hypervisor in GUESTS {
            gets(Facts { hypervisor, ..mine }, Native);
            gets(wish(Facts { hypervisor, ..bare }, "dedicated"), Native);
            gets(wish(Facts { hypervisor, ..bare }, "numa"), Numa);
        }
    }
}

#[test]
fn numa_is_on_everywhere_and_off_wherever_it_is_not_named() {
    for setting in [Setting::Kernel, Setting::UserSpace] {
        for &hypervisor in Hypervisor::ALL {
            for domains in [0, 1, 8] {
                for cpus in [0, 1, 64] {
                    let facts = Facts { domains, hypervisor, features: ALL_FEATURES, ..Facts::new(setting, cpus) };
                    gets(wish(facts, "numa=on"), Numa);
                    gets(wish(facts, "numa=on,nopvspin"), Numa);
                    gets(wish(facts, "numa,numa=on"), Numa);
                    let one = Facts { domains: 1, ..facts };
                    for words in ["", "dedicated", "nopvspin"] {
                        let off = choose(&wish(facts, [words, "numa=off"].join(",").trim_start_matches(',')));
                        assert_eq!(off, choose(&wish(one, words)), "{facts:?} {words}");
                        assert_ne!(off.slow_path, Numa);
                        let auto = choose(&wish(facts, [words, "numa=auto"].join(",").trim_start_matches(',')));
                        assert_eq!(auto, choose(&wish(facts, words)));
                        // Only in the place of `native`.
                        assert!(auto.slow_path != Numa || off.slow_path == Native, "{facts:?} {words}");
                    }
                }
            }
        }
    }
}

#[test]
fn threads_park_unless_the_cpus_are_theirs() {
    for words in ["", "auto", "nopvspin"] {
        for hypervisor in Hypervisor::ALL {
            gets(wish(Facts { hypervisor: *hypervisor, ..Facts::new(Setting::UserSpace, 4) }, words), Parking);
        }
    }
    gets(wish(Facts::new(Setting::UserSpace, 4), "dedicated"), Native);
    gets(wish(Facts::new(Setting::UserSpace, 1), "dedicated"), Parking);
    gets(wish(Facts::new(Setting::UserSpace, 0), "dedicated"), Native);
}

#[test]
fn a_choice_can_be_made_when_compiling() {
    const CHOICE: Choice = choose(&Facts::new(Setting::UserSpace, 4));
    assert_eq!(CHOICE.slow_path, Parking);
}

#[test]
fn names_go_both_ways() {
    for &kind in SlowPathKind::ALL {
        assert_eq!(SlowPathKind::from_name(kind.name()), Some(kind));
    }
    assert_eq!(SlowPathKind::from_name("Native"), None);
    assert_eq!(SlowPathKind::from_name(""), None);
}

#[test]
fn all_that_there_is_is_listed_in_order() {
    // What is stored of a choice is its place.
    assert!(SlowPathKind::ALL.iter().enumerate().all(|(n, &kind)| kind as usize == n));
    assert!(Reason::ALL.iter().enumerate().all(|(n, &reason)| reason as usize == n));
}

#[test]
fn wishes_go_both_ways() {
    for facts in all() {
        let wishes = facts.wishes;
        match wishes.validate() {
            Ok(()) => assert_eq!(wishes.to_string().parse(), Ok(wishes)),
            Err(error) => assert_eq!(wishes.to_string().parse::<Wishes>(), Err(error)),
        }
    }
    for (text, same) in
        [("", "auto"), (" ", "auto"), ("nopvspin", "auto,nopvspin"), (" dedicated , numa", "numa,dedicated")]
    {
        assert_eq!(text.parse::<Wishes>(), Ok(same.parse().expect("wishes")), "{text:?}");
    }
}

#[test]
fn what_cannot_be_granted_is_said() {
    for (text, why) in [
        (
            "nativ",
            "there is no `nativ`: choose from native numa paravirt parking test-and-set auto nopvspin dedicated \
          numa=auto numa=on numa=off",
        ),
        ("Native", "there is no `Native`"),
        ("native,", "a word is missing"),
        ("native,native", "`native` is there twice"),
        ("nopvspin,auto,nopvspin", "`nopvspin` is there twice"),
        ("dedicated,dedicated", "`dedicated` is there twice"),
        ("native,parking", "`native` and `parking` exclude each other: leave one out"),
        ("auto,parking", "`auto` and `parking` exclude each other"),
        ("paravirt,nopvspin", "`paravirt` and `nopvspin` exclude each other"),
        ("dedicated,paravirt", "`paravirt` and `dedicated` exclude each other"),
        ("test-and-set,dedicated", "`test-and-set` and `dedicated` exclude each other"),
        ("numa=yes", "there is no `numa=yes`"),
        ("numa=on,numa=on", "`numa=on` is there twice"),
        ("numa=on,numa=off", "`numa=on` and `numa=off` exclude each other"),
        ("native,numa=on", "`native` and `numa=on` exclude each other"),
        ("numa=on,paravirt", "`paravirt` and `numa=on` exclude each other"),
        ("numa=off,numa", "`numa` and `numa=off` exclude each other"),
    ] {
        let error = text.parse::<Wishes>().expect_err(text).to_string();
        assert!(error.starts_with(why), "{text}: {error}");
    }
    for fine in ["numa,numa=on", "native,numa=off", "auto,numa=on", "dedicated,numa=auto"] {
        assert!(fine.parse::<Wishes>().is_ok(), "{fine}");
    }
    for fine in ["native,dedicated", "parking,dedicated", "test-and-set,nopvspin", "nopvspin,dedicated"] {
        assert!(fine.parse::<Wishes>().is_ok(), "{fine}");
    }
}

#[cfg(feature = "std")]
#[test]
fn names_are_those_of_the_slow_paths() {
    use crate::slowpath::{self, SlowPath};
    use crate::threads::Threads;
    assert_eq!(Native.name(), <slowpath::Native as SlowPath<Threads>>::NAME);
    assert_eq!(Numa.name(), <slowpath::Numa as SlowPath<Threads>>::NAME);
    assert_eq!(Paravirt.name(), <slowpath::Paravirt as SlowPath<Threads>>::NAME);
    assert_eq!(Parking.name(), <slowpath::Parking as SlowPath<Threads>>::NAME);
    assert_eq!(TestAndSet.name(), <slowpath::TestAndSet as SlowPath<Threads>>::NAME);
}
