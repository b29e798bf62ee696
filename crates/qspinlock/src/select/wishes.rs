//! What a user may ask for, in words: `paravirt`, `auto,nopvspin`, `dedicated`, `numa=off`.

use core::fmt;
use core::str::FromStr;

use super::SlowPathKind;
use crate::slowpath::parking::Excerpt;

/// What the user asked for. More may be asked for in later versions, so start from [`Wishes::NONE`].
///
/// As text, words with commas between: the name of a slow path, or `auto`; `nopvspin`; `dedicated`; `numa=on`, `numa=off` or
/// `numa=auto`. No word is no wish.
///
/// ```
/// use qspinlock::select::{SlowPathKind, Wishes};
/// let wishes: Wishes = "native".parse()?;
/// assert_eq!(wishes.slow_path, Some(SlowPathKind::Native));
/// assert!("auto, nopvspin".parse::<Wishes>()?.no_paravirt);
/// assert!("paravirt,nopvspin".parse::<Wishes>().is_err());
/// # Ok::<_, qspinlock::select::WishError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wishes {
    /// A slow path by name. `None`: whichever fits.
    pub slow_path: Option<SlowPathKind>,
    /// Not the slow path for virtual CPUs, whatever the hypervisor offers: `nopvspin`.
    #[doc(alias = "nopvspin")]
    pub no_paravirt: bool,
    /// The CPUs are the user's own: nobody takes them away, and there are no more waiters than CPUs.
    pub dedicated: bool,
    /// Whether [`Numa`](crate::slowpath::Numa) is chosen.
    #[doc(alias = "numa_spinlock")]
    pub numa: NumaWish,
}

/// Whether a lock stays in one domain for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NumaWish {
    /// With two domains or more, where [`Native`](crate::slowpath::Native) would be chosen with one, and nobody is beneath
    /// who may have made the domains up.
    #[default]
    Auto,
    /// In any case, also in a guest, and for threads. The same slow path may be named as well.
    On,
    /// Not unless it is named.
    Off,
}

impl NumaWish {
    /// All there are.
    pub const ALL: &'static [Self] = &[Self::Auto, Self::On, Self::Off];

    /// As a user writes it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "numa=auto",
            Self::On => "numa=on",
            Self::Off => "numa=off",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|wish| wish.word() == word)
    }
}

const AUTO: &str = "auto";
const NO_PARAVIRT: &str = "nopvspin";
const DEDICATED: &str = "dedicated";

impl Wishes {
    /// Whatever fits.
    pub const NONE: Self = Self { slow_path: None, no_paravirt: false, dedicated: false, numa: NumaWish::Auto };

    /// What may be said: each word.
    pub fn words() -> impl Iterator<Item = &'static str> {
        let numa = NumaWish::ALL.iter().map(|wish| wish.word());
        SlowPathKind::ALL.iter().map(|kind| kind.name()).chain([AUTO, NO_PARAVIRT, DEDICATED]).chain(numa)
    }

    /// Whether they can be had together.
    ///
    /// # Errors
    /// `nopvspin` with `paravirt`; `dedicated` with one of the slow paths for virtual CPUs that are taken away, `paravirt`
    /// and `test-and-set`; `numa=on` with a slow path that is another one, and `numa=off` with that one.
    pub const fn validate(&self) -> Result<(), WishError> {
        let (one, other) = match self.slow_path {
            Some(kind @ SlowPathKind::Paravirt) if self.no_paravirt => (kind.name(), NO_PARAVIRT),
            Some(kind @ (SlowPathKind::Paravirt | SlowPathKind::TestAndSet)) if self.dedicated => {
                (kind.name(), DEDICATED)
            }
            Some(kind) => match (kind, self.numa) {
                (_, NumaWish::Auto) | (SlowPathKind::Numa, NumaWish::On) => return Ok(()),
                (SlowPathKind::Numa, NumaWish::Off) | (_, NumaWish::On) => (kind.name(), self.numa.word()),
                (_, NumaWish::Off) => return Ok(()),
            },
            None => return Ok(()),
        };
        Err(WishError::Contradiction { one, other })
    }
}

/// As [`FromStr`] reads them.
impl fmt::Display for Wishes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.slow_path.map_or(AUTO, SlowPathKind::name))?;
        for (word, is_said) in [(NO_PARAVIRT, self.no_paravirt), (DEDICATED, self.dedicated)] {
            if is_said {
                write!(f, ",{word}")?;
            }
        }
        if self.numa != NumaWish::Auto {
            write!(f, ",{}", self.numa.word())?;
        }
        Ok(())
    }
}

/// What is read is valid. Nothing is allocated.
impl FromStr for Wishes {
    type Err = WishError;

    fn from_str(text: &str) -> Result<Self, WishError> {
        let mut wishes = Self::NONE;
        let mut choice: Option<&'static str> = None;
        let mut numa: Option<&'static str> = None;
        let words = if text.trim().is_empty() { None } else { Some(text.split(',')) };
        for said in words.into_iter().flatten().map(str::trim) {
            let Some(word) = Self::words().find(|word| *word == said) else {
                return Err(WishError::Unknown(said.into()));
            };
            match word {
                NO_PARAVIRT if wishes.no_paravirt => return Err(WishError::Repeated(word)),
                NO_PARAVIRT => wishes.no_paravirt = true,
                DEDICATED if wishes.dedicated => return Err(WishError::Repeated(word)),
                DEDICATED => wishes.dedicated = true,
                _ => {
                    // Words of which there is one.
                    let wish = NumaWish::from_word(word);
                    let kind = if wish.is_some() { &mut numa } else { &mut choice };
                    match kind.replace(word) {
                        Some(before) if before == word => return Err(WishError::Repeated(word)),
                        Some(before) => return Err(WishError::Contradiction { one: before, other: word }),
                        None => {}
                    }
                    match wish {
                        Some(wish) => wishes.numa = wish,
                        None => wishes.slow_path = SlowPathKind::from_name(word),
                    }
                }
            }
        }
        wishes.validate()?;
        Ok(wishes)
    }
}

/// Why wishes cannot be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WishError {
    /// No such word.
    Unknown(Excerpt),
    /// A word is there twice.
    Repeated(&'static str),
    /// Two that exclude each other.
    Contradiction {
        /// The one.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
}

impl fmt::Display for WishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => {
                if word.as_str().is_empty() {
                    f.write_str("a word is missing: choose from")?;
                } else {
                    write!(f, "there is no `{word}`: choose from")?;
                }
                Wishes::words().try_for_each(|word| write!(f, " {word}"))
            }
            Self::Repeated(word) => write!(f, "`{word}` is there twice: leave one out"),
            Self::Contradiction { one, other } => write!(f, "`{one}` and `{other}` exclude each other: leave one out"),
        }
    }
}

impl core::error::Error for WishError {}
