use std::collections::BTreeSet;

use super::*;

fn grant(table: &Table<1>, slot: u32, level: usize) -> &core::sync::atomic::AtomicU32 {
    table.slot(slot as usize).node(level).grant.as_atomic()
}

fn claim_all(table: &Table<1>) -> BTreeSet<u32> {
    core::iter::from_fn(|| table.claim()).collect()
}

/// Every slot of a table of 64 is taken. Its first levels are in use as `depth` says, and one node is in some state.
fn crowded(slot: u32, depth: u32, level: usize, state: u32) -> Box<Table<1>> {
    let table = Box::new(Table::new());
    assert_eq!(claim_all(&table).len(), 64);
    table.slot(slot as usize).depth.as_atomic().store(depth, Ordering::Relaxed);
    table.slot(slot as usize).token().as_atomic().store(1, Ordering::Relaxed);
    grant(&table, slot, level).store(state, Ordering::Relaxed);
    table
}

#[test]
fn a_slot_whose_nodes_are_in_no_queue_is_free_at_once() {
    let told = [State::Woken as u32, State::Owner as u32];
    let unused = (0..NODES).flat_map(|level| [0, 1].map(|grant| (0, level, grant)));
    // Level 0 was in use, and has been told; what is left in unused levels means nothing.
    let told = told.into_iter().flat_map(|state| [(1, 0, state), (0, 2, state), (0, LEVELS, state)]);
    for (depth, level, state) in unused.filter(|&(_, level, state)| level < LEVELS || state == 0).chain(told) {
        let table = crowded(7, depth, level, state);
        table.others_are_gone(Some(9));
        assert_eq!(table.in_use(), 1, "{depth} {level} {state}");
        let free = claim_all(&table);
        assert_eq!((free.len(), free.contains(&9)), (63, false));
        let slot = table.slot(7);
        assert!(is_quiet(slot));
        assert_eq!([&slot.depth, slot.token()].map(|cell| cell.as_atomic().load(Ordering::Relaxed)), [0, 0]);
    }
}

#[test]
fn a_slot_is_haunted_until_its_nodes_are_taken_out() {
    let asleep = [State::Waiting, State::Starving].map(|state| state as u32);
    let levels = asleep.into_iter().flat_map(|state| [(1, 0, state), (4, 3, state)]);
    // A waiter that was about to lie down, or spins in a queue: nothing shows which.
    let unknown = [(1, 0, State::Idle as u32)];
    let timed = asleep.into_iter().chain([State::Abandoned as u32]).map(|state| (0, NODES - 1, state));
    for (depth, level, state) in levels.chain(unknown).chain(timed) {
        let table = crowded(7, depth, level, state);
        // Its other levels wait as well.
        (0..depth as usize).for_each(|level| grant(&table, 7, level).store(state, Ordering::Relaxed));
        table.others_are_gone(None);
        // And again, in the child of the child.
        table.others_are_gone(None);
        assert_eq!(table.in_use(), 1);
        let free = claim_all(&table);
        assert_eq!((free.len(), free.contains(&7)), (63, false), "{depth} {level} {state}");
        free.into_iter().for_each(|slot| table.give_back(slot));

        for level in 0..NODES {
            let grant = grant(&table, 7, level);
            if grant.load(Ordering::Relaxed) == State::Abandoned as u32 {
                assert_ne!(table.claim(), Some(7));
                // As who takes it out does.
                grant.store(State::Idle as u32, Ordering::Release);
            }
        }
        let free = claim_all(&table);
        assert!(free.contains(&7), "{depth} {level} {state}");
        assert_eq!(table.ghosts.load(Ordering::Relaxed), 0);
    }
}

/// The one that is left may be inside a wait, below the handler that has forked.
#[test]
fn the_slot_of_who_is_left_is_not_touched() {
    let table = crowded(7, 2, 1, State::Starving as u32);
    table.others_are_gone(Some(7));
    let slot = table.slot(7);
    let left = [&slot.depth, slot.token(), &slot.node(1).grant].map(|cell| cell.as_atomic().load(Ordering::Relaxed));
    assert_eq!(left, [2, 1, State::Starving as u32]);
    assert_eq!((table.in_use(), claim_all(&table).contains(&7)), (1, false));
}
