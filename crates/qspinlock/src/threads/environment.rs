//! What the environment says about locks, read once: on Linux and Android before `main`, elsewhere when it is first needed.

use core::fmt;
use core::str::FromStr;
use std::sync::OnceLock;

use super::configure::{Configuration, take_from_environment};
use super::domains::{self, DomainsError};
use super::fixed::Fixed;
use super::{locality, policy};
use crate::resilient::PolicyError;
use crate::select::WishError;
use crate::slowpath::LocalityError;
use crate::slowpath::parking::ParseError;

/// The environment variable with the parameters of waiting: `QSPINLOCK_PARKING=spin=300,yields=2`, times in nanoseconds.
/// See [`Patience`](crate::slowpath::Patience) for what there is.
pub const ENVIRONMENT_VARIABLE: &str = "QSPINLOCK_PARKING";

/// The environment variable that says which slow path locks have: `QSPINLOCK=native`, `QSPINLOCK=dedicated`. See
/// [`Wishes`](crate::select::Wishes) for what there is.
pub const SLOW_PATH_VARIABLE: &str = "QSPINLOCK";

/// The environment variable that says how resilient locks fail: `QSPINLOCK_RESILIENT=limit=100ms,strict`. See
/// [`Policy`](crate::resilient::Policy) for what there is.
pub const RESILIENT_VARIABLE: &str = "QSPINLOCK_RESILIENT";

/// The environment variable that says what counts as near: `QSPINLOCK_DOMAIN=node`, `l3`, or `pretend:N`. See
/// [`Domains`](super::Domains).
pub const DOMAIN_VARIABLE: &str = "QSPINLOCK_DOMAIN";

/// The environment variable that says how long a lock stays in a domain: `QSPINLOCK_NUMA=threshold=1000000,one_in=128`. See
/// [`Locality`](crate::slowpath::Locality).
pub const LOCALITY_VARIABLE: &str = "QSPINLOCK_NUMA";

/// What [`SLOW_PATH_VARIABLE`], [`ENVIRONMENT_VARIABLE`] and [`DOMAIN_VARIABLE`] said when they were read: on Linux and Android before `main`,
/// elsewhere when they are first needed.
///
/// # Errors
/// If one of them, or [`RESILIENT_VARIABLE`] or [`LOCALITY_VARIABLE`], says nothing sensible. Then its default applies, and one line on standard error has said why. A program
/// whose users set the variables themselves may want to stop.
pub fn environment() -> Result<Configuration, EnvironmentError> {
    let Said { configuration, error } = said();
    error.map_or(Ok(configuration), Err)
}

#[derive(Clone, Copy)]
struct Said {
    /// What was sensible.
    configuration: Configuration,
    /// The first thing that was not.
    error: Option<EnvironmentError>,
}

/// What was sensible in the environment.
pub(super) fn sensible() -> Configuration {
    said().configuration
}

// Where it is read before `main`, this is full when anybody comes, and a signal handler does not wait for it.
static SAID: OnceLock<Said> = OnceLock::new();

fn said() -> Said {
    *SAID.get_or_init(|| {
        let mut error = None;
        let wishes = read(SLOW_PATH_VARIABLE, EnvironmentError::Wishes, &mut error);
        let patience = read(ENVIRONMENT_VARIABLE, EnvironmentError::Parse, &mut error);
        if let Some(patience) = &patience {
            take_from_environment(patience);
        }
        if let Some(policy) = read(RESILIENT_VARIABLE, EnvironmentError::Policy, &mut error) {
            policy::take_from_environment(policy);
        }
        let domains = read(DOMAIN_VARIABLE, EnvironmentError::Domains, &mut error);
        if let Some(domains) = domains {
            domains::set(domains);
        }
        if let Some(locality) = read(LOCALITY_VARIABLE, EnvironmentError::Locality, &mut error) {
            locality::take_from_environment(locality);
        }
        Said { configuration: Configuration { patience, wishes, domains }, error }
    })
}

