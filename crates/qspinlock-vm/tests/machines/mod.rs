//! Machines for tests.

use qspinlock_vm::time::model::{Distance, Model, OwnCosts, Shape, Transfer};

/// The 80-core Xeon of "Everything You Always Wanted to Know About Synchronization but Were Afraid to Ask" (David,
/// Guerraoui, Trigonakis; SOSP 2013): 8 x E7-8867L at 2.13 GHz. Costs are its tables 2 and 3. Its sockets form a twisted
/// hypercube: three neighbours each, all others two links away. How long a load of a shared line keeps it busy is not published:
/// for as long as it takes fits the ticket lock of its figure 5 best.
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
