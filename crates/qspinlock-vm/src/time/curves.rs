//! Figures that others have measured and published, to hold a simulation against.

/// Throughput of locks on the Xeon of SOSP'13, and the source.
pub const SOSP13_XEON: &str = include_str!("../../published/sosp13-xeon.txt");

/// Throughput of the compact NUMA-aware lock to that of the stock one, and the source.
pub const CNA_V15: &str = include_str!("../../published/cna-v15.txt");

/// A published curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What it is of.
    pub name: String,
    /// Threads, and what was measured with so many.
    pub points: Vec<(u32, f64)>,
}

impl Curve {
    /// What was measured with so many threads.
    #[must_use]
    pub fn at(&self, threads: u32) -> Option<f64> {
        self.points.iter().find(|&&(n, _)| n == threads).map(|&(_, value)| value)
    }
}

/// The curves of a file: a line each, its name and `threads:value`; a `#` begins a comment.
///
/// # Errors
/// The line that is neither.
pub fn curves(text: &str) -> Result<Vec<Curve>, String> {
    let data = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    data.map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default().to_owned();
        let point = |word: &str| {
            let (threads, value) = word.split_once(':')?;
            Some((threads.parse().ok()?, value.parse().ok()?))
        };
        let points = words.map(point).collect::<Option<Vec<_>>>().filter(|points| !points.is_empty());
        points.map(|points| Curve { name, points }).ok_or_else(|| line.to_owned())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_curves() {
        let xeon = curves(SOSP13_XEON).expect("curves");
        assert_eq!(xeon.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["mcs", "ticket", "tas", "ttas"]);
        assert_eq!(xeon[0].at(80), Some(1.57));
        assert_eq!(xeon[0].at(81), None);
        let cna = curves(CNA_V15).expect("curves");
        assert!(cna.iter().all(|curve| curve.points.len() == 10));
        assert_eq!(curves("# a\nmcs 1:2 x\n"), Err("mcs 1:2 x".to_owned()));
        assert_eq!(curves("mcs\n"), Err("mcs".to_owned()));
    }
}
