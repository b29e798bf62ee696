//! From the root pointer to the tables.

use super::{Error, HEADER, LONGEST, Memory, Name, Tables, u32_at, u64_at};

const POINTER: &[u8; 8] = b"RSD PTR ";
/// Bytes of the pointer that the first version has, and that its sum covers.
const POINTER_1: usize = 20;
/// What a later one has at least.
const POINTER_2: usize = 36;
/// And at most, that anybody has seen; more is nonsense.
const POINTER_MOST: usize = 4096;

pub(super) fn find<'m>(memory: &'m impl Memory, address: u64) -> Result<Tables<'m>, Error> {
    let (list, name, step) = list(memory, address)?;
    let bytes = whole(memory, list, name)?;
    if !(bytes.len() - HEADER).is_multiple_of(step) {
        return Err(Error::Length { table: name, len: bytes.len() as u64 });
    }
    let mut nameless = None;
    let mut tables = Tables { madt: Ok(None), srat: Ok(None), slit: Ok(None) };
    for at in (HEADER..bytes.len()).step_by(step) {
        let entry = if step == 8 { u64_at(bytes, at) } else { u32_at(bytes, at).map(u64::from) };
        // Firmware leaves gaps.
        let Some(entry) = entry.filter(|entry| *entry != 0) else { continue };
        if entry == list {
            return Err(Error::Cycle { address: list });
        }
        let Some(found) = memory.bytes(entry, 4).and_then(|bytes| bytes.first_chunk().copied()).map(Name) else {
            nameless = Some(Error::NotMemory { table: name, address: entry, len: 4 });
            continue;
        };
        let place = match found {
            Name::MADT => &mut tables.madt,
            Name::SRAT => &mut tables.srat,
            Name::SLIT => &mut tables.slit,
            _ => continue,
        };
        *place = match place {
            Ok(None) => whole(memory, entry, found).map(Some),
            _ => Err(Error::Twice { table: found }),
        };
    }
    // One that cannot even be named may have been any of those that were not found.
    if let Some(error) = nameless {
        for table in [&mut tables.madt, &mut tables.srat, &mut tables.slit] {
            *table = table.and_then(|found| found.map_or(Err(error), |bytes| Ok(Some(bytes))));
        }
    }
    Ok(tables)
}

/// Where the list of tables is, which one, and how wide its entries are.
fn list(memory: &impl Memory, address: u64) -> Result<(u64, Name, usize), Error> {
    let table = Name::RSDP;
    let read = |len| memory.bytes(address, len).ok_or(Error::NotMemory { table, address, len });
    let first = read(POINTER_1)?;
    if !first.starts_with(POINTER) {
        return Err(Error::Signature { table, address });
    }
    if !adds_up(first) {
        return Err(Error::Sum { table });
    }
    // The byte at 15 is the revision.
    if first[15] >= 2 {
        let len = u32_at(read(POINTER_2)?, 20).unwrap_or(0) as usize;
        if !(POINTER_2..=POINTER_MOST).contains(&len) {
            return Err(Error::Length { table, len: len as u64 });
        }
        let all = read(len)?;
        if !adds_up(all) {
            return Err(Error::Sum { table });
        }
        if let Some(list) = u64_at(all, 24).filter(|list| *list != 0) {
            return Ok((list, Name::XSDT, 8));
        }
    }
    match u32_at(first, 16) {
        Some(list) if list != 0 => Ok((list.into(), Name::RSDT, 4)),
        _ => Err(Error::Missing(Name::RSDT)),
    }
}

/// The table at an address, header and all: as long as it says, and its sum is right.
fn whole(memory: &impl Memory, address: u64, table: Name) -> Result<&[u8], Error> {
    let read = |len| memory.bytes(address, len).ok_or(Error::NotMemory { table, address, len });
    let header = read(HEADER)?;
    if !header.starts_with(&table.0) {
        return Err(Error::Signature { table, address });
    }
    let len = u32_at(header, 4).unwrap_or(0) as usize;
    if !(HEADER..=LONGEST).contains(&len) {
        return Err(Error::Length { table, len: len as u64 });
    }
    let all = read(len)?;
    if adds_up(all) { Ok(all) } else { Err(Error::Sum { table }) }
}

fn adds_up(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}
