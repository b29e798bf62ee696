//! The charts of the report, as inline SVG.
//!
//! Text has no colour here worth keeping: the page's style sheet overrides it, so that one drawing suits a light and a
//! dark page. Marks have colours that can be told apart on both.

use plotters::coord::ranged1d::{KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::row::Placement;
use super::table::{ratio_text, tone};
use super::verdict::{Group, OURS};
use crate::failure::Failure;
use crate::locks::LockName;
use crate::ui::{Tone, nanos, si};

pub(super) const AXIS: RGBColor = RGBColor(128, 134, 142);
const GOOD: RGBColor = RGBColor(38, 150, 92);
const BAD: RGBColor = RGBColor(209, 73, 82);
const DRAW: RGBColor = RGBColor(128, 134, 142);

const LANE: i32 = 18;
const WIDTH: i32 = 560;
/// Where lanes begin and end; labels are to the left.
const LEFT: i32 = 210;
const RIGHT: i32 = WIDTH - 52;

/// The colour of a lock in every chart.
pub(super) fn colour(lock: LockName) -> RGBColor {
    match lock {
        LockName::Parking => RGBColor(37, 99, 235),
        LockName::ParkingExact => RGBColor(110, 130, 220),
        LockName::Native => RGBColor(20, 170, 215),
        LockName::Paravirt => RGBColor(20, 90, 140),
        LockName::Chosen => RGBColor(60, 60, 200),
        LockName::ChosenByLoad => RGBColor(150, 150, 240),
        LockName::Resilient => RGBColor(0, 110, 90),
        LockName::ResilientNative => RGBColor(70, 150, 130),
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

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("a chart could not be drawn: {error}"))
}

/// `1.00 us` as an axis has it: `1 us`.
pub(super) fn without_zeros(figure: &str) -> String {
    let (number, unit) = figure.split_once(' ').map_or((figure, String::new()), |(n, unit)| (n, format!(" {unit}")));
    let short = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    short.to_owned() + &unit
}

/// Draws on a canvas of this size and returns the SVG.
pub(super) fn svg<E: std::fmt::Display>(
    size: (i32, i32),
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Result<(), E>,
) -> Result<String, Failure> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (size.0 as u32, size.1 as u32)).into_drawing_area();
        draw(&area).map_err(broken)?;
        area.present().map_err(broken)?;
    }
    Ok(text)
}

type Canvas<'a, 'b> = &'a DrawingArea<SVGBackend<'b>, plotters::coord::Shift>;
type Drawn<'b> = Result<(), DrawingAreaErrorKind<<SVGBackend<'b> as DrawingBackend>::ErrorType>>;

fn write<'b>(area: Canvas<'_, 'b>, text: &str, at: (i32, i32), anchor: HPos) -> Drawn<'b> {
    let style = ("sans-serif", 12).into_font().color(&AXIS).pos(Pos::new(anchor, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))
}

fn rule<'b>(area: Canvas<'_, 'b>, from: (i32, i32), to: (i32, i32), style: ShapeStyle) -> Drawn<'b> {
    area.draw(&PathElement::new(vec![from, to], style))
}

/// A logarithmic axis along the lanes.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    fn x(&self, value: f64) -> i32 {
        let share = (value.clamp(self.low, self.high) / self.low).ln() / (self.high / self.low).ln();
        LEFT + (share * f64::from(RIGHT - LEFT)).round() as i32
    }

    fn draw<'b>(&self, area: Canvas<'_, 'b>, ticks: &[(f64, String)], lanes: usize) -> Drawn<'b> {
        let bottom = lanes as i32 * LANE + 6;
        for (value, label) in ticks {
            let x = self.x(*value);
            rule(area, (x, 2), (x, bottom), AXIS.mix(0.3).stroke_width(1))?;
            write(area, label, (x, bottom + 10), HPos::Center)?;
        }
        Ok(())
    }
}

