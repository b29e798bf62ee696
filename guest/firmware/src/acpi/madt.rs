//! MADT: which CPUs there are.

use super::{Error, HEADER, Name, entries, u32_at, u64_at};

/// Behind the header: where the local interrupt controllers are, and flags.
const ENTRIES: usize = HEADER + 8;
const CPU: u8 = 0;
const CONTROLLER_ADDRESS: u8 = 5;
/// A CPU whose id needs 32 bits.
const CPU_32: u8 = 9;
/// It runs, or could; if not, it may come later.
const ENABLED: u32 = 1;
const MAY_BE_ENABLED: u32 = 2;
/// An id of 8 bits that is nobody's.
const NOBODY: u32 = 0xff;

/// A CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its name for interrupts.
    pub apic_id: u32,
    /// Its memory node: numbered from 0, in the order in which CPUs name them.
    pub node: u32,
    /// What SRAT calls that, and SLIT counts by.
    pub domain: u32,
    /// It may be started now. If not, it is one that may come later.
    pub is_enabled: bool,
    /// MADT names it by an id of 32 bits.
    is_32: bool,
}

/// The CPUs of a machine, up to `N`.
#[derive(Clone, Copy, Debug)]
pub struct Cpus<const N: usize> {
    list: [Cpu; N],
    len: usize,
    /// CPUs that are there, or may come, and for which there is no room here.
    pub left_out: u32,
    /// Where the local interrupt controller is.
    pub controller: u64,
}

impl<const N: usize> Cpus<N> {
    /// Those there is room for.
    #[must_use]
    pub fn list(&self) -> &[Cpu] {
        &self.list[..self.len]
    }

    pub(super) fn list_mut(&mut self) -> &mut [Cpu] {
        &mut self.list[..self.len]
    }

    /// All that may ever be there, also without room here.
    #[must_use]
    pub fn possible(&self) -> u32 {
        self.left_out + self.len as u32
    }

    /// Puts the one with this id first.
    ///
    /// False if it is none of them; then nothing changes.
    pub fn put_first(&mut self, apic_id: u32) -> bool {
        let place = self.list().iter().position(|cpu| cpu.apic_id == apic_id);
        if let Some(place) = place {
            self.list[..=place].rotate_right(1);
        }
        place.is_some()
    }
}

pub(super) fn read<const N: usize>(table: &[u8]) -> Result<Cpus<N>, Error> {
    let name = Name::MADT;
    let short = Error::Length { table: name, len: table.len() as u64 };
    let nobody = Cpu { apic_id: 0, node: 0, domain: 0, is_enabled: false, is_32: false };
    let controller = u64::from(u32_at(table, HEADER).ok_or(short)?);
    let mut cpus = Cpus { list: [nobody; N], len: 0, left_out: 0, controller };
    if table.len() < ENTRIES {
        return Err(short);
    }
    for entry in entries(table, name, ENTRIES) {
        let entry = entry?;
        let wrong = Error::Entry { table: name, offset: entry.offset };
        let number = |bytes: &[u8], at| u32_at(bytes, at).ok_or(wrong);
        let (apic_id, flags, is_32) = match entry.kind {
            CPU => {
                let bytes = entry.exactly(8, name)?;
                (u32::from(bytes[3]), number(bytes, 4)?, false)
            }
            CPU_32 => {
                let bytes = entry.exactly(16, name)?;
                (number(bytes, 4)?, number(bytes, 8)?, true)
            }
            CONTROLLER_ADDRESS => {
                cpus.controller = u64_at(entry.exactly(12, name)?, 4).ok_or(wrong)?;
                continue;
            }
            _ => continue,
        };
        let is_nobody = if is_32 { apic_id == u32::MAX } else { apic_id == NOBODY };
        if flags & (ENABLED | MAY_BE_ENABLED) == 0 || is_nobody {
            continue;
        }
        match cpus.list().iter().find(|cpu| cpu.apic_id == apic_id) {
            // Some firmware names a CPU in both ways.
            Some(known) if known.is_32 != is_32 => {}
            Some(_) => return Err(Error::SameCpu { table: name, apic_id }),
            None if cpus.len == N => cpus.left_out += 1,
            None => {
                cpus.list[cpus.len] = Cpu { apic_id, is_enabled: flags & ENABLED != 0, is_32, ..nobody };
                cpus.len += 1;
            }
        }
    }
    if cpus.possible() == 0 { Err(Error::NoCpu) } else { Ok(cpus) }
}
