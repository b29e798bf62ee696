//! Every named step against a model that has no bits: a flag, a flag and a name.

use std::cell::Cell as StdCell;

use proptest::prelude::*;

use super::*;
use crate::atomic::AtomicCell;
use crate::machine::Budget;
use crate::queue::{Cpu, LEVELS, Slot};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Model {
    locked: bool,
    pending: bool,
    tail: Option<(u32, u32)>,
}

impl Model {
    /// The layout in the module's docs, written a second time.
    fn bits(self) -> u32 {
        let tail = self.tail.map_or(0, |(cpu, level)| cpu * 8192 + (level + 1) * 1024);
        tail + if self.pending { 256 } else { 0 } + u32::from(self.locked)
    }

    fn waiters(self) -> bool {
        self.pending || self.tail.is_some()
    }
}

/// One thread, no real atomic: shows the low-byte operations that [`Cell`] provides.
#[derive(Default)]
struct Plain(StdCell<u32>);

// SAFETY: not `Sync`, so one thread at a time.
#[allow(unsafe_code, reason = "promises atomicity")]
unsafe impl Cell for Plain {
    fn load(&self, _: Access) -> u32 {
        self.0.get()
    }

    fn store(&self, value: u32, _: Access) {
        self.0.set(value);
    }

    fn cas(&self, old: u32, new: u32, access: Access) -> Result<u32, u32> {
        self.update(access, |v| (v == old).then_some(new))
    }

    fn update(&self, _: Access, f: impl Fn(u32) -> Option<u32>) -> Result<u32, u32> {
        let old = self.0.get();
        self.0.set(f(old).ok_or(old)?);
        Ok(old)
    }
}

/// A machine on which nothing happens: an await must find its condition true.
struct Still<C>(std::marker::PhantomData<C>);

// SAFETY: one thread, and it has no CPU.
#[allow(unsafe_code, reason = "promises distinct CPUs")]
unsafe impl<C: Cell> Machine for Still<C> {
    type Cell = C;

    fn here(&self) -> Option<Cpu> {
        None
    }

    fn slot(&self, cpu: Cpu) -> &Slot<C> {
        unreachable!("{cpu:?}: nobody has a CPU")
    }

    fn until(&self, cell: &C, access: Access, done: impl Fn(u32) -> bool) -> u32 {
        let seen = cell.load(access);
        assert!(done(seen), "would wait for ever at {seen:#x}");
        seen
    }

    fn until_for(&self, cell: &C, access: Access, _: Budget, done: impl Fn(u32) -> bool) -> Result<u32, u32> {
        let seen = cell.load(access);
        if done(seen) { Ok(seen) } else { Err(seen) }
    }

    fn fence(&self, _: Access) {}

    fn signal_fence(&self) {}

