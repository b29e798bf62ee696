//! How a process waits: by `configure`, and by the environment of a child process, since each process has one way.

#[path = "support/watchdog.rs"]
mod watchdog;

use std::ffi::OsStr;
use std::process::{Command, Output};
use std::time::Duration;

use qspinlock::select::{Reason, SlowPathKind, Wishes};
use qspinlock::slowpath::parking::{OutOfRange, Parameter};
use qspinlock::slowpath::{Chosen, Parking, Patience};
use qspinlock::threads::{ENVIRONMENT_VARIABLE, SLOW_PATH_VARIABLE, Threads};
use qspinlock::{Configuration, ConfigureError, Machine, RawSpinLock, choice, configuration, configure, environment};
use watchdog::Watchdog;

const CASE: &str = "QSPINLOCK_TEST_CASE";

/// Runs the test again in a process of its own, and there `case`, whose text it gives back.
struct Child(Output);

impl Child {
    /// Does not return in the child.
    fn run(test: &'static str, parking: Option<&OsStr>, case: impl FnOnce() -> String) -> Self {
        let variables: &[_] = &[(ENVIRONMENT_VARIABLE, parking)];
        Self::run_with(test, variables, case)
    }

    /// With a slow path in its environment, or none.
    fn run_by(test: &'static str, slow_path: Option<&str>, case: impl FnOnce() -> String) -> Self {
        Self::run_with(test, &[(SLOW_PATH_VARIABLE, slow_path.map(OsStr::new))], case)
    }

    fn run_with(test: &'static str, variables: &[(&str, Option<&OsStr>)], case: impl FnOnce() -> String) -> Self {
        if std::env::var(CASE).as_deref() == Ok(test) {
            let _watchdog = Watchdog::arm(test, Duration::from_secs(60));
            print!("<<{}>>", case());
            std::io::Write::flush(&mut std::io::stdout()).expect("standard output is there");
            std::process::exit(0);
        }
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CASE, test);
        command.env_remove(ENVIRONMENT_VARIABLE).env_remove(SLOW_PATH_VARIABLE);
        for (name, value) in variables {
            value.map(|value| command.env(name, value));
        }
        let output = command.output().expect("the child starts");
        assert!(output.status.success(), "{test}, {variables:?}: {output:?}");
        Self(output)
    }

    fn said(&self) -> &str {
        let text = std::str::from_utf8(&self.0.stdout).expect("text");
        let (_, rest) = text.split_once("<<").expect("the case has run");
        rest.split_once(">>").expect("the case has ended").0
    }

    fn complained(&self) -> &str {
        std::str::from_utf8(&self.0.stderr).expect("text")
    }
}

/// A thread waits for a lock.
fn wait_once() {
    static LOCK: RawSpinLock<Threads, Parking> = RawSpinLock::new();
    assert!(LOCK.try_acquire_on(&Threads));
    std::thread::scope(|s| {
        let waiter = s.spawn(|| {
            let Ok(()) = LOCK.acquire_on(&Threads);
            // SAFETY: acquired above.
            unsafe { LOCK.release_on(&Threads) };
        });
        // Seen in the word: it lies there asleep.
        while !LOCK.is_contended() {
            std::thread::yield_now();
        }
        // SAFETY: acquired above.
        unsafe { LOCK.release_on(&Threads) };
        waiter.join().expect("the waiter ends");
    });
}

const OTHER: Patience = Patience::DEFAULT.spin(123).turns(4);

#[test]
fn a_program_configures_once() {
    let child = Child::run("a_program_configures_once", None, || {
        assert_eq!(configuration(), Patience::DEFAULT);
        assert_eq!(configure(OTHER), Ok(()));
        assert_eq!((configuration(), Threads.patience()), (OTHER, OTHER));
        let twice = configure(Patience::DEFAULT).expect_err("twice");
        assert_eq!(twice, ConfigureError::Twice);
        wait_once();
        assert_eq!(configure(Patience::DEFAULT), Err(ConfigureError::Twice), "also when it is late as well");
        assert_eq!((configuration(), Threads.patience()), (OTHER, OTHER));
        twice.to_string()
    });
    assert!(child.said().contains("call `configure` once, at the start of `main`"), "{}", child.said());
    assert_eq!(child.complained(), "");
}

#[test]
fn configuring_after_a_wait_is_late() {
    let child = Child::run("configuring_after_a_wait_is_late", None, || {
        wait_once();
        assert_eq!(configuration(), Patience::DEFAULT);
        let late = configure(OTHER).expect_err("late");
        assert_eq!(late, ConfigureError::Late);
        assert_eq!((configuration(), Threads.patience()), (Patience::DEFAULT, Patience::DEFAULT));
        late.to_string()
    });
    assert!(child.said().contains("call `configure` before the first one can"), "{}", child.said());
}

