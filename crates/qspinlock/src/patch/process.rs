//! A process rewrites its own code: by pages that replace those that are there.
//!
//! ```text
//!   code        r-x  ....[site].....[site]....        ......
//!   map         rw-       copy  copy                        \
//!   change      rw-       copy' copy'                        }  nothing has happened yet
//!   mprotect    r-x       copy' copy'                       /   a hardened system refuses here
//!   mremap      r-x  ....[copy'][copy']....           the kernel puts them in place, with no moment between
//! ```
//!
//! So no page is ever writable and executable; the code of this function, or of the C library in a static program, may
//! itself be on such a page; and another thread finds old code or new.
//!
//! The last step takes the old page away before it puts the new one there. If the system then cannot (it accounts for
//! every page, `vm.overcommit_memory=2`, and the last one has just gone) there is no code left to say so. Nobody has
//! seen that.

#![allow(unsafe_code, reason = "maps memory, and replaces code by it")]

use core::cell::Cell;
use core::ffi::c_void;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use super::{Edit, Edits, TextWriter, follow_with, loosen_with};

/// Why code was not rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatchError {
    /// The system refused, with this error number.
    Refused(i32),
    /// Somebody else is at it.
    Busy,
}

impl fmt::Display for PatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(errno) => write!(f, "the system refused to have code rewritten (error {errno})"),
            Self::Busy => f.write_str("code is being rewritten already"),
        }
    }
}

impl core::error::Error for PatchError {}

static BUSY: AtomicBool = AtomicBool::new(false);
/// The last refusal. 0: none.
static REFUSED: AtomicI32 = AtomicI32::new(0);

pub(crate) fn refusal() -> Option<i32> {
    Some(REFUSED.load(Ordering::Relaxed)).filter(|errno| *errno != 0)
}

/// Makes the sites of this image follow the choice ([`follow_with`]), by the system's means. It has been done before
/// `main`, or when the image was loaded, so this is for who wants to try again.
///
/// # Errors
/// If the system refuses, or somebody is at it. Then sites look up the choice, and all works.
pub fn follow() -> Result<(), PatchError> {
    alone(|| follow_with(&mut Process))
}

/// Makes them look it up again.
pub(crate) fn loosen() -> Result<(), PatchError> {
    alone(|| loosen_with(&mut Process))
}

/// In the child of a `fork`: whoever was at it is not there, and each site is as it was or as it was to be.
pub(crate) fn others_are_gone() {
    BUSY.store(false, Ordering::Relaxed);
}

fn alone(write: impl FnOnce() -> Result<(), i32>) -> Result<(), PatchError> {
    if BUSY.swap(true, Ordering::Acquire) {
        return Err(PatchError::Busy);
    }
    let written = write();
    REFUSED.store(written.err().unwrap_or(0), Ordering::Relaxed);
    BUSY.store(false, Ordering::Release);
    written.map_err(PatchError::Refused)
}

// By number: not every C library has a function for it.
const MAY_MOVE: usize = 1;
const FIXED: usize = 2;

/// The code of this process.
struct Process;

// SAFETY: the copies are as what they replace, but for the edits; they are put there one run of pages at a time, by the
// kernel, which lets no thread see less than a page of the old or the new. A site on two pages is in one run. What is
// in the file at a site is one instruction: a thread that fetches it from two pages waits for the second until both are
// there.
unsafe impl TextWriter for Process {
    type Error = i32;

    fn write(&mut self, edits: &Edits) -> Result<(), i32> {
        let count = edits.iter().count();
        if count == 0 {
            return Ok(());
        }
        // No allocation: a program's allocator may take one of our locks.
        let mut room = Mapping::new(count * size_of::<Edit>())?;
        let list = room.list(edits.iter(), count);
        list.sort_unstable_by_key(|edit| edit.address);
        let page = page_size();
        let total = runs(list, page).map(|run| run.len).sum();
        let copies = Mapping::new(total)?;
        let mut at = 0;
        for run in runs(list, page) {
            // SAFETY: whole pages of code of this image, from its first to its last site; the copy has room for all
            // runs.
            unsafe {
                let code = core::ptr::with_exposed_provenance::<u8>(run.start);
                code.copy_to_nonoverlapping(copies.start.add(at), run.len);
                for edit in run.edits {
                    let to = copies.start.add(at + (edit.address - run.start));
                    edit.code.as_ptr().copy_to_nonoverlapping(to, edit.code.len());
                }
            }
            at += run.len;
        }
        // SAFETY: our own pages. All of them, before anything is changed.
        check(unsafe { libc::mprotect(copies.start.cast(), copies.len, libc::PROT_READ | libc::PROT_EXEC) } == 0)?;
        let mut at = 0;
        for run in runs(list, page) {
            let code = core::ptr::with_exposed_provenance_mut::<c_void>(run.start);
            // SAFETY: moves a copy to where it was made from.
            let moved = unsafe {
                let copy = copies.start.add(at);
                libc::syscall(libc::SYS_mremap, copy, run.len, run.len, MAY_MOVE | FIXED, code)
            };
            check(moved != -1)?;
            at += run.len;
            copies.gone.set(at);
        }
        Ok(())
    }
}

fn check(went_well: bool) -> Result<(), i32> {
    if went_well { Ok(()) } else { Err(errno::errno().0) }
}

fn page_size() -> usize {
    // SAFETY: asks for a number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Memory of our own, until it is dropped.
struct Mapping {
    start: *mut u8,
    len: usize,
    /// So much of it has been moved elsewhere. Whatever is in its place now is somebody else's.
    gone: Cell<usize>,
}

impl Mapping {
    fn new(len: usize) -> Result<Self, i32> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new pages, where there is room.
        let start = unsafe { libc::mmap(core::ptr::null_mut(), len, access, flags, -1, 0) };
        check(start != libc::MAP_FAILED)?;
        Ok(Self { start: start.cast(), len, gone: Cell::new(0) })
    }

    /// The edits, of which there are `count`, in this memory.
    fn list(&mut self, edits: impl Iterator<Item = Edit>, count: usize) -> &mut [Edit] {
        let list: *mut Edit = self.start.cast();
        let mut len = 0;
        for edit in edits.take(count) {
            // SAFETY: the memory has room for so many, and is aligned to a page.
            unsafe { list.add(len).write(edit) };
            len += 1;
        }
        // SAFETY: so many have been written.
        unsafe { core::slice::from_raw_parts_mut(list, len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let gone = self.gone.get();
        if gone < self.len {
            // SAFETY: the rest of our own pages, of which nothing is used any more.
            unsafe { libc::munmap(self.start.add(gone).cast(), self.len - gone) };
        }
    }
}

/// Pages that follow one another, all with edits. Those between two runs stay as they are: shared with other processes,
/// and perhaps no code at all.
struct Run<'a> {
    start: usize,
    len: usize,
    edits: &'a [Edit],
}

/// The runs of a sorted list.
fn runs(list: &[Edit], page: usize) -> impl Iterator<Item = Run<'_>> {
    let mut rest = list;
    core::iter::from_fn(move || {
        let start = rest.first()?.address & !(page - 1);
        let end_of = |edit: &Edit| (edit.address + edit.code.len()).next_multiple_of(page);
        let (mut end, mut count) = (start, 0);
        // The first is in any case.
        while let Some(edit) = rest.get(count).filter(|edit| edit.address & !(page - 1) <= end) {
            (end, count) = (end_of(edit), count + 1);
        }
        let (edits, later) = rest.split_at(count);
        rest = later;
        Some(Run { start, len: end - start, edits })
    })
}
