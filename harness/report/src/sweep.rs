//! What a sweep over live mappings shows: growth, the crossover, and a picture of both.

use std::fmt::Write;

use crate::number::three_digits;
use dmarig_model::{
    sweep::{Crossover, Sweep},
    windows::Side,
};
use plotters::{
    backend::SVGBackend,
    chart::ChartBuilder,
    coord::Shift,
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea},
    element::{Circle, PathElement},
    series::LineSeries,
    style::{BLACK, Color, RGBColor, WHITE},
};

/// Metrics of a hypervisor's work and of time, each a panel of the picture, with its unit as shown and
/// what that is of the metric's own.
const PANELS: &[(&str, &str, f64)] = &[
    ("page-walk-in-vain-per-unmap", "entries walked in vain per unmap", 1.0),
    ("elapsed", "time of the workload, ms", 1e-6),
];
/// Blue and orange of Okabe and Ito, which people tell apart whatever colours they see.
const OWN: RGBColor = RGBColor(0, 114, 178);
const CONTROL: RGBColor = RGBColor(213, 94, 0);
/// Size of a panel, in pixels.
const PANEL: (u32, u32) = (760, 300);

/// What is told of growth: the metric, what it is called, and what a unit of it as shown is of its own.
const GROWTH: &[(&str, &str, f64)] = &[
    ("page-walk-in-vain-per-unmap", "entries walked in vain per unmap", 1.0),
    ("elapsed", "ms of the workload", 1e-6),
];
/// What batching may lose.
const LOSSES: &[(&str, &str)] =
    &[("elapsed", "time"), ("throughput", "throughput"), ("latency-p50", "median latency")];

/// A sweep in a few lines.
pub fn sweep_lines(sweep: &Sweep) -> String {
    let mut text =
        format!("\ncase {}, {}, per 1,000 live mappings more\n", sweep.case, sweep.label);
    for (name, what, scale) in GROWTH {
        let Some(own) = sweep.growth(name, Side::Own) else { continue };
        // Writing to a String can't fail.
        let _ = write!(text, "  {} {what}", three_digits(own * scale));
        if let Some(control) = sweep.growth(name, Side::Control) {
            let _ = write!(text, "; made to batch, {}", three_digits(control * scale));
        }
        text.push('\n');
    }
    for (name, what) in LOSSES {
        let Some(crossover) = sweep.crossover(name) else { continue };
        let from = match crossover {
            Crossover::Always => "at any number of live mappings".to_owned(),
            Crossover::From(live) => format!("from about {live:.0} live mappings on"),
            Crossover::Never(live) => format!("nowhere up to {live} live mappings"),
        };
        let _ = writeln!(text, "  batching loses {what} {from}");
    }
    text
}

/// The picture, as SVG.
///
/// # Errors
/// What the drawing library says.
pub fn sweep_picture(sweep: &Sweep) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let height = PANEL.1 * u32::try_from(PANELS.len())?;
        let root = SVGBackend::with_string(&mut svg, (PANEL.0, height)).into_drawing_area();
        let drawn = draw(sweep, &root);
        drawn.and_then(|()| root.present()).map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    Ok(svg)
}

type Drawn<'a> = Result<
    (),
    DrawingAreaErrorKind<<SVGBackend<'a> as plotters::backend::DrawingBackend>::ErrorType>,
>;

fn draw<'a>(sweep: &Sweep, root: &DrawingArea<SVGBackend<'a>, Shift>) -> Drawn<'a> {
    root.fill(&WHITE)?;
    for (area, (name, title, scale)) in root.split_evenly((PANELS.len(), 1)).iter().zip(PANELS) {
        let line = |side| -> Vec<(f64, f64)> {
            let points = sweep.points.iter();
            points
                .filter_map(|point| Some((f64::from(point.live), point.value(name, side)? * scale)))
                .collect()
        };
        let sides = [
            (line(Side::Own), OWN, "the kernel as it is"),
            (line(Side::Control), CONTROL, "made to batch"),
        ];
        let of_all = sides.iter().flat_map(|(points, ..)| points);
        let (x, y) =
            of_all.fold((1.0_f64, 0.0_f64), |top, point| (top.0.max(point.0), top.1.max(point.1)));
        let y = if y > 0.0 { y * 1.08 } else { 1.0 };
        let mut chart = ChartBuilder::on(area)
            .caption(format!("{title} ({})", sweep.label), ("sans-serif", 15))
            .margin(12)
            .x_label_area_size(34)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..x * 1.02, 0.0..y)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("live mappings beside the workload")
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| three_digits(*y))
            .draw()?;
        for (points, colour, label) in sides.into_iter().filter(|(points, ..)| !points.is_empty()) {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                .label(label)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                });
            chart
                .draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
        }
        chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    }
    Ok(())
}
