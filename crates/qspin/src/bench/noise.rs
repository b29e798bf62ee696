//! How much the machine was ours while we measured.

use std::fs;
use std::hint::black_box;
use std::time::Instant;

use super::clock::ticks;
use super::row::Placement;
use super::session::Outcome;
use super::verdict::{Group, median, quantile};

/// Watches the machine from its creation on.
pub(super) struct Watch {
    begun: Instant,
    meter: Meter,
    loops: Vec<f64>,
}

/// What was seen. `None`: this system does not tell.
#[derive(Clone, Debug)]
pub(super) struct Noise {
    pub(super) seconds: f64,
    /// How much longer the slowest twentieth of runs of a fixed loop took than the median, in per cent.
    pub(super) loop_spread_pct: f64,
    /// Time that the host gave to others while we wanted to run, in per cent of all CPU time.
    pub(super) stolen_pct: Option<f64>,
    /// CPU time of other processes, in per cent of all.
    pub(super) others_pct: Option<f64>,
    /// How often the host moved the CPUs nearer or farther.
    pub(super) flips: usize,
    pub(super) mixed: usize,
    pub(super) probed: usize,
    /// The median, over cells and locks, of the interquartile range of the rounds' throughput, in per cent.
    pub(super) rounds_spread_pct: Option<f64>,
    pub(super) repeated: usize,
    pub(super) disturbed: usize,
    pub(super) compared: usize,
}

impl Watch {
    pub(super) fn start() -> Self {
        Self { begun: Instant::now(), meter: Meter::start(), loops: Vec::new() }
    }

    /// Times a loop of fixed work some times: on a quiet machine it always takes the same.
    pub(super) fn sample(&mut self) {
        for _ in 0..40 {
            let start = ticks();
            let mut x = 1_u64;
            for i in 0..20_000 {
                x = black_box(x.wrapping_mul(i | 1));
            }
            self.loops.push((ticks() - start) as f64);
        }
    }

    pub(super) fn finish(self, outcome: &Outcome, groups: &[Group]) -> Noise {
        let rows = &outcome.rows;
        let mid = median(self.loops.clone()).unwrap_or(1.0);
        let slow = quantile(self.loops, 0.95).unwrap_or(1.0);
        let used = self.meter.read();
        let probed: Vec<_> = rows.iter().filter_map(|row| row.placement).collect();
        let settled: Vec<_> = probed.iter().filter(|&&p| p != Placement::Mixed).collect();
        let spreads = groups.iter().flat_map(|g| &g.locks).filter_map(|s| s.spread_pct).collect();
        Noise {
            seconds: self.begun.elapsed().as_secs_f64(),
            loop_spread_pct: (slow / mid - 1.0) * 100.0,
            stolen_pct: used.as_ref().map(|u| u.steal_s / u.total_s * 100.0),
            others_pct: used.as_ref().map(|u| u.others_s / u.total_s * 100.0),
            flips: settled.windows(2).filter(|w| w[0] != w[1]).count(),
            mixed: probed.len() - settled.len(),
            probed: probed.len(),
            rounds_spread_pct: median(spreads),
            repeated: outcome.repeated,
            disturbed: outcome.rows.iter().filter(|row| row.disturbed).count(),
            compared: outcome.compared().len(),
        }
    }
}

impl Noise {
    /// Whether the figures say something about the locks rather than about who else was there.
    pub(super) fn is_quiet(&self) -> bool {
        self.loop_spread_pct < 10.0 && self.stolen_pct.unwrap_or(0.0) < 2.0 && self.others_pct.unwrap_or(0.0) < 5.0
    }

    /// One sentence a line.
    pub(super) fn sentences(&self) -> Vec<String> {
        let percent = |value: Option<f64>| value.map_or("unknown".to_owned(), |v| format!("{v:.1} %"));
        let mut lines = vec![
            format!(
                "A loop of fixed work took up to {:.1} % longer than its median (95th percentile).",
                self.loop_spread_pct
            ),
            format!(
                "Stolen by the host: {} of CPU time; used by other processes: {}.",
                percent(self.stolen_pct),
                percent(self.others_pct)
            ),
        ];
        if self.repeated + self.disturbed > 0 {
            lines.push(format!(
                "{} slices were run again since other processes took CPU time from them; {} rows are disturbed all the \
                 same. {} rows are compared.",
                self.repeated, self.disturbed, self.compared
            ));
        }
        if !self.is_quiet() {
            lines.push(
                "That is not a quiet machine. Waits and all locks that pass the turn to a thread that may not be \
                 running suffer most; repeat the run when the machine is idle."
                    .to_owned(),
            );
        }
        if let Some(spread) = self.rounds_spread_pct {
            lines.push(format!("Throughput of one lock in one cell varied by {spread:.1} % between rounds (median of the interquartile ranges)."));
        }
        if self.probed > 0 {
            lines.push(format!(
                "The host changed the distance of the two CPUs {} times between {} slices, and during {} of them, which are left out of comparisons.",
                self.flips, self.probed, self.mixed
            ));
        }
        lines
    }
}

/// Who used the CPUs since its creation.
pub(super) struct Meter {
    system: Option<System>,
    own_s: f64,
}

/// CPU seconds of the whole machine between two readings.
struct Used {
    total_s: f64,
    steal_s: f64,
    others_s: f64,
}

impl Meter {
    pub(super) fn start() -> Self {
        Self { system: System::read(), own_s: own_cpu_s() }
    }

    /// `None`: this system does not tell.
    fn read(&self) -> Option<Used> {
        let (before, now) = (self.system.as_ref()?, System::read()?);
        let others_s = (now.busy_s - before.busy_s - (own_cpu_s() - self.own_s)).max(0.0);
        // Never 0: it is divided by.
        let total_s = (now.total_s - before.total_s).max(0.01);
        Some(Used { total_s, steal_s: now.steal_s - before.steal_s, others_s })
    }

    /// Others, or the host, took so much of the CPUs that what was measured says more about them. The system counts in
    /// hundredths of a second, so one or two of those mean nothing.
    pub(super) fn is_disturbed(&self) -> bool {
        self.read().is_some_and(|used| used.others_s + used.steal_s > 0.02 + 0.1 * used.total_s)
    }
}

/// What `/proc/stat` says, in seconds since the system started.
struct System {
    total_s: f64,
    busy_s: f64,
    steal_s: f64,
}

impl System {
    /// From its first line: user nice system idle iowait irq softirq steal, in clock ticks.
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let fields: Vec<f64> = stat.lines().next()?.split_whitespace().skip(1).flat_map(str::parse).collect();
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = fields[..] else { return None };
        let second = rustix::param::clock_ticks_per_second() as f64;
        let busy = user + nice + system + irq + softirq;
        Some(Self { total_s: (busy + idle + iowait + steal) / second, busy_s: busy / second, steal_s: steal / second })
    }
}

/// CPU time of this process and of its children that have ended.
fn own_cpu_s() -> f64 {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN].into_iter().map(rusage_s).sum()
}

fn rusage_s(who: libc::c_int) -> f64 {
    // SAFETY: all-zero is a valid `rusage`: it is integers throughout.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is live, `who` is one of the two constants.
    unsafe { libc::getrusage(who, &raw mut usage) };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
