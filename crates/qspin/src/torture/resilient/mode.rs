//! The ways to torture a resilient lock, by name.

use std::fmt;
use std::str::FromStr;

use super::circles::Circle;
use super::ground::{Ground, Rounds};
use super::subject::Resilient;
use super::{again, circles, crowd, ends, held, nested};

/// Threads of the longest ring.
const LONGEST_RING: usize = 128;
const USUAL_RING: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Mode {
    /// The same lock again.
    Again,
    /// A circle of so many.
    Circle(usize),
    Dead,
    HandOff,
    Many,
    Order,
    Signals,
    Wild,
    Dying,
    Crowd,
}

/// What all threads of a mode need beside the ground.
pub(super) enum Common {
    Nothing,
    Circle(Circle),
    Rounds(Rounds),
}

impl Mode {
    /// One of each.
    pub(super) const ALL: [Self; 12] = [
        Self::Again,
        Self::Circle(2),
        Self::Circle(3),
        Self::Circle(USUAL_RING),
        Self::Dead,
        Self::HandOff,
        Self::Many,
        Self::Order,
        Self::Signals,
        Self::Wild,
        Self::Dying,
        Self::Crowd,
    ];

    /// Threads that work, if so many are asked for.
    pub(super) fn workers(self, threads: usize) -> usize {
        match self {
            Self::Circle(length) => length,
            Self::Dead => 1,
            Self::Many => 2,
            Self::Dying => ends::STAY,
            Self::HandOff => threads.max(6),
            Self::Again | Self::Order | Self::Signals | Self::Wild | Self::Crowd => threads,
        }
    }

    /// Records: for those who work, for who sends them signals, and for those who come and go.
    pub(super) fn seats(self, threads: usize) -> usize {
        self.workers(threads)
            + match self {
                Self::Dead | Self::Dying => ends::GO,
                _ if self.has_signals() => 1,
                _ => 0,
            }
    }

    pub(super) const fn locks(self, threads: usize) -> usize {
        match self {
            Self::Again => again::locks(threads),
            Self::Circle(length) => length,
            Self::Dead => 0,
            Self::HandOff | Self::Dying => 1,
            Self::Many => 2 * held::MANY,
            Self::Order => held::locks_in_order(threads),
            Self::Signals | Self::Wild => nested::LOCKS,
            Self::Crowd => crowd::LOCKS,
        }
    }

    pub(super) const fn has_signals(self) -> bool {
        matches!(self, Self::Again | Self::Signals | Self::Wild)
    }

    pub(super) fn common(self, threads: usize) -> Common {
        match self {
            Self::Circle(length) => Common::Circle(Circle::new(length)),
            Self::Many => Common::Rounds(Rounds::new(self.workers(threads))),
            _ => Common::Nothing,
        }
    }

    /// The body of a thread that works.
    pub(super) fn work<R: Resilient>(self, ground: &'static Ground<R>, common: &Common, index: usize) {
        match (self, common) {
            (Self::Again, _) => again::work(ground, index),
            (Self::Dead, _) => ends::dead_owner(ground),
            (Self::HandOff, _) => crowd::hand_off(ground, index),
            (Self::Order, _) => held::in_any_order(ground, index),
            (Self::Signals, _) => nested::work_in_order(ground, index),
            (Self::Wild, _) => nested::work_wildly(ground, index),
            (Self::Dying, _) => ends::dying(ground, index),
            (Self::Crowd, _) => crowd::work(ground, index),
            (_, Common::Circle(circle)) => circles::work(ground, index, circle),
            (_, Common::Rounds(rounds)) => held::too_many(ground, index, 2, rounds),
            (Self::Circle(_) | Self::Many, Common::Nothing) => unreachable!("they have something in common"),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Again => f.write_str("aa"),
            Self::Circle(2) => f.write_str("abba"),
            Self::Circle(3) => f.write_str("three"),
            Self::Circle(length) => write!(f, "ring:{length}"),
            Self::Dead => f.write_str("dead"),
            Self::HandOff => f.write_str("handoff"),
            Self::Many => f.write_str("many"),
            Self::Order => f.write_str("order"),
            Self::Signals => f.write_str("signals"),
            Self::Wild => f.write_str("wild"),
            Self::Dying => f.write_str("dying"),
            Self::Crowd => f.write_str("crowd"),
        }
    }
}

/// What a user may ask for: a mode, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Wanted {
    One(Mode),
    All,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name == "all" {
            return Ok(Self::All);
        }
        let length = match name.strip_prefix("ring") {
            Some("") => Some(USUAL_RING),
            Some(rest) => rest.strip_prefix(':').and_then(|length| length.parse().ok()),
            None => None,
        };
        match length {
            Some(length @ 2..=LONGEST_RING) => return Ok(Self::One(Mode::Circle(length))),
            _ if name.starts_with("ring") => {
                return Err(format!("a ring has 2 to {LONGEST_RING} threads, as in ring:8"));
            }
            _ => {}
        }
        let found = Mode::ALL.into_iter().find(|mode| mode.to_string() == name);
        found.map(Self::One).ok_or_else(|| {
            "known modes are aa, abba, three, ring:N, dead, handoff, many, order, signals, wild, dying, crowd, all"
                .into()
        })
    }
}

/// Each mode that is wanted, once.
pub(super) fn wanted(names: &[Wanted]) -> Vec<Mode> {
    let mut modes = Vec::new();
    for name in names {
        let some = match name {
            Wanted::One(mode) => std::slice::from_ref(mode),
            Wanted::All => &Mode::ALL,
        };
        for mode in some {
            if !modes.contains(mode) {
                modes.push(*mode);
            }
        }
    }
    modes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_read_as_it_is_written() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(Wanted::One(mode)));
        }
        assert_eq!("ring".parse(), Ok(Wanted::One(Mode::Circle(USUAL_RING))));
        for wrong in ["ring:1", "ring:129", "ring:x", "ringo", "", "AA"] {
            assert!(wrong.parse::<Wanted>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_mode_comes_once() {
        let names: Vec<Wanted> = ["crowd", "all", "abba"].iter().map(|name| name.parse().expect("a mode")).collect();
        let modes = wanted(&names);
        assert_eq!((modes.len(), modes[0]), (Mode::ALL.len(), Mode::Crowd));
    }
}
