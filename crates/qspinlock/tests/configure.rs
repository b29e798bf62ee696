//! The parameters of waiting: by `configure`, and by the environment of a child process, since each process has one set.

#[path = "support/child.rs"]
mod child;
#[path = "support/watchdog.rs"]
mod watchdog;

use child::Child;
use qspinlock::slowpath::parking::{OutOfRange, Parameter};
use qspinlock::slowpath::{Parking, Patience};
use qspinlock::threads::{ENVIRONMENT_VARIABLE, Threads};
use qspinlock::{ConfigureError, Machine, RawSpinLock, configuration, configure, environment};

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
