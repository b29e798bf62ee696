//! Locks that say so instead of hanging: for code that one does not trust, and for contexts that may interrupt their
//! own lock's holder.
//!
//! The same 4-byte word and the same slow paths as the plain lock, but `lock` returns an error
//! * *at once*, if the caller's CPU holds that lock already, in this context or in one that it has interrupted;
//! * *when the circle closes*, if the owner waits for a lock whose owner waits for a lock ... that the caller's CPU
//!   holds. Each such error is true, and each circle that lasts is found (`detect.rs` says why);
//! * *when its time is over*, by default after 250 ms: the owner takes long, or will never come back.
//!
//! ```text
//!   lock     enter in the record ---> free? take it, note it as held
//!                                       | no
//!                                       v
//!            do I hold it already? ---> wait, as the slow path does, under a vigil ---> got it: note it as held
//!                  | yes                     | first look (10 us, or about to sleep):
//!                  v                         |   publish what I hold and want, look for a circle
//!              Deadlock                      | later looks, each after twice as long; end of time
//!                                            v
//!                                       Deadlock, TimedOut: leave the queue, take the entry back
//! ```
//!
//! # Bounded
//! Every wait is bounded, and one that fails leaves no trace: those who wait keep their places and their order, whoever
//! leaves from among them. The bound is each waiter's own, wherever it stands: it does not have to be told by the one
//! before it. How it leaves is the slow path's to say: `slowpath/leaving.rs`, [`parking`](crate::slowpath::parking),
//! [`paravirt`](crate::slowpath::paravirt). Where waiters sleep, the node of one that gave up stays in the queue until
//! the owner unlocks, or the lock goes. A CPU has three for this; with all of them left behind in queues that stand
//! still, its next wait is beside the queue, with looks at growing distances.
//!
//! Later than its limit a waiter is by as much as it takes to be scheduled, and by two microseconds. If the clock stands
//! still, looks are counted instead; a spinning wait ends after some hundred thousand of them.
//!
//! # Not instead of a plain lock, and no plain lock instead
//! They are two types, and there is no switch that makes one of the other. A program that counts on errors hangs if its
//! locks stop reporting them: "fall back to the plain lock" would bring back the very deadlock. And a plain lock's
//! `lock` has no error that a caller would look at. So neither is generic over the other, and nothing converts.
//!
//! # What it sees
//! Each CPU (in user space, each thread) records which resilient locks it holds and which one it waits for
//! (`record.rs`). What it does not see ends by time:
//! * deadlocks in which anything else takes part: a plain lock, a channel, a thread that one joins;
//! * through locks that had no room in a record: it has [`ENTRIES`]. So a host limits what a guest may hold;
//! * through a CPU whose interrupt waits for another lock, having come between two instructions of an acquire or a
//!   release: others cannot tell whether that CPU has the first one;
//! * circles of more than [`LONGEST`] CPUs.
//!
//! Who holds nothing publishes nothing and looks for nothing: in a program that holds one lock at a time, detection
//! costs an entry, written and taken back. It is written by its own CPU alone, to lines that nobody else reads unless
//! it is in the way of somebody's search.
//!
//! # Who is told
//! Whoever closes a circle finds it; if two do so at the same moment, perhaps both. It holds what it held before and
//! decides what to do: let go of it, mostly, and then the others go on. Who merely tries again, holding on, is told
//! again.
//!
//! # Interrupts and signal handlers
//! A handler may lock what it likes. It gets the lock, or is told that its own CPU holds it, or that it is in a circle,
//! or that its time is over. It never waits *in a queue* behind the context that it has interrupted: if that one is
//! about to take the same lock, the handler waits beside the queue. And a waiter that was interrupted holds nobody up:
//! a lock that stays free is taken by whoever waits for it, in order or not.
//!
//! # Bypass
//! Over [`Parking`](crate::slowpath::Parking) no waiter is ever *handed* the lock, as a plain one is after some turns
//! in vain: it might have been interrupted, and nobody would know that it has it. So a waiter may be passed more often,
//! until it asks for a grant from the lane.
//!
//! # In a host of extensions
//! Guests know locks by numbers, and get numbers back. The guards are the host's, in a table for each run: what is left
//! in it when the run is over, however that came, is released; and nothing can be unlocked that is not in it. The host
//! says `set_policy(Policy::DEFAULT)` first, so that no environment makes panics of errors; limits how many locks a run
//! may hold; and takes a report as something that may be missing: those of the last errors are kept for all threads
//! together.
//!
//! ```
//! # #[cfg(all(feature = "std", feature = "lock_api"))] {
//! use qspinlock::{LockErrorKind, ResilientMutex, ResilientMutexGuard};
//!
//! /// A guest that runs, on this thread.
//! struct Run<'a> {
//!     locks: &'a [ResilientMutex<()>],
//!     held: Vec<(usize, ResilientMutexGuard<'a, ()>)>,
//! }
//!
//! impl Run<'_> {
//!     /// What the guest calls: 0, or an error number.
//!     fn lock(&mut self, number: usize) -> i64 {
//!         let Some(lock) = self.locks.get(number) else { return -22 };
//!         match lock.lock() {
//!             Ok(guard) => self.held.push((number, guard)),
//!             Err(error) => {
//!                 if let Some(report) = error.report() {
//!                     eprintln!("{report}");
//!                 }
//!                 return if error.kind() == LockErrorKind::Deadlock { -35 } else { -110 };
//!             }
//!         }
//!         0
//!     }
//!
//!     fn unlock(&mut self, number: usize) -> i64 {
//!         let Some(at) = self.held.iter().position(|held| held.0 == number) else { return -1 };
//!         self.held.remove(at);
//!         0
//!     }
//! }
//!
//! let locks = [ResilientMutex::new(()), ResilientMutex::new(())];
//! let mut guest = Run { locks: &locks, held: Vec::new() };
//! assert_eq!((guest.lock(0), guest.lock(0)), (0, -35));
//! assert_eq!(guest.unlock(1), -1);
//! drop(guest);
//! assert!(!locks[0].is_locked());
//! # }
//! ```
//!
//! The program `extension-host` in the source repository is one in full: guests on a virtual machine, and maps whose
//! own buckets have resilient locks, so that a guest which comes back into one is told so, and nobody counts nestings.
//! A lock's limit says how long a guest's *neighbours* are held up; that the guest itself comes to an end is for the
//! host to see to.
//!
//! # Real-time systems
//! [`Native`](crate::slowpath::Native) and [`TestAndSet`](crate::slowpath::TestAndSet) never sleep:
//! `RawResilientLock<MyMachine, Native>` is the lock for a context that may not, whatever has been chosen for the
//! others. The longest stall is then its limit, and the two microseconds before the first look at the clock and between
//! two. `qspin bench` measures by how much a limit is passed.

mod detect;
mod entered;
mod entry;
mod error;
mod mutex;
mod policy;
mod raw;
mod record;
mod recorder;
mod report;
mod watch;

pub use detect::{LONGEST, Link};
pub use entry::Entry;
pub use error::{LockError, LockErrorKind};
pub use mutex::{Mutex, MutexGuard};
pub use policy::{Policy, PolicyError};
pub use raw::{NotHeld, RawResilientLock};
pub use record::{ENTRIES, Record};
pub use recorder::{NameCell, PlaceCell, RecordOf, Recorder};
pub use report::{LINKS, Report, Ticket};
pub use watch::Looks;

#[cfg(feature = "std")]
pub use crate::threads::{policy, set_policy};

/// How long `lock` waits by default, in nanoseconds: 250 ms. Things that take tens of milliseconds do happen in
/// critical sections: a virtual CPU that is taken away, firmware that takes the machine for itself.
pub const DEFAULT_LIMIT: u64 = 250_000_000;