/// And asking what applies is not too late.
#[test]
fn what_is_out_of_range_changes_nothing() {
    Child::run("what_is_out_of_range_changes_nothing", None, || {
        for Parameter { name: what, least, most } in Patience::PARAMETERS {
            for value in [least.checked_sub(1), most.checked_add(1)].into_iter().flatten() {
                let set = match what {
                    "spin" => Patience::spin,
                    "yields" => Patience::yields,
                    "lane" => Patience::lane,
                    "ask_after" => Patience::ask_after,
                    "poll" => Patience::poll,
                    "nap" => Patience::nap,
                    "nap_behind" => Patience::nap_behind,
                    "turns" => Patience::turns,
                    _ => panic!("a new parameter: {what}"),
                };
                let error = configure(set(OTHER, value)).expect_err(what);
                assert_eq!(error, ConfigureError::OutOfRange(OutOfRange { what, value, least, most }));
                assert_eq!(error.to_string(), format!("`{what}` is {value}: choose from {least} to {most}"));
                assert_eq!(configuration(), Patience::DEFAULT);
            }
        }
        assert_eq!(configure(OTHER), Ok(()), "it may be tried again");
        String::new()
    });
}

#[test]
fn the_environment_sets_each_parameter() {
    const TEST: &str = "the_environment_sets_each_parameter";
    let case = || {
        assert_eq!(environment().expect("it is sensible"), configuration().into());
        assert_eq!(Threads.patience(), configuration());
        configuration().to_string()
    };
    let cases = Patience::PARAMETERS.iter().map(|Parameter { name, least, .. }| (name, least + 1));
    let defaults = Patience::DEFAULT.to_string();
    for (name, value) in cases {
        let item = format!("{name}={value}");
        let child = Child::run(TEST, Some(item.as_ref()), case);
        let of = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let changed: Vec<_> = of(child.said()).into_iter().filter(|item| !of(&defaults).contains(item)).collect();
        assert_eq!(changed, [item], "this one and no other");
        assert_eq!(child.complained(), "");
    }
    assert_eq!(Child::run(TEST, Some(OTHER.to_string().as_ref()), case).said(), OTHER.to_string());
    assert_eq!(Child::run(TEST, Some("".as_ref()), case).said(), defaults);
}

#[test]
fn a_senseless_environment_is_named_and_ignored() {
    const TEST: &str = "a_senseless_environment_is_named_and_ignored";
    let case = || {
        assert_eq!((configuration(), Threads.patience()), (Patience::DEFAULT, Patience::DEFAULT));
        environment().expect_err("it is senseless").to_string()
    };
    let cases = [
        ("spni=3", "there is no parameter `spni`: choose from spin yields"),
        ("spin=3,lane", "`lane` has no value"),
        ("spin=3,spin=4", "`spin` is there twice"),
        ("yields=many", "`yields` is `many`: write a whole number"),
        ("turns=4,poll=999", "`poll` is 999: choose from 1000 to 1000000"),
        ("a\nb=3", "`a\\nb`"),
    ];
    for (text, why) in cases {
        let child = Child::run(TEST, Some(text.as_ref()), case);
        assert!(child.said().starts_with("QSPINLOCK_PARKING: ") && child.said().contains(why), "{}", child.said());
        assert_eq!(child.complained(), format!("qspinlock: {}; ignored, the defaults apply\n", child.said()));
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let child = Child::run(TEST, Some(std::ffi::OsStr::from_bytes(b"spin=\xff")), case);
        assert!(child.complained().starts_with("qspinlock: QSPINLOCK_PARKING: it is not text: "));
        assert_eq!(child.complained().lines().count(), 1);
    }
}

#[test]
fn the_program_comes_before_the_environment() {
    let child = Child::run("the_program_comes_before_the_environment", Some("spin=7,lane=8".as_ref()), || {
        assert_eq!(environment(), Ok(Patience::DEFAULT.spin(7).lane(8).into()));
        assert_eq!(configuration(), Patience::DEFAULT.spin(7).lane(8));
        assert_eq!(configure(OTHER), Ok(()));
        assert_eq!(environment(), Ok(Patience::DEFAULT.spin(7).lane(8).into()), "what it said");
        configuration().to_string()
    });
    assert_eq!(child.said(), OTHER.to_string(), "all of it");
}

