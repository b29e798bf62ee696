//! ACPI's static tables, as far as locks need them: which CPUs there are ([`Cpus`], from MADT and SRAT), and how far
//! from each other their memory nodes are ([`Distances`], from SLIT).
//!
//! ```text
//!   RSDP --> XSDT (or RSDT) --> MADT   CPUs, by APIC id
//!                           --> SRAT   the proximity domain of each
//!                           --> SLIT   distances between domains
//! ```
//!
//! Firmware is not to be trusted: every length is checked before what it covers is read, every sum is checked, and what
//! contradicts itself is an [`Error`] and no guess. Fields are little-endian and lie at any address. A table that is
//! wrong costs what it says, and no other: without SRAT a machine has one node, without SLIT all are equally far.

mod error;
mod madt;
mod root;
mod slit;
mod srat;

pub use error::{Error, Name};
pub use madt::{Cpu, Cpus};
pub use slit::Distances;

/// Physical memory.
pub trait Memory {
    /// So many bytes from an address. `None` if they are not all memory; so also for an end that is past all addresses.
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]>;
}

/// Bytes of a table's header: signature, length, revision, sum, who made it.
const HEADER: usize = 36;
/// No table of a machine with half a million CPUs is longer.
const LONGEST: usize = 16 << 20;

/// The tables that were found. Each is whole and its sum is right, or the reason why not; `None` if there is none.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'m> {
    madt: Result<Option<&'m [u8]>, Error>,
    srat: Result<Option<&'m [u8]>, Error>,
    slit: Result<Option<&'m [u8]>, Error>,
}

impl<'m> Tables<'m> {
    /// Looks for them from the root pointer on.
    ///
    /// # Errors
    /// If the root pointer or the list that it points to is wrong.
    pub fn find(memory: &'m impl Memory, root_pointer: u64) -> Result<Self, Error> {
        root::find(memory, root_pointer)
    }

    /// The CPUs that there are or may be, up to `N` of them, and their nodes.
    ///
    /// # Errors
    /// If MADT is not there, or wrong.
    pub fn cpus<const N: usize>(&self) -> Result<Cpus<N>, Error> {
        madt::read(self.madt?.ok_or(Error::Missing(Name::MADT))?)
    }

    /// Sets the node of each CPU. How many nodes there are that have CPUs: 1 if there is no SRAT.
    ///
    /// # Errors
    /// If SRAT is wrong, or does not know one of the CPUs. Then all are on node 0.
    pub fn place<const N: usize>(&self, cpus: &mut Cpus<N>) -> Result<u32, Error> {
        match self.srat? {
            Some(table) => srat::place(table, cpus),
            None => Ok(1),
        }
    }

    /// How far the proximity domains are from each other. `None` if nobody says.
    ///
    /// # Errors
    /// If SLIT is wrong.
    pub fn distances(&self) -> Result<Option<Distances<'m>>, Error> {
        self.slit?.map(slit::read).transpose()
    }
}

/// A number of four bytes.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

/// A number of eight bytes.
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

/// One entry of a table that is a list of such: kind, length, and what follows.
struct Entry<'m> {
    kind: u8,
    /// All of it, kind and length as well.
    bytes: &'m [u8],
    /// Where it is in its table.
    offset: usize,
}

/// The entries of a table, from an offset on. Ends with the first one that is wrong.
fn entries(table: &[u8], name: Name, from: usize) -> impl Iterator<Item = Result<Entry<'_>, Error>> {
    let mut offset = from;
    core::iter::from_fn(move || {
        let rest = table.get(offset..).filter(|rest| !rest.is_empty())?;
        let len = rest.get(1).map_or(0, |len| usize::from(*len));
        let here = offset;
        match rest.get(..len) {
            // An entry of no length would be there for ever.
            Some(bytes) if len >= 2 => {
                offset += len;
                Some(Ok(Entry { kind: bytes[0], bytes, offset: here }))
            }
            _ => {
                offset = table.len();
                Some(Err(Error::Entry { table: name, offset: here }))
            }
        }
    })
}

impl<'m> Entry<'m> {
    /// The entry, if it is exactly so long.
    fn exactly(&self, len: usize, table: Name) -> Result<&'m [u8], Error> {
        if self.bytes.len() == len { Ok(self.bytes) } else { Err(Error::Entry { table, offset: self.offset }) }
    }
}
