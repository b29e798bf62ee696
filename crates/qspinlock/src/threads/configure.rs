//! How this process waits: set by the program, or by the environment when the program starts.
//!
//! It must not change once a thread has waited: some threads would wait by one set of parameters and some by another, and
//! whatever was measured or tuned would be neither; and with two slow paths they would wait for each other. So whoever
//! waits first closes them, and a change that comes later is an error that says so.

use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};

use super::domains::{self, Domains, DomainsError};
use super::environment;
use super::facts;
use crate::select::{Choice, NumaWish, SlowPathKind, WishError, Wishes, choose};
use crate::slowpath::Patience;
use crate::slowpath::parking::OutOfRange;
use crate::start::{self, AdoptError};

/// How a process waits for its locks: which slow path they have, the parameters of waiting, and what counts as near. What is not said stays as
/// the environment has it, or as it is by default. Wishes go together: who says one has said them all.
///
/// ```
/// use qspinlock::Configuration;
/// use qspinlock::select::SlowPathKind;
/// use qspinlock::slowpath::Patience;
///
/// let tuned: Configuration = Patience::DEFAULT.spin(300).into();
/// let ours = Configuration::NONE.dedicated().patience(Patience::DEFAULT.spin(300));
/// let named: Configuration = SlowPathKind::Native.into();
/// assert!([tuned, ours, named].iter().all(|configuration| configuration.validate().is_ok()));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "it applies when `configure` is called with it"]
pub struct Configuration {
    pub(super) patience: Option<Patience>,
    pub(super) wishes: Option<Wishes>,
    pub(super) domains: Option<Domains>,
}

impl Configuration {
    /// Nothing is said.
    pub const NONE: Self = Self { patience: None, wishes: None, domains: None };

    /// The parameters of waiting.
    pub const fn patience(self, patience: Patience) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// The slow path, by name.
    pub const fn slow_path(self, slow_path: SlowPathKind) -> Self {
        self.wishes(Wishes { slow_path: Some(slow_path), ..self.said() })
    }

    /// The slow path that fits, whatever the environment says.
    pub const fn auto(self) -> Self {
        self.wishes(Wishes { slow_path: None, ..self.said() })
    }

    /// The CPUs are this program's own: nobody takes them away, and it has no more threads than those. Then what fits is a
    /// slow path whose waiters spin.
    pub const fn dedicated(self) -> Self {
        self.wishes(Wishes { dedicated: true, ..self.said() })
    }

    /// Not the slow path for virtual CPUs. For threads that never is what fits, so it changes nothing there.
    pub const fn nopvspin(self) -> Self {
        self.wishes(Wishes { no_paravirt: true, ..self.said() })
    }

    /// Whether the lock stays in one domain for a while.
    pub const fn numa(self, numa: NumaWish) -> Self {
        self.wishes(Wishes { numa, ..self.said() })
    }

    /// What counts as near.
    pub const fn domains(self, domains: Domains) -> Self {
        Self { domains: Some(domains), ..self }
    }

    /// All that is to be wished for, instead of what was said here and in the environment.
    pub const fn wishes(self, wishes: Wishes) -> Self {
        Self { wishes: Some(wishes), ..self }
    }

    /// The parameters of waiting that are said.
    #[must_use]
    pub const fn said_patience(&self) -> Option<Patience> {
        self.patience
    }

    /// The wishes that are said.
    #[must_use]
    pub const fn said_wishes(&self) -> Option<Wishes> {
        self.wishes
    }

    /// What is said to count as near.
    #[must_use]
    pub const fn said_domains(&self) -> Option<Domains> {
        self.domains
    }

    const fn said(self) -> Wishes {
        match self.wishes {
            Some(wishes) => wishes,
            None => Wishes::NONE,
        }
    }

    /// Whether each parameter is what it may be, and the wishes can be had together.
    ///
    /// # Errors
    /// [`ConfigureError::OutOfRange`], [`ConfigureError::Wishes`] and [`ConfigureError::Domains`].
    pub fn validate(&self) -> Result<(), ConfigureError> {
        self.patience.map_or(Ok(()), |patience| patience.validate()).map_err(ConfigureError::OutOfRange)?;
        self.wishes.map_or(Ok(()), |wishes| wishes.validate()).map_err(ConfigureError::Wishes)?;
        self.domains.map_or(Ok(()), |domains| domains.validate()).map_err(ConfigureError::Domains)
    }
}

impl From<Patience> for Configuration {
    fn from(patience: Patience) -> Self {
        Self::NONE.patience(patience)
    }
}

impl From<SlowPathKind> for Configuration {
    fn from(slow_path: SlowPathKind) -> Self {
        Self::NONE.slow_path(slow_path)
    }
}

impl From<Wishes> for Configuration {
    fn from(wishes: Wishes) -> Self {
        Self::NONE.wishes(wishes)
    }
}

impl From<Domains> for Configuration {
    fn from(domains: Domains) -> Self {
        Self::NONE.domains(domains)
    }
}

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

