//! Domains of threads: from copies of `/sys`, by the environment and by the program; and that waiters are set aside and come
//! back where a topology is pretended.

#[path = "support/child.rs"]
mod child;
#[path = "support/watchdog.rs"]
mod watchdog;
#[path = "support/witness.rs"]
mod witness;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;

use child::Child;
use qspinlock::select::{NumaWish, Reason, SlowPathKind};
use qspinlock::slowpath::{Locality, LocalityError};
use qspinlock::threads::{
    DOMAIN_VARIABLE, Domains, DomainsError, LOCALITY_VARIABLE, SLOW_PATH_VARIABLE, SysFile, Threads, TopologyError,
    locality, read_domains, set_locality, topology,
};
use qspinlock::{Configuration, ConfigureError, Machine, choice, configure, environment};

/// A directory with a copy of `/sys`.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let tree = Self(std::env::temp_dir().join(format!("qspinlock-{}-{name}", std::process::id())));
        files.iter().for_each(|(path, text)| tree.write(path, text));
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join("sys/devices/system").join(path);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
        std::fs::write(path, text).expect("written");
    }

    fn cpu(&self, cpu: u32, caches: &[(&str, &str)]) {
        for (index, (level, sharers)) in caches.iter().enumerate() {
            let cache = format!("cpu/cpu{cpu}/cache/index{index}");
            self.write(&format!("{cache}/level"), &format!("{level}\n"));
            self.write(&format!("{cache}/shared_cpu_list"), &format!("{sharers}\n"));
        }
    }

    fn read(&self, domains: Domains) -> Result<BTreeMap<u32, u32>, TopologyError> {
        let mut found = BTreeMap::new();
        read_domains(self.0.to_str().expect("text"), domains, |cpu, domain| {
            found.insert(cpu, domain);
        })?;
        Ok(found)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The domains of the CPUs from 0 on, of which some are missing.
fn in_domains(domains: &[Option<u32>]) -> BTreeMap<u32, u32> {
    (0..).zip(domains).filter_map(|(cpu, domain)| Some((cpu, (*domain)?))).collect()
}

#[test]
fn nodes_have_their_own_numbers_and_holes() {
    // Node 1 is memory alone, node 3 is not there, and CPU 3 is off.
    let tree = Tree::new(
        "nodes",
        &[
            ("node/has_cpu", "0,2,4\n"),
            ("node/node0/cpulist", "0-1\n"),
            ("node/node1/cpulist", "\n"),
            ("node/node2/cpulist", "2,6-7\n"),
            ("node/node4/cpulist", "4-5"),
        ],
    );
    let (a, b, c) = (Some(0), Some(2), Some(4));
    assert_eq!(tree.read(Domains::Nodes), Ok(in_domains(&[a, a, b, None, c, c, b, b])));
}

/// Two chiplets a socket, two threads a core, and one node: what counts is the cache.
#[test]
fn chiplets_are_told_by_their_caches() {
    let tree = Tree::new("chiplets", &[("cpu/online", "0-4,6-7\n"), ("node/has_cpu", "0\n")]);
    tree.write("node/node0/cpulist", "0-4,6-7\n");
    for (cpu, core, chiplet) in [
        (0, "0,4", "0-1,4"),
        (1, "1", "0-1,4"),
        (2, "2,6", "2-3,6-7"),
        (3, "3,7", "2-3,6-7"),
        (4, "0,4", "0-1,4"),
        (6, "2,6", "2-3,6-7"),
        (7, "3,7", "2-3,6-7"),
    ] {
        // The index is not the level, and the highest is not the last.
        tree.cpu(cpu, &[("1", core), ("3", chiplet), ("1", core), ("2", core)]);
    }
    let (a, b) = (Some(0), Some(2));
    assert_eq!(tree.read(Domains::L3), Ok(in_domains(&[a, a, b, b, a, None, b, b])));
    assert_eq!(tree.read(Domains::Nodes).expect("sensible").values().max(), Some(&0));
}

#[test]
fn the_last_level_is_the_highest_whatever_it_is() {
    let tree = Tree::new("level2", &[("cpu/online", "0-4\n")]);
    tree.cpu(0, &[("1", "0"), ("2", "0-1")]);
    tree.cpu(1, &[("1", "1"), ("2", "0-1")]);
    tree.cpu(2, &[("1", "2"), ("4", "2-3"), ("3", "2")]);
    // CPU 3 need not be asked; CPU 4 tells of none.
    assert_eq!(tree.read(Domains::L3), Ok(in_domains(&[Some(0), Some(0), Some(2), Some(2), Some(4)])));
}

/// Longer than one read of a file, and more CPUs than are known of.
#[test]
fn large_machines() {
    let even: Vec<_> = (0..10_000).step_by(2).map(|cpu| cpu.to_string()).collect();
    let odd: Vec<_> = (0..10_000).skip(1).step_by(2).map(|cpu| cpu.to_string()).collect();
    let tree = Tree::new("large", &[("node/has_cpu", "0-1\n"), ("cpu/online", "0-9999\n")]);
    tree.write("node/node0/cpulist", &even.join(","));
    tree.write("node/node1/cpulist", &odd.join(","));
    let found = tree.read(Domains::Nodes).expect("sensible");
    assert_eq!(found.len(), 10_000);
    assert!(found.iter().all(|(cpu, domain)| cpu % 2 == *domain));
    assert_eq!(tree.read(Domains::L3).expect("no caches").len(), 10_000);
}

#[test]
fn what_makes_no_sense_is_named() {
    for (text, excerpt) in [
        ("0,\n", ""),
        (",0", ""),
        ("0-", "0-"),
        ("3-1", "3-1"),
        ("0-3,2", "2"),
        ("0 -1", "0 -1"),
        ("+1", "+1"),
        ("0-1-2", "0-1-2"),
        ("0x1", "0x1"),
        ("4294967296", "4294967296"),
        ("0-99999999", "0-99999999"),
        ("0\n1\n", "0"),
        ("0\n\n", "0"),
        ("-", "-"),
    ] {
        let tree = Tree::new("senseless", &[("node/has_cpu", "0\n"), ("node/node0/cpulist", text)]);
        let file = SysFile::CpusOfNode(0);
        let error = tree.read(Domains::Nodes).expect_err(text);
        assert_eq!(error, TopologyError::Senseless(file, excerpt.into()), "{text:?}");
        let said = format!("/sys/devices/system/node/node0/cpulist: `{excerpt}` makes no sense");
        assert_eq!(error.to_string(), said);
    }
    for bytes in [&b"\xff"[..], &[b'1'; 1000]] {
        let tree = Tree::new("bytes", &[("node/has_cpu", "")]);
        std::fs::write(tree.0.join("sys/devices/system/node/has_cpu"), bytes).expect("written");
        let error = tree.read(Domains::Nodes).expect_err("no list");
        assert!(matches!(error, TopologyError::Senseless(SysFile::NodesWithCpus, _)), "{error}");
    }
    let tree =
        Tree::new("missing", &[("node/has_cpu", "0-1\n"), ("node/node0/cpulist", "0\n"), ("cpu/online", "0-1\n")]);
    assert_eq!(tree.read(Domains::Nodes), Err(TopologyError::Missing(SysFile::CpusOfNode(1))));
    tree.cpu(0, &[("1", "0"), ("three", "0-1")]);
    let level = SysFile::LevelOfCache(0, 1);
    assert_eq!(tree.read(Domains::L3), Err(TopologyError::Senseless(level, "three".into())));
    // Of another CPU.
    tree.cpu(0, &[("1", "0"), ("3", "1")]);
    assert_eq!(tree.read(Domains::L3), Err(TopologyError::Foreign(SysFile::SharersOfCache(0, 1))));
    let nowhere = read_domains("/no/such/directory", Domains::Nodes, |_, _| panic!("nothing is there"));
    assert_eq!(nowhere, Err(TopologyError::Missing(SysFile::NodesWithCpus)));
}

#[test]
fn domains_as_text() {
    for (text, domains) in [
        ("node", Domains::Nodes),
        (" l3 ", Domains::L3),
        ("pretend:1", Domains::Pretended(1)),
        ("pretend:1023", Domains::Pretended(1023)),
    ] {
        assert_eq!(text.parse(), Ok(domains));
        assert_eq!(domains.to_string(), text.trim());
    }
    for text in ["", "nodes", "L3", "pretend", "pretend:", "pretend:x", "pretend:-1", "pretend:99999999999"] {
        assert_eq!(text.parse::<Domains>(), Err(DomainsError::Unknown(text.into())));
    }
    for n in [0, 1024] {
        assert_eq!(format!("pretend:{n}").parse::<Domains>(), Err(DomainsError::OutOfRange(n)));
        assert_eq!(configure(Domains::Pretended(n)), Err(ConfigureError::Domains(DomainsError::OutOfRange(n))));
    }
}

#[test]
fn localities_as_text() {
    for (text, threshold, one_in) in
        [("", 1_000_000, 128), ("one_in=1", 1_000_000, 1), (" one_in = 7 , threshold=0", 0, 7), ("threshold=5", 5, 128)]
    {
        let locality = Locality { threshold, one_in };
        assert_eq!(text.parse(), Ok(locality));
        assert_eq!(locality.to_string().parse(), Ok(locality));
    }
    for (text, why) in [
        ("threshold", "there is no `threshold`: choose from `threshold=N` (ns) and `one_in=N`"),
        ("often=1", "there is no `often=1`"),
        ("one_in=1,one_in=1", "`one_in` is there twice: leave one out"),
        ("threshold=1ms", "`threshold` is `1ms`: write a whole number of at most 4294967295"),
        ("one_in=0", "`one_in` is 0: choose from 1 to 1000000"),
        ("threshold=4000000001", "`threshold` is 4000000001: choose from 0 to 4000000000"),
        ("one_in=1,", "there is no ``"),
    ] {
        let error = text.parse::<Locality>().expect_err(text).to_string();
        assert!(error.starts_with(why), "{text}: {error}");
    }
}

#[test]
fn the_environment_says_what_is_near_and_for_how_long() {
    const TEST: &str = "the_environment_says_what_is_near_and_for_how_long";
    let case = || {
        let said = environment().map_or_else(|error| error.to_string(), |_| String::new());
        format!(
            "{} {} {} {}; {said}",
            choice().slow_path.name(),
            topology().domains,
            Threads.locality(),
            Threads.domain()
        )
    };
    let run = |slow_path: &str, domain: Option<&str>, numa: Option<&str>| {
        let variables = [
            (SLOW_PATH_VARIABLE, Some(OsStr::new(slow_path))),
            (DOMAIN_VARIABLE, domain.map(OsStr::new)),
            (LOCALITY_VARIABLE, numa.map(OsStr::new)),
        ];
        let child = Child::run_with(TEST, &variables, case);
        (child.said().to_owned(), child.complained().lines().count())
    };
    let (said, lines) = run("numa", None, None);
    assert!(
        said.starts_with("numa node threshold=1000000,one_in=128 ") && said.ends_with("; ") && lines == 0,
        "{said}"
    );
    let (said, lines) = run("numa", Some("l3"), Some("threshold=5"));
    assert!(said.starts_with("numa l3 threshold=5,one_in=128 ") && lines == 0, "{said}");
    // The first thread that has no slot yet: of number 0.
    let (said, lines) = run("numa=on", Some("pretend:3"), Some("one_in=1"));
    assert_eq!((said.as_str(), lines), ("numa pretend:3 threshold=1000000,one_in=1 0; ", 0));
    // What is not sensible is said, and does not take the others with it.
    let (said, lines) = run("numa", Some("socket"), Some("one_in=1"));
    assert!(
        said.starts_with("numa node threshold=1000000,one_in=1 0; QSPINLOCK_DOMAIN: there is no `socket`"),
        "{said}"
    );
    assert_eq!(lines, 1);
    let (said, lines) = run("numa", Some("l3"), Some("one_in=never"));
    assert!(said.contains("; QSPINLOCK_NUMA: `one_in` is `never`") && said.starts_with("numa l3"), "{said}");
    assert_eq!(lines, 1);
}

#[test]
fn a_program_says_what_is_near_and_for_how_long() {
    let child = Child::run_with("a_program_says_what_is_near_and_for_how_long", &[], || {
        assert_eq!((locality(), Threads.locality()), (Locality::DEFAULT, Locality::DEFAULT));
        let other = Locality { threshold: 7, one_in: 9 };
        let refused = set_locality(Locality { one_in: 0, ..other });
        assert!(matches!(refused, Err(LocalityError::OutOfRange(_))), "{refused:?}");
        assert_eq!(locality(), Locality::DEFAULT, "nothing has changed");
        assert_eq!(set_locality(other), Ok(()));
        assert_eq!((locality(), Threads.locality()), (other, other));
        assert_eq!(set_locality(Locality::DEFAULT), Ok(()), "at any time");
        assert_eq!(Threads.locality(), Locality::DEFAULT);

        assert_eq!(topology().domains, Domains::Nodes);
        assert_eq!(configure(Domains::Pretended(5)), Ok(()));
        assert_eq!((topology().domains, topology().found), (Domains::Pretended(5), Ok(5)));
        assert_eq!((choice().slow_path, choice().reason), (SlowPathKind::Parking, Reason::Preemptible), "as before");
        assert_eq!(configure(Domains::L3), Err(ConfigureError::Twice));
        String::new()
    });
    assert_eq!(child.complained(), "");
}

/// Real domains: what a copy of this machine's own files says.
#[cfg(target_os = "linux")]
#[test]
fn this_machine() {
    for domains in ["node", "l3"] {
        let child = Child::run_with("this_machine", &[(DOMAIN_VARIABLE, Some(domains.as_ref()))], || {
            let domains = topology().domains;
            let file = if domains == Domains::L3 { "cpu/online" } else { "node/has_cpu" };
            let is_told = std::path::Path::new("/sys/devices/system").join(file).exists();
            let found = topology().found;
            assert_eq!(found.is_ok(), is_told, "{found:?}");
            let mut by_cpu = BTreeMap::new();
            let read = read_domains("/", domains, |cpu, domain| {
                by_cpu.insert(cpu, domain);
            });
            assert_eq!(read.is_ok(), is_told);
            let mine = Threads.domain();
            assert!(by_cpu.values().any(|&domain| domain == mine) || !is_told, "{mine} of {by_cpu:?}");
            domains.to_string()
        });
        assert_eq!(child.said(), domains);
    }
}

/// Where a call of the system would end the process.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
#[test]
fn asking_for_the_domain_is_no_system_call() {
    let child = Child::run_by("asking_for_the_domain_is_no_system_call", Some("numa"), || {
        let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
        let filter = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 2, 0, libc::SYS_exit_group as u32),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, libc::SYS_write as u32),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // Once: a thread is asked for its policy, by a system call.
        let _ = Threads.is_urgent();
        // SAFETY: system calls with a live program. This thread alone is restricted.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
        }
        let asked =
            (0..1000).filter(|_| !Threads.is_urgent() && Threads.domain() < 1024 && Threads.choose(2) < 2).count();
        let said: &[u8] = if asked == 1000 { b"<<well>>" } else { b"<<ill>>" };
        // Not by way of the standard library, which asks for more.
        // SAFETY: a live buffer; and the end.
        unsafe {
            libc::write(1, said.as_ptr().cast(), said.len());
            libc::_exit(0)
        }
    });
    assert_eq!(child.said(), "well");
}

