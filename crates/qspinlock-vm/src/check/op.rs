//! What a virtual CPU asks of its memory: one operation, at which it stands until it is answered.

use std::panic::Location;

use qspinlock::machine::{Access, Ordering};

/// A function of a cell's value, kept in the frame of the virtual CPU that stands at the operation.
///
/// For an `update`: the new value, or `None` to leave the old. For an await: `Some` if it is satisfied.
pub(crate) type Decide = *const dyn Fn(u32) -> Option<u32>;

/// The number of a cell in its world.
pub type CellId = u16;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Load,
    Store(u32),
    Cas {
        old: u32,
        new: u32,
    },
    Update(Decide),
    /// Blocks until a visible value satisfies.
    Await(Decide),
    /// The same, and may give up at any time.
    AwaitFor(Decide),
    Fence,
    /// Sleeps unless the cell no longer holds the value.
    Wait(u32),
    Kick(u16),
    Choose(u32),
    /// Touches plain data, exclusively: it must come after every earlier touch.
    Touch,
    /// An interrupt handler has ended.
    Return,
    /// The program of this CPU has ended.
    Done,
    /// It has panicked; the text is with the automaton.
    Panicked,
}

/// An operation, and where in the lock's source it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) cell: CellId,
    pub(crate) access: Access,
    pub(crate) site: &'static Location<'static>,
}

/// For operations that are on no cell.
pub(crate) const NO_CELL: CellId = CellId::MAX;

/// What an operation returns to the virtual CPU. Bit 32 says "no": a failed swap, an await that gave up.
pub(crate) type Answer = u64;

/// Answer of a failed swap, or of an await that gave up, with the value seen.
pub(crate) const fn no(value: u32) -> Answer {
    1 << 32 | value as u64
}

/// An answer as a result.
pub(crate) const fn result(answer: Answer) -> Result<u32, u32> {
    if answer >> 32 & 1 == 0 { Ok(answer as u32) } else { Err(answer as u32) }
}

/// Not an answer: an interrupt arrives before the operation, which is then issued again. The low bits say over how many
/// others it nests.
pub(crate) const INTERRUPT: Answer = 1 << 40;

pub(crate) const fn acquires(order: Ordering) -> bool {
    matches!(order, Ordering::Acquire | Ordering::AcqRel | Ordering::SeqCst)
}

pub(crate) const fn releases(order: Ordering) -> bool {
    matches!(order, Ordering::Release | Ordering::AcqRel | Ordering::SeqCst)
}
