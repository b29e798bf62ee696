#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]
#![doc = include_str!("lib.md")]

pub mod atomic;
#[cfg(all(feature = "std", feature = "lock_api"))]
mod condvar;
pub mod irq;
pub mod kernel {
    #![doc = include_str!("kernel.md")]
}
pub mod machine;
#[cfg(all(feature = "std", feature = "lock_api"))]
mod mutex;
pub mod patch;
pub mod queue;
mod raw;
pub mod resilient;
pub mod select;
#[cfg(feature = "lock_api")]
mod sendable;
pub mod slowpath;
pub mod start;
#[cfg(feature = "stats")]
pub mod stats;
#[cfg(feature = "std")]
pub mod threads;
pub mod word;

#[cfg(all(feature = "std", feature = "lock_api"))]
pub use condvar::{Condvar, WaitTimeoutResult};
#[cfg(feature = "lock_api")]
pub use lock_api;
pub use machine::{GlobalMachine, Machine};
#[cfg(all(feature = "std", feature = "lock_api"))]
pub use mutex::{
    MappedMutexGuard, Mutex, MutexGuard, RawMutex, ResilientMutex, ResilientMutexGuard, SendMutex, SpinMutex,
};
pub use raw::RawSpinLock;
pub use resilient::{LockError, LockErrorKind, RawResilientLock};
#[cfg(feature = "lock_api")]
pub use sendable::Sendable;
pub use slowpath::Patience;
#[cfg(feature = "std")]
pub use threads::{Configuration, ConfigureError, EnvironmentError, choice, configuration, configure, environment};
