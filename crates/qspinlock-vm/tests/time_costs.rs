//! What small sequences of accesses cost, to the cycle.

mod machines;

use std::cell::RefCell;

use qspinlock::machine::{Access, Budget, Cell, Machine, Ordering};
use qspinlock::queue::Cpu;
use qspinlock::slowpath::{Locality, Patience};
use qspinlock_vm::time::cell::{Arena, LINE, SimCell};
use qspinlock_vm::time::machine::Virtual;
use qspinlock_vm::time::model::Domain;
use qspinlock_vm::time::run::Overcommit;
use qspinlock_vm::time::world::{Conditions, Stopped, World, memory_of};

const A: Access = Access { name: "test", order: Ordering::Relaxed, pairs: "" };

/// From memory: as from the farthest CPU.
const COLD: u64 = 400;

/// Cells on a line each, or all on one.
struct Ground<'a> {
    lines: [&'a SimCell; 4],
    line: &'a [SimCell; 4],
    log: RefCell<Vec<(u32, &'static str, u64)>>,
}

impl Ground<'_> {
    fn note(&self, m: &Virtual, what: &'static str) {
        self.log.borrow_mut().push((m.cpu(), what, m.cycles()));
    }

    /// Works until a time.
    fn at(&self, m: &Virtual, time: u64) {
        m.work(time.checked_sub(m.cycles()).expect("a time to come"));
    }
}

