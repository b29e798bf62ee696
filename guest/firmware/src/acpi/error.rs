//! What is wrong with a table.

use core::fmt;

/// The four letters that a table begins with.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(pub [u8; 4]);

impl Name {
    /// The list of tables, by addresses of 32 bits.
    pub const RSDT: Self = Self(*b"RSDT");
    /// The list of tables, by addresses of 64 bits.
    pub const XSDT: Self = Self(*b"XSDT");
    /// The pointer to that.
    pub const RSDP: Self = Self(*b"RSDP");
    /// Interrupt controllers, and so CPUs. It says "APIC".
    pub const MADT: Self = Self(*b"APIC");
    /// Which CPU is near to what.
    pub const SRAT: Self = Self(*b"SRAT");
    /// Distances.
    pub const SLIT: Self = Self(*b"SLIT");
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::MADT {
            return f.write_str("MADT");
        }
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a table is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// It is not all in memory.
    NotMemory {
        /// What.
        table: Name,
        /// Where.
        address: u64,
        /// So many bytes.
        len: usize,
    },
    /// Something else is there.
    Signature {
        /// What it should be.
        table: Name,
        /// Where.
        address: u64,
    },
    /// It says that it is shorter than it must be, or longer than it can be.
    Length {
        /// What.
        table: Name,
        /// What it says, in bytes.
        len: u64,
    },
    /// Its bytes do not add up to 0.
    Sum {
        /// What.
        table: Name,
    },
    /// The list of tables has one twice, and they cannot both be right.
    Twice {
        /// Which one.
        table: Name,
    },
    /// The list of tables has itself as an entry.
    Cycle {
        /// Where the list is.
        address: u64,
    },
    /// There is none.
    Missing(Name),
    /// An entry is as long as it cannot be, or reaches past the end.
    Entry {
        /// Of which table.
        table: Name,
        /// Where in it, in bytes.
        offset: usize,
    },
    /// Two CPUs have the same APIC id.
    SameCpu {
        /// In which table.
        table: Name,
        /// The id.
        apic_id: u32,
    },
    /// No CPU may be used.
    NoCpu,
    /// SRAT does not say which domain this CPU is in.
    NoDomain {
        /// Its APIC id.
        apic_id: u32,
    },
    /// Something is nearer to another than to itself, or at a distance that is reserved.
    Distance {
        /// From which domain.
        from: u32,
        /// To which one.
        to: u32,
        /// So far.
        distance: u8,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotMemory { table, address, len } => {
                write!(f, "{table}: {len} bytes at {address:#x} are not all memory")
            }
            Self::Signature { table, address } => write!(f, "{table}: there is something else at {address:#x}"),
            Self::Length { table, len } => write!(f, "{table}: a length of {len} bytes, which it cannot have"),
            Self::Sum { table } => write!(f, "{table}: its bytes do not add up to 0"),
            Self::Twice { table } => write!(f, "{table}: listed twice"),
            Self::Cycle { address } => write!(f, "the list of tables at {address:#x} has itself as an entry"),
            Self::Missing(table) => write!(f, "{table}: not there"),
            Self::Entry { table, offset } => {
                write!(f, "{table}: the entry at byte {offset} has a length it cannot have")
            }
            Self::SameCpu { table, apic_id } => write!(f, "{table}: two CPUs with APIC id {apic_id}"),
            Self::NoCpu => write!(f, "{}: no CPU that may be used", Name::MADT),
            Self::NoDomain { apic_id } => write!(f, "{}: nothing about the CPU with APIC id {apic_id}", Name::SRAT),
            Self::Distance { from, to, distance } => {
                write!(f, "{}: a distance of {distance} from domain {from} to {to}", Name::SLIT)
            }
        }
    }
}

impl core::error::Error for Error {}
