//! The kernel's locks, and how their waiting is chosen: once, before the second CPU starts.

use qspinlock::lock_api;
use qspinlock::patch::{self, Edits, TextWriter};
use qspinlock::resilient;
use qspinlock::select::{Beneath, Choice, Facts, Setting, choose, cpuid};
use qspinlock::slowpath::Chosen;
use qspinlock::start::{self, AdoptError};
use qspinlock::{RawSpinLock, select::Hypervisor};

use guest_firmware::Words;

use crate::irq::RawIrq;
use crate::machine::Kernel;
use crate::{cpu, paging};

/// A mutex. How it waits is chosen by [`choose_locks`].
pub(crate) type Mutex<T> = lock_api::Mutex<RawSpinLock<Kernel, Chosen>, T>;

/// A mutex that interrupt handlers take as well.
pub(crate) type IrqMutex<T> = lock_api::Mutex<RawIrq<RawSpinLock<Kernel, Chosen>>, T>;

/// A mutex that says so where it would hang: for what NMI handlers take.
pub(crate) type ResilientMutex<T, S = Chosen> = resilient::Mutex<Kernel, S, T>;

/// How locks were started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    /// Who seems to be beneath.
    pub(crate) hypervisor: Hypervisor,
    /// How locks wait, and why.
    pub(crate) choice: Choice,
    /// How many call sites follow.
    pub(crate) code: patch::Status,
}

/// Chooses how locks wait on a machine with so many CPUs and nodes, and has the call sites follow.
///
/// # Errors
/// If that has been done, or if somebody has waited. Locks work all the same.
pub(crate) fn choose_locks(cpus: u32, nodes: u32, words: &Words<'_>) -> Result<Started, AdoptError> {
    let mut facts = Facts::new(Setting::Kernel, cpus);
    facts.domains = nodes;
    facts.wishes = words.wishes;
    let beneath = Beneath::ask(|leaf, subleaf| words.leaves.seen(leaf, subleaf, cpuid(leaf, subleaf)));
    beneath.note(&mut facts);
    let choice = choose(&facts);
    start::adopt(choice)?;
    let Ok(()) = patch::follow_with(&mut Text);
    Ok(Started { hypervisor: beneath.hypervisor, choice, code: patch::status() })
}

struct Text;

// SAFETY: one CPU runs, with interrupts off, and has been nowhere near these places. An edit is written as a whole
// before anything else is executed.
unsafe impl TextWriter for Text {
    type Error = core::convert::Infallible;

    fn write(&mut self, edits: &Edits) -> Result<(), Self::Error> {
        assert!(!cpu::interrupts_are_on() && crate::smp::count() <= 1, "code is rewritten while one CPU runs");
        for edit in edits.iter() {
            // SAFETY: the library says that this is code to be changed.
            unsafe { paging::write_code(edit.address, &edit.code) };
        }
        Ok(())
    }
}