/// Only who may ask for it gets a real-time policy.
#[cfg(target_os = "linux")]
#[test]
fn real_time_threads_are_urgent() {
    let is_urgent_as = |policy| {
        std::thread::spawn(move || {
            let param = libc::sched_param { sched_priority: i32::from(policy != libc::SCHED_OTHER) };
            // SAFETY: a live parameter, of this thread.
            let set = unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
            if set != 0 {
                return None;
            }
            let was = Threads.is_urgent();
            let ordinary = libc::sched_param { sched_priority: 0 };
            // SAFETY: as above.
            unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const ordinary) };
            assert_eq!(Threads.is_urgent(), was, "asked once");
            Some(was)
        })
        .join()
        .expect("it does not panic")
    };
    assert_eq!(is_urgent_as(libc::SCHED_OTHER), Some(false));
    for policy in [libc::SCHED_FIFO, libc::SCHED_RR, libc::SCHED_FIFO | 0x4000_0000] {
        match is_urgent_as(policy) {
            Some(is_urgent) => assert!(is_urgent, "{policy:#x}"),
            None => println!("not allowed here"),
        }
    }
}

#[test]
fn a_program_may_ask_for_it() {
    // The same slow path may be asked for with other threads about.
    Child::run_by("a_program_may_ask_for_it", Some("numa"), || {
        assert_eq!((choice().slow_path, choice().reason), (SlowPathKind::Numa, Reason::AskedFor));
        let all = Configuration::NONE.numa(NumaWish::On).domains(Domains::Pretended(2));
        assert_eq!(all.said_domains(), Some(Domains::Pretended(2)));
        assert_eq!(configure(all), Ok(()));
        assert_eq!((choice().slow_path, choice().reason), (SlowPathKind::Numa, Reason::NumaOn));
        String::new()
    });
}