fn lane(index: usize) -> i32 {
    index as i32 * LANE + LANE / 2 + 2
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

/// Waits in one cell, a lane for each lock: a line from the median to the worst, with marks at p99 and p99.9.
pub(super) fn tails(group: &Group) -> Result<String, Failure> {
    let locks: Vec<_> = group.ranked().into_iter().filter_map(|s| Some((s.lock, s.wait_ns?))).collect();
    let axis = Axis { low: 10.0, high: 1e8 };
    let ticks: Vec<_> = (1..=8).map(|power| 10_f64.powi(power)).map(|t| (t, without_zeros(&nanos(t)))).collect();
    svg((WIDTH, locks.len() as i32 * LANE + 28), |area| {
        axis.draw(area, &ticks, locks.len())?;
        for (index, (lock, wait)) in locks.iter().enumerate() {
            let (y, ink) = (lane(index), colour(*lock));
            let thick = if *lock == OURS { 3 } else { 1 };
            write(area, lock.name(), (LEFT - 10, y), HPos::Right)?;
            rule(area, (axis.x(wait.p50), y), (axis.x(wait.max), y), ink.stroke_width(thick))?;
            area.draw(&Circle::new((axis.x(wait.p50), y), 4, ink.stroke_width(2)))?;
            area.draw(&Circle::new((axis.x(wait.p99), y), 3, ink.filled()))?;
            area.draw(&Circle::new((axis.x(wait.p999), y), 5, ink.filled()))?;
            let worst = axis.x(wait.max);
            rule(area, (worst, y - 5), (worst, y + 5), ink.stroke_width(2))?;
            write(area, &nanos(wait.p999), (RIGHT + 8, y), HPos::Left)?;
        }
        Ok::<(), DrawingAreaErrorKind<_>>(())
    })
}

/// Powers of two as labels of a logarithmic axis: thread counts.
struct Threads(std::ops::Range<f64>);

impl Ranged for Threads {
    type FormatOption = plotters::coord::ranged1d::NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value / self.0.start).ln() / (self.0.end / self.0.start).ln();
        limit.0 + (share * f64::from(limit.1 - limit.0)) as i32
    }

    fn key_points<H: KeyPointHint>(&self, _hint: H) -> Vec<f64> {
        (0..=10).map(|i| f64::from(1 << i)).filter(|v| (self.0.start..=self.0.end).contains(v)).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.0.clone()
    }
}

impl plotters::coord::ranged1d::ValueFormatter<f64> for Threads {
    fn format_ext(&self, value: &f64) -> String {
        value.to_string()
    }
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
    let all = || crowd.iter().flat_map(|g| &g.locks).map(|s| s.ops_per_s.max(1.0));
    let (Some(first), Some(last)) = (crowd.first(), crowd.last()) else { return Ok(None) };
    let threads = (first.cell.threads as f64, last.cell.threads as f64);
    if threads.0 == threads.1 {
        return Ok(None);
    }
    let (low, high) = (all().fold(f64::MAX, f64::min) * 0.7, all().fold(1.0, f64::max) * 1.5);
    let drawing = svg((920, 420), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(Threads(threads.0..threads.1), (low..high).log_scale())?;
        chart
            .configure_mesh()
            .axis_style(AXIS)
            .bold_line_style(AXIS.mix(0.3))
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 13).into_font().color(&AXIS))
            .x_desc("threads")
            .y_label_formatter(&|v| without_zeros(&si(*v)))
            .draw()?;
        for &lock in LockName::ALL {
            let points: Vec<_> = crowd
                .iter()
                .filter_map(|g| {
                    g.locks.iter().find(|s| s.lock == lock).map(|s| (g.cell.threads as f64, s.ops_per_s.max(1.0)))
                })
                .collect();
            let ink = colour(lock);
            let line = ink.stroke_width(if lock == OURS { 4 } else { 2 });
            chart.draw_series(LineSeries::new(points.clone(), line))?;
            chart.draw_series(points.into_iter().map(|at| Circle::new(at, 4, ink.filled())))?;
        }
        Ok::<(), DrawingAreaErrorKind<_>>(())
    })?;
    Ok(Some(drawing))
}

#[cfg(test)]
mod tests {
    use super::without_zeros;

    #[test]
    fn axis_labels_are_short() {
        assert_eq!(without_zeros("1.00 us"), "1 us");
        assert_eq!(without_zeros("10.0 M"), "10 M");
        assert_eq!(without_zeros("100 ns"), "100 ns");
        assert_eq!(without_zeros("2.50"), "2.5");
    }
}