    fn now(&self) -> u64 {
        0
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    TryAcquire,
    Release,
    Settle,
    TryPend,
    ClaimFromPending,
    ExchangeTail(u32, u32),
    ClaimSole(u32, u32),
    ClaimHead,
    Barge,
    Await,
}

fn tail_of((cpu, level): (u32, u32)) -> Tail {
    Tail::new(Cpu::new(cpu).expect("in range"), level as usize)
}

/// The ends of the range matter most: CPU 0, few CPUs, and the last one that fits.
fn cpu() -> impl Strategy<Value = u32> {
    prop_oneof![0..4_u32, 0..Cpu::MAX, Cpu::MAX - 2..Cpu::MAX]
}

fn level() -> impl Strategy<Value = u32> {
    0..LEVELS as u32
}

fn model() -> impl Strategy<Value = Model> {
    (any::<bool>(), any::<bool>(), proptest::option::of((cpu(), level()))).prop_map(|(locked, pending, tail)| Model {
        locked,
        pending,
        tail,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::TryAcquire),
        Just(Step::Release),
        Just(Step::Settle),
        Just(Step::TryPend),
        Just(Step::ClaimFromPending),
        (cpu(), level()).prop_map(|(cpu, level)| Step::ExchangeTail(cpu, level)),
        (cpu(), level()).prop_map(|(cpu, level)| Step::ClaimSole(cpu, level)),
        Just(Step::ClaimHead),
        Just(Step::Barge),
        Just(Step::Await),
    ]
}

/// Takes one step in the word and in the model, and compares what both say.
fn take<C: Cell>(word: &LockWord<C>, model: &mut Model, step: Step) -> Result<(), TestCaseError> {
    let (m, was) = (Still(std::marker::PhantomData), *model);
    let free = !was.locked;
    match step {
        Step::TryAcquire => {
            model.locked = was.locked || !was.waiters();
            prop_assert_eq!(word.try_acquire(), free && !was.waiters());
        }
        Step::Release => {
            word.release();
            model.locked = false;
        }
        // In flight or not, it only looks.
        Step::Settle => prop_assert_eq!(word.settle(&m, Budget::Looks { most: 1, apart: 1 }).bits(), was.bits()),
        Step::TryPend => {
            // From what an owner alone would look like, which may be out of date.
            let taken = was.locked && !was.waiters();
            model.pending |= taken;
            let result = word.try_pend(Value(LOCKED));
            prop_assert_eq!(result, if taken { Ok(()) } else { Err(Value(was.bits())) });
        }
        Step::ClaimFromPending => {
            if free {
                *model = Model { locked: true, pending: false, ..was };
            }
            prop_assert_eq!(word.claim_from_pending(), free);
        }
        Step::ExchangeTail(cpu, level) => {
            model.tail = Some((cpu, level));
            prop_assert_eq!(word.exchange_tail(tail_of((cpu, level))), was.tail.map(tail_of));
        }
        Step::ClaimSole(cpu, level) => {
            // Of the one that is last as well as of one that is not.
            let me = if level == 0 { was.tail.unwrap_or((cpu, level)) } else { (cpu, level) };
            let won = free && !was.pending && was.tail == Some(me);
            if won {
                *model = Model { locked: true, ..Model::default() };
            }
            let result = word.claim_sole(tail_of(me));
            prop_assert_eq!(result, if won { Ok(()) } else { Err(Value(was.bits())) });
        }
        Step::ClaimHead => {
            model.locked = true;
            prop_assert_eq!(word.claim_head(), free);
        }
        Step::Barge => {
            model.locked = true;
            prop_assert_eq!(word.barge(), free);
        }
        Step::Await => {
            if free {
                word.wait_unlocked(&m);
            }
            if free && !was.pending {
                prop_assert_eq!(word.wait_free(&m).bits(), was.bits());
            }
        }
    }
    let seen = word.peek();
    prop_assert_eq!(seen.bits(), model.bits(), "after {:?} from {:?}", step, was);
    prop_assert_eq!(seen.is_locked(), model.locked);
    prop_assert_eq!(seen.is_pending(), model.pending);
    prop_assert_eq!(seen.tail(), model.tail.map(tail_of));
    prop_assert_eq!(seen.is_contended(), model.waiters());
    prop_assert_eq!(seen.is_handover(), *model == Model { pending: true, ..Model::default() });
    Ok(())
}

fn agrees<C: Cell>(cell: C, mut model: Model, steps: &[Step]) -> Result<(), TestCaseError> {
    cell.store(model.bits(), PEEK);
    let word = LockWord::from_cell(cell);
    steps.iter().try_for_each(|&step| take(&word, &mut model, step))
}

/// The unlock where virtual CPUs wait: the low byte counts, and nothing else moves.
fn counts_down<C: Cell>(cell: &C, above: u32) {
    for (byte, left) in [(1, 0), (2, 1), (3, 2), (255, 254)] {
        cell.store(above << 8 | byte, PEEK);
        assert_eq!(cell.count_down_low8(PEEK), left == 0, "{byte}");
        assert_eq!(cell.load(PEEK), above << 8 | left, "{byte}");
    }
}

#[test]
fn counting_down_keeps_the_other_bits() {
    for above in [0, 1, 0xab_cdef, 0xff_ffff] {
        counts_down(&Plain::default(), above);
        counts_down(&AtomicCell::default(), above);
    }
}

proptest! {
    #[test]
    fn portable_low_byte_operations_agree_with_the_model(
        start in model(), steps in proptest::collection::vec(step(), 1..40)
    ) {
        agrees(Plain::default(), start, &steps)?;
    }

    /// On x86-64 these are the byte instructions, unless the feature `portable` is on.
    #[test]
    fn real_cells_agree_with_the_model(start in model(), steps in proptest::collection::vec(step(), 1..40)) {
        agrees(AtomicCell::default(), start, &steps)?;
    }

    #[test]
    fn a_tail_and_its_code_name_the_same_node(cpu in cpu(), level in level()) {
        let tail = tail_of((cpu, level));
        prop_assert_eq!((tail.cpu().index(), tail.level()), (cpu as usize, level as usize));
        prop_assert_eq!(Tail::from_code(tail.code()), Some(tail));
    }

    /// What no node can have is nobody, never another node or a panic.
    #[test]
    fn a_code_is_a_node_or_nobody(code: u32) {
        if let Some(tail) = Tail::from_code(code) {
            prop_assert_eq!(tail.code(), code);
            prop_assert!(tail.cpu().index() < Cpu::MAX as usize);
        } else {
            prop_assert!(!(1..=4).contains(&(code & 7)) || code >> Tail::BITS != 0);
        }
    }
}