/// As many rounds as it takes: who is next in the queue, and in which domain, is by chance.
#[test]
fn waiters_are_set_aside_and_come_back() {
    use std::sync::atomic::Ordering::Relaxed;

    use qspinlock::RawSpinLock;
    use qspinlock::slowpath::Numa;
    use witness::{BROUGHT_BACK, QUEUED, SET_ASIDE, Witness};

    static LOCK: RawSpinLock<Witness, Numa> = RawSpinLock::new();

    /// How many were set aside, and how often they came back.
    fn round() -> (u32, u32) {
        const WAITERS: u32 = 6;
        let (queued, aside, back) = (QUEUED.load(Relaxed), SET_ASIDE.load(Relaxed), BROUGHT_BACK.load(Relaxed));
        let Ok(()) = LOCK.acquire_on(&Witness);
        std::thread::scope(|s| {
            for _ in 0..WAITERS {
                s.spawn(|| {
                    let Ok(()) = LOCK.acquire_on(&Witness);
                    // SAFETY: acquired above.
                    unsafe { LOCK.release_on(&Witness) };
                });
            }
            // All but who is pending, and then time for the head to look.
            while QUEUED.load(Relaxed) - queued < WAITERS - 1 {
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            // SAFETY: acquired above.
            unsafe { LOCK.release_on(&Witness) };
        });
        assert!(!LOCK.is_taken() && !LOCK.is_contended());
        (SET_ASIDE.load(Relaxed) - aside, BROUGHT_BACK.load(Relaxed) - back)
    }

    let case = || {
        if topology().domains == Domains::Pretended(1) {
            // Nobody is far away.
            (0..5).for_each(|_| assert_eq!(round(), (0, 0)));
        } else {
            while SET_ASIDE.load(Relaxed) < 5 {
                let (aside, back) = round();
                // Each goes on with its life, and so was brought back.
                assert_eq!(aside > 0, back > 0, "{aside} set aside, brought back {back} times");
            }
        }
        String::new()
    };
    for (domains, numa) in [
        ("pretend:2", "one_in=1"),
        ("pretend:3", "one_in=1,threshold=0"),
        ("pretend:2", "one_in=3"),
        ("pretend:1", "one_in=1"),
    ] {
        let variables = [(DOMAIN_VARIABLE, Some(domains.as_ref())), (LOCALITY_VARIABLE, Some(numa.as_ref()))];
        Child::run_with("waiters_are_set_aside_and_come_back", &variables, case);
    }
}
