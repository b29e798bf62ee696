//! The parameters of waiting, for this process: set by the program, or by the environment when the program starts.
//!
//! They must not change once a thread has waited: some threads would wait by one set and some by another, and whatever
//! was measured or tuned would be neither. So whoever waits first closes them, and a change that comes later is an
//! error that says so.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

use crate::slowpath::Patience;
use crate::slowpath::parking::{OutOfRange, ParseError};

/// The environment variable with the parameters of waiting: `QSPINLOCK_PARKING=spin=300,yields=2`, times in nanoseconds.
/// See [`Patience`] for what there is.
pub const ENVIRONMENT_VARIABLE: &str = "QSPINLOCK_PARKING";

/// On lines that nobody writes to later: every waiter reads them.
#[repr(align(128))]
struct Settings {
    state: AtomicU32,
    values: [AtomicU32; Patience::COUNT],
}

/// `configure` is writing the values.
const WRITING: u32 = 1;
/// `configure` has written them.
const CONFIGURED: u32 = 2;
/// Somebody has waited.
const USED: u32 = 4;

static SETTINGS: Settings = Settings {
    state: AtomicU32::new(0),
    values: {
        let defaults = Patience::DEFAULT.values();
        let mut values = [const { AtomicU32::new(0) }; Patience::COUNT];
        let mut n = 0;
        while n < Patience::COUNT {
            values[n] = AtomicU32::new(defaults[n]);
            n += 1;
        }
        values
    },
};

impl Settings {
    fn read(&self) -> Patience {
        Patience::from_values(self.values.each_ref().map(|value| value.load(Ordering::Relaxed)))
    }

    fn write(&self, patience: &Patience) {
        for (value, new) in self.values.iter().zip(patience.values()) {
            value.store(new, Ordering::Relaxed);
        }
    }

    /// What applies in a state. While the values are being written the default does: the one who writes may be the
    /// thread that we interrupted, so there is no waiting for it.
    fn in_state(&self, state: u32) -> Patience {
        if state & WRITING == 0 { self.read() } else { Patience::DEFAULT }
    }
}

/// How this process waits for locks whose waiters sleep, instead of the default or what the environment says. All of
/// it: [`ENVIRONMENT_VARIABLE`] then has no effect. Call it once, at the start of `main`.
///
/// # Errors
/// If a parameter is out of range, after which it may be tried again; or if it is too late: it has been done already, or
/// a thread has waited for such a lock.
pub fn configure(patience: Patience) -> Result<(), ConfigureError> {
    patience.validate().map_err(ConfigureError::OutOfRange)?;
    // First, or where it is not read at start-up it would be read later, on top of this.
    let _ = environment();
    match SETTINGS.state.compare_exchange(0, WRITING, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => {}
        Err(state) if state & (WRITING | CONFIGURED) != 0 => return Err(ConfigureError::Twice),
        Err(_) => return Err(ConfigureError::Late),
    }
    SETTINGS.write(&patience);
    // Whoever has waited meanwhile stays noted. Release: who finds it configured finds the values.
    SETTINGS.state.fetch_xor(WRITING | CONFIGURED, Ordering::Release);
    Ok(())
}

/// The parameters that apply now. Asking does not close them.
#[must_use]
pub fn configuration() -> Patience {
    let _ = environment();
    SETTINGS.in_state(SETTINGS.state.load(Ordering::Acquire))
}

/// The parameters for who is about to wait.
pub(super) fn patience() -> Patience {
    let state = SETTINGS.state.load(Ordering::Acquire);
    SETTINGS.in_state(if state & USED == 0 { close() } else { state })
}

#[cold]
fn close() -> u32 {
    let _ = environment();
    SETTINGS.state.fetch_or(USED, Ordering::Acquire)
}

/// What [`ENVIRONMENT_VARIABLE`] said when it was read: on Linux and Android before `main`, elsewhere when it is first
/// needed. `None` if it is not set.
///
/// # Errors
/// If it says nothing sensible. Then the default applies, and one line on standard error has said why. A program whose
/// users set the variable themselves may want to stop.
pub fn environment() -> Result<Option<Patience>, EnvironmentError> {
    *ENVIRONMENT.get_or_init(|| {
        let said = variable::read(|text| match text {
            None => Ok(None),
            Some(bytes) => {
                let text = core::str::from_utf8(bytes).map_err(|_| EnvironmentError::NotText)?;
                text.parse().map(Some).map_err(EnvironmentError::Parse)
            }
        });
        match said {
            Ok(Some(patience)) => SETTINGS.write(&patience),
            Ok(None) => {}
            Err(error) => complain(error),
        }
        said
    })
}

// Where it is read before `main`, this is full when anybody comes, and a signal handler does not wait for it.
static ENVIRONMENT: OnceLock<Result<Option<Patience>, EnvironmentError>> = OnceLock::new();

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
        let _ = super::environment();
    }

    /// Without an allocation: a program's allocator may take one of our locks.
    pub(super) fn read<T>(look: impl FnOnce(Option<&[u8]>) -> T) -> T {
        const NAME: &CStr = c"QSPINLOCK_PARKING";
        // SAFETY: a string with an end. Nobody changes the environment now: there is one thread, or, in a library that is
        // loaded later, whoever loads it must not change it meanwhile, as with any library that reads it.
        let value: *const c_char = unsafe { libc::getenv(NAME.as_ptr()) };
        if value.is_null() {
            return look(None);
        }
        // SAFETY: a string with an end, which stays as long as nobody changes the environment.
        look(Some(unsafe { CStr::from_ptr(value) }.to_bytes()))
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod variable {
    pub(super) fn read<T>(look: impl FnOnce(Option<&[u8]>) -> T) -> T {
        let value = std::env::var_os(super::ENVIRONMENT_VARIABLE);
        look(value.as_ref().map(|value| value.as_encoded_bytes()))
    }
}

/// One line on standard error, in one piece.
fn complain(error: EnvironmentError) {
    use fmt::Write as _;
    use std::io::Write as _;

    struct Line {
        bytes: [u8; 400],
        len: usize,
    }
    impl fmt::Write for Line {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let end = self.len + text.len();
            self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
            self.len = end;
            Ok(())
        }
    }
    let mut line = Line { bytes: [0; 400], len: 0 };
    // It has room for every error. Nobody can be told that nothing can be told.
    let _ = writeln!(line, "qspinlock: {error}; ignored, the defaults apply");
    let _ = std::io::stderr().write_all(&line.bytes[..line.len]);
}

/// Why [`configure`] did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigureError {
    /// A parameter is not what it may be.
    OutOfRange(OutOfRange),
    /// It has been done already.
    Twice,
    /// A thread has waited already.
    Late,
}

impl fmt::Display for ConfigureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange(error) => error.fmt(f),
            Self::Twice => f.write_str("the locks are configured already: call `configure` once, at the start of `main`"),
            Self::Late => f.write_str(
                "a thread has waited for a lock already: call `configure` before the first one can, at the start of `main`",
            ),
        }
    }
}

impl core::error::Error for ConfigureError {}

/// Why [`ENVIRONMENT_VARIABLE`] was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// It is not UTF-8.
    NotText,
    /// It was not understood.
    Parse(ParseError),
}

impl fmt::Display for EnvironmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ENVIRONMENT_VARIABLE}: ")?;
        match self {
            Self::NotText => f.write_str("it is not text: write `name=value`, separated by commas"),
            Self::Parse(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for EnvironmentError {}
