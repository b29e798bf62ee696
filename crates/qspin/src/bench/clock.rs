//! Time, as finely as the machine tells it, and a busy loop that lasts a given time.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Whether ticks are TSC cycles. Elsewhere they are nanoseconds, and figures in cycles are left out.
pub(super) const TICKS_ARE_CYCLES: bool = cfg!(target_arch = "x86_64");

/// The tick counter. Constant in rate and common to all CPUs on every x86-64 machine of the last decade.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn ticks() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Like [`ticks`], but read neither before what precedes it nor after what follows.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn ticks_in_order() -> u64 {
    use core::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: every x86-64 CPU has the instructions.
    unsafe {
        _mm_lfence();
        let now = _rdtsc();
        _mm_lfence();
        now
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn ticks() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) use ticks as ticks_in_order;

/// How fast ticks go by.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Clock {
    pub(super) ticks_per_s: f64,
}

impl Clock {
    /// Counts ticks against the system's clock. The median of several windows, since a window in which the host took
    /// the CPU away between the two readings is off.
    pub(super) fn calibrate() -> Self {
        let windows = (0..5).map(|_| {
            let (t0, i0) = (ticks(), Instant::now());
            std::thread::sleep(Duration::from_millis(20));
            let (t1, i1) = (ticks(), Instant::now());
            (t1 - t0) as f64 / (i1 - i0).as_secs_f64()
        });
        Self { ticks_per_s: super::verdict::median(windows.collect()).unwrap_or(1e9) }
    }

    pub(super) fn ticks(self, time: Duration) -> u64 {
        (time.as_secs_f64() * self.ticks_per_s) as u64
    }

    pub(super) fn ns(self, ticks: f64) -> f64 {
        ticks * 1e9 / self.ticks_per_s
    }
}

/// Works until the tick counter reaches `end`. Reads nothing but the counter, and does not pause: a pause lasts as
/// long as a short section.
#[inline(always)]
pub(super) fn busy_until(end: u64) {
    while ticks() < end {}
}

/// A small generator of random numbers (splitmix64), seeded: the same seed, the same sequence, for every lock.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self(seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03))
    }

    #[inline]
    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from half of `mean` to one and a half times it, all alike likely.
    #[inline]
    pub(super) fn around(&mut self, mean: u64) -> u64 {
        mean / 2 + ((u128::from(self.draw()) * u128::from(mean)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_repeats_and_keeps_its_mean() {
        let sequence = |seed| {
            let mut random = Random::new(seed, 3);
            (0..10_000).map(|_| random.around(1000)).collect::<Vec<_>>()
        };
        let first = sequence(7);
        assert_eq!(first, sequence(7));
        assert_ne!(first, sequence(8));
        assert!(first.iter().all(|x| (500..1500).contains(x)));
        let mean = first.iter().sum::<u64>() / first.len() as u64;
        assert!((980..1020).contains(&mean), "{mean}");
    }
}
