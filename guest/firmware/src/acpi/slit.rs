//! SLIT: how far proximity domains are from each other.

use super::{Error, HEADER, Name, u64_at};

const FIRST: usize = HEADER + 8;
/// From a domain to itself.
const HERE: u8 = 10;

/// Distances between proximity domains: 10 is "here", twice that is twice as far, 255 is "out of reach".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distances<'m> {
    domains: u32,
    rows: &'m [u8],
}

impl Distances<'_> {
    /// How many domains it has.
    #[must_use]
    pub const fn domains(&self) -> u32 {
        self.domains
    }

    /// From one to another. `None` if it does not have them.
    #[must_use]
    pub fn between(&self, from: u32, to: u32) -> Option<u8> {
        let row = self.rows.chunks_exact(self.domains.max(1) as usize).nth(from as usize)?;
        row.get(to as usize).copied()
    }
}

pub(super) fn read(table: &[u8]) -> Result<Distances<'_>, Error> {
    let wrong = Error::Length { table: Name::SLIT, len: table.len() as u64 };
    let domains = u64_at(table, HEADER).and_then(|n| u32::try_from(n).ok()).ok_or(wrong)?;
    let rows = table.get(FIRST..).ok_or(wrong)?;
    if (domains as usize).checked_mul(domains as usize) != Some(rows.len()) {
        return Err(wrong);
    }
    let distances = Distances { domains, rows };
    for (n, distance) in rows.iter().copied().enumerate() {
        let (from, to) = (n as u32 / domains, n as u32 % domains);
        let is_right = if from == to { distance == HERE } else { distance >= HERE };
        if !is_right {
            return Err(Error::Distance { from, to, distance });
        }
    }
    Ok(distances)
}
