//! The charts of the report.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::row::Placement;
use super::table::{ratio_text, tone};
use super::verdict::{Group, OURS};
use crate::draw::{
    self, AXIS, Axis, Curve, LANE, LEFT, RIGHT, Tail, Upwards, WIDTH, lane, rule, svg, without_zeros, write,
};
use crate::failure::Failure;
use crate::locks::LockName;
use crate::ui::{Tone, si};

const GOOD: RGBColor = RGBColor(38, 150, 92);
const BAD: RGBColor = RGBColor(209, 73, 82);
const DRAW: RGBColor = RGBColor(128, 134, 142);

/// The colour of a lock in every chart.
pub(super) fn colour(lock: LockName) -> RGBColor {
    match lock {
        LockName::Parking => RGBColor(37, 99, 235),
        LockName::ParkingExact => RGBColor(110, 130, 220),
        LockName::Native => RGBColor(20, 170, 215),
        LockName::Numa => RGBColor(0, 120, 170),
        LockName::Paravirt => RGBColor(20, 90, 140),
        LockName::Chosen => RGBColor(60, 60, 200),
        LockName::ChosenByLoad => RGBColor(150, 150, 240),
        LockName::Resilient => RGBColor(0, 110, 90),
        LockName::ResilientNative => RGBColor(70, 150, 130),
        LockName::ResilientNuma => RGBColor(100, 170, 90),
        LockName::ResilientParavirt => RGBColor(40, 90, 80),
        LockName::ResilientTestAndSet => RGBColor(130, 190, 170),
        LockName::TestAndSetOurs => RGBColor(124, 168, 255),
        LockName::Std => RGBColor(234, 120, 20),
        LockName::ParkingLot => RGBColor(200, 60, 150),
        LockName::Spin => RGBColor(20, 160, 140),
        LockName::SpinTicket => RGBColor(110, 170, 40),
        LockName::Mcs => RGBColor(140, 90, 210),
        LockName::PthreadMutex => RGBColor(178, 120, 70),
        LockName::PthreadSpin => RGBColor(120, 130, 145),
        LockName::Broken => RGBColor(220, 0, 0),
    }
}

/// Our throughput to `peer`'s in each cell: to the right of 1 ours is faster.
pub(super) fn ratio_bars(groups: &[Group], peer: LockName) -> Result<String, Failure> {
    let bars: Vec<_> = groups.iter().filter_map(|g| Some((super::table::compact(g), g.ours_to(peer)?))).collect();
    // As far to either side as the largest needs, so that the sides compare.
    let reach = bars.iter().map(|(_, r)| r.max(1.0 / r)).fold(2.0, f64::max).clamp(2.0, 64.0).log2().ceil().exp2();
    let axis = Axis { low: 1.0 / reach, high: reach };
    let step = if reach > 8.0 { 4.0_f64 } else { 2.0 };
    let powers = (0..).map(|i| step.powi(i)).take_while(|&p| p <= reach);
    let ticks: Vec<_> = powers
        .flat_map(|p| {
            if p > 1.0 { vec![(p, format!("{p}x")), (1.0 / p, format!("1/{p}"))] } else { vec![(1.0, "1".to_owned())] }
        })
        .collect();
    svg((WIDTH, bars.len() as i32 * LANE + 28), |area| {
        axis.draw(area, &ticks, bars.len())?;
        for (index, (label, ratio)) in bars.iter().enumerate() {
            let (y, zero, end) = (lane(index), axis.x(1.0), axis.x(*ratio));
            let fill = match tone(*ratio) {
                Tone::Good => GOOD,
                Tone::Bad => BAD,
                _ => DRAW,
            };
            write(area, label, (LEFT - 10, y), HPos::Right)?;
            let (from, to) = (zero.min(end), zero.max(end).max(zero.min(end) + 2));
            area.draw(&Rectangle::new([(from, y - 5), (to, y + 5)], fill.filled()))?;
            write(area, &ratio_text(*ratio), (RIGHT + 8, y), HPos::Left)?;
        }
        rule(area, (axis.x(1.0), 2), (axis.x(1.0), bars.len() as i32 * LANE + 6), AXIS.stroke_width(1))
    })
}

/// Waits in one cell, a lane for each lock.
pub(super) fn tails(group: &Group) -> Result<String, Failure> {
    let locks = group.ranked().into_iter().filter_map(|s| Some((s.lock, s.wait_ns?)));
    let tails: Vec<_> = locks
        .map(|(lock, wait)| Tail {
            label: lock.name(),
            ink: colour(lock),
            bold: lock == OURS,
            p50: wait.p50,
            p99: wait.p99,
            p999: wait.p999,
            max: wait.max,
        })
        .collect();
    draw::tails(&tails)
}

/// The placement under which most slices of a crowd that thinks ran, and its groups by thread count.
pub(super) fn usual_crowd(groups: &[Group]) -> (Option<Placement>, Vec<&Group>) {
    let crowd: Vec<&Group> = groups.iter().filter(|g| g.cell.is_crowd()).collect();
    let slices = |p| crowd.iter().filter(|g| g.placement == p).flat_map(|g| &g.locks).map(|s| s.rounds).sum::<usize>();
    let usual = [None, Some(Placement::Near), Some(Placement::Far)].into_iter().max_by_key(|&p| slices(p)).flatten();
    let mut of_usual: Vec<&Group> = crowd.into_iter().filter(|g| g.placement == usual).collect();
    of_usual.sort_by_key(|g| g.cell.threads);
    (usual, of_usual)
}

/// Throughput against the number of threads. `None` with fewer than two thread counts.
pub(super) fn threads_curve(groups: &[Group]) -> Result<Option<String>, Failure> {
    let (_, crowd) = usual_crowd(groups);
    let curve = |&lock: &LockName| Curve {
        ink: colour(lock),
        width: if lock == OURS { 4 } else { 2 },
        points: crowd
            .iter()
            .filter_map(|g| {
                g.locks.iter().find(|s| s.lock == lock).map(|s| (g.cell.threads as f64, s.ops_per_s.max(1.0)))
            })
            .collect(),
    };
    let curves: Vec<_> = LockName::ALL.iter().map(curve).collect();
    draw::curves((920, 420), "threads", &curves, Upwards::Logarithmic, &|v| without_zeros(&si(v)))
}
