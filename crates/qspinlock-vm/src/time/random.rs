//! Random numbers that are the same everywhere: SplitMix64.

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

/// Mixes the bits of a number.
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Random {
    /// One stream of many that a seed has.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self(mix(mix(seed) ^ stream))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `n`; 0 if that is 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// From half of `mean` to one and a half of it.
    pub(super) fn around(&mut self, mean: u64) -> u64 {
        mean / 2 + self.below(mean.saturating_add(1))
    }
}
