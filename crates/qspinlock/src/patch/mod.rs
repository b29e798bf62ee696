//! Call sites rewritten when the system starts, so that the choice of a slow path costs nothing.
//!
//! Every lock and every unlock of a [`Chosen`] lock is a *site*: a few bytes of code whose
//! address is recorded in a section of the image. In the file a site looks up the choice. Once that is made, the sites
//! are rewritten to follow it ([`follow`]): a lock calls the chosen slow path, directly, where its fast path has
//! failed; an unlock becomes the very instructions of the chosen one.
//!
//! On x86-64, in ELF images, and not with feature `portable`. Elsewhere, and wherever writing is refused, sites go on
//! looking up the choice: one load that always finds the same, and a branch that always goes the same way. [`status`]
//! tells which.
//!
//! # What may go wrong, and does not
//! * **A site that is not as we know it** (a debugger's breakpoint, a linker with ideas of its own) is left alone. It looks
//!   up the choice, and is counted.
//! * **Writing is refused**, half way or at once. Each site is wholly rewritten or not at all, and a site that looks up the
//!   choice agrees with one that follows it.
//! * **The choice changes** after sites follow it ([`adopt`](crate::start::adopt)). An unlock by the old choice would not
//!   wake who waits by the new one. So the sites are first made to look up again ([`loosen_with`]); while that has not been
//!   done for all of them, the choice cannot be changed.
//! * **Another CPU runs into a site while it is rewritten**: when sites begin to follow, it finds the old instruction or
//!   the new ones, see [`TextWriter`].
//!
//! # Several copies
//! Sites belong to the image (the program, or a shared library) and to the copy of this library that is linked into it;
//! each has a choice of its own, and rewrites its own. Two copies of one version in one image, from two sources, cannot tell
//! their sites apart, so neither rewrites any. With this library as a Rust `dylib` only the sites within that
//! library are rewritten; those of who uses it look up the choice.
//!
//! # In a process
//! A constructor does it, before `main` or when the library is loaded. Pages of code that have sites become private
//! memory of the process; the rest stays shared. No page is writable and executable at once, nor at any time
//! missing.
//!
//! # In a kernel
//! Give [`follow_with`] a [`TextWriter`] when the choice is made, before the second CPU starts. The section must be in
//! the image, under its own name, which has the version of this library; in a linker script, if it is named there at all:
//! `qspinlock_sites_0_1_0 : { *(qspinlock_sites_0_1_0) }`, among what is read-only.

mod chosen;
#[cfg(all(feature = "std", any(target_os = "linux", target_os = "android")))]
mod process;

#[cfg_attr(
    all(
        target_arch = "x86_64",
        target_pointer_width = "64",
        any(target_os = "linux", target_os = "android", target_os = "none"),
        not(feature = "portable"),
        not(miri)
    ),
    path = "x86_64/mod.rs"
)]
#[cfg_attr(
    not(all(
        target_arch = "x86_64",
        target_pointer_width = "64",
        any(target_os = "linux", target_os = "android", target_os = "none"),
        not(feature = "portable"),
        not(miri)
    )),
    path = "none.rs"
)]
mod sites;

pub use chosen::Chosen;
#[cfg(all(feature = "std", any(target_os = "linux", target_os = "android")))]
pub use process::{PatchError, follow};
#[cfg(all(feature = "std", any(target_os = "linux", target_os = "android")))]
pub(crate) use process::{loosen, others_are_gone, refusal};
#[doc(hidden)]
#[cfg(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    any(target_os = "linux", target_os = "android", target_os = "none"),
    not(feature = "portable"),
    not(miri)
))]
pub use sites::slow_path;

use core::fmt;
use core::ops::Deref;

use crate::select::SlowPathKind;
use crate::start;

/// What a site does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SiteKind {
    /// It waits for the lock: where the fast path has failed.
    Acquire,
    /// It unlocks.
    Release,
}

/// A place in the code that follows the choice. A form of it is named by the slow path that it follows; `None`: none,
/// it looks up the choice, as in the file.
#[derive(Clone, Copy, Debug)]
pub struct Site(&'static sites::Record);

impl Site {
    /// What it does.
    #[must_use]
    pub fn kind(self) -> SiteKind {
        self.0.kind().expect("a record without a site is no site")
    }

    /// Where it begins.
    #[must_use]
    pub fn address(self) -> usize {
        self.0.address()
    }

    /// The code of a form. `None` if what it calls is out of its reach.
    #[must_use]
    pub fn code(self, form: Option<SlowPathKind>) -> Option<Code> {
        let bytes = self.0.code(form)?;
        Some(Code { bytes, len: self.0.len() as u8 })
    }

    /// Where a form leaves the site to, if it does: a call, or where there is none, a jump.
    #[must_use]
    pub fn target(self, form: Option<SlowPathKind>) -> Option<usize> {
        self.0.target(form)
    }

    /// What stands there now.
    #[must_use]
    pub fn present(self) -> Code {
        let mut code = Code { bytes: [0; sites::LONGEST], len: self.0.len() as u8 };
        for (n, byte) in code.bytes.iter_mut().take(self.0.len()).enumerate() {
            // SAFETY: a byte of this image's code, which stays as long as the image. It may be written by somebody
            // else, as code; whatever is read is only compared.
            #[allow(unsafe_code, reason = "reads code")]
            unsafe {
                *byte = core::ptr::with_exposed_provenance::<u8>(self.address() + n).read_volatile();
            }
        }
        code
    }

    /// Whether this form stands there now.
    #[must_use]
    pub fn is_as(self, form: Option<SlowPathKind>) -> bool {
        self.code(form).is_some_and(|code| *code == *self.present())
    }

    /// Whether any form does.
    fn is_known(self) -> bool {
        self.is_as(None) || SlowPathKind::ALL.iter().any(|kind| self.is_as(Some(*kind)))
    }
}

/// The code of a site.
#[derive(Clone, Copy)]
pub struct Code {
    bytes: [u8; sites::LONGEST],
    len: u8,
}

impl Deref for Code {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len.into()]
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", &**self)
    }
}

