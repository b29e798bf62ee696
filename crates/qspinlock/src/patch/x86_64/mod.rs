//! x86-64 ELF: what is recorded of a site, and the code that may stand there.
//!
//! | | in the file | native, numa, test-and-set | paravirt | parking |
//! |---|---|---|---|---|
//! | acquire, 5 bytes | `call look_up` | `call` its own | `call paravirt` | `call parking` |
//! | release, 13 bytes | `jmp cold` | `mov byte [rdi], 0` | `lock dec byte [rdi]` | `test byte [rdi + 1], 0xfe` |
//! | | | | `jne cold` | `jne cold` |
//! | | | | | `mov byte [rdi], 0` |
//!
//! *cold* is a block of the function that unlocks, out of the way: it calls [`entry::release`], which looks up the
//! choice. Being a block that the compiler knows of, it costs the code around the site no register; and a call of it
//! can be seen in a backtrace.
//!
//! The code in the file is *one* instruction, at the start of the site, whose successor is the end of the site or a
//! block elsewhere. So no CPU is ever inside of a site that has not been rewritten, and the other forms may have any length.
//!
//! # What each form does is what `word` says
//! * `mov byte [rdi], 0` is `LockWord::release`, as `atomic/x86_64.rs` has it.
//! * `test`, `jne`, `mov` are `LockWord::release_hot`: 0xfe is its mask, moved to the second byte. What refuses goes to
//!   the cold block, which tries the same again and then does what the slow path does.
//! * `lock dec byte [rdi]` is `LockWord::release_fast`, as `atomic/x86_64.rs` has it. The cold block counts down once more:
//!   from 3 to 2, which says the same, until the slow unlock stores 0. Three bytes in the place of a call that would have
//!   to preserve registers.
//!
//! # The record
//! Offsets from their own place: to the site, and to where each form goes. So the section is read-only, is the same
//! wherever the image is loaded, and needs no relocation at run time. It is *linked* to the section of its function
//! (flag `o`): a linker that drops the function drops the record, and keeps it otherwise.

mod entry;
mod site;

pub(crate) use site::{acquire, release};

use super::SiteKind;
use crate::atomic::AtomicCell;
use crate::machine::GlobalMachine;
use crate::select::SlowPathKind;

/// Whether there is patching in this build.
pub(crate) const AVAILABLE: bool = true;

/// Bytes of the longest site.
pub(crate) const LONGEST: usize = RELEASE;
const ACQUIRE: usize = 5;
const RELEASE: usize = 13;

const KIND_ACQUIRE: i32 = 1;
const KIND_RELEASE: i32 = 2;

/// A site, as its assembly records it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Record {
    site: i32,
    /// 0: no site. There is one such record, so that there is a section.
    kind: i32,
    /// Acquire: the look-up. Release: the cold block.
    in_file: i32,
    native: i32,
    numa: i32,
    paravirt: i32,
    parking: i32,
    test_and_set: i32,
}

/// The address that is so far from the place where that is written.
fn from_here(offset: &i32) -> usize {
    core::ptr::from_ref(offset).addr().wrapping_add_signed(*offset as isize)
}

impl Record {
    pub(crate) fn kind(&self) -> Option<SiteKind> {
        match self.kind {
            KIND_ACQUIRE => Some(SiteKind::Acquire),
            KIND_RELEASE => Some(SiteKind::Release),
            _ => None,
        }
    }

    pub(crate) fn address(&self) -> usize {
        from_here(&self.site)
    }

    pub(crate) fn len(&self) -> usize {
        if self.kind == KIND_ACQUIRE { ACQUIRE } else { RELEASE }
    }

    /// Where a form goes by its call, or, without a call, by its jump.
    pub(crate) fn target(&self, form: Option<SlowPathKind>) -> Option<usize> {
        use SlowPathKind::{Native, Numa, Paravirt, Parking, TestAndSet};
        let offset = match (form, self.kind) {
            (None, _) => &self.in_file,
            (Some(Native), KIND_ACQUIRE) => &self.native,
            (Some(Numa), KIND_ACQUIRE) => &self.numa,
            (Some(TestAndSet), KIND_ACQUIRE) => &self.test_and_set,
            (Some(Parking), KIND_ACQUIRE) => &self.parking,
            (Some(Paravirt), KIND_ACQUIRE) => &self.paravirt,
            (Some(Parking | Paravirt), _) => &self.in_file,
            (Some(Native | Numa | TestAndSet), _) => return None,
        };
        Some(from_here(offset))
    }

