//! Which domain each CPU is in, as Linux tells it in `/sys`.
//!
//! Read once, perhaps by who waits for a lock, perhaps in a signal handler: without an allocation. Files are short; what
//! makes no sense is said, and then there is one domain: no lock is the worse for it than one that does not look at domains.

use core::fmt::{self, Write as _};

use super::domains::Domains;
use super::fixed::Fixed;
use crate::slowpath::parking::Excerpt;

/// CPUs that domains are known of: as many as Linux can be built for on x86. Further ones count to domain 0.
pub const KNOWN_CPUS: usize = 8192;

/// More than that is a mistake, of whoever wrote the file.
const MOST: u32 = 1 << 20;
/// More caches of one CPU than there are.
const CACHES: u32 = 8;

/// Tells `each` of every CPU that is online, with the number of its domain: a memory node's own, or for a last-level cache the
/// lowest of its CPUs that is online. In no order; some may be told twice, the same. Of [`Domains::Pretended`] nothing is
/// known. `root` is the directory that `/sys` is in: `/`, or one that holds a copy.
///
/// The last-level cache of a CPU is the one with the highest level, whatever that is. A CPU that tells of none has one of its own.
///
/// # Errors
/// If a file is missing that has to be there, or makes no sense. `each` may have been told something by then.
pub fn read_domains(root: &str, domains: Domains, mut each: impl FnMut(u32, u32)) -> Result<(), TopologyError> {
    match domains {
        Domains::Nodes => list(root, SysFile::NodesWithCpus, |node| {
            list(root, SysFile::CpusOfNode(node), |cpu| {
                each(cpu, node);
                Ok(())
            })
        }),
        Domains::L3 => {
            // One look for each cache: who shares it need not be asked. A bit for each CPU.
            let mut told = [0_u64; KNOWN_CPUS / 64];
            list(root, SysFile::CpusOnline, |cpu| {
                let is_told = told.get(cpu as usize / 64).is_some_and(|bits| bits & 1 << (cpu % 64) != 0);
                if is_told {
                    return Ok(());
                }
                each(cpu, cpu);
                let Some(cache) = last_level(root, cpu)? else { return Ok(()) };
                let (file, mut is_one) = (SysFile::SharersOfCache(cpu, cache), false);
                list(root, file, |sharer| {
                    is_one |= sharer == cpu;
                    if let Some(bits) = told.get_mut(sharer as usize / 64) {
                        *bits |= 1 << (sharer % 64);
                    }
                    each(sharer, cpu);
                    Ok(())
                })?;
                // Or it would be read for each of its CPUs, and they would have several domains.
                if is_one { Ok(()) } else { Err(TopologyError::Foreign(file)) }
            })
        }
        Domains::Pretended(_) => Ok(()),
    }
}

/// The index of the cache with the highest level. The number is not the level, and some may be missing.
fn last_level(root: &str, cpu: u32) -> Result<Option<u32>, TopologyError> {
    let mut highest: Option<(u32, u32)> = None;
    for index in 0..CACHES {
        let mut level = None;
        let read = list(root, SysFile::LevelOfCache(cpu, index), |number| {
            level = Some(number);
            Ok(())
        });
        match read {
            Err(TopologyError::Missing(_)) => {}
            Err(error) => return Err(error),
            Ok(()) if level > highest.map(|(most, _)| most) => highest = level.map(|level| (level, index)),
            Ok(()) => {}
        }
    }
    Ok(highest.map(|(_, index)| index))
}

/// The numbers of a list such as `0-3,8`.
fn list(
    root: &str,
    file: SysFile,
    mut each: impl FnMut(u32) -> Result<(), TopologyError>,
) -> Result<(), TopologyError> {
    let (mut least, mut is_first) = (0, true);
    items(root, file, |item, is_last| {
        // A list of nothing.
        if item.is_empty() && is_first && is_last {
            return Ok(());
        }
        is_first = false;
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if least <= first && first <= last => {
                least = last + 1;
                (first..=last).try_for_each(&mut each)
            }
            _ => Err(TopologyError::Senseless(file, item.into())),
        }
    })
}

/// Digits only: `str::parse` would take a sign.
fn number(text: &str) -> Option<u32> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number| is_digits && number < MOST)
}

/// The items of a file, which has one line, with commas between them; and whether it is the last. Piece by piece: the stack may
/// be that of a signal handler.
fn items(
    root: &str,
    file: SysFile,
    mut each: impl FnMut(&str, bool) -> Result<(), TopologyError>,
) -> Result<(), TopologyError> {
    use std::io::Read as _;
    let mut path = Fixed::<320>::new();
    let separator = if root.ends_with('/') { "" } else { "/" };
    write!(path, "{root}{separator}{file}").map_err(|_| TopologyError::Missing(file))?;
    let mut source = std::fs::File::open(path.text()).map_err(|_| TopologyError::Missing(file))?;
    let (mut piece, mut item, mut has_ended) = ([0; 128], Fixed::<32>::new(), false);
    loop {
        // A file of a device that went off meanwhile answers with an odd error: it is as good as not there.
        let len = source.read(&mut piece).map_err(|_| TopologyError::Missing(file))?;
        for &byte in &piece[..len] {
            match byte {
                b'\n' if !has_ended => has_ended = true,
                b',' if !has_ended => {
                    each(item.text(), false)?;
                    item = Fixed::new();
                }
                _ if has_ended || !byte.is_ascii() || item.write_char(byte.into()).is_err() => {
                    return Err(TopologyError::Senseless(file, item.text().into()));
                }
                _ => {}
            }
        }
        if len == 0 {
            return each(item.text(), true);
        }
    }
}

/// A file that tells of domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SysFile {
    /// Memory nodes that have CPUs.
    NodesWithCpus,
    /// The CPUs of a memory node.
    CpusOfNode(u32),
    /// CPUs that are online.
    CpusOnline,
    /// The level of a cache: of this CPU, with this index.
    LevelOfCache(u32, u32),
    /// The CPUs that share a cache: of this CPU, with this index.
    SharersOfCache(u32, u32),
}

/// The path, without what it is below.
impl fmt::Display for SysFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sys/devices/system/")?;
        match self {
            Self::NodesWithCpus => f.write_str("node/has_cpu"),
            Self::CpusOfNode(node) => write!(f, "node/node{node}/cpulist"),
            Self::CpusOnline => f.write_str("cpu/online"),
            Self::LevelOfCache(cpu, index) => write!(f, "cpu/cpu{cpu}/cache/index{index}/level"),
            Self::SharersOfCache(cpu, index) => write!(f, "cpu/cpu{cpu}/cache/index{index}/shared_cpu_list"),
        }
    }
}

/// Why domains are not known. Then there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopologyError {
    /// It is not there, or cannot be read.
    Missing(SysFile),
    /// This stands in it.
    Senseless(SysFile, Excerpt),
    /// Those that share a cache of a CPU are others than that CPU.
    Foreign(SysFile),
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(file) => write!(f, "/{file} cannot be read"),
            Self::Senseless(file, text) => write!(f, "/{file}: `{text}` makes no sense"),
            Self::Foreign(file) => write!(f, "/{file} lacks the CPU whose cache it is"),
        }
    }
}

impl core::error::Error for TopologyError {}
