//! Event counters; and that none are in the program when nobody asked for them.

#[path = "support/watchdog.rs"]
mod watchdog;

use std::time::Duration;

use qspinlock::RawSpinLock;
use qspinlock::slowpath::Parking;
use qspinlock::threads::Threads;
use watchdog::Watchdog;

/// One thread sleeps until another unlocks: the slow path is in the program, with all that it counts.
fn sleep_once() {
    let lock = RawSpinLock::<Threads, Parking>::new();
    assert!(lock.try_acquire_on(&Threads));
    std::thread::scope(|s| {
        let waiter = s.spawn(|| {
            let Ok(()) = lock.acquire_on(&Threads);
            // SAFETY: acquired above.
            unsafe { lock.release_on(&Threads) };
        });
        while !lock.is_contended() {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
        // SAFETY: acquired above.
        unsafe { lock.release_on(&Threads) };
        waiter.join().expect("the waiter ends");
    });
}

/// Whether the counters are in this program: every way to write down a symbol has their path in it. Spelt backwards, or
/// this text would be found.
#[cfg(target_os = "linux")]
#[test]
fn the_counters_are_there_when_asked_for_and_only_then() {
    let _watchdog = Watchdog::arm("the_counters_are_there_when_asked_for_and_only_then", Duration::from_secs(60));
    sleep_once();
    let symbol: Vec<u8> = "SRETNUOC8stats5kcolnipsq9".bytes().rev().collect();
    let program = std::fs::read(std::env::current_exe().expect("this program")).expect("it can be read");
    let is_there = program.windows(symbol.len()).any(|bytes| bytes == symbol);
    assert_eq!(is_there, cfg!(feature = "stats"));
}

#[cfg(feature = "stats")]
mod counting {
    use std::collections::BTreeSet;
    use std::sync::Barrier;

    use qspinlock::machine::{Event, Machine};
    use qspinlock::stats;

    use super::*;

    // Counts are the process's. These events are nobody else's here.
    const MINE: [Event; 2] = [Event::Requeued, Event::SoleHead];

    #[test]
    fn nothing_is_lost_among_threads() {
        const THREADS: u64 = 8;
        const EACH: u64 = 500_000;
        let before = stats::snapshot();
        let start = Barrier::new(THREADS as usize);
        std::thread::scope(|s| {
            for n in 0..THREADS {
                let start = &start;
                s.spawn(move || {
                    // Half of them have a slot, and so different shards; the others share one.
                    let _slot = (n % 2 == 0).then(|| Threads.here());
                    start.wait();
                    (0..EACH).for_each(|_| Threads.count(MINE[0]));
                    Threads.count(MINE[1]);
                });
            }
        });
        let counted = stats::snapshot() - before;
        assert_eq!(MINE.map(|event| counted.get(event)), [THREADS * EACH, THREADS]);
    }

    #[test]
    fn a_sleep_and_a_wake_are_counted_by_name() {
        let _watchdog = Watchdog::arm("a_sleep_and_a_wake_are_counted_by_name", Duration::from_secs(60));
        let before = stats::snapshot();
        sleep_once();
        let counted = stats::snapshot() - before;
        let of = |name| counted.iter().find_map(|(_, n, count)| (n == name).then_some(count)).expect(name);
        // Another test may do the same meanwhile, and a nap may end when the lock is free.
        assert!((1..=2).contains(&of("lock_slowpath")), "{counted}");
        assert!(of("pv_wait_head") >= 1 && of("pv_kick_unlock") >= 1 && of("pv_wait_node") == 0, "{counted}");
        assert!(of("pv_kick_wake") + of("nap_rescue") >= 1, "{counted}");
        assert_eq!(of("lock_slowpath"), counted.get(Event::Queued));
    }

    #[test]
    fn every_event_has_a_name_and_a_line() {
        let stats = stats::snapshot();
        let names: BTreeSet<_> = stats.iter().map(|(_, name, _)| name).collect();
        assert_eq!(names.len(), stats.iter().count());
        assert!(stats.iter().all(|(event, name, count)| stats::name(event) == name && stats.get(event) == count));
        let kernels = [
            "lock_pending",
            "lock_slowpath",
            "lock_no_node",
            "pv_lock_stealing",
            "pv_kick_unlock",
            "pv_kick_wake",
            "pv_wait_head",
            "pv_wait_node",
            "pv_spurious_wakeup",
        ];
        assert!(kernels.iter().all(|name| names.contains(name)));
        let text = stats.to_string();
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        let expected: Vec<_> = stats.iter().map(|(_, name, count)| vec![name.to_owned(), count.to_string()]).collect();
        assert_eq!(lines, expected);
        let widths: BTreeSet<_> = text.lines().map(str::len).collect();
        assert_eq!(widths.len(), 1, "columns are straight");
    }
}
