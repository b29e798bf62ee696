//! Kernels of a few instructions, for `qspin boot` to be wrong about.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the code is, and what is executed first, in 32 bits and without paging.
const ENTRY: u32 = 0x20_1000;
const CODE_AT: usize = 0x1000;
const NOTE_AT: usize = 0x100;

/// Does nothing, with interrupts off: `cli; hlt; jmp`.
pub(crate) const SILENT: &[u8] = b"\xfa\xf4\xeb\xfd";
/// An instruction that is none, with nobody to catch that.
pub(crate) const FAULTS: &[u8] = b"\x0f\x0b";
/// Has QEMU exit with "passed", and says nothing before: `mov edx, 0xf4; mov eax, 16; out dx, eax; hlt`.
pub(crate) const LIES: &[u8] = b"\xba\xf4\x00\x00\x00\xb8\x10\x00\x00\x00\xef\xf4";

/// Writes `text` to the serial port for ever.
pub(crate) fn repeats(text: &str) -> Vec<u8> {
    let mut code = b"\xba\xf8\x03\x00\x00".to_vec(); // mov edx, 0x3f8
    for byte in text.bytes() {
        code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    let back = -i32::try_from(code.len()).expect("short");
    code.push(0xe9); // jmp to the start
    code.extend((back - 5).to_le_bytes());
    code
}

/// An image with that code, as QEMU boots it; or one without the note that says where to enter.
pub(crate) fn elf(code: &[u8], note: bool) -> Vec<u8> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    // Long ones, each in two words.
    let segment = |kind: u32, flags: u32, at: usize, address: u32, len: usize| {
        let (at, len) = (at as u32, len as u32);
        words(&[kind, flags, at, 0, address, 0, address, 0, len, 0, len, 0, 4, 0])
    };
    // Of Xen's, type 18: the 32-bit entry.
    let entry = [words(&[4, 4, 18]), b"Xen\0".to_vec(), words(&[ENTRY])].concat();
    let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    image.extend(words(&[2 | 62 << 16, 1, ENTRY, 0, 64, 0, 0, 0, 0, 64 | 56 << 16, 2, 0]));
    image.extend(segment(1, 5, CODE_AT, ENTRY, code.len()));
    image.extend(segment(if note { 4 } else { 6 }, 4, NOTE_AT, 0, entry.len()));
    image.resize(NOTE_AT, 0);
    image.extend(entry);
    image.resize(CODE_AT, 0);
    image.extend(code);
    image
}

/// A path of one's own.
pub(crate) fn path(name: &str) -> PathBuf {
    static PATHS: AtomicU32 = AtomicU32::new(0);
    let number = PATHS.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("qspin-boot-{}-{number}-{name}", std::process::id()))
}

/// A file that is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Planted(pub(crate) PathBuf);

impl Planted {
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Self {
        let path = path(name);
        std::fs::write(&path, bytes).expect("a file");
        Self(path)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("plain")
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
