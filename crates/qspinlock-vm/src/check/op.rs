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
    Wait {
        value: u32,
        /// May end by itself, at any time.
        timed: bool,
    },
    Kick(u16),
    /// Gives the memory of the cell back.
    Free,
    /// Lets others run.
    Yield,
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

impl Kind {
    /// As three words, which go in registers: see the fiber's `enter`.
    pub(crate) fn pack(self) -> [usize; 3] {
        // SAFETY: a pointer to a trait object is two words.
        let words = |decide: Decide| unsafe { std::mem::transmute::<Decide, [usize; 2]>(decide) };
        let (tag, [a, b]) = match self {
            Self::Load => (0, [0, 0]),
            Self::Store(value) => (1, [value as usize, 0]),
            Self::Cas { old, new } => (2, [old as usize, new as usize]),
            Self::Update(decide) => (3, words(decide)),
            Self::Await(decide) => (4, words(decide)),
            Self::AwaitFor(decide) => (5, words(decide)),
            Self::Fence => (6, [0, 0]),
            Self::Wait { value, timed } => (7, [value as usize, timed.into()]),
            Self::Kick(cpu) => (8, [cpu.into(), 0]),
            Self::Choose(n) => (9, [n as usize, 0]),
            Self::Touch => (10, [0, 0]),
            Self::Return => (11, [0, 0]),
            Self::Done => (12, [0, 0]),
            Self::Panicked => (13, [0, 0]),
            Self::Yield => (14, [0, 0]),
            Self::Free => (15, [0, 0]),
        };
        [tag, a, b]
    }

    /// The inverse of `pack`.
    pub(crate) fn unpack([tag, a, b]: [usize; 3]) -> Self {
        // SAFETY: called only where the tag says that `pack` made the words of a pointer.
        let decide = || unsafe { std::mem::transmute::<[usize; 2], Decide>([a, b]) };
        match tag {
            0 => Self::Load,
            1 => Self::Store(a as u32),
            2 => Self::Cas { old: a as u32, new: b as u32 },
            3 => Self::Update(decide()),
            4 => Self::Await(decide()),
            5 => Self::AwaitFor(decide()),
            6 => Self::Fence,
            7 => Self::Wait { value: a as u32, timed: b != 0 },
            8 => Self::Kick(a as u16),
            9 => Self::Choose(a as u32),
            10 => Self::Touch,
            11 => Self::Return,
            12 => Self::Done,
            14 => Self::Yield,
            15 => Self::Free,
            _ => Self::Panicked,
        }
    }
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
