//! Tests that run in the kernel. Each phase is bounded by time and not by work: on an emulator a CPU that holds a lock
//! may not run for long. A counter on the serial port tells slow from hung.

mod circles;
mod contend;
mod failing;
mod guards;
mod halts;
mod kit;
mod locality;
mod nesting;
mod overcommit;
mod sleepers;
mod steps;
mod switch;

use guest_firmware::Words;

use crate::console::println;

/// What every test is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// How long a phase lasts, in nanoseconds.
    pub(crate) phase: u64,
}

/// A test: its name, and what runs it. True if all was well.
type Test = (&'static str, fn(&Settings) -> bool);

const TESTS: &[Test] = &[
    ("guards", guards::run),
    ("exclusion", contend::run),
    ("nesting", nesting::run),
    ("halts", halts::run),
    ("sleepers", sleepers::run),
    ("steps", steps::run),
    ("nmis", steps::run_nmis),
    ("circles", circles::run),
    ("locality", locality::run),
    ("switch", switch::run),
    ("overcommit", overcommit::run),
];

/// Runs those that the command line names; all if it names none.
pub(crate) fn run(words: &Words<'_>) -> bool {
    let settings = Settings { phase: u64::from(words.phase_ms.unwrap_or(300)) * 1_000_000 };
    let named = words.tests.filter(|names| !names.is_empty());
    let is_named = |name: &str| named.is_none_or(|names| names.split(',').any(|other| other == name));
    let mut passed = true;
    for name in named.into_iter().flat_map(|names| names.split(',')) {
        if name != "none" && !TESTS.iter().any(|test| test.0 == name) {
            println!("guest: no test '{}'; there are: none", name.escape_debug());
            TESTS.iter().for_each(|test| println!("guest:   {}", test.0));
            passed = false;
        }
    }
    for (name, test) in TESTS.iter().filter(|test| is_named(test.0)) {
        println!("guest: test {name}");
        if !test(&settings) {
            println!("guest: test {name} FAILED");
            passed = false;
        }
        if kit::is_given_up() {
            println!("guest: after a hang no other test is run");
            break;
        }
    }
    passed
}