/// Runs `work` on CPUs at these places of the Xeon; what they noted, in the order of CPUs.
fn costs(places: &[u32], work: impl Fn(&Virtual, &Ground<'_>)) -> Result<Vec<(u32, &'static str, u64)>, Stopped> {
    let xeon = machines::xeon();
    let conditions = Conditions {
        model: &xeon,
        places: places.to_vec(),
        cpus: places.len() as u32,
        seed: 1,
        domain: Domain::Node,
        locality: Locality::DEFAULT,
        host: Overcommit::on(places.len() as u32),
        patience: Patience::DEFAULT,
    };
    let arena = Arena::new(memory_of(conditions.cpus) + 8 * LINE);
    let world = World::new(&arena, &conditions).expect("the model is complete");
    let lines = std::array::from_fn(|_| arena.put(SimCell::default()));
    let ground = Ground { lines, line: arena.put(Default::default()), log: RefCell::default() };
    world.run(|m| work(m, &ground), |now| (now > 10_000_000).then(|| "no end".into()))?;
    let mut log = ground.log.into_inner();
    log.sort_by_key(|note| note.0);
    Ok(log)
}

fn add(cell: &SimCell) -> u32 {
    cell.update(A, |v| Some(v + 1)).expect("always adds")
}

#[test]
fn hits_cost_what_the_own_cache_costs() {
    let log = costs(&[0], |m, g| {
        let [cell, other, ..] = g.line;
        cell.load(A);
        g.note(m, "load from memory");
        cell.load(A);
        g.note(m, "load");
        add(cell);
        g.note(m, "atomic");
        assert_eq!(other.load(A), 0);
        g.note(m, "load beside");
        m.fence(Access::fence("test", ""));
        g.note(m, "fence");
    });
    let times: Vec<u64> = log.unwrap().iter().map(|note| note.2).collect();
    assert_eq!(times, [COLD, COLD + 5, COLD + 25, COLD + 30, COLD + 50]);
}

/// CPU 1 is on the die of CPU 0, CPUs 10 and 40 are one link away from both, CPU 20 is two.
#[test]
fn misses_cost_by_distance_and_by_who_has_the_line() {
    for (place, load, shared, atomic) in
        [(1, 109, 44, 120), (10, 289, 223, 324), (40, 289, 223, 324), (20, 400, 334, 430)]
    {
        let log = costs(&[0, place, 0], |m, g| {
            let [modified, other, both, ..] = g.lines;
            match m.cpu() {
                0 => {
                    add(modified);
                    add(other);
                    add(both);
                    g.at(m, 10_000);
                    // A CPU that shares the line with one at that distance takes it for itself.
                    add(modified);
                    g.note(m, "upgrade");
                }
                1 => {
                    g.at(m, 5_000);
                    assert_eq!(modified.load(A), 1);
                    g.note(m, "load");
                    g.at(m, 6_000);
                    assert_eq!(add(other), 1);
                    g.note(m, "atomic");
                }
                _ => {}
            }
        });
        let upgrade = [113, 312, 423][[120, 324, 430].iter().position(|&a| a == atomic).unwrap()];
        let expected = [(0, "upgrade", 10_000 + upgrade), (1, "load", 5_000 + load), (1, "atomic", 6_000 + atomic)];
        assert_eq!(log.unwrap(), expected, "{place} {shared}");
    }
}

/// A shared line comes from the nearest who has it, and leaves no later than the farthest has been told.
#[test]
fn a_shared_line_is_near_if_a_neighbour_has_it() {
    let log = costs(&[0, 20, 21, 1], |m, g| {
        let cell = g.lines[0];
        match m.cpu() {
            0 => drop(add(cell)),
            3 => {
                g.at(m, 9_000);
                add(cell);
                g.note(m, "all told");
            }
            cpu => {
                g.at(m, 5_000 + u64::from(cpu) * 1_000);
                cell.load(A);
                g.note(m, "load");
            }
        }
    });
    assert_eq!(log.unwrap(), [(1, "load", 6_400), (2, "load", 7_044), (3, "all told", 9_423)]);
}

#[test]
fn requests_are_served_in_order_and_one_by_one() {
    let log = costs(&[0, 1, 2, 3], |m, g| {
        let cell = g.lines[0];
        if m.cpu() == 0 {
            add(cell);
        } else {
            // The later ones come while the first is being served.
            g.at(m, 5_000 + 10 * u64::from(m.cpu()));
            assert_eq!(add(cell), m.cpu());
            g.note(m, "atomic");
        }
    });
    assert_eq!(log.unwrap(), [(1, "atomic", 5_130), (2, "atomic", 5_250), (3, "atomic", 5_370)]);
}

#[test]
fn a_write_takes_the_line_from_all_others() {
    let log = costs(&[0, 1], |m, g| {
        let cell = g.lines[0];
        if m.cpu() == 0 {
            cell.load(A);
            g.at(m, 3_000);
            cell.store(7, A);
        } else {
            for time in [2_000, 4_000, 5_000] {
                g.at(m, time);
                assert_eq!(cell.load(A), if time < 3_000 { 0 } else { 7 });
                g.note(m, "load");
            }
        }
    });
    // Of a line that another has, of one that it has taken back, and a hit.
    assert_eq!(log.unwrap(), [(1, "load", 2_109), (1, "load", 4_109), (1, "load", 5_005)]);
}

#[test]
fn stores_wait_in_a_buffer_and_leave_it_in_order() {
    let log = costs(&[0, 1, 2], |m, g| {
        let [first, second, mine, ..] = g.lines;
        match m.cpu() {
            0 => {
                add(first);
                add(second);
            }
            1 => {
                add(mine);
                g.at(m, 5_000);
                first.store(5, A);
                second.store(6, A);
                g.note(m, "stored");
                assert_eq!((first.load(A), second.load(A)), (5, 6));
                g.note(m, "forwarded");
                add(mine);
                g.note(m, "drained");
            }
            _ => {
                g.at(m, 5_100);
                // The first is on its way, the second has not left.
                assert_eq!((second.load(A), first.load(A)), (1, 5));
            }
        }
    });
    // The second leaves when the first has arrived, at 5,115. By then both its line's holders are to be told: 116.
    assert_eq!(log.unwrap(), [(1, "stored", 5_002), (1, "forwarded", 5_012), (1, "drained", 5_115 + 94 + 116 + 20)]);
}

/// The one thing that total store order allows: both read before the other's store arrives. A fence forbids it.
#[test]
fn loads_pass_stores_unless_fenced() {
    for is_fenced in [false, true] {
        let read = RefCell::new([9, 9]);
        costs(&[0, 1], |m, g| {
            let me = m.cpu() as usize;
            // A store that is on its way keeps the one that matters in the buffer.
            let [own, other, busy] = [g.lines[me], g.lines[1 - me], &g.line[me]];
            own.load(A);
            other.load(A);
            g.at(m, 5_000);
            busy.store(1, A);
            own.store(1, A);
            if is_fenced {
                m.fence(Access::fence("test", ""));
            }
            read.borrow_mut()[me] = other.load(A);
        })
        .unwrap();
        assert_eq!(read.into_inner() == [0, 0], !is_fenced);
    }
}

#[test]
fn a_look_at_the_second_byte_does_not_wait_for_the_first() {
    let log = costs(&[0, 1], |m, g| {
        let cell = g.lines[0];
        if m.cpu() == 0 {
            cell.load(A);
        } else {
            for (time, is_whole) in [(5_000, false), (6_000, true)] {
                g.at(m, time - 1_000 + 500);
                let busy = g.lines[if is_whole { 1 } else { 2 }];
                cell.store(0x100, A);
                g.at(m, time);
                // A store to a line from memory is on its way for long.
                busy.store(1, A);
                cell.store_low8(3, A);
                let seen = if is_whole { cell.load(A) } else { cell.load_byte1(A) };
                assert_eq!(seen, if is_whole { 0x103 } else { 0x100 });
                g.note(m, "look");
            }
        }
    });
    assert_eq!(log.unwrap(), [(1, "look", 5_000 + 2 + 5), (1, "look", 6_000 + COLD + 5 + 5)]);
}

#[test]
fn who_waits_costs_nothing_until_the_line_is_written() {
    for is_mine in [false, true] {
        let log = costs(&[0, 1, 2], |m, g| {
            let [cell, beside, ..] = g.line;
            match m.cpu() {
                0 => {
                    let until = |v: u32| v == 2;
                    let seen = if is_mine { m.until_mine(cell, A, until) } else { m.until(cell, A, until) };
                    assert_eq!(seen, 2);
                    g.note(m, "seen");
                    add(cell);
                    g.note(m, "written");
                }
                // Another value, and then another cell of the line, are no reason to go on.
                1 => {
                    for (time, cell, value) in [(5_000, cell, 1), (6_000, beside, 2), (8_000, cell, 2)] {
                        g.at(m, time);
                        cell.store(value, A);
                    }
                }
                _ => {}
            }
        });
        // The look queues behind the store, which finds the line shared or the waiter's own: 116, 115. It is a load, or
        // one that takes the line: 109, 115. So the atomic finds the line shared, or its own: 113, 20.
        let (seen, written) = if is_mine { (115 + 115, 20) } else { (116 + 109, 113) };
        let seen = 8_000 + seen;
        assert_eq!(log.unwrap(), [(0, "seen", seen), (0, "written", seen + written)], "{is_mine}");
    }
}

#[test]
fn a_budget_ends_a_wait() {
    let log = costs(&[0], |m, g| {
        let cell = g.lines[0];
        let wait = |budget| m.until_for(cell, A, budget, |v| v != 0);
        cell.load(A);
        g.at(m, 1_000);
        assert_eq!(wait(Budget::Looks { most: 10, apart: 3 }), Err(0));
        g.note(m, "looks");
        g.at(m, 2_000);
        assert_eq!(wait(Budget::Looks { most: 1, apart: 3 }), Err(0));
        g.note(m, "one look");
        assert_eq!(wait(Budget::Until(10_000)), Err(0));
        assert!(m.now() >= 10_000);
        g.note(m, "time");
        assert_eq!(wait(Budget::Until(0)), Err(0));
        g.note(m, "no time");
    });
    // 10 us at 2,130 MHz.
    let expected = [1_000 + 9 * 3 * 10, 2_005, 21_300, 21_305];
    assert_eq!(log.unwrap().iter().map(|note| note.2).collect::<Vec<_>>(), expected);
}

#[test]
fn a_wait_ends_before_its_budget_if_the_value_comes() {
    costs(&[0, 1], |m, g| {
        let cell = g.lines[0];
        if m.cpu() == 0 {
            assert_eq!(m.until_for(cell, A, Budget::Until(100_000), |v| v != 0), Ok(4));
            assert!(m.now() < 3_000);
            // The end of that budget is not the end of the next wait.
            assert_eq!(m.until(cell, A, |v| v == 5), 5);
            assert!(m.now() > 200_000);
        } else {
            g.at(m, 5_000);
            cell.store(4, A);
            g.at(m, 500_000);
            cell.store(5, A);
        }
    })
    .unwrap();
}

#[test]
fn sleepers_are_kicked_and_kicks_are_kept() {
    let log = costs(&[0, 1], |m, g| {
        let cell = g.lines[0];
        if m.cpu() == 0 {
            m.wait(cell, 0, A, None);
            g.note(m, "woken");
            // The kick came while it was awake.
            g.at(m, 500_000);
            m.wait(cell, 0, A, None);
            g.note(m, "not asleep");
            m.wait(cell, 1, A, None);
            g.note(m, "another value");
            m.wait(cell, 0, A, Some(m.now() + 1_000));
            g.note(m, "time");
        } else {
            g.at(m, 10_000);
            m.kick(Cpu::new(0).unwrap());
            g.note(m, "kicked");
            g.at(m, 400_000);
            m.kick(Cpu::new(0).unwrap());
        }
    });
    // 7.4 us to kick, 64 us to wake up; also where a time ends the sleep.
    let expected = [
        (0, "woken", 10_000 + 136_320),
        (0, "not asleep", 500_005),
        (0, "another value", 500_010),
        (0, "time", 500_010 + 2_130 + 136_320),
        (1, "kicked", 10_000 + 15_762),
    ];
    let log = log.unwrap();
    for (note, expected) in log.iter().zip(&expected) {
        assert!(note.0 == expected.0 && note.1 == expected.1 && note.2.abs_diff(expected.2) <= 2, "{log:?}");
    }
    assert_eq!(log.len(), expected.len());
}

#[test]
fn a_deadlock_is_an_error_that_says_who_waits_for_what() {
    let stopped = costs(&[0, 1, 2], |m, g| match m.cpu() {
        0 => drop(m.until(g.lines[0], Access { name: "first", ..A }, |v| v == 1)),
        1 => {
            g.lines[0].store(2, A);
            m.wait(g.lines[1], 0, A, None);
        }
        _ => {}
    });
    let Err(Stopped::Deadlock(who)) = stopped else { panic!("{stopped:?}") };
    assert!(who.starts_with("cpu 0 waits at first for line "), "{who}");
    assert!(who.contains(", which holds 0x2, since ") && who.contains("; cpu 1 sleeps since "), "{who}");
    assert!(!who.contains("cpu 2"), "{who}");
}

#[test]
fn a_run_that_lasts_too_long_is_stopped() {
    let xeon = machines::xeon();
    let conditions = Conditions {
        model: &xeon,
        places: vec![0, 1],
        cpus: 2,
        seed: 1,
        domain: Domain::Node,
        locality: Locality::DEFAULT,
        host: Overcommit::on(2),
        patience: Patience::DEFAULT,
    };
    let arena = Arena::new(memory_of(2) + LINE);
    let world = World::new(&arena, &conditions).unwrap();
    let cell = arena.put(SimCell::default());
    let for_ever = |_: &Virtual| {
        while add(cell) != u32::MAX {}
    };
    let stopped = world.run(for_ever, |now| (now > 1_000_000).then(|| "enough".to_owned()));
    assert_eq!(stopped, Err(Stopped::Deadlock("enough".into())));
}
