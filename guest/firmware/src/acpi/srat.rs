//! SRAT: which CPU is in which proximity domain.

use super::{Cpu, Cpus, Error, HEADER, Name, entries, u32_at};

/// Behind the header: reserved.
const ENTRIES: usize = HEADER + 12;
const CPU: u8 = 0;
const MEMORY: u8 = 1;
const CPU_32: u8 = 2;
const ENABLED: u32 = 1;
/// Tables of the first revision have domains of 8 bits, and anything in the other 24.
const WIDE_SINCE: u8 = 2;

/// Sets the node and domain of each. How many nodes there are.
pub(super) fn place<const N: usize>(table: &[u8], cpus: &mut Cpus<N>) -> Result<u32, Error> {
    let mut placed = *cpus;
    let nodes = place_in(table, placed.list_mut())?;
    *cpus = placed;
    Ok(nodes)
}

/// In the place of a CPU's node, as long as those are not numbered: whether its domain is known.
const NOT_YET: u32 = u32::MAX;
const KNOWN: u32 = u32::MAX - 1;

fn place_in(table: &[u8], cpus: &mut [Cpu]) -> Result<u32, Error> {
    let name = Name::SRAT;
    if table.len() < ENTRIES {
        return Err(Error::Length { table: name, len: table.len() as u64 });
    }
    cpus.iter_mut().for_each(|cpu| cpu.node = NOT_YET);
    for entry in entries(table, name, ENTRIES) {
        let entry = entry?;
        let wrong = Error::Entry { table: name, offset: entry.offset };
        let number = |bytes: &[u8], at| u32_at(bytes, at).ok_or(wrong);
        let (apic_id, domain, flags) = match entry.kind {
            CPU => {
                let bytes = entry.exactly(16, name)?;
                let high = if table[8] >= WIDE_SINCE { [bytes[9], bytes[10], bytes[11]] } else { [0; 3] };
                let domain = u32::from_le_bytes([bytes[2], high[0], high[1], high[2]]);
                (u32::from(bytes[3]), domain, number(bytes, 4)?)
            }
            CPU_32 => {
                let bytes = entry.exactly(24, name)?;
                (number(bytes, 8)?, number(bytes, 4)?, number(bytes, 12)?)
            }
            MEMORY => {
                entry.exactly(40, name)?;
                continue;
            }
            _ => continue,
        };
        if flags & ENABLED == 0 {
            continue;
        }
        // It may know CPUs for which there is no room.
        let Some(cpu) = cpus.iter_mut().find(|cpu| cpu.apic_id == apic_id) else { continue };
        if cpu.node == KNOWN && cpu.domain != domain {
            return Err(Error::SameCpu { table: name, apic_id });
        }
        (cpu.node, cpu.domain) = (KNOWN, domain);
    }
    number_nodes(cpus)
}

/// Numbers the domains as they come.
fn number_nodes(cpus: &mut [Cpu]) -> Result<u32, Error> {
    let mut nodes = 0;
    for n in 0..cpus.len() {
        let (before, [cpu, ..]) = cpus.split_at_mut(n) else { break };
        if cpu.node == NOT_YET {
            return Err(Error::NoDomain { apic_id: cpu.apic_id });
        }
        cpu.node = before.iter().find(|other| other.domain == cpu.domain).map_or(nodes, |other| other.node);
        nodes = nodes.max(cpu.node + 1);
    }
    Ok(nodes)
}