/// Where a constructor reads it.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn the_environment_is_read_before_main() {
    let child = Child::run("the_environment_is_read_before_main", Some("spin=7".as_ref()), || {
        // SAFETY: no other thread of this process looks at the environment now.
        unsafe { std::env::set_var(ENVIRONMENT_VARIABLE, "spin=8") };
        assert_eq!(environment(), Ok(Patience::DEFAULT.spin(7).into()));
        configuration().spin.to_string()
    });
    assert_eq!(child.said(), "7");
}

/// Runs `f` in a child that has one thread; the test's own process has the harness's as well.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn alone(f: impl FnOnce()) {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    // SAFETY: glibc's allocator works in the child, and so do threads.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        // SAFETY: no preconditions. It ends a child that hangs.
        unsafe { libc::alarm(50) };
        let is_well = catch_unwind(AssertUnwindSafe(f)).is_ok();
        // SAFETY: no preconditions. Nothing of the parent's is run at this exit.
        unsafe { libc::_exit(if is_well { 0 } else { 101 }) };
    }
    let mut status = 0;
    // SAFETY: `status` is live.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0, "the child failed, or hung: what is above says why");
}

/// What a held lock looks like for which one thread waits: enough to tell the slow paths apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// In the pending lane.
    InLane,
    /// In a queue.
    InQueue,
    /// Where nobody sees it.
    Unseen,
}

/// One thread waits for long, as the process is configured. How, when it has been at it for a while.
fn waits() -> Waits {
    static LOCK: RawSpinLock<Threads, Chosen> = RawSpinLock::new();
    assert!(LOCK.try_acquire_on(&Threads));
    let waits = std::thread::scope(|s| {
        let (tell, told) = std::sync::mpsc::channel();
        let waiter = s.spawn(move || {
            tell.send(()).expect("somebody waits for it");
            let Ok(()) = LOCK.acquire_on(&Threads);
            // SAFETY: acquired above.
            unsafe { LOCK.release_on(&Threads) };
        });
        told.recv().expect("it has started");
        // Far longer than it takes to wait in the way that is not the last.
        std::thread::sleep(Duration::from_millis(300));
        let seen = format!("{LOCK:?}");
        // SAFETY: acquired above.
        unsafe { LOCK.release_on(&Threads) };
        waiter.join().expect("the waiter ends");
        match (seen.contains("pending: true"), seen.contains("tail: None")) {
            (_, false) => Waits::InQueue,
            (true, true) => Waits::InLane,
            (false, true) => Waits::Unseen,
        }
    });
    assert!(!LOCK.is_taken());
    waits
}

fn how(kind: SlowPathKind) -> Waits {
    match kind {
        SlowPathKind::Native | SlowPathKind::Numa => Waits::InLane,
        SlowPathKind::TestAndSet => Waits::Unseen,
        _ => Waits::InQueue,
    }
}

#[test]
fn the_environment_names_the_slow_path_that_waiters_follow() {
    const TEST: &str = "the_environment_names_the_slow_path_that_waiters_follow";
    let case = || format!("{} {:?} {:?}", choice().slow_path.name(), choice().reason, waits());
    for &kind in SlowPathKind::ALL {
        let child = Child::run_by(TEST, Some(kind.name()), case);
        assert_eq!(child.said(), format!("{} AskedFor {:?}", kind.name(), how(kind)));
        assert_eq!(child.complained(), "");
    }
    for fits in [None, Some(""), Some("auto"), Some("nopvspin"), Some(" auto , nopvspin")] {
        let child = Child::run_by(TEST, fits, case);
        assert_eq!(child.said(), "parking Preemptible InQueue", "{fits:?}");
        assert_eq!(child.complained(), "");
    }
    let said = Child::run_by(TEST, Some("dedicated"), case).said().to_owned();
    let by_machine = ["native OwnCpus InLane", "numa OwnCpusManyNodes InLane", "parking OneCpuForThreads InQueue"];
    assert!(by_machine.contains(&said.as_str()), "{said}");
}

