//! The parameters as text, `threshold=1000000,one_in=128`, and what they may be.

use core::fmt;
use core::str::FromStr;

use super::Locality;
use crate::slowpath::parking::{Excerpt, OutOfRange, Parameter};

const THRESHOLD: Parameter = Parameter { name: "threshold", least: 0, most: 4_000_000_000 };
const ONE_IN: Parameter = Parameter { name: "one_in", least: 1, most: 1_000_000 };

impl Locality {
    /// All there are.
    pub const PARAMETERS: [Parameter; 2] = [THRESHOLD, ONE_IN];

    /// Whether every parameter is one that a process may use.
    ///
    /// # Errors
    /// The first that is not.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        let of = |(value, Parameter { name, least, most }): (u32, Parameter)| {
            let is_in = (least..=most).contains(&value);
            if is_in { Ok(()) } else { Err(OutOfRange { what: name, value, least, most }) }
        };
        [self.threshold, self.one_in].into_iter().zip(Self::PARAMETERS).try_for_each(of)
    }
}

/// As [`FromStr`] reads it.
impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={},{}={}", THRESHOLD.name, self.threshold, ONE_IN.name, self.one_in)
    }
}

/// `name=value`, with a comma between two; what is not named has its default. An empty text names none. What is read is
/// valid. Nothing is allocated.
impl FromStr for Locality {
    type Err = LocalityError;

    fn from_str(text: &str) -> Result<Self, LocalityError> {
        let mut values = [None; 2];
        let items = if text.trim().is_empty() { None } else { Some(text.split(',')) };
        for item in items.into_iter().flatten().map(str::trim) {
            let (name, value) = item.split_once('=').ok_or_else(|| LocalityError::Unknown(item.into()))?;
            let (name, value) = (name.trim(), value.trim());
            let n = Self::PARAMETERS.iter().position(|parameter| parameter.name == name);
            let n = n.ok_or_else(|| LocalityError::Unknown(item.into()))?;
            let what = Self::PARAMETERS[n].name;
            let number = value.parse::<u32>().map_err(|_| LocalityError::NotANumber { what, value: value.into() })?;
            if values[n].replace(number).is_some() {
                return Err(LocalityError::Repeated { what });
            }
        }
        let [threshold, one_in] = values;
        let locality = Self {
            threshold: threshold.unwrap_or(Self::DEFAULT.threshold),
            one_in: one_in.unwrap_or(Self::DEFAULT.one_in),
        };
        locality.validate().map_err(LocalityError::OutOfRange)?;
        Ok(locality)
    }
}

/// Why there can be no such [`Locality`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalityError {
    /// Nothing that can be said.
    Unknown(Excerpt),
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

impl fmt::Display for LocalityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(item) => {
                write!(f, "there is no `{item}`: choose from `{}=N` (ns) and `{}=N`", THRESHOLD.name, ONE_IN.name)
            }
            Self::Repeated { what } => write!(f, "`{what}` is there twice: leave one out"),
            Self::NotANumber { what, value } => {
                write!(f, "`{what}` is `{value}`: write a whole number of at most {}", u32::MAX)
            }
            Self::OutOfRange(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LocalityError {}
