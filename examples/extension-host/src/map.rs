//! What guests share: hash maps, each with a lock that guests may take.
//!
//! There are two kinds of resilient locks in a map, and neither trusts whoever calls:
//! * each *bucket* has one, which nobody but the map takes. No counter says whether its thread is in the map already:
//!   who comes back into a bucket from a program that runs under its lock is told so by the lock;
//! * the *section* lock is the guests' own. They take and release it when they like, in any order, or never.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use qspinlock::{LockError, LockErrorKind, ResilientMutex, ResilientMutexGuard};

use crate::program::Guest;

/// Buckets of a map, and entries in each. Guests get no more memory than that.
const BUCKETS: usize = 8;
const ENTRIES: usize = 4;

/// Why a guest does not get what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It does not hold that lock.
    NotHeld,
    /// No such key.
    NoEntry,
    /// No such map, or a value that would look like an error.
    BadArgument,
    /// The bucket is full.
    Full,
    /// Whom it waits for does not come.
    Alone,
    /// A lock was not to be had.
    Lock(LockError),
}

impl Refusal {
    /// What the guest is told: the number that its field knows, negative.
    pub(crate) fn code(self) -> i64 {
        match self {
            Self::NotHeld => -1,      // EPERM
            Self::NoEntry => -2,      // ENOENT
            Self::BadArgument => -22, // EINVAL
            Self::Full => -28,        // ENOSPC
            Self::Alone => -62,       // ETIME
            Self::Lock(error) => match error.kind() {
                LockErrorKind::Deadlock => -35,  // EDEADLK
                LockErrorKind::TimedOut => -110, // ETIMEDOUT
                _ => -11,                        // EAGAIN
            },
        }
    }
}

impl From<LockError> for Refusal {
    fn from(error: LockError) -> Self {
        Self::Lock(error)
    }
}

type Bucket = [Option<(u64, u64)>; ENTRIES];

/// Numbers by numbers.
pub(crate) struct Map {
    pub(crate) name: &'static str,
    buckets: [ResilientMutex<Bucket>; BUCKETS],
    section: ResilientMutex<()>,
    /// How long anybody waits for a lock of this map.
    limit: Duration,
    /// Who waited for the section in vain since it was last taken.
    complaints: AtomicU32,
    /// Runs whenever an entry was written, while its bucket is locked: so it sees the map as the writer has left it.
    pub(crate) on_update: OnceLock<&'static Guest>,
}

impl Map {
    pub(crate) const fn new(name: &'static str, limit: Duration) -> Self {
        Self {
            name,
            buckets: [const { ResilientMutex::new([None; ENTRIES]) }; BUCKETS],
            section: ResilientMutex::new(()),
            limit,
            complaints: AtomicU32::new(0),
            on_update: OnceLock::new(),
        }
    }

    fn bucket(&self, key: u64) -> Result<ResilientMutexGuard<'_, Bucket>, LockError> {
        self.buckets[key as usize % BUCKETS].lock_within(self.limit)
    }

    pub(crate) fn lookup(&self, key: u64) -> Result<u64, Refusal> {
        let bucket = self.bucket(key)?;
        bucket.iter().flatten().find(|entry| entry.0 == key).map(|entry| entry.1).ok_or(Refusal::NoEntry)
    }

    /// Writes an entry, then calls `then`, with the bucket locked. If that writes to a map in turn, it does so in
    /// another bucket, or is refused: so it cannot go on for ever.
    pub(crate) fn update(&self, key: u64, value: u64, then: impl FnOnce(&'static Guest)) -> Result<(), Refusal> {
        let mut bucket = self.bucket(key)?;
        let old = bucket.iter().position(|entry| entry.is_some_and(|(there, _)| there == key));
        let at = old.or_else(|| bucket.iter().position(Option::is_none)).ok_or(Refusal::Full)?;
        bucket[at] = Some((key, value));
        if let Some(guest) = self.on_update.get() {
            then(guest);
        }
        Ok(())
    }

    /// The guests' own lock.
    pub(crate) fn lock(&'static self) -> Result<Section, Refusal> {
        match self.section.lock_within(self.limit) {
            Ok(guard) => {
                self.complaints.store(0, Ordering::Relaxed);
                Ok(Section { map: self, _guard: guard })
            }
            Err(error) => {
                self.complaints.fetch_add(u32::from(error.is_timeout()), Ordering::Relaxed);
                Err(error.into())
            }
        }
    }

    /// Whether nobody holds any lock of this map.
    pub(crate) fn is_free(&self) -> bool {
        !self.section.is_locked() && self.buckets.iter().all(|bucket| !bucket.is_locked())
    }

    /// Which of this map's locks is at an address, as reports name them.
    pub(crate) fn lock_at(&self, address: usize) -> Option<String> {
        let is_in = |lock: *const u8, size: usize| (lock.addr()..lock.addr() + size).contains(&address);
        if is_in((&raw const self.section).cast(), size_of_val(&self.section)) {
            return Some(format!("the lock of {}", self.name));
        }
        let at = self.buckets.iter().position(|bucket| is_in((&raw const *bucket).cast(), size_of_val(bucket)))?;
        Some(format!("bucket {at} of {}", self.name))
    }
}

/// A map's section, held: the host's, never the guest's.
pub(crate) struct Section {
    map: &'static Map,
    _guard: ResilientMutexGuard<'static, ()>,
}

impl Section {
    pub(crate) fn map(&self) -> &'static Map {
        self.map
    }

    /// How many have waited for it in vain.
    pub(crate) fn complaints(&self) -> u32 {
        self.map.complaints.load(Ordering::Relaxed)
    }
}