/// The sites of this copy of the library in this image.
pub fn sites() -> impl Iterator<Item = Site> + Clone {
    sites::records().iter().filter(|record| record.kind().is_some()).map(Site)
}

/// A change of code.
#[derive(Clone, Copy, Debug)]
pub struct Edit {
    /// Where.
    pub address: usize,
    /// What is to stand there.
    pub code: Code,
}

/// The changes that make all sites take a form. May be gone through several times, and finds the same as long as
/// nothing has been written.
#[derive(Clone, Copy, Debug)]
pub struct Edits {
    form: Option<SlowPathKind>,
}

impl Edits {
    /// The changes, in no order. Sites that have the form already are not among them, nor those that nobody knows.
    pub fn iter(&self) -> impl Iterator<Item = Edit> + Clone + use<> {
        let form = self.form;
        sites().filter_map(move |site| {
            let code = site.code(form)?;
            (!site.is_as(form) && site.is_known()).then_some(Edit { address: site.address(), code })
        })
    }
}

/// Who can write code.
///
/// # Safety
/// [`write`](Self::write) changes code as told and nothing else. When it returns, whether with an error or not, each
/// edit is done or is not done; with `Ok`, all are, for every CPU that runs this code. Meanwhile a CPU that comes to a
/// place of an edit executes either what was there or all that is to be there.
///
/// That is easy while one CPU runs. For several: new pages in the place of old ones, or all others stopped. What was in
/// the file at a site is one instruction, so that nobody can be in the middle of it; with the other forms somebody
/// can, who was interrupted there.
#[allow(unsafe_code, reason = "an obligation on implementations")]
pub unsafe trait TextWriter {
    /// Why it can fail.
    type Error;

    /// Writes.
    ///
    /// # Errors
    /// If it cannot be done. Better all or nothing; but any part may have been done.
    fn write(&mut self, edits: &Edits) -> Result<(), Self::Error>;
}

/// Makes all sites follow the choice, which is made if it has not been, and cannot be changed from then on
/// ([`AdoptError::Followed`](crate::start::AdoptError::Followed)). One at a time.
///
/// # Errors
/// The writer's. Sites that were not rewritten look up the choice, so nothing is wrong then. If none was, the choice
/// may still be changed.
pub fn follow_with<W: TextWriter>(writer: &mut W) -> Result<(), W::Error> {
    // With no code to follow it, the choice need not be held.
    if sites().next().is_none() {
        return Ok(());
    }
    let kind = start::hold();
    let written = writer.write(&Edits { form: Some(kind) });
    if written.is_err() {
        let_go_if_loose();
    }
    written
}

/// Makes all sites look up the choice again, so that it can be changed. While nobody uses such locks, and one at a
/// time.
///
/// # Errors
/// The writer's. Then some sites may still follow the choice, and it cannot be changed.
pub fn loosen_with<W: TextWriter>(writer: &mut W) -> Result<(), W::Error> {
    let written = writer.write(&Edits { form: None });
    let_go_if_loose();
    written
}

/// Unknown code may be a breakpoint, and an old form beneath it.
fn let_go_if_loose() {
    if sites().all(|site| site.is_as(None)) {
        start::let_go();
    }
}

/// How the sites of this image stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Whether there is patching in this build. If not, there are no sites either.
    pub available: bool,
    /// How many sites there are.
    pub sites: usize,
    /// How many of them follow the choice by what they are.
    pub following: usize,
    /// How many look it up.
    pub looking_up: usize,
    /// How many are neither, so that they were left alone.
    pub unknown: usize,
    /// The slow path that has been chosen, if one has.
    pub slow_path: Option<SlowPathKind>,
    /// The error number with which the system refused to have code rewritten, the last time.
    pub refused: Option<i32>,
}

/// Looks at all sites.
#[must_use]
pub fn status() -> Status {
    let slow_path = start::decided();
    let mut status = Status {
        available: sites::AVAILABLE,
        sites: 0,
        following: 0,
        looking_up: 0,
        unknown: 0,
        slow_path,
        #[cfg(all(feature = "std", any(target_os = "linux", target_os = "android")))]
        refused: refusal(),
        #[cfg(not(all(feature = "std", any(target_os = "linux", target_os = "android"))))]
        refused: None,
    };
    for site in sites() {
        status.sites += 1;
        match site {
            _ if site.is_as(None) => status.looking_up += 1,
            _ if slow_path.is_some() && site.is_as(slow_path) => status.following += 1,
            _ => status.unknown += 1,
        }
    }
    status
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { available, sites, following, looking_up, unknown, slow_path, refused } = *self;
        let name = slow_path.map_or("nothing yet", SlowPathKind::name);
        match () {
            () if !available => return f.write_str("not in this build: each lock and unlock looks up the choice"),
            () if sites == 0 => return f.write_str("no lock in this program follows the choice"),
            () if following == sites => return write!(f, "all {sites} call sites rewritten for {name}"),
            () => write!(f, "{following} of {sites} call sites rewritten for {name}, {looking_up} look up the choice")?,
        }
        if unknown > 0 {
            write!(f, "; unknown code at {unknown}, left alone")?;
        }
        match refused {
            Some(errno) => write!(f, "; the system refused (error {errno})"),
            None => Ok(()),
        }
    }
}
