//! Machines for tests.

use qspinlock_vm::time::model::{Distance, Model, OwnCosts, Shape, Transfer};

/// A machine for tests that add costs up, and so must know them, whatever is fitted: much like the built-in `sosp13-xeon`, but a
/// load of a shared line keeps it busy for as long as it takes.
pub(crate) fn xeon() -> Model {
    let transfer = |load_modified, load_shared, load_shared_occupies, store, atomic: (u32, u32)| {
        let (store_modified, store_shared): (u32, u32) = store;
        Transfer {
            load_modified,
            load_shared,
            load_shared_occupies,
            store_modified,
            store_shared,
            atomic_modified: atomic.0,
            atomic_shared: atomic.1,
        }
    };
    let hops = |a: u8, b: u8| match (a + 8 - b) % 8 {
        0 => 0,
        1 | 4 | 7 => 1,
        _ => 2,
    };
    Model {
        name: "xeon".into(),
        about: "8 x Xeon E7-8867L".into(),
        mhz: 2130,
        shape: Shape {
            sockets: 8,
            l3s: 1,
            cores: 10,
            smt: 1,
            hops: (0..8).map(|a| (0..8).map(|b| hops(a, b)).collect()).collect(),
        },
        own: OwnCosts { load: 5, store: 5, atomic: 20, pause: 10 },
        transfers: vec![
            (Distance::L3, transfer(109, 44, 44, (115, 116), (120, 113))),
            (Distance::Hops(1), transfer(289, 223, 223, (320, 318), (324, 312))),
            (Distance::Hops(2), transfer(400, 334, 334, (431, 428), (430, 423))),
        ],
        sources: Vec::new(),
    }
}