/// How this process waits for locks, instead of the default or what the environment says. Call it once, at the start of
/// `main`, before there are other threads. All of it applies, or on an error nothing.
///
/// Takes a [`Configuration`], or what is a part of one: a [`Patience`], a [`SlowPathKind`], [`Wishes`],
/// [`Domains`].
///
/// # Errors
/// If a parameter is out of range, or wishes exclude each other, or the slow path would change while there are other
/// threads, after which it may be tried again; or if it is too late: it has been done already, or a thread has waited for
/// such a lock.
///
/// # Other threads
/// A thread that is unlocking while the slow path changes would do so by the old one, and might not wake who waits by the
/// new one. So that is refused while there are several threads, where they can be counted: on Linux and Android, with
/// `/proc` mounted. Where they cannot, it is refused if [code](crate::patch) follows the old one; else the caller has to
/// see to it. Not to be called in a signal handler, which may have interrupted an unlock.
pub fn configure(configuration: impl Into<Configuration>) -> Result<(), ConfigureError> {
    let configuration = configuration.into();
    configuration.validate()?;
    // First, or where it is not read at start-up it would be read later, on top of this.
    let _ = environment::sensible();
    match SETTINGS.state.compare_exchange(0, WRITING, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => {}
        Err(state) if state & (WRITING | CONFIGURED) != 0 => return Err(ConfigureError::Twice),
        Err(_) => return Err(ConfigureError::Late),
    }
    // What can be refused first. After it nothing can.
    if let Err(error) = change_slow_path(&configuration) {
        SETTINGS.state.fetch_and(!WRITING, Ordering::Relaxed);
        return Err(error);
    }
    if let Some(domains) = configuration.domains {
        domains::set(domains);
    }
    if start::chosen().slow_path == SlowPathKind::Numa {
        domains::read_table();
    }
    if let Some(patience) = configuration.patience {
        SETTINGS.write(&patience);
    }
    // Whoever has waited meanwhile stays noted. Release: who finds it configured finds the values.
    SETTINGS.state.fetch_xor(WRITING | CONFIGURED, Ordering::Release);
    Ok(())
}

fn change_slow_path(configuration: &Configuration) -> Result<(), ConfigureError> {
    let domains = configuration.domains.unwrap_or_else(domains::now);
    let wishes = match (configuration.wishes, configuration.domains) {
        (Some(wishes), _) => wishes,
        (None, None) => return Ok(()),
        // There may be more domains of another kind, and so what fits may be another one.
        (None, Some(_)) => environment::sensible().wishes.unwrap_or(Wishes::NONE),
    };
    let choice = choose(&facts::gather(wishes, domains));
    if configuration.wishes.is_none() && choice.slow_path == start::chosen().slow_path {
        return Ok(());
    }
    if choice.slow_path != start::chosen().slow_path && facts::threads().is_some_and(|threads| threads > 1) {
        return Err(ConfigureError::OtherThreads);
    }
    start::adopt(choice).map_err(|error| match error {
        AdoptError::Twice => ConfigureError::Twice,
        AdoptError::Late => ConfigureError::Late,
        AdoptError::Followed => ConfigureError::Refused,
        AdoptError::OtherThreads => ConfigureError::OtherThreads,
    })
}

/// The parameters of waiting that apply now. Asking does not close them.
#[must_use]
pub fn configuration() -> Patience {
    let _ = environment::sensible();
    SETTINGS.in_state(SETTINGS.state.load(Ordering::Acquire))
}

/// The slow path that applies now, and why. Asking does not close it.
#[must_use]
pub fn choice() -> Choice {
    start::chosen()
}

/// What fits the threads of this process, and what its environment says.
pub(crate) fn automatic() -> Choice {
    let wishes = environment::sensible().wishes.unwrap_or(Wishes::NONE);
    choose(&facts::gather(wishes, domains::now()))
}

/// What the environment says, before anybody can have asked.
pub(super) fn take_from_environment(patience: &Patience) {
    SETTINGS.write(patience);
}

/// The parameters for who is about to wait.
pub(super) fn patience() -> Patience {
    let state = SETTINGS.state.load(Ordering::Acquire);
    SETTINGS.in_state(if state & USED == 0 { close() } else { state })
}

#[cold]
fn close() -> u32 {
    let _ = environment::sensible();
    SETTINGS.state.fetch_or(USED, Ordering::Acquire)
}

/// Why [`configure`] did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigureError {
    /// A parameter is not what it may be.
    OutOfRange(OutOfRange),
    /// The wishes cannot be had together.
    Wishes(WishError),
    /// There are no such domains.
    Domains(DomainsError),
    /// The slow path would change, and there are other threads, or it cannot be told whether there are any.
    OtherThreads,
    /// The slow path would change, and the system refuses to have the code rewritten that follows the old one.
    Refused,
    /// It has been done already.
    Twice,
    /// A thread has waited already.
    Late,
}

impl fmt::Display for ConfigureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange(error) => error.fmt(f),
            Self::Wishes(error) => error.fmt(f),
            Self::Domains(error) => error.fmt(f),
            Self::OtherThreads => f.write_str(
                "another slow path would be chosen while there are other threads: call `configure` before the first one \
                 starts, at the start of `main`",
            ),
            Self::Refused => f.write_str(
                "another slow path would be chosen, and the system refuses to have code rewritten that follows the first \
                 choice: set `QSPINLOCK` instead, before the program starts",
            ),
            Self::Twice => f.write_str("the locks are configured already: call `configure` once, at the start of `main`"),
            Self::Late => f.write_str(
                "a thread has waited for a lock already: call `configure` before the first one can, at the start of `main`",
            ),
        }
    }
}

impl core::error::Error for ConfigureError {}
