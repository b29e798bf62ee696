//! How long things took: a histogram whose buckets are a 64th apart.

use super::outcome::Waits;

/// Numbers up to here have a bucket each.
const EXACT: u64 = 128;

/// Buckets for each doubling from there.
const STEPS: u64 = 64;

/// Counts of lengths of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    number: u64,
    sum: u128,
    max: u64,
}

fn bucket(value: u64) -> usize {
    if value < EXACT {
        return value as usize;
    }
    let doublings = u64::from(value.ilog2() - EXACT.ilog2());
    // The leading one is STEPS after the shift.
    (EXACT + doublings * STEPS + (value >> (doublings + 1)) - STEPS) as usize
}

/// The largest number in a bucket.
fn largest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let (doublings, step) = ((bucket - EXACT) / STEPS, (bucket - EXACT) % STEPS);
    ((u128::from(STEPS + step + 1) << (doublings + 1)) - 1).try_into().unwrap_or(u64::MAX)
}

impl Histogram {
    pub(super) fn add(&mut self, value: u64) {
        let at = bucket(value);
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.number += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }

    /// So many in a thousand are no longer.
    fn quantile(&self, per_mille: u64) -> u64 {
        let wanted = (u128::from(self.number) * u128::from(per_mille)).div_ceil(1000).max(1);
        let mut seen = 0;
        let at = self.counts.iter().position(|&count| {
            seen += u128::from(count);
            seen >= wanted
        });
        at.map_or(0, |at| largest(at).min(self.max))
    }

    /// What it shows, by way of a function that makes nanoseconds of what was added.
    pub(super) fn waits(&self, nanos: impl Fn(u64) -> u64) -> Waits {
        let mean = if self.number == 0 { 0 } else { (self.sum / u128::from(self.number)) as u64 };
        Waits {
            mean: nanos(mean),
            p50: nanos(self.quantile(500)),
            p99: nanos(self.quantile(990)),
            p999: nanos(self.quantile(999)),
            max: nanos(self.max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_it_says() {
        let edges = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, (1 << bit) + 1, 3 << bit >> 1]);
        for value in edges.chain(0..10_000).chain([u64::MAX]) {
            let bucket = bucket(value);
            assert!(value <= largest(bucket), "{value}");
            assert!(bucket == 0 || largest(bucket - 1) < value, "{value}");
            assert!(largest(bucket) - value <= value / STEPS, "{value}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_numbers() {
        let mut histogram = Histogram::default();
        (1..=100_000).for_each(|value| histogram.add(value));
        let waits = histogram.waits(|value| value);
        assert_eq!((waits.max, waits.mean), (100_000, 50_000));
        for (is, exact) in [(waits.p50, 50_000), (waits.p99, 99_000), (waits.p999, 99_900)] {
            assert!((exact..=exact + exact / STEPS).contains(&is), "{is} {exact}");
        }
        assert_eq!(Histogram::default().waits(|value| value), Waits::default());
    }
}
