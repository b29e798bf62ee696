//! What resilient locks do that were not told otherwise: how long they wait, and whether an error is a panic.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use super::DEFAULT_LIMIT;
use crate::slowpath::parking::Excerpt;

/// How long resilient locks wait, and how they fail. As text: `limit=100ms`, `strict`, or both with a comma between;
/// what is not said is as by default.
///
/// ```
/// use qspinlock::resilient::Policy;
/// use std::time::Duration;
/// let policy: Policy = "limit=100ms, strict".parse()?;
/// assert_eq!(policy, Policy::DEFAULT.limit(Duration::from_millis(100)).strict());
/// assert!("limit=soon".parse::<Policy>().is_err());
/// # Ok::<_, qspinlock::resilient::PolicyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(crate) limit: Duration,
    pub(crate) strict: bool,
}

const LIMIT: &str = "limit";
const STRICT: &str = "strict";

/// Units of time, the longer of two that end alike first.
const UNITS: [(&str, u64); 4] = [("ns", 1), ("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];

impl Policy {
    /// 250 ms, and errors.
    pub const DEFAULT: Self = Self { limit: Duration::from_nanos(DEFAULT_LIMIT), strict: false };

    /// The shortest limit. Less is for a single call: [`lock_within`](super::Mutex::lock_within).
    pub const LEAST: Duration = Duration::from_micros(1);
    /// The longest limit: an hour.
    pub const MOST: Duration = Duration::from_secs(3600);

    /// Waits no longer than this.
    #[must_use]
    pub const fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Panics with the report, where `lock` would have returned an error: for who looks for deadlocks in a program of
    /// their own. Not for a host of code that it does not trust; nor where a lock may fail in a signal handler, which
    /// must not panic.
    #[must_use]
    pub const fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    /// How long a lock waits.
    #[must_use]
    pub const fn said_limit(&self) -> Duration {
        self.limit
    }

    /// Whether an error is a panic.
    #[must_use]
    pub const fn is_strict(&self) -> bool {
        self.strict
    }

    /// Whether the limit is one that a process may have.
    ///
    /// # Errors
    /// [`PolicyError::OutOfRange`].
    pub fn validate(&self) -> Result<(), PolicyError> {
        let is_in = (Self::LEAST..=Self::MOST).contains(&self.limit);
        if is_in { Ok(()) } else { Err(PolicyError::OutOfRange(self.limit)) }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// As [`FromStr`] reads it.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.limit.as_nanos();
        let exact = UNITS.iter().rev().find(|&&(_, unit)| nanos.is_multiple_of(unit.into()));
        let (name, unit) = exact.copied().unwrap_or(UNITS[0]);
        write!(f, "{LIMIT}={}{name}", nanos / u128::from(unit))?;
        if self.strict { write!(f, ",{STRICT}") } else { Ok(()) }
    }
}

/// What is read is valid. Nothing is allocated.
impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let (mut policy, mut has_limit) = (Self::DEFAULT, false);
        let items = if text.trim().is_empty() { None } else { Some(text.split(',')) };
        for item in items.into_iter().flatten().map(str::trim) {
            match item.split_once('=') {
                None if item == STRICT && policy.strict => return Err(PolicyError::Repeated(STRICT)),
                None if item == STRICT => policy.strict = true,
                Some((name, _)) if name.trim() == LIMIT && has_limit => return Err(PolicyError::Repeated(LIMIT)),
                Some((name, value)) if name.trim() == LIMIT => {
                    has_limit = true;
                    policy.limit = time(value.trim()).ok_or_else(|| PolicyError::NoTime(value.trim().into()))?;
                }
                _ => return Err(PolicyError::Unknown(item.into())),
            }
        }
        policy.validate()?;
        Ok(policy)
    }
}

fn time(text: &str) -> Option<Duration> {
    let (number, unit) = UNITS.iter().find_map(|&(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    number.trim().parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_nanos)
}

/// Why there can be no such policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PolicyError {
    /// Nothing that can be said.
    Unknown(Excerpt),
    /// Something is there twice.
    Repeated(&'static str),
    /// The limit is not a number with a unit.
    NoTime(Excerpt),
    /// The limit is not what it may be.
    OutOfRange(Duration),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(item) => write!(f, "there is no `{item}`: choose from `limit=250ms` (any time) and `strict`"),
            Self::Repeated(what) => write!(f, "`{what}` is there twice: leave one out"),
            Self::NoTime(value) => write!(f, "`limit` is `{value}`: write a whole number and ns, us, ms or s"),
            Self::OutOfRange(limit) => {
                let (least, most) = (Policy::LEAST, Policy::MOST);
                write!(f, "`limit` is {limit:?}: choose from {least:?} to {most:?}")
            }
        }
    }
}

impl core::error::Error for PolicyError {}
