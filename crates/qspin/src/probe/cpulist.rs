//! CPU lists as the kernel writes them: `0-3,8,10-11`, or nothing.

use std::fmt;

/// More than the lock word has room for, and a bound on what a hostile file can make us allocate.
const MOST: u32 = 1 << 20;

/// A set of CPU (or node) numbers, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub(super) struct CpuList(Vec<u32>);

impl CpuList {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        if text.is_empty() {
            return Ok(Self::default());
        }
        let refuse = |why: &str| format!("'{}' is not a CPU list: {why}", text.escape_debug());
        let mut cpus: Vec<u32> = Vec::new();
        for item in text.split(',') {
            let (first, last) = match item.split_once('-') {
                Some((first, last)) => (number(first), number(last)),
                None => (number(item), number(item)),
            };
            let (Some(first), Some(last)) = (first, last) else {
                return Err(refuse(&format!("'{}' is neither a number nor a range", item.escape_debug())));
            };
            if first > last {
                return Err(refuse(&format!("'{item}' runs backwards")));
            }
            if cpus.last().is_some_and(|&before| first <= before) {
                return Err(refuse(&format!("'{item}' is out of order")));
            }
            cpus.extend(first..=last);
        }
        Ok(Self(cpus))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// Those that are in the other as well.
    pub(super) fn and(&self, other: &Self) -> Self {
        self.0.iter().copied().filter(|cpu| other.0.binary_search(cpu).is_ok()).collect()
    }
}

/// Digits only: `str::parse` would take a sign.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|&n| n < MOST)
}

impl FromIterator<u32> for CpuList {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        let mut cpus: Vec<_> = cpus.into_iter().collect();
        cpus.sort_unstable();
        cpus.dedup();
        Self(cpus)
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, run) in self.0.chunk_by(|a, b| a + 1 == *b).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match run {
                [one] => write!(f, "{comma}{one}")?,
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_kernel() {
        for (text, cpus) in [
            ("0\n", vec![0]),
            ("0-3\n", vec![0, 1, 2, 3]),
            ("0-1,4,6-7", vec![0, 1, 4, 6, 7]),
            ("5-5", vec![5]),
            ("\n", vec![]),
            ("", vec![]),
        ] {
            let parsed = CpuList::parse(text).expect(text);
            assert_eq!(parsed.as_slice(), cpus, "{text:?}");
        }
    }

    #[test]
    fn shown_as_they_are_written() {
        for text in ["0", "0-3", "0-1,4,6-7", "0-63,128-191"] {
            assert_eq!(CpuList::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(CpuList::default().to_string(), "none");
    }

    #[test]
    fn garbage_is_refused() {
        for text in [
            ",",
            "0,",
            ",0",
            "0,,1",
            "-",
            "0-",
            "-3",
            "3-1",
            "a",
            "0x1",
            "+1",
            "0 -1",
            " 0",
            "0\n1",
            "0\n\n",
            "1,0",
            "0-3,2",
            "0,0",
            "1.5",
            "0-1-2",
            "0-31:2/4",
            "4294967296",
            "99999999999999999999",
            "0-1048576",
            "٣",
        ] {
            let refused = CpuList::parse(text);
            assert!(refused.is_err(), "{text:?} gave {refused:?}");
        }
        assert_eq!(CpuList::parse("0,x").unwrap_err(), "'0,x' is not a CPU list: 'x' is neither a number nor a range");
    }

    #[test]
    fn intersection() {
        let list = |text| CpuList::parse(text).expect(text);
        assert_eq!(list("0-3,8").and(&list("2-9")), list("2-3,8"));
        assert_eq!(list("0").and(&list("")), list(""));
    }
}