    /// The code of a form; [`len`](Self::len) bytes of it. `None` if it is out of reach.
    pub(crate) fn code(&self, form: Option<SlowPathKind>) -> Option<[u8; LONGEST]> {
        let mut code = Code { at: self.address(), bytes: [0; LONGEST], len: 0 };
        if self.kind == KIND_ACQUIRE {
            code.branch(CALL, self.target(form)?)?;
            return Some(code.bytes);
        }
        match form {
            None => code.branch(JMP, from_here(&self.in_file))?,
            Some(SlowPathKind::Paravirt) => {
                code.push(COUNT_DOWN);
                code.branch(JNE, from_here(&self.in_file))?;
            }
            Some(SlowPathKind::Parking) => {
                code.push(TEST_AWAITED);
                code.branch(JNE, from_here(&self.in_file))?;
                code.push(STORE_FREE);
            }
            Some(SlowPathKind::Native | SlowPathKind::Numa | SlowPathKind::TestAndSet) => code.push(STORE_FREE),
        }
        code.push(NOPS[RELEASE - code.len]);
        Some(code.bytes)
    }
}

const CALL: &[u8] = &[0xe8];
const JMP: &[u8] = &[0xe9];
const JNE: &[u8] = &[0x0f, 0x85];
/// `test byte ptr [rdi + 1], 0xfe`
const TEST_AWAITED: &[u8] = &[0xf6, 0x47, 0x01, 0xfe];
/// `lock dec byte ptr [rdi]`
const COUNT_DOWN: &[u8] = &[0xf0, 0xfe, 0x0f];
/// `mov byte ptr [rdi], 0`
const STORE_FREE: &[u8] = &[0xc6, 0x07, 0x00];
/// One instruction that does nothing, of each length that is needed.
const NOPS: [&[u8]; 11] = [
    &[],
    &[],
    &[],
    &[],
    &[0x0f, 0x1f, 0x40, 0],
    &[],
    &[],
    &[],
    &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
    &[],
    &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
];

/// Code for a place.
struct Code {
    at: usize,
    bytes: [u8; LONGEST],
    len: usize,
}

impl Code {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// A branch to an absolute address. `None` if that is too far away.
    fn branch(&mut self, opcode: &[u8], to: usize) -> Option<()> {
        self.push(opcode);
        let from = self.at.wrapping_add(self.len + 4);
        let offset = i32::try_from(to.wrapping_sub(from).cast_signed()).ok()?;
        self.push(&offset.to_le_bytes());
        Some(())
    }
}

/// What the sites of this image recorded.
pub(crate) fn records() -> &'static [Record] {
    site::records()
}

/// Where the slow path begins that an acquire site reaches, for a test that follows the code.
#[doc(hidden)]
#[must_use]
pub fn slow_path<M: GlobalMachine<Cell = AtomicCell>>(kind: SlowPathKind) -> usize {
    entry::slow_path::<M>(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_as_long_as_its_site() {
        // Offsets that lead somewhere near, from a record that is nowhere in a section.
        let of =
            |kind| Record { site: 64, kind, in_file: 8, native: 8, numa: 8, paravirt: 8, parking: 8, test_and_set: 8 };
        for kind in [KIND_ACQUIRE, KIND_RELEASE] {
            let record = of(kind);
            for form in SlowPathKind::ALL.iter().copied().map(Some).chain([None]) {
                let code = record.code(form).expect("near");
                assert!(code[record.len()..].iter().all(|byte| *byte == 0), "{form:?}");
                assert_ne!(code[0], 0, "{form:?}");
            }
        }
    }

    #[test]
    fn a_target_out_of_reach_has_no_code() {
        let mut code = Code { at: 1 << 40, bytes: [0; LONGEST], len: 0 };
        assert_eq!(code.branch(CALL, (1 << 40) + 5 + 0x7fff_ffff), Some(()));
        assert_eq!(code.bytes[..5], [0xe8, 0xff, 0xff, 0xff, 0x7f]);
        code.len = 0;
        assert_eq!(code.branch(CALL, (1 << 40) + 5 + 0x8000_0000), None);
        code.len = 0;
        assert_eq!(code.branch(JNE, (1 << 40) + 6 - 0x8000_0000), Some(()));
        code.len = 0;
        assert_eq!(code.branch(JNE, (1 << 40) + 5 - 0x8000_0000), None);
    }
}
