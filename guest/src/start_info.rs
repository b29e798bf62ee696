//! What PVH hands over: the memory map, the command line, where ACPI's tables begin.

use guest_firmware::acpi::Memory;

/// Bytes of a command line that are looked at.
const LONGEST_LINE: usize = 4096;
/// Addresses from here on are not mapped.
const MAPPED: u64 = 4 << 30;
const MAGIC: u32 = 0x336e_c578;
const USABLE: u32 = 1;

/// As PVH defines it, version 1.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Raw {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    map: u64,
    map_entries: u32,
    reserved: u32,
}

/// A range of the memory map.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Range {
    start: u64,
    len: u64,
    kind: u32,
    reserved: u32,
}

/// What the kernel was started with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StartInfo {
    /// Where ACPI's root pointer is; 0 if nobody said.
    pub(crate) rsdp: u64,
    /// As it was given.
    pub(crate) command_line: &'static [u8],
    map: &'static [Range],
}

impl StartInfo {
    /// Reads it. `None` if this is not that.
    ///
    /// # Safety
    /// `address` is what PVH's entry was called with, and the first 4 GiB are mapped.
    pub(crate) unsafe fn read(address: u64) -> Option<Self> {
        if address == 0 || address >= MAPPED - size_of::<Raw>() as u64 {
            return None;
        }
        // SAFETY: mapped, and plain numbers; nobody writes it. What it points to is checked to be mapped as well.
        unsafe {
            let raw = (address as *const Raw).read_unaligned();
            if raw.magic != MAGIC || raw.version < 1 {
                return None;
            }
            let map_len = u64::from(raw.map_entries) * size_of::<Range>() as u64;
            let is_mapped = raw.map != 0 && raw.map.is_multiple_of(8) && raw.map < MAPPED && map_len < MAPPED - raw.map;
            let entries = if is_mapped { raw.map_entries as usize } else { 0 };
            let map = if entries == 0 { &[] } else { core::slice::from_raw_parts(raw.map as *const Range, entries) };
            let mut command_line: &[u8] = &[];
            if raw.command_line != 0 && raw.command_line < MAPPED - LONGEST_LINE as u64 {
                let bytes = core::slice::from_raw_parts(raw.command_line as *const u8, LONGEST_LINE);
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(LONGEST_LINE);
                command_line = &bytes[..end];
            }
            Some(Self { rsdp: raw.rsdp, command_line, map })
        }
    }

    /// Bytes of memory that may be used.
    pub(crate) fn usable(&self) -> u64 {
        self.map.iter().filter(|range| range.kind == USABLE).fold(0, |sum, range| sum.saturating_add(range.len))
    }

    /// Ranges in the map.
    pub(crate) fn ranges(&self) -> usize {
        self.map.len()
    }

    /// Whether these bytes are memory that may be used.
    pub(crate) fn is_usable(&self, start: u64, len: u64) -> bool {
        self.holds(start, len, |range| range.kind == USABLE)
    }

    fn holds(&self, start: u64, len: u64, which: impl Fn(&Range) -> bool) -> bool {
        let Some(end) = start.checked_add(len) else { return false };
        self.map.iter().any(|range| {
            which(range) && range.start <= start && range.start.checked_add(range.len).is_some_and(|past| end <= past)
        })
    }
}

/// Whatever the map knows, memory or firmware's own: tables are among either. Elsewhere may be devices.
impl Memory for StartInfo {
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
        let is_mapped = address != 0 && address.checked_add(len as u64).is_some_and(|end| end <= MAPPED);
        if !is_mapped || !self.holds(address, len as u64, |_| true) {
            return None;
        }
        // SAFETY: mapped, in memory, and written by the firmware alone, which is done.
        Some(unsafe { core::slice::from_raw_parts(address as *const u8, len) })
    }
}
