//! Code that is changed while other CPUs run: all of them stop, at once.
//!
//! ```text
//!   this CPU   interrupts off, a call to each ---> all have come ---> is one inside of a site? ---> write ---> go
//!   others              handler: I have come, and was there --------> wait, interrupts off ------> serialise
//! ```
//!
//! * *Nobody is inside of what changes.* What stands at a site is up to three instructions, and a CPU that was
//!   interrupted between two of them would go on in the middle of other ones. Each says where it was; if that is inside of
//!   a site, all go on for a moment, and it is tried again. Handlers here run with interrupts off, so a CPU that comes
//!   was interrupted once; other kernels look at all that was interrupted, or let tasks leave such places before.
//! * *Nobody waits for a CPU that has stopped with interrupts off*, and so never comes: who waits so wants a lock whose
//!   owner has them off as well, and that one comes only after it has released it.
//! * *NMIs* come all the same. What they call must not have sites: no [`Chosen`](qspinlock::slowpath::Chosen) lock.
//! * *Serialise*: a CPU may have fetched what was there. `cpuid` has it fetch again.
//!
//! There is another way, without a stop: a breakpoint in the first byte of each site, then the rest, then the first
//! byte. It is for sites that are *one* instruction before and after. Here a CPU may have been interrupted between two, and
//! may come back to the second at any later time; so somebody would have to ask each CPU where it is all the same. And
//! the emulator at hand runs code that it has translated before for a while after a breakpoint has been written. So: no.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use qspinlock::patch::{self, Edits, TextWriter};

use crate::tables::vector;
use crate::{apic, clock, cpu, paging, percpu, smp};

/// How often it is tried.
const TRIES: u32 = 1000;
/// Who has not come by then never will. Nanoseconds.
const LATE: u64 = 20_000_000_000;

/// The stop that is under way; others go on when it changes.
static STOP: AtomicU32 = AtomicU32::new(0);
static COME: AtomicU32 = AtomicU32::new(0);
static GONE: AtomicU32 = AtomicU32::new(0);
/// All have been called, and none goes on yet.
static CALLED: AtomicBool = AtomicBool::new(false);
/// Somebody is inside of a site.
static INSIDE: AtomicBool = AtomicBool::new(false);
static RETRIES: AtomicU32 = AtomicU32::new(0);

/// How often somebody was inside of a site, so far.
pub(crate) fn retries() -> u32 {
    RETRIES.load(Ordering::Relaxed)
}

/// Whether this is in the middle of a site.
pub(crate) fn is_inside(address: usize) -> bool {
    patch::sites().any(|site| (1..site.present().len()).contains(&address.wrapping_sub(site.address())))
}

/// Whether a stop is under way: a call is pending, where interrupts are off.
pub(crate) fn is_called() -> bool {
    CALLED.load(Ordering::Acquire)
}

/// The handler: `address` is what was interrupted.
pub(crate) fn on_stop(address: usize) {
    let stop = STOP.load(Ordering::Acquire);
    if is_inside(address) {
        INSIDE.store(true, Ordering::Relaxed);
    }
    COME.fetch_add(1, Ordering::AcqRel);
    while STOP.load(Ordering::Acquire) == stop {
        cpu::relax();
    }
    cpu::serialise();
    GONE.fetch_add(1, Ordering::AcqRel);
}

/// Does something while all other CPUs stand still outside of all sites. `None` if that cannot be had.
fn while_stopped<R>(what: impl FnOnce() -> R) -> Option<R> {
    let were_on = cpu::interrupts_off();
    let mut what = Some(what);
    let mut result = None;
    for _ in 0..TRIES {
        let others = smp::count() as u32 - 1;
        COME.store(0, Ordering::Relaxed);
        GONE.store(0, Ordering::Relaxed);
        INSIDE.store(false, Ordering::Relaxed);
        for number in smp::all().filter(|number| *number != percpu::mine().number.get() as usize) {
            apic::send(percpu::of(number).apic_id().load(Ordering::Relaxed), vector::STOP);
        }
        CALLED.store(true, Ordering::Release);
        // Interrupts are off here, and nobody watches: so it ends by itself.
        let wait_for = |count: &AtomicU32, what: &str| {
            let late = clock::now() + LATE;
            while count.load(Ordering::Acquire) != others {
                if clock::now() > late {
                    crate::interrupts::report();
                    panic!("{} of {others} CPUs {what} in {} s", count.load(Ordering::Acquire), LATE / 1_000_000_000);
                }
                cpu::relax();
            }
        };
        wait_for(&COME, "have stopped");
        if !INSIDE.load(Ordering::Relaxed) {
            result = what.take().map(|what| what());
        }
        CALLED.store(false, Ordering::Relaxed);
        STOP.fetch_add(1, Ordering::AcqRel);
        wait_for(&GONE, "went on");
        if result.is_some() {
            break;
        }
        RETRIES.fetch_add(1, Ordering::Relaxed);
        clock::pause_for(5_000);
    }
    if were_on {
        // SAFETY: as they were.
        unsafe { cpu::interrupts_on() };
    }
    result
}

/// Writes code while other CPUs run, having stopped them. One CPU at a time.
#[derive(Debug)]
pub(crate) struct Live;

/// There was always somebody inside of a site. Nothing was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside;

// SAFETY: nobody but this CPU runs, and with interrupts off, and none is in the middle of what changes; all serialise
// before they go on.
unsafe impl TextWriter for Live {
    type Error = Inside;

    fn write(&mut self, edits: &Edits) -> Result<(), Inside> {
        while_stopped(|| {
            for edit in edits.iter() {
                // SAFETY: the library says that this is code to be changed.
                unsafe { paging::write_code(edit.address, &edit.code) };
            }
        })
        .ok_or(Inside)
    }
}
