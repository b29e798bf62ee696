//! Small concurrent programs, and the line of text that each is written as.
//!
//! Threads are divided by `|`, steps by `;`. Cells are `x y z w` and start as 0; every other name is a register.
//!
//! | step | meaning |
//! |---|---|
//! | `x=1` `a=x` | store, load |
//! | `a=x+1` `a=x?0:1` | fetch-and-add, compare-and-swap (`a` gets what it read) |
//! | `a=x!` `a=x!2` | await: not 0; equal to 2 |
//! | `a=x~` | bounded await of not 0, which may give up |
//! | `F` | fence |
//! | `T` | touch plain data |
//!
//! A suffix is the ordering: `.acq .rel .ar .sc`; without one, relaxed.

use std::fmt;
use std::str::FromStr;

use qspinlock::machine::Ordering;

pub(crate) const CELLS: [char; 4] = ['x', 'y', 'z', 'w'];

/// What an await waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Something,
    Exactly(u32),
}

impl Want {
    pub(crate) fn is_met(self, value: u32) -> bool {
        match self {
            Self::Something => value != 0,
            Self::Exactly(want) => value == want,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Load,
    Glance,
    Await(Want),
    Store(u32),
    Cas { old: u32, new: u32 },
    Add(u32),
    Fence,
    Touch,
}

impl Action {
    /// Whether it leaves a value in a register.
    pub(crate) fn reads(self) -> bool {
        !matches!(self, Self::Store(_) | Self::Fence | Self::Touch)
    }

    /// Whether it may write its cell.
    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::Store(_) | Self::Cas { .. } | Self::Add(_))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) action: Action,
    /// Index into [`CELLS`]; of no meaning for fences and touches.
    pub(crate) cell: usize,
    pub(crate) order: Ordering,
    /// The register, if it reads.
    pub(crate) to: String,
}

/// Threads, each so many steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program(pub(crate) Vec<Vec<Step>>);

impl Program {
    /// The cells that it names.
    pub(crate) fn cells(&self) -> Vec<usize> {
        let on_a_cell = |step: &&Step| !matches!(step.action, Action::Fence | Action::Touch);
        let mut cells: Vec<usize> = self.0.iter().flatten().filter(on_a_cell).map(|step| step.cell).collect();
        cells.sort_unstable();
        cells.dedup();
        cells
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (to, cell) = (&self.to, CELLS[self.cell]);
        match self.action {
            Action::Load => write!(f, "{to}={cell}")?,
            Action::Glance => write!(f, "{to}={cell}~")?,
            Action::Await(Want::Something) => write!(f, "{to}={cell}!")?,
            Action::Await(Want::Exactly(value)) => write!(f, "{to}={cell}!{value}")?,
            Action::Store(value) => write!(f, "{cell}={value}")?,
            Action::Cas { old, new } => write!(f, "{to}={cell}?{old}:{new}")?,
            Action::Add(by) => write!(f, "{to}={cell}+{by}")?,
            Action::Fence => write!(f, "F")?,
            Action::Touch => write!(f, "T")?,
        }
        f.write_str(match self.order {
            Ordering::Acquire => ".acq",
            Ordering::Release => ".rel",
            Ordering::AcqRel => ".ar",
            Ordering::SeqCst => ".sc",
            _ => "",
        })
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (body, suffix) = text.split_once('.').unwrap_or((text, ""));
        let order = match suffix {
            "" => Ordering::Relaxed,
            "acq" => Ordering::Acquire,
            "rel" => Ordering::Release,
            "ar" => Ordering::AcqRel,
            "sc" => Ordering::SeqCst,
            _ => return Err(format!("'{text}': no ordering '{suffix}'")),
        };
        if let "F" | "T" = body {
            let action = if body == "F" { Action::Fence } else { Action::Touch };
            return Ok(Self { action, cell: 0, order, to: String::new() });
        }
        let number = |digits: &str| digits.parse::<u32>().map_err(|e| format!("'{text}': '{digits}': {e}"));
        let cell_named = |name: &str| CELLS.iter().position(|c| name.chars().eq([*c]));
        let (left, right) = body.split_once('=').ok_or_else(|| format!("'{text}' has no '='"))?;
        if let Some(cell) = cell_named(left) {
            return Ok(Self { action: Action::Store(number(right)?), cell, order, to: String::new() });
        }
        let cell = right.get(..1).and_then(cell_named).ok_or_else(|| format!("'{text}' reads no cell"))?;
        let action = match (right.get(1..2).unwrap_or_default(), right.get(2..).unwrap_or_default()) {
            ("", _) => Action::Load,
            ("~", "") => Action::Glance,
            ("!", "") => Action::Await(Want::Something),
            ("!", value) => Action::Await(Want::Exactly(number(value)?)),
            ("+", by) => Action::Add(number(by)?),
            ("?", swap) => {
                let (old, new) = swap.split_once(':').ok_or_else(|| format!("'{text}' has no ':'"))?;
                Action::Cas { old: number(old)?, new: number(new)? }
            }
            _ => return Err(format!("'{text}': unknown step")),
        };
        Ok(Self { action, cell, order, to: left.to_owned() })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thread = |steps: &Vec<Step>| steps.iter().map(Step::to_string).collect::<Vec<_>>().join("; ");
        f.write_str(&self.0.iter().map(thread).collect::<Vec<_>>().join(" | "))
    }
}

impl FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let thread = |text: &str| text.split(';').map(|step| step.trim().parse()).collect();
        text.split('|').map(thread).collect::<Result<_, _>>().map(Self)
    }
}