/// Reads one of them. What is not sensible is noted, and said.
fn read<T: FromStr>(
    variable: &'static str,
    because: fn(T::Err) -> EnvironmentError,
    first: &mut Option<EnvironmentError>,
) -> Option<T> {
    let read = variable::read(variable, |bytes| {
        let text = core::str::from_utf8(bytes?).map_err(|_| EnvironmentError::NotText(variable));
        Some(text.and_then(|text| text.parse().map_err(because)))
    });
    match read? {
        Ok(said) => Some(said),
        Err(error) => {
            complain(error);
            first.get_or_insert(error);
            None
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[allow(unsafe_code, reason = "a constructor, and the C library's environment")]
mod variable {
    use core::ffi::{CStr, c_char};

    // Before `main`, when no other thread is there to change the environment, and no lock to wait for.
    #[used]
    // SAFETY: the section holds pointers to functions that the loader calls, with arguments that this one ignores.
    #[unsafe(link_section = ".init_array")]
    static AT_START: extern "C" fn() = at_start;

    extern "C" fn at_start() {
        // Reads the environment, and decides by it. `patch::status` says what came of the rest.
        if crate::start::chosen().slow_path == crate::select::SlowPathKind::Numa {
            super::domains::read_table();
        }
        let _ = crate::patch::follow();
    }

    /// Without an allocation: a program's allocator may take one of our locks.
    pub(super) fn read<T>(name: &str, look: impl FnOnce(Option<&[u8]>) -> T) -> T {
        let mut ended = [0_u8; 32];
        ended[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: a string with an end: the names are shorter. Nobody changes the environment now: there is one thread, or,
        // in a library that is loaded later, whoever loads it must not change it meanwhile, as with any library that
        // reads it.
        let value: *const c_char = unsafe { libc::getenv(ended.as_ptr().cast()) };
        if value.is_null() {
            return look(None);
        }
        // SAFETY: a string with an end, which stays as long as nobody changes the environment.
        look(Some(unsafe { CStr::from_ptr(value) }.to_bytes()))
    }

    const _: () = assert!(super::ENVIRONMENT_VARIABLE.len() < 32 && super::SLOW_PATH_VARIABLE.len() < 32);
    const _: () = assert!(super::RESILIENT_VARIABLE.len() < 32);
    const _: () = assert!(super::DOMAIN_VARIABLE.len() < 32 && super::LOCALITY_VARIABLE.len() < 32);
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod variable {
    pub(super) fn read<T>(name: &str, look: impl FnOnce(Option<&[u8]>) -> T) -> T {
        let value = std::env::var_os(name);
        look(value.as_ref().map(|value| value.as_encoded_bytes()))
    }
}

/// One line on standard error, in one piece.
fn complain(error: EnvironmentError) {
    use fmt::Write as _;
    use std::io::Write as _;

    let mut line = Fixed::<400>::new();
    // It has room for every error. Nobody can be told that nothing can be told.
    let _ = writeln!(line, "qspinlock: {error}; ignored, the defaults apply");
    let _ = std::io::stderr().write_all(line.text().as_bytes());
}

/// Why a variable was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// This variable is not UTF-8.
    NotText(&'static str),
    /// [`ENVIRONMENT_VARIABLE`] was not understood.
    Parse(ParseError),
    /// [`SLOW_PATH_VARIABLE`] was not understood, or what it says cannot be had together.
    Wishes(WishError),
    /// [`RESILIENT_VARIABLE`] was not understood.
    Policy(PolicyError),
    /// [`DOMAIN_VARIABLE`] was not understood.
    Domains(DomainsError),
    /// [`LOCALITY_VARIABLE`] was not understood.
    Locality(LocalityError),
}

impl fmt::Display for EnvironmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText(variable @ SLOW_PATH_VARIABLE) => {
                write!(f, "{variable}: it is not text: write words, separated by commas")
            }
            Self::NotText(variable @ RESILIENT_VARIABLE) => {
                write!(f, "{variable}: it is not text: write `limit=250ms`, `strict`, or both with a comma between")
            }
            Self::NotText(variable @ DOMAIN_VARIABLE) => {
                write!(f, "{variable}: it is not text: write `node`, `l3` or `pretend:N`")
            }
            Self::NotText(variable) => {
                write!(f, "{variable}: it is not text: write `name=value`, separated by commas")
            }
            Self::Parse(error) => write!(f, "{ENVIRONMENT_VARIABLE}: {error}"),
            Self::Wishes(error) => write!(f, "{SLOW_PATH_VARIABLE}: {error}"),
            Self::Policy(error) => write!(f, "{RESILIENT_VARIABLE}: {error}"),
            Self::Domains(error) => write!(f, "{DOMAIN_VARIABLE}: {error}"),
            Self::Locality(error) => write!(f, "{LOCALITY_VARIABLE}: {error}"),
        }
    }
}

impl core::error::Error for EnvironmentError {}
