//! Which slow path a process has: by `configure`, and by the environment of a child process.

#[path = "support/child.rs"]
mod child;
#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "support/forked.rs"]
mod forked;
#[path = "support/watchdog.rs"]
mod watchdog;

use std::ffi::OsStr;
use std::time::Duration;

use child::Child;
use qspinlock::select::{Reason, SlowPathKind, Wishes};
use qspinlock::slowpath::{Chosen, Patience};
use qspinlock::threads::{ENVIRONMENT_VARIABLE, SLOW_PATH_VARIABLE, Threads};
use qspinlock::{Configuration, ConfigureError, Machine, RawSpinLock, choice, configuration, configure, environment};

const OTHER: Patience = Patience::DEFAULT.spin(123).turns(4);

/// Runs `f` in a child that has one thread; the test's own process has the harness's as well.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn alone(f: impl FnOnce()) {
    forked::in_child(50, f);
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
        (
            "mcs",
            "there is no `mcs`: choose from native numa paravirt parking test-and-set auto nopvspin dedicated \
          numa=auto numa=on numa=off",
        ),
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
