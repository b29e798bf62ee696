//! Locks that are freed as soon as they are released. The lock protects the count of those who will still use it; who
//! counts down to 0 frees it, while the one before may still be in its unlock. So an unlock must not touch the lock
//! once another thread can have it.
//!
//! Each has a page of its own, which nobody may touch afterwards: not even to read it.

use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::run::{FREED, How, Place, Run};
use super::section::Guarded;
use super::{signals, worker};
use crate::locks::Contender;

const PAGES: usize = 512;
const MOST_USERS: u64 = 6;

/// What the handler of a fault must know. There is one arena in a process.
static START: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);
static PAGE: AtomicUsize = AtomicUsize::new(0);
static TOUCHES: AtomicU64 = AtomicU64::new(0);
static FIRST_THREAD: AtomicU32 = AtomicU32::new(0);

/// How often freed memory was touched, and the thread that was the first to.
pub(super) fn touches() -> (u64, u32) {
    (TOUCHES.load(Relaxed), FIRST_THREAD.load(Relaxed))
}

struct Mortal<L> {
    guarded: Guarded<L>,
    /// Those who will still use it. Under the lock.
    left: UnsafeCell<u32>,
    users: u32,
}

/// An invitation to use a lock once. There are as many as the lock counts users, so it lives until the last is used.
struct Invitation<L>(NonNull<Mortal<L>>);

// SAFETY: what it names is made to be shared, and lives, see above.
unsafe impl<L> Send for Invitation<L> {}

/// The pages, and the invitations.
pub(super) struct Arena<L>(Mutex<Inner<L>>);

struct Inner<L> {
    /// Pages that nobody uses; the next to be used has been freed the longest ago.
    free: VecDeque<usize>,
    invitations: Vec<Invitation<L>>,
    created: u64,
}

impl<L: Contender> Arena<L> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Inner { free: VecDeque::new(), invitations: Vec::new(), created: 0 }))
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner<L>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many locks there were.
    pub(super) fn created(&self) -> u64 {
        self.inner().created
    }

    /// Reserves the pages, all closed, and notices who touches them.
    pub(super) fn open(&self) -> std::io::Result<()> {
        let page = rustix::param::page_size();
        // SAFETY: a new mapping, nowhere in particular.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), PAGES * page, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        assert!(size_of::<Mortal<L>>() <= page, "a lock fits into a page");
        let start = start as usize;
        START.store(start, Relaxed);
        END.store(start + PAGES * page, Relaxed);
        PAGE.store(page, Relaxed);
        self.inner().free = (0..PAGES).map(|n| start + n * page).collect();
        let action = touched as *const () as usize;
        signals::set_handler(
            libc::SIGSEGV,
            action,
            libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART,
            signals::none(),
        )
    }

    /// `None` if all pages are in use, or cannot be opened.
    fn invitation(&self, place: &Place) -> Option<Invitation<L>> {
        let mut inner = self.inner();
        if inner.invitations.is_empty() {
            let at = inner.free.pop_front()?;
            protect(at, libc::PROT_READ | libc::PROT_WRITE).ok()?;
            let users = 2 + place.below(MOST_USERS - 1) as u32;
            let mortal = NonNull::new(ptr::with_exposed_provenance_mut::<Mortal<L>>(at))?;
            // SAFETY: a page that is large enough and nobody's.
            unsafe { mortal.write(Mortal { guarded: Guarded::new(), left: users.into(), users }) };
            inner.created += 1;
            inner.invitations.extend((0..users).map(|_| Invitation(mortal)));
        }
        inner.invitations.pop()
    }

    /// Frees it, at once.
    fn free(&self, mortal: NonNull<Mortal<L>>) {
        // SAFETY: the last user is done with it.
        unsafe { mortal.drop_in_place() };
        let at = mortal.as_ptr().expose_provenance();
        if protect(at, libc::PROT_NONE).is_ok() {
            self.inner().free.push_back(at);
        }
    }
}

/// Uses such a lock once. False if none could be had.
pub(super) fn use_one<L: Contender>(run: &Run<L>, place: &Place) -> bool {
    let Some(Invitation(mortal)) = run.arena.invitation(place) else { return false };
    let mut is_last = false;
    {
        // SAFETY: it lives until all who were invited are done, and we are not yet.
        let Mortal { guarded, left, users } = unsafe { mortal.as_ref() };
        run.locked_at(place, guarded, FREED, How::Wait, &mut || {
            worker::hold(run, place);
            // SAFETY: under the lock. A lock that does not exclude loses counts here: it is then found elsewhere.
            is_last = unsafe {
                let now = left.get().read_volatile().wrapping_sub(1);
                left.get().write_volatile(now);
                now == 0
            };
            if is_last {
                // This one is counted at the end of the section.
                guarded.expect(u64::from(*users) - 1, FREED, place.who(), &run.overlap);
            }
        });
        // From here on the lock may be gone, unless we are the last.
    }
    if is_last {
        run.arena.free(mortal);
    }
    true
}

fn protect(at: usize, how: libc::c_int) -> std::io::Result<()> {
    // SAFETY: one of our own pages, which nobody uses; or whose use is what we want to see.
    let done = unsafe { libc::mprotect(ptr::with_exposed_provenance_mut(at), PAGE.load(Relaxed), how) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The handler of a fault. One in the arena is noted; the access then goes through, so that there is a report.
extern "C" fn touched(_: libc::c_int, info: *const libc::siginfo_t, _: *const libc::c_void) {
    // SAFETY: the kernel passes a live `siginfo_t`, for a signal that has an address.
    let at = unsafe { (*info).si_addr() } as usize;
    if (START.load(Relaxed)..END.load(Relaxed)).contains(&at) {
        if TOUCHES.fetch_add(1, Relaxed) == 0 {
            FIRST_THREAD.store(signals::my_thread(), Relaxed);
        }
        if protect(at & !(PAGE.load(Relaxed) - 1), libc::PROT_READ | libc::PROT_WRITE).is_ok() {
            return;
        }
    }
    // Somebody else's fault: it happens again as soon as we return, and ends the process.
    // SAFETY: no memory is involved.
    unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
}
