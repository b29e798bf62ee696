//! Charts as inline SVG: what the reports share.
//!
//! Text has no colour here worth keeping: the page's style sheet overrides it, so that one drawing suits a light and a
//! dark page. Marks have colours that can be told apart on both.

use plotters::coord::ranged1d::{KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::failure::Failure;
use crate::ui::nanos;

pub(crate) const AXIS: RGBColor = RGBColor(128, 134, 142);

pub(crate) const LANE: i32 = 18;
pub(crate) const WIDTH: i32 = 560;
/// Where lanes begin and end; labels are to the left.
pub(crate) const LEFT: i32 = 210;
pub(crate) const RIGHT: i32 = WIDTH - 52;

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("a chart could not be drawn: {error}"))
}

/// `1.00 us` as an axis has it: `1 us`.
pub(crate) fn without_zeros(figure: &str) -> String {
    let (number, unit) = figure.split_once(' ').map_or((figure, String::new()), |(n, unit)| (n, format!(" {unit}")));
    let short = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    short.to_owned() + &unit
}

/// Draws on a canvas of this size and returns the SVG.
pub(crate) fn svg<E: std::fmt::Display>(
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

pub(crate) type Canvas<'a, 'b> = &'a DrawingArea<SVGBackend<'b>, plotters::coord::Shift>;
pub(crate) type Drawn<'b> = Result<(), DrawingAreaErrorKind<<SVGBackend<'b> as DrawingBackend>::ErrorType>>;

pub(crate) fn write<'b>(area: Canvas<'_, 'b>, text: &str, at: (i32, i32), anchor: HPos) -> Drawn<'b> {
    let style = ("sans-serif", 12).into_font().color(&AXIS).pos(Pos::new(anchor, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))
}

pub(crate) fn rule<'b>(area: Canvas<'_, 'b>, from: (i32, i32), to: (i32, i32), style: ShapeStyle) -> Drawn<'b> {
    area.draw(&PathElement::new(vec![from, to], style))
}

/// A logarithmic axis along the lanes.
pub(crate) struct Axis {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Axis {
    pub(crate) fn x(&self, value: f64) -> i32 {
        let share = (value.clamp(self.low, self.high) / self.low).ln() / (self.high / self.low).ln();
        LEFT + (share * f64::from(RIGHT - LEFT)).round() as i32
    }

    pub(crate) fn draw<'b>(&self, area: Canvas<'_, 'b>, ticks: &[(f64, String)], lanes: usize) -> Drawn<'b> {
        let bottom = lanes as i32 * LANE + 6;
        for (value, label) in ticks {
            let x = self.x(*value);
            rule(area, (x, 2), (x, bottom), AXIS.mix(0.3).stroke_width(1))?;
            write(area, label, (x, bottom + 10), HPos::Center)?;
        }
        Ok(())
    }
}

pub(crate) fn lane(index: usize) -> i32 {
    index as i32 * LANE + LANE / 2 + 2
}

/// How long one lock's users waited, in nanoseconds.
pub(crate) struct Tail<'a> {
    pub(crate) label: &'a str,
    pub(crate) ink: RGBColor,
    pub(crate) bold: bool,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// A lane for each lock: a line from the median to the worst, with marks at p99 and p99.9.
pub(crate) fn tails(tails: &[Tail<'_>]) -> Result<String, Failure> {
    let axis = Axis { low: 10.0, high: 1e8 };
    let ticks: Vec<_> = (1..=8).map(|power| 10_f64.powi(power)).map(|t| (t, without_zeros(&nanos(t)))).collect();
    svg((WIDTH, tails.len() as i32 * LANE + 28), |area| {
        axis.draw(area, &ticks, tails.len())?;
        for (index, tail) in tails.iter().enumerate() {
            let (y, ink) = (lane(index), tail.ink);
            let thick = if tail.bold { 3 } else { 1 };
            write(area, tail.label, (LEFT - 10, y), HPos::Right)?;
            rule(area, (axis.x(tail.p50), y), (axis.x(tail.max), y), ink.stroke_width(thick))?;
            area.draw(&Circle::new((axis.x(tail.p50), y), 4, ink.stroke_width(2)))?;
            area.draw(&Circle::new((axis.x(tail.p99), y), 3, ink.filled()))?;
            area.draw(&Circle::new((axis.x(tail.p999), y), 5, ink.filled()))?;
            let worst = axis.x(tail.max);
            rule(area, (worst, y - 5), (worst, y + 5), ink.stroke_width(2))?;
            write(area, &nanos(tail.p999), (RIGHT + 8, y), HPos::Left)?;
        }
        Ok::<(), DrawingAreaErrorKind<_>>(())
    })
}

/// Powers of two as labels of a logarithmic axis: counts of threads or CPUs.
struct Threads(std::ops::Range<f64>);

impl Ranged for Threads {
    type FormatOption = plotters::coord::ranged1d::NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value / self.0.start).ln() / (self.0.end / self.0.start).ln();
        limit.0 + (share * f64::from(limit.1 - limit.0)) as i32
    }

    fn key_points<H: KeyPointHint>(&self, _hint: H) -> Vec<f64> {
        (0..=12).map(|i| f64::from(1 << i)).filter(|v| (self.0.start..=self.0.end).contains(v)).collect()
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

/// One line of a chart over thread or CPU counts.
pub(crate) struct Curve {
    pub(crate) ink: RGBColor,
    pub(crate) width: u32,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How values are laid out upwards.
#[derive(Clone, Copy)]
pub(crate) enum Upwards {
    /// By powers.
    Logarithmic,
    /// By differences, from here to there.
    Linear(f64, f64),
}

/// Curves over a logarithmic axis of counts. `None` with fewer than two counts.
pub(crate) fn curves(
    size: (i32, i32),
    counted: &str,
    curves: &[Curve],
    upwards: Upwards,
    label: &dyn Fn(f64) -> String,
) -> Result<Option<String>, Failure> {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let least = all().map(|&(x, _)| x).fold(f64::MAX, f64::min);
    let most = all().map(|&(x, _)| x).fold(0.0, f64::max);
    if least >= most {
        return Ok(None);
    }
    let drawing = svg(size, |area| {
        let mut builder = ChartBuilder::on(area);
        builder.margin(12).x_label_area_size(40).y_label_area_size(60);
        // The two kinds of axis are two types.
        macro_rules! draw_on {
            ($axis:expr) => {{
                let mut chart = builder.build_cartesian_2d(Threads(least..most), $axis)?;
                chart
                    .configure_mesh()
                    .axis_style(AXIS)
                    .bold_line_style(AXIS.mix(0.3))
                    .light_line_style(TRANSPARENT)
                    .label_style(("sans-serif", 13).into_font().color(&AXIS))
                    .x_desc(counted)
                    .y_label_formatter(&|v| label(*v))
                    .draw()?;
                for curve in curves {
                    let line = curve.ink.stroke_width(curve.width);
                    chart.draw_series(LineSeries::new(curve.points.clone(), line))?;
                    chart.draw_series(curve.points.iter().map(|&at| Circle::new(at, 4, curve.ink.filled())))?;
                }
            }};
        }
        match upwards {
            Upwards::Linear(low, high) => draw_on!(low..high),
            Upwards::Logarithmic => {
                let low = all().map(|&(_, y)| y).fold(f64::MAX, f64::min) * 0.7;
                let high = all().map(|&(_, y)| y).fold(1.0, f64::max) * 1.5;
                draw_on!((low..high).log_scale());
            }
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