#[test]
fn a_slow_path_that_there_is_not_is_named_and_ignored() {
    const TEST: &str = "a_slow_path_that_there_is_not_is_named_and_ignored";
    let case = || {
        assert_eq!((choice().slow_path, choice().reason), (SlowPathKind::Parking, Reason::Preemptible));
        environment().expect_err("it is senseless").to_string()
    };
    for (text, why) in [
        ("mcs", "there is no `mcs`: choose from native numa paravirt parking test-and-set auto nopvspin dedicated"),
        ("native;dedicated", "there is no `native;dedicated`"),
        ("paravirt,nopvspin", "`paravirt` and `nopvspin` exclude each other: leave one out"),
        ("native,test-and-set", "`native` and `test-and-set` exclude each other"),
        ("native,native", "`native` is there twice"),
    ] {
        let child = Child::run_by(TEST, Some(text), case);
        assert!(child.said().starts_with("QSPINLOCK: ") && child.said().contains(why), "{}", child.said());
        assert_eq!(child.complained(), format!("qspinlock: {}; ignored, the defaults apply\n", child.said()));
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let child = Child::run_with(TEST, &[(SLOW_PATH_VARIABLE, Some(OsStr::from_bytes(b"\xff")))], case);
        assert_eq!(child.said(), "QSPINLOCK: it is not text: write words, separated by commas");
        assert_eq!(child.complained().lines().count(), 1);
    }
}

