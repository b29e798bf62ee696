//! The last reports of [resilient](crate::resilient) locks that have failed, in a ring: an error is small, and its
//! report need not be allocated. A report is kept and recalled without a lock, also in a signal handler or an
//! interrupt.

use core::num::NonZeroU32;
use core::panic::Location;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};

use crate::queue::Cpu;
use crate::resilient::{LINKS, Link, LockErrorKind, Report, Ticket};

/// Reports that are kept. An error's is gone when so many have come after it.
pub const KEPT: usize = 64;

static RING: Ring<KEPT> = Ring::new();

/// Keeps a report.
pub(crate) fn keep(report: &Report) -> Ticket {
    RING.keep(report)
}

/// A report that was kept.
pub(crate) fn recall(ticket: Ticket) -> Option<Report> {
    RING.recall(ticket?)
}

/// A place, which is read and written as a whole.
#[derive(Debug)]
#[repr(transparent)]
pub struct AtomicPlace(AtomicPtr<Location<'static>>);

impl AtomicPlace {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    #[inline]
    pub(crate) fn load(&self) -> Option<&'static Location<'static>> {
        // SAFETY: null, or made from a `&'static`: nothing else is ever stored.
        #[allow(unsafe_code, reason = "a pointer that was a reference")]
        unsafe {
            self.0.load(Ordering::Relaxed).as_ref()
        }
    }

    #[inline]
    pub(crate) fn store(&self, place: Option<&'static Location<'static>>) {
        let place = place.map_or(null_mut(), |place| core::ptr::from_ref(place).cast_mut());
        self.0.store(place, Ordering::Relaxed);
    }
}

impl Default for AtomicPlace {
    fn default() -> Self {
        Self::new()
    }
}

/// It is being written.
const BUSY: u32 = u32::MAX;

/// CPU + 1, or 0.
type AtomicCpu = AtomicU32;

fn cpu_code(cpu: Option<Cpu>) -> u32 {
    cpu.map_or(0, |cpu| cpu.index() as u32 + 1)
}

fn cpu_of(code: u32) -> Option<Cpu> {
    code.checked_sub(1).and_then(Cpu::new)
}

struct KeptLink {
    cpu: AtomicCpu,
    wants: AtomicUsize,
    wants_at: AtomicPlace,
    holds_at: AtomicPlace,
}

struct Kept {
    /// The ticket of what is there; or [`BUSY`]; or 0.
    ticket: AtomicU32,
    kind: AtomicU32,
    cpu: AtomicCpu,
    lock: AtomicUsize,
    at: AtomicPlace,
    waited: [AtomicU32; 2],
    holder: AtomicCpu,
    holder_at: AtomicPlace,
    length: AtomicUsize,
    links: [KeptLink; LINKS],
}

impl Kept {
    #[allow(clippy::declare_interior_mutable_const, reason = "an initialiser: every use is a new one")]
    const NONE: Self = Self {
        ticket: AtomicU32::new(0),
        kind: AtomicU32::new(0),
        cpu: AtomicU32::new(0),
        lock: AtomicUsize::new(0),
        at: AtomicPlace::new(),
        waited: [const { AtomicU32::new(0) }; 2],
        holder: AtomicU32::new(0),
        holder_at: AtomicPlace::new(),
        length: AtomicUsize::new(0),
        links: [const {
            KeptLink {
                cpu: AtomicU32::new(0),
                wants: AtomicUsize::new(0),
                wants_at: AtomicPlace::new(),
                holds_at: AtomicPlace::new(),
            }
        }; LINKS],
    };
}

struct Ring<const N: usize> {
    next: AtomicU32,
    kept: [Kept; N],
}

impl<const N: usize> Ring<N> {
    const fn new() -> Self {
        Self { next: AtomicU32::new(1), kept: [const { Kept::NONE }; N] }
    }

    fn keep(&self, report: &Report) -> Ticket {
        const RELAXED: Ordering = Ordering::Relaxed;
        let ticket = self.next.fetch_add(1, RELAXED);
        // Two in four thousand million are no tickets.
        let ticket = NonZeroU32::new(ticket).filter(|_| ticket != BUSY)?;
        let kept = &self.kept[ticket.get() as usize % N];
        // So many errors have come while an older one is being kept: then this one is not.
        if kept.ticket.swap(BUSY, Ordering::Acquire) == BUSY {
            return None;
        }
        fence(Ordering::Release);
        kept.kind.store(u32::from(report.kind == LockErrorKind::TimedOut), RELAXED);
        kept.cpu.store(cpu_code(report.cpu), RELAXED);
        kept.lock.store(report.lock, RELAXED);
        kept.at.store(report.at);
        kept.waited[0].store(report.waited as u32, RELAXED);
        kept.waited[1].store((report.waited >> 32) as u32, RELAXED);
        kept.holder.store(cpu_code(report.holder.map(|(cpu, _)| cpu)), RELAXED);
        kept.holder_at.store(report.holder.and_then(|(_, at)| at));
        kept.length.store(report.length, RELAXED);
        for (kept, link) in kept.links.iter().zip(&report.links) {
            kept.cpu.store(cpu_code(link.map(|link| link.cpu)), RELAXED);
            let Some(link) = link else { break };
            kept.wants.store(link.wants, RELAXED);
            kept.wants_at.store(link.wants_at);
            kept.holds_at.store(link.holds_at);
        }
        kept.ticket.store(ticket.get(), Ordering::Release);
        Some(ticket)
    }

    fn recall(&self, ticket: NonZeroU32) -> Option<Report> {
        const RELAXED: Ordering = Ordering::Relaxed;
        let kept = &self.kept[ticket.get() as usize % N];
        let is_it = |order| kept.ticket.load(order) == ticket.get();
        if !is_it(Ordering::Acquire) {
            return None;
        }
        let kind = if kept.kind.load(RELAXED) == 0 { LockErrorKind::Deadlock } else { LockErrorKind::TimedOut };
        let link = |kept: &KeptLink| {
            let cpu = cpu_of(kept.cpu.load(RELAXED))?;
            let (wants_at, holds_at) = (kept.wants_at.load(), kept.holds_at.load());
            Some(Link { cpu, wants: kept.wants.load(RELAXED), wants_at, holds_at })
        };
        let length = kept.length.load(RELAXED);
        let report = Report {
            kind,
            cpu: cpu_of(kept.cpu.load(RELAXED)),
            lock: kept.lock.load(RELAXED),
            at: kept.at.load(),
            waited: u64::from(kept.waited[0].load(RELAXED)) | u64::from(kept.waited[1].load(RELAXED)) << 32,
            holder: cpu_of(kept.holder.load(RELAXED)).map(|cpu| (cpu, kept.holder_at.load())),
            links: core::array::from_fn(|n| if n < length { link(&kept.links[n]) } else { None }),
            length,
        };
        // All of it was read before this.
        fence(Ordering::Acquire);
        is_it(RELAXED).then_some(report)
    }
}
