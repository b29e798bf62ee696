//! The parameters as text: `spin=300,yields=2`.

use core::fmt;
use core::str::FromStr;

use super::{OutOfRange, Patience};

/// Every parameter, as [`FromStr`] reads them.
impl fmt::Display for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.values().iter().zip(Self::PARAMETERS).enumerate().try_for_each(|(n, (value, parameter))| {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{}={value}", parameter.name)
        })
    }
}

/// `name=value`, any number of them with commas between; what is not named has its default. An empty text names none.
/// What is read is valid.
impl FromStr for Patience {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut values = Self::DEFAULT.values();
        let mut is_named = [false; Self::COUNT];
        let items = if text.trim().is_empty() { None } else { Some(text.split(',')) };
        for item in items.into_iter().flatten() {
            let Some((name, value)) = item.split_once('=') else { return Err(ParseError::NoValue(item.into())) };
            let (name, value) = (name.trim(), value.trim());
            let Some(n) = Self::PARAMETERS.iter().position(|parameter| parameter.name == name) else {
                return Err(ParseError::Unknown(name.into()));
            };
            let what = Self::PARAMETERS[n].name;
            if core::mem::replace(&mut is_named[n], true) {
                return Err(ParseError::Repeated { what });
            }
            values[n] = value.parse().map_err(|_| ParseError::NotANumber { what, value: value.into() })?;
        }
        let patience = Self::from_values(values);
        patience.validate().map_err(ParseError::OutOfRange)?;
        Ok(patience)
    }
}

/// Why a text says no [`Patience`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseError {
    /// No parameter has this name.
    Unknown(Excerpt),
    /// Something without a `=`.
    NoValue(Excerpt),
    /// A parameter is named twice.
    Repeated {
        /// Which one.
        what: &'static str,
    },
    /// A value is not a whole number of 32 bits.
    NotANumber {
        /// Of which parameter.
        what: &'static str,
        /// The value.
        value: Excerpt,
    },
    /// A value is not what it may be.
    OutOfRange(OutOfRange),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(f, "there is no parameter `{name}`: choose from")?;
                Patience::PARAMETERS.iter().try_for_each(|parameter| write!(f, " {}", parameter.name))
            }
            Self::NoValue(item) => write!(f, "`{item}` has no value: write `name=value`"),
            Self::Repeated { what } => write!(f, "`{what}` is there twice: leave one out"),
            Self::NotANumber { what, value } => {
                write!(f, "`{what}` is `{value}`: write a whole number of at most {}", u32::MAX)
            }
            Self::OutOfRange(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ParseError {}

/// The beginning of a text that was not understood, kept without an allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Excerpt {
    bytes: [u8; Self::MOST],
    len: u8,
    is_cut: bool,
}

impl Excerpt {
    const MOST: usize = 24;

    /// The text, or its beginning.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It was cut between two characters.
        core::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl From<&str> for Excerpt {
    fn from(text: &str) -> Self {
        let len = text.floor_char_boundary(Self::MOST);
        let mut bytes = [0; Self::MOST];
        bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
        Self { bytes, len: len as u8, is_cut: len < text.len() }
    }
}

/// On one line, whatever it is.
impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.as_str().escape_debug(), if self.is_cut { "..." } else { "" })
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}
