//! Published figures, to hold simulated ones against.

use super::run::{LockKind, Setup, Span, Until};

/// A published curve: a lock's throughput.
#[derive(Clone, Copy, Debug)]
pub struct Curve {
    /// The lock.
    pub lock: LockKind,
    /// Whether it was used to choose constants that are not published. Otherwise the simulated curve is a prediction.
    pub is_fitted: bool,
    /// Threads, and million acquisitions in a second.
    pub points: [(u32, f64); 10],
}

/// Figure 5 of "Everything You Always Wanted to Know About Synchronization but Were Afraid to Ask" (David, Guerraoui,
/// Trigonakis; SOSP 2013), on its Xeon: one lock, whose section reads and writes one line, and a pause after each
/// release. Read off the vector figure, to about 3 %. The axis ends at 8: the value there may be more.
pub const FIGURE_5_XEON: [Curve; 3] = [
    curve(LockKind::Mcs, true, [8.04, 4.55, 5.63, 5.37, 3.24, 2.55, 1.94, 1.77, 1.64, 1.57]),
    curve(LockKind::Ticket, true, [8.04, 8.04, 4.17, 4.01, 1.60, 1.42, 1.08, 0.79, 0.51, 0.34]),
    curve(LockKind::Tas, false, [8.04, 5.73, 4.17, 2.11, 0.69, 0.51, 0.27, 0.22, 0.12, 0.08]),
];

const THREADS: [u32; 10] = [1, 2, 5, 10, 12, 20, 30, 40, 60, 80];

const fn curve(lock: LockKind, is_fitted: bool, figures: [f64; 10]) -> Curve {
    let mut points = [(0, 0.0); 10];
    let mut i = 0;
    while i < points.len() {
        points[i] = (THREADS[i], figures[i]);
        i += 1;
    }
    Curve { lock, is_fitted, points }
}

/// The pause of figure 5, in cycles: "in proportion to the longest transfer of the machine", which is 430 there. Once
/// that is what fits MCS and the ticket lock at 2 threads and more; with one alone the pause is all that there is, and must have
/// been shorter.
pub const FIGURE_5_PAUSE: u64 = 430;

/// The run that figure 5 is of.
#[must_use]
pub fn figure_5(lock: LockKind, threads: u32, seed: u64) -> Setup {
    Setup {
        think: Span::Cycles(FIGURE_5_PAUSE),
        until: Until::Time(Span::Nanos(1_000_000)),
        seed,
        ..Setup::new(lock, threads)
    }
}