/// The one that is not sensible does not take the other with it.
#[test]
fn each_variable_is_ignored_by_itself() {
    const TEST: &str = "each_variable_is_ignored_by_itself";
    let case = || {
        let error = environment().expect_err("one is senseless").to_string();
        format!("{} {} {error}", choice().slow_path.name(), configuration().spin)
    };
    let run = |slow_path: &str, parking: &str| {
        let variables =
            [(SLOW_PATH_VARIABLE, Some(slow_path.as_ref())), (ENVIRONMENT_VARIABLE, Some(parking.as_ref()))];
        let child = Child::run_with(TEST, &variables, case);
        (child.said().to_owned(), child.complained().lines().count())
    };
    let (said, lines) = run("native", "spin=fast");
    assert!(said.starts_with("native 500 QSPINLOCK_PARKING: ") && lines == 1, "{said}");
    let (said, lines) = run("fast", "spin=7");
    assert!(said.starts_with("parking 7 QSPINLOCK: ") && lines == 1, "{said}");
    let (said, lines) = run("fast", "spin=fast");
    assert!(said.starts_with("parking 500 QSPINLOCK: ") && lines == 2, "{said}");
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn a_program_names_the_slow_path_that_waiters_follow() {
    const TEST: &str = "a_program_names_the_slow_path_that_waiters_follow";
    // Before the environment, whatever it says.
    for environment in [None, Some("test-and-set"), Some("numa,dedicated"), Some("nonsense")] {
        Child::run_by(TEST, environment, || {
            for &kind in SlowPathKind::ALL {
                alone(|| {
                    assert_eq!(configure(kind), Ok(()));
                    assert_eq!((choice().slow_path, choice().reason), (kind, Reason::AskedFor));
                    assert_eq!(waits(), how(kind), "{kind:?}");
                    assert_eq!(configure(kind), Err(ConfigureError::Twice), "also if nothing would change");
                    assert_eq!(configuration(), Patience::DEFAULT);
                });
            }
            alone(|| {
                let all = Configuration::NONE.auto().nopvspin().patience(OTHER);
                assert_eq!(configure(all), Ok(()));
                assert_eq!((choice().slow_path, choice().reason), (SlowPathKind::Parking, Reason::Preemptible));
                assert_eq!((configuration(), Threads.patience(), waits()), (OTHER, OTHER, Waits::InQueue));
            });
            alone(|| {
                assert_eq!(configure(Configuration::NONE.dedicated()), Ok(()));
                assert_ne!(choice().reason, Reason::AskedFor, "what the environment wished for is gone");
                assert_ne!(choice().reason, Reason::Preemptible);
            });
            String::new()
        });
    }
}

/// What a program does not say stays as the environment has it.
fn both() -> [(&'static str, Option<&'static OsStr>); 2] {
    [(SLOW_PATH_VARIABLE, Some(OsStr::new("native"))), (ENVIRONMENT_VARIABLE, Some(OsStr::new("spin=7")))]
}

#[test]
fn a_slow_path_leaves_the_parameters_alone() {
    Child::run_with("a_slow_path_leaves_the_parameters_alone", &both(), || {
        // The same slow path may be named with other threads about.
        assert_eq!(configure(SlowPathKind::Native), Ok(()));
        assert_eq!((choice().slow_path, configuration()), (SlowPathKind::Native, Patience::DEFAULT.spin(7)));
        assert_eq!(configure(OTHER), Err(ConfigureError::Twice));
        assert_eq!(waits(), Waits::InLane);
        String::new()
    });
}

#[test]
fn parameters_leave_the_slow_path_alone() {
    Child::run_with("parameters_leave_the_slow_path_alone", &both(), || {
        assert_eq!(configure(OTHER), Ok(()));
        assert_eq!((choice().slow_path, configuration()), (SlowPathKind::Native, OTHER));
        String::new()
    });
}

/// All of a configuration applies, or nothing, and then it may be tried again.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn with_other_threads_the_slow_path_stays() {
    Child::run_by("with_other_threads_the_slow_path_stays", None, || {
        // The harness has a thread beside this one.
        let named = Configuration::from(SlowPathKind::Native).patience(OTHER);
        let error = configure(named).expect_err("there are other threads");
        assert_eq!(error, ConfigureError::OtherThreads);
        let said = error.to_string();
        assert!(said.contains("call `configure` before the first one starts"), "{said}");
        assert_eq!((choice().slow_path, choice().reason), (SlowPathKind::Parking, Reason::Preemptible));
        assert_eq!((configuration(), Threads.patience()), (Patience::DEFAULT, Patience::DEFAULT));
        // Now somebody has asked for the parameters in order to wait.
        assert_eq!(configure(named), Err(ConfigureError::Late));
        String::new()
    });
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn what_other_threads_hinder_may_be_tried_again() {
    Child::run_by("what_other_threads_hinder_may_be_tried_again", None, || {
        assert_eq!(configure(SlowPathKind::Native), Err(ConfigureError::OtherThreads));
        assert_eq!(configure(Configuration::from(SlowPathKind::Parking).patience(OTHER)), Ok(()), "no change");
        assert_eq!((choice().reason, configuration()), (Reason::AskedFor, OTHER));
        String::new()
    });
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn a_slow_path_after_a_wait_is_late() {
    for kind in SlowPathKind::ALL {
        Child::run_by("a_slow_path_after_a_wait_is_late", Some(kind.name()), || {
            let used = choice().slow_path;
            alone(|| {
                assert_eq!(waits(), how(used));
                for other in SlowPathKind::ALL {
                    let both = Configuration::from(*other).patience(OTHER);
                    assert_eq!(configure(both), Err(ConfigureError::Late), "{other:?}");
                }
                assert_eq!((choice().slow_path, configuration()), (used, Patience::DEFAULT));
                assert_eq!(waits(), how(used));
            });
            String::new()
        });
    }
}

#[test]
fn contradicting_wishes_change_nothing() {
    Child::run_by("contradicting_wishes_change_nothing", None, || {
        let paravirt = Configuration::from(SlowPathKind::Paravirt).patience(OTHER);
        let spinning = Configuration::from(SlowPathKind::TestAndSet).patience(OTHER);
        for (both, why) in [
            (paravirt.nopvspin(), "`paravirt` and `nopvspin` exclude each other"),
            (paravirt.dedicated(), "`paravirt` and `dedicated` exclude each other"),
            (spinning.dedicated(), "`test-and-set` and `dedicated` exclude each other"),
        ] {
            let error = configure(both).expect_err(why);
            assert!(matches!(error, ConfigureError::Wishes(_)) && error.to_string().starts_with(why), "{error}");
            assert_eq!(both.validate(), Err(error));
            assert_eq!((choice().reason, configuration()), (Reason::Preemptible, Patience::DEFAULT));
        }
        assert_eq!(configure(Configuration::from(Wishes::NONE).patience(OTHER)), Ok(()), "it may be tried again");
        String::new()
    });
}

/// What a system that is no process does for itself.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[test]
fn a_slow_path_is_adopted_once() {
    use qspinlock::start::{AdoptError, adopt, decided};
    Child::run_by("a_slow_path_is_adopted_once", None, || {
        alone(|| {
            assert_eq!(decided(), Some(SlowPathKind::Parking), "before `main`");
            assert_eq!(adopt(SlowPathKind::TestAndSet), Ok(()));
            assert_eq!((decided(), choice().reason), (Some(SlowPathKind::TestAndSet), Reason::AskedFor));
            for kind in [SlowPathKind::TestAndSet, SlowPathKind::Native] {
                assert_eq!(adopt(kind), Err(AdoptError::Twice));
                assert_eq!(configure(Configuration::from(kind).patience(OTHER)), Err(ConfigureError::Twice));
            }
            assert_eq!((choice().slow_path, configuration()), (SlowPathKind::TestAndSet, Patience::DEFAULT));
            assert_eq!(waits(), Waits::Unseen);
        });
        alone(|| {
            assert_eq!(waits(), Waits::InQueue);
            assert_eq!(adopt(SlowPathKind::Native), Err(AdoptError::Late));
        });
        String::new()
    });
}
