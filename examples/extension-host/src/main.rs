//! A host of guest programs that it does not trust, on an eBPF virtual machine. Guests run on several threads, share
//! maps, and take locks as they please: against each other, twice, for ever. Every lock that they can get at is
//! resilient, so what would be a hang of the host is an error of theirs.
//!
//! `cargo run -p extension-host`
//!
//! * `map`: what guests share: maps whose buckets, and whose sections, are guarded by resilient locks;
//! * `program`: which programs may run;
//! * `run`: a run of one, what it holds, and what it may call;
//! * `host`: threads, and reports with the names of guests in them.
//!
//! Guests are in `guests/`. What comes of them is checked at the end, and is the exit code.

#![forbid(unsafe_code)]

mod host;
mod map;
mod program;
mod run;

use std::process::ExitCode;

use qspinlock::resilient::Policy;

use host::{Notes, named};
use map::Refusal;
use program::Guest;

/// Loads a program from `guests/`.
macro_rules! guest {
    ($name:literal, $rounds:expr) => {
        Guest::load($name, include_str!(concat!("../guests/", $name, ".s")), &map_names(), $rounds)
    };
}

fn map_names() -> Vec<&'static str> {
    host::maps().iter().map(|map| map.name).collect()
}

fn main() -> ExitCode {
    // Whatever the environment says: a guest's mistake is no panic of ours.
    qspinlock::resilient::set_policy(Policy::DEFAULT).expect("the default is sensible");
    match host_them() {
        Ok(wrong) if wrong.is_empty() => {
            println!("host: all is as it should be");
            ExitCode::SUCCESS
        }
        Ok(wrong) => {
            wrong.iter().for_each(|what| eprintln!("host: WRONG: {what}"));
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("host: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all guests. Returns what has gone wrong, which is not what guests have done wrong.
fn host_them() -> Result<Vec<String>, String> {
    let (counter, auditor) = (guest!("counter", 1000)?, guest!("auditor", 0)?);
    let (left, right) = (guest!("left", 1_000_000)?, guest!("right", 1_000_000)?);
    // Not stopped by its rounds, but since it is in the way.
    let (hog, neighbour) = (guest!("hog", u64::MAX)?, guest!("neighbour", 0)?);
    let (twice, forgetful, wild) = (guest!("twice", 0)?, guest!("forgetful", 0)?, guest!("wild", 0)?);
    let (overflow, spinner) = (guest!("overflow", 0)?, guest!("spinner", 1000)?);
    let refused = guest!("endless", 1000).err();
    println!("endless: was not admitted: {}", refused.as_deref().unwrap_or("it was!"));

    for map in host::maps() {
        map.update(0, 100, |_| ()).map_err(|refusal| format!("{}: {}", map.name, refusal.code()))?;
    }
    let _ = named("delta").on_update.set(auditor);

    // The counters work on throughout.
    std::thread::scope(|s| {
        s.spawn(|| host::fire(&[&[counter, counter], &[counter], &[counter, counter]]));
        s.spawn(|| host::fire(&[&[left], &[right]]));
        s.spawn(|| host::fire(&[&[hog], &[neighbour], &[neighbour]]));
        // On one thread: a lock that is left behind would be in the way of the next.
        s.spawn(|| host::fire(&[&[forgetful, twice, wild, overflow, forgetful, spinner]]));
    });
    // And after all that, too.
    host::fire(&[&[counter]]);

    let mut wrong = check(&host::notes());
    if refused.is_none() {
        wrong.push("a program that cannot be stopped was admitted".to_owned());
    }
    Ok(wrong)
}

/// What has to come of it, whatever the threads' speed.
fn check(notes: &Notes) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |is_so: bool, what: &dyn Fn() -> String| {
        if !is_so {
            wrong.push(what());
        }
    };
    let value = |name| named(name).lookup(0).map_err(Refusal::code);
    let results = |name: &str| -> Vec<_> {
        let of_name = notes.outcomes.iter().filter(|outcome| outcome.guest.name == name);
        of_name.map(|outcome| outcome.result.as_ref().ok().copied()).collect()
    };
    let refusals = |name, code| notes.refusals.get(&(name, code)).copied().unwrap_or(0);

    // Totals: nothing was lost, whatever went on beside it.
    let counted: i64 = results("counter").into_iter().flatten().sum();
    println!("host: hits {:?}, counted {counted}", value("hits"));
    expect(counted == 6 * 500 && value("hits") == Ok(100 + counted as u64), &|| "hits".to_owned());
    // Both movers came through in the end.
    println!("host: alpha {:?}, beta {:?}", value("alpha"), value("beta"));
    expect((value("alpha"), value("beta")) == (Ok(98), Ok(102)), &|| "alpha or beta".to_owned());
    // And what is set off by each update of delta kept up with it.
    println!("host: delta {:?}, audit {:?}", value("delta"), value("audit"));
    expect((value("delta"), value("audit")) == (Ok(105), Ok(105)), &|| "delta or audit".to_owned());

    // Each was told what it had done wrong.
    let deadlocks = refusals("left", -35) + refusals("right", -35);
    // Once at least: who has given way may be quick to come back.
    expect(deadlocks >= 1, &|| "left and right were not told".to_owned());
    for (name, code, times) in
        [("twice", -35, 1), ("neighbour", -110, 2), ("neighbour", -1, 2), ("auditor", -35, 5), ("auditor", -1, 5)]
    {
        let seen = refusals(name, code);
        expect(seen == times, &|| format!("{name} was told {code} {seen} times, not {times}"));
    }
    let kinds = notes.refusals.len() - usize::from(refusals("left", -35) > 0) - usize::from(refusals("right", -35) > 0);
    expect(kinds == 5 && notes.set_off == 5, &|| format!("{:?}, {} set off", notes.refusals, notes.set_off));

    // What they left was taken from them.
    for outcome in &notes.outcomes {
        let name = outcome.guest.name;
        let leaves = match name {
            "forgetful" | "wild" => vec!["delta"],
            "hog" => vec!["gamma"],
            // Panics only where overflows are checked.
            "overflow" => vec!["delta"],
            _ => vec![],
        };
        let left: Vec<_> = outcome.left.iter().map(|map| map.name).collect();
        expect(left == leaves, &|| format!("{name} left {left:?}"));
        expect(outcome.stopped.is_some() == matches!(name, "hog" | "spinner"), &|| {
            format!("{name} was stopped, or not")
        });
    }
    for (name, result) in
        [("left", Some(1)), ("twice", Some(-35)), ("wild", None), ("hog", Some(0)), ("spinner", Some(7))]
    {
        let seen = results(name);
        expect(!seen.is_empty() && seen.iter().all(|&r| r == result), &|| format!("{name} ended as {seen:?}"));
    }
    for map in host::maps() {
        expect(map.is_free(), &|| format!("a lock of {} is still held", map.name));
    }
    wrong
}
