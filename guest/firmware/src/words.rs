//! The command line.
//!
//! | word | |
//! |---|---|
//! | `qspinlock=WISHES` | how locks wait: as in `QSPINLOCK` for a process, words with commas between |
//! | `nopvspin` | the same as in `qspinlock=nopvspin` |
//! | `numa_spinlock=on`, `off`, `auto` | the same as in `qspinlock=numa=on` |
//! | `cpuid=LEAF:EAX,EBX,ECX,EDX` | a leaf that the choice is to see, see [`Leaves`] |
//! | `maxcpus=N` | start no more than so many |
//! | `test=NAME` | which tests, with commas between; none with `test=none` |
//! | `pretend=NAME` | that the machine lacks something, with commas between: see [`Words::pretend`] |
//! | `ms=N` | how long each phase of a test lasts, in milliseconds |
//!
//! A word that is not understood is a [`Complaint`], and is ignored: a slip of the pen must not keep a machine from
//! starting.

use core::fmt;

use qspinlock::select::{NumaWish, WishError, Wishes};

use crate::{LeafError, Leaves};

/// What the command line says.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    /// How locks are to wait.
    pub wishes: Wishes,
    /// What CPUID is to say.
    pub leaves: Leaves,
    /// CPUs to start, at most.
    pub most_cpus: Option<u32>,
    /// Which tests, with commas between.
    pub tests: Option<&'a str>,
    /// What the machine is to lack: `no-low-memory`, where other CPUs would start; `no-slots`, for all CPUs but two.
    pub pretend: Option<&'a str>,
    /// How long each phase of a test lasts, in milliseconds.
    pub phase_ms: Option<u32>,
}

const PRETENCES: [&str; 2] = ["no-low-memory", "no-slots"];

/// A word that is ignored.
#[derive(Clone, Copy, Debug)]
pub struct Complaint<'a> {
    /// The word.
    pub word: &'a str,
    /// Why.
    pub why: Why,
}

/// Why a word is ignored.
#[derive(Clone, Copy, Debug)]
pub enum Why {
    /// Nobody knows it.
    Unknown,
    /// It makes no sense as a wish, or contradicts one before it.
    Wish(WishError),
    /// It makes no sense as a leaf.
    Leaf(LeafError),
    /// It is no number from 1 on.
    Number,
}

impl fmt::Display for Complaint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is ignored: ", self.word.escape_debug())?;
        match &self.why {
            Why::Unknown => f.write_str("no such word"),
            Why::Wish(error) => error.fmt(f),
            Why::Leaf(error) => error.fmt(f),
            Why::Number => f.write_str("not a number from 1 on"),
        }
    }
}

impl<'a> Words<'a> {
    /// Reads a command line, and complains about each word that makes no sense.
    pub fn read(line: &'a str, mut complain: impl FnMut(Complaint<'a>)) -> Self {
        let mut words = Self {
            wishes: Wishes::NONE,
            leaves: Leaves::default(),
            most_cpus: None,
            tests: None,
            pretend: None,
            phase_ms: None,
        };
        for word in line.split_ascii_whitespace() {
            if let Err(why) = words.take(word) {
                complain(Complaint { word, why });
            }
        }
        words
    }

    fn take(&mut self, word: &'a str) -> Result<(), Why> {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "qspinlock" => {
                let more: Wishes = value.parse().map_err(Why::Wish)?;
                self.wish(|wishes| {
                    wishes.slow_path = more.slow_path.or(wishes.slow_path);
                    wishes.no_paravirt |= more.no_paravirt;
                    wishes.dedicated |= more.dedicated;
                    if more.numa != NumaWish::Auto {
                        wishes.numa = more.numa;
                    }
                })
            }
            "nopvspin" if word == key => self.wish(|wishes| wishes.no_paravirt = true),
            "numa_spinlock" => {
                let word = |wish: NumaWish| wish.word().split_once('=').map_or("", |(_, value)| value);
                let wish = NumaWish::ALL.iter().copied().find(|wish| word(*wish) == value).ok_or(Why::Unknown)?;
                self.wish(|wishes| wishes.numa = wish)
            }
            "cpuid" => self.leaves.add(value).map_err(Why::Leaf),
            "maxcpus" => number(value).map(|n| self.most_cpus = Some(n)),
            "test" => {
                self.tests = Some(value);
                Ok(())
            }
            "pretend" if value.split(',').all(|name| PRETENCES.contains(&name)) => {
                self.pretend = Some(value);
                Ok(())
            }
            "ms" => number(value).map(|n| self.phase_ms = Some(n)),
            _ => Err(Why::Unknown),
        }
    }

    /// Whether this is to be lacking.
    #[must_use]
    pub fn pretends(&self, name: &str) -> bool {
        self.pretend.is_some_and(|names| names.split(',').any(|other| other == name))
    }

    /// One wish more, if it agrees with those before.
    fn wish(&mut self, add: impl FnOnce(&mut Wishes)) -> Result<(), Why> {
        let mut wishes = self.wishes;
        add(&mut wishes);
        wishes.validate().map_err(Why::Wish)?;
        self.wishes = wishes;
        Ok(())
    }
}

fn number(text: &str) -> Result<u32, Why> {
    text.parse().ok().filter(|n| *n > 0).ok_or(Why::Number)
}
