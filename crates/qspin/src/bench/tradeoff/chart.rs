//! The curves: throughput upwards, waits to the right.

use plotters::prelude::*;

use super::{Panel, Point};
use crate::bench::plot::colour;
use crate::draw::{AXIS, svg};
use crate::failure::Failure;
use crate::locks::LockName;
use crate::ui::digits;

const WIDTH: i32 = 920;
const HEIGHT: i32 = 460;

/// The colours of the knobs, in their order.
const INKS: [RGBColor; 4] =
    [RGBColor(37, 99, 235), RGBColor(38, 150, 92), RGBColor(140, 90, 210), RGBColor(178, 120, 70)];

/// One panel below the other.
pub(super) fn draw(panels: &[Panel]) -> Result<String, Failure> {
    let count = panels.len().max(1);
    svg((WIDTH, HEIGHT * count as i32), |area| {
        for (panel, part) in panels.iter().zip(area.split_evenly((count, 1))) {
            one(panel, &part)?;
        }
        Ok::<(), DrawingAreaErrorKind<_>>(())
    })
}

/// Where a wait is drawn. The axis is logarithmic, and a wait of a hundredth is as good as none.
fn shown(point: &Point) -> f64 {
    point.wait.max(0.01)
}

type Part<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn one<'a>(panel: &Panel, part: &Part<'a>) -> Drawn<'a> {
    let own = panel.curves.iter().flat_map(|curve| &curve.points).map(|&(_, point)| point);
    let base = Point { throughput: 1.0, wait: 1.0, rounds: 0 };
    let all: Vec<Point> = own.chain(panel.std).chain([base]).collect();
    let range = |of: fn(&Point) -> f64| {
        all.iter().map(of).fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)))
    };
    let (left, right) = range(shown);
    let (bottom, top) = range(|p| p.throughput);
    let small = ("sans-serif", 12).into_font().color(&AXIS);
    let mut chart = ChartBuilder::on(part)
        .margin(12)
        .margin_top(40)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d((left / 1.3..right * 1.5).log_scale(), bottom - 0.05..top + 0.08)?;
    chart
        .configure_mesh()
        .axis_style(AXIS)
        .bold_line_style(AXIS.mix(0.3))
        .light_line_style(TRANSPARENT)
        .label_style(small.clone())
        .x_labels(12)
        .x_desc(format!("{}, parking_lot = 1", panel.wait()))
        .y_desc("throughput, parking_lot = 1")
        .x_label_formatter(&|v| digits(*v))
        .y_label_formatter(&|v| digits(*v))
        .draw()?;
    for (curve, ink) in panel.curves.iter().zip(INKS) {
        let points: Vec<(f64, f64)> = curve.points.iter().map(|(_, p)| (shown(p), p.throughput)).collect();
        chart.draw_series(LineSeries::new(points, ink.stroke_width(2)))?;
        let label = ("sans-serif", 11).into_font().color(&ink);
        for (value, p) in &curve.points {
            let at = EmptyElement::at((shown(p), p.throughput));
            chart.draw_series([at + Circle::new((0, 0), 3, ink.filled())])?;
            if Some(*p) != panel.default {
                let at = EmptyElement::at((shown(p), p.throughput));
                chart.draw_series([at + Text::new(value.to_string(), (5, -13), label.clone())])?;
            }
        }
    }
    let fixed = [
        ("parking as it is", panel.default, colour(LockName::Parking)),
        ("std", panel.std, colour(LockName::Std)),
        ("parking_lot", Some(base), colour(LockName::ParkingLot)),
    ];
    for (name, point, ink) in fixed {
        let Some(p) = &point else { continue };
        let label = ("sans-serif", 12).into_font().color(&ink);
        let at = EmptyElement::at((shown(p), p.throughput));
        chart.draw_series([at + Circle::new((0, 0), 6, ink.stroke_width(2)) + Text::new(name, (9, 2), label)])?;
    }
    part.draw(&Text::new(panel.title(), (68, 12), ("sans-serif", 15).into_font().color(&AXIS)))?;
    for (index, (curve, ink)) in panel.curves.iter().zip(INKS).enumerate() {
        let (x, y) = (WIDTH - 330 + 80 * index as i32, 18);
        part.draw(&Rectangle::new([(x, y), (x + 14, y + 4)], ink.filled()))?;
        part.draw(&Text::new(curve.knob, (x + 20, y - 4), small.clone()))?;
    }
    Ok(())
}
