//! What is simulated: the library's locks, and others, behind one face.

use std::convert::Infallible;
use std::fmt;

use qspinlock::slowpath::{Fallible, SlowPath};
use qspinlock::{RawResilientLock, RawSpinLock};

use super::cell::SimCell;
use super::machine::Virtual;

/// A lock that virtual CPUs take.
pub trait SimLock {
    /// Waits for it and takes it.
    fn acquire(&self, m: &Virtual);

    /// Gives it back. The caller has it.
    fn release(&self, m: &Virtual);
}

/// One of the library's, whose waiters follow slow path `S`.
pub struct Queued<S>(RawSpinLock<Virtual, S>);

impl<S: SlowPath<Virtual, Error = Infallible>> Default for Queued<S> {
    fn default() -> Self {
        Self(RawSpinLock::from_cell(SimCell::default()))
    }
}

impl<S: SlowPath<Virtual, Error = Infallible>> fmt::Debug for Queued<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(S::NAME)
    }
}

impl<S: SlowPath<Virtual, Error = Infallible>> SimLock for Queued<S> {
    fn acquire(&self, m: &Virtual) {
        let Ok(()) = self.0.acquire_on(m);
    }

    fn release(&self, m: &Virtual) {
        // SAFETY: the caller has it.
        unsafe { self.0.release_on(m) }
    }
}

/// One of the library's that can fail, over slow path `S`.
pub struct Resilient<S>(RawResilientLock<Virtual, S>);

impl<S: Fallible<Virtual>> Default for Resilient<S> {
    fn default() -> Self {
        Self(RawResilientLock::from_cell(SimCell::default()))
    }
}

impl<S: Fallible<Virtual>> fmt::Debug for Resilient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "resilient {}", S::NAME)
    }
}

impl<S: Fallible<Virtual>> SimLock for Resilient<S> {
    fn acquire(&self, m: &Virtual) {
        self.0.acquire_on(m).expect("nobody holds two locks, and no wait is limited");
    }

    fn release(&self, m: &Virtual) {
        // SAFETY: the caller has it, and no context interrupts another.
        unsafe { self.0.release_on(m) }.expect("it is in the record");
    }
}
