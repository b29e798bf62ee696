//! A test that runs again in a process of its own, since each process has one way to wait.

use std::ffi::OsStr;
use std::process::{Command, Output};
use std::time::Duration;

use qspinlock::threads::{ENVIRONMENT_VARIABLE, SLOW_PATH_VARIABLE};

use crate::watchdog::Watchdog;

const CASE: &str = "QSPINLOCK_TEST_CASE";

/// Runs the test again in a process of its own, and there `case`, whose text it gives back.
pub(crate) struct Child(Output);

#[allow(dead_code, reason = "not every test needs each")]
impl Child {
    /// Does not return in the child.
    pub(crate) fn run(test: &'static str, parking: Option<&OsStr>, case: impl FnOnce() -> String) -> Self {
        let variables: &[_] = &[(ENVIRONMENT_VARIABLE, parking)];
        Self::run_with(test, variables, case)
    }

    /// With a slow path in its environment, or none.
    pub(crate) fn run_by(test: &'static str, slow_path: Option<&str>, case: impl FnOnce() -> String) -> Self {
        Self::run_with(test, &[(SLOW_PATH_VARIABLE, slow_path.map(OsStr::new))], case)
    }

    pub(crate) fn run_with(
        test: &'static str,
        variables: &[(&str, Option<&OsStr>)],
        case: impl FnOnce() -> String,
    ) -> Self {
        if std::env::var(CASE).as_deref() == Ok(test) {
            let _watchdog = Watchdog::arm(test, Duration::from_secs(60));
            print!("<<{}>>", case());
            std::io::Write::flush(&mut std::io::stdout()).expect("standard output is there");
            std::process::exit(0);
        }
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CASE, test);
        command.env_remove(ENVIRONMENT_VARIABLE).env_remove(SLOW_PATH_VARIABLE);
        command.env_remove("QSPINLOCK_DOMAIN").env_remove("QSPINLOCK_NUMA");
        for (name, value) in variables {
            value.map(|value| command.env(name, value));
        }
        let output = command.output().expect("the child starts");
        assert!(output.status.success(), "{test}, {variables:?}: {output:?}");
        Self(output)
    }

    pub(crate) fn said(&self) -> &str {
        let text = std::str::from_utf8(&self.0.stdout).expect("text");
        let (_, rest) = text.split_once("<<").expect("the case has run");
        rest.split_once(">>").expect("the case has ended").0
    }

    pub(crate) fn complained(&self) -> &str {
        std::str::from_utf8(&self.0.stderr).expect("text")
    }
}
