//! Locks that say so instead of hanging: for code that one does not trust, and for contexts that may interrupt their own
//! lock's holder.
//!
//! The same 4-byte word and the same slow paths as the plain lock, but `lock` returns an error
//! * *at once*, if the caller holds that lock already;
//! * *when the circle closes*, if the owner waits for a lock whose owner waits for a lock ... that the caller holds. Each
//!   such error is true, and each circle that lasts is found (`detect.rs` says why);
//! * *when its time is over*, by default after 250 ms: the owner takes long, or will never come back.
//!
//! Every wait is bounded, and one that fails leaves no trace: those who wait keep their places and their order, whoever
//! leaves from among them (`slowpath/leaving.rs`).
//!
//! # Not instead of a plain lock, and no plain lock instead
//! They are two types, and there is no switch that makes one of the other. A program that counts on errors hangs if its
//! locks stop reporting them: "fall back to the plain lock" would bring back the very deadlock. And a plain lock's `lock` has no
//! error that a caller would look at. So neither is generic over the other, and nothing converts.
//!
//! # What it sees
//! Each CPU (in user space, each thread) records which resilient locks it holds and which one it waits for (`record.rs`). Up to [`ENTRIES`]
//! at a time; with more, a deadlock through those that had no room ends by time. A deadlock in which
//! anything else takes part (a plain lock, a channel, a thread that one joins) ends by time, too.

mod detect;
mod entered;
mod error;
mod mutex;
mod policy;
mod raw;
mod record;
mod report;
mod watch;

pub use detect::{LONGEST, Link};
pub use error::{LockError, LockErrorKind};
pub use mutex::{Mutex, MutexGuard};
pub use policy::{Policy, PolicyError};
pub use raw::{NotHeld, RawResilientLock};
pub use record::{ENTRIES, Entry, NameCell, PlaceCell, Record, RecordOf, Recorder};
pub use report::{LINKS, Report, Ticket};
pub use watch::Looks;

#[cfg(feature = "std")]
pub use crate::threads::{policy, set_policy};

/// How long `lock` waits by default, in nanoseconds: 250 ms. Things that take tens of milliseconds do happen in critical
/// sections: a virtual CPU that is taken away, firmware that takes the machine for itself.
pub const DEFAULT_LIMIT: u64 = 250_000_000;
