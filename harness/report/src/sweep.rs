//! What a sweep over live mappings shows: growth, the crossover, and a picture of both.

use std::fmt::Write;

use dmarig_model::{
    sweep::{Crossover, Sweep},
    windows::Side,
};
use maud::{Markup, html};

use crate::{
    number::{growth, number},
    svg::{Scale, dots, path, ticks},
    text::safe,
};

/// Metrics of a hypervisor's work and of time, each a panel of the picture, with its unit as shown and
/// what that is of the metric's own.
const PANELS: &[(&str, &str, f64)] = &[
    ("page-walk-in-vain-per-unmap", "entries walked in vain per unmap", 1.0),
    ("elapsed", "time of the workload, ms", 1e-6),
];
/// Blue and orange of Okabe and Ito, which people tell apart whatever colours they see.
const OWN: &str = "#0072b2";
const CONTROL: &str = "#d55e00";
/// Size of a panel, and the area within it that is drawn in, in pixels.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 740.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 250.0;

/// What is told of growth: the metric, what it is called, and what a unit of it as shown is of its own.
const GROWTH: &[(&str, &str, f64)] = &[
    ("page-walk-in-vain-per-unmap", "entries walked in vain per unmap", 1.0),
    ("elapsed", "ms of the workload", 1e-6),
];
/// What batching may lose.
const LOSSES: &[(&str, &str)] =
    &[("elapsed", "time"), ("throughput", "throughput"), ("latency-p50", "median latency")];

/// The sweep in a few lines.
pub(crate) fn sweep_lines(sweep: &Sweep) -> String {
    let mut text =
        format!("\ncase {}, {}, per 1,000 live mappings more\n", sweep.case, sweep.label);
    for line in sweep_growth(sweep).into_iter().chain(sweep_crossovers(sweep)) {
        // Writing to a String can't fail.
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// What 1,000 live mappings more cost, a sentence for each metric that was measured.
#[must_use]
pub fn sweep_growth(sweep: &Sweep) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, what, scale) in GROWTH {
        let Some(own) = sweep.growth(name, Side::Own) else { continue };
        let mut line = format!("{} {what}", growth(own * scale));
        if let Some(control) = sweep.growth(name, Side::Control) {
            let _ = write!(line, "; made to batch, {}", growth(control * scale));
        }
        lines.push(line);
    }
    lines
}

/// From how many live mappings on batching loses, a sentence for each metric.
#[must_use]
pub fn sweep_crossovers(sweep: &Sweep) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, what) in LOSSES {
        let Some(crossover) = sweep.crossover(name) else { continue };
        let from = match crossover {
            Crossover::Always => "at any number of live mappings".to_owned(),
            Crossover::From(live) => format!("from about {live:.0} live mappings on"),
            Crossover::Never(live) => format!("nowhere up to {live} live mappings"),
        };
        lines.push(format!("batching loses {what} {from}"));
    }
    lines
}

/// A picture of the sweep as SVG, a panel below the other.
#[must_use]
pub fn sweep_picture(sweep: &Sweep) -> String {
    let height = HEIGHT * PANELS.len() as f64;
    let picture = html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(WIDTH) height=(height)
            viewBox={ "0 0 " (WIDTH) " " (height) } font-family="sans-serif" font-size="12" {
            rect width=(WIDTH) height=(height) fill="#ffffff" {}
            @for (number, (metric, title, scale)) in PANELS.iter().enumerate() {
                g transform={ "translate(0 " (HEIGHT * number as f64) ")" } {
                    (panel(sweep, metric, title, *scale))
                }
            }
        }
    };
    picture.into_string() + "\n"
}

/// Values of one side by live mappings, as they are drawn.
struct Line {
    points: Vec<(f64, f64)>,
    colour: &'static str,
    name: &'static str,
}

fn panel(sweep: &Sweep, metric: &str, title: &str, scale: f64) -> Markup {
    let points = |side| -> Vec<(f64, f64)> {
        let values = sweep.points.iter().filter_map(|point| {
            let value = point.value(metric, side)?;
            Some((f64::from(point.live), value * scale))
        });
        values.collect()
    };
    let lines = [
        Line { points: points(Side::Own), colour: OWN, name: "the kernel as it is" },
        Line { points: points(Side::Control), colour: CONTROL, name: "made to batch" },
    ];
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    // Both axes begin at zero: growth is what is looked for.
    let x = Scale::new(all().map(|(live, _)| live).chain([0.0]), RIGHT - LEFT);
    let y = Scale::new(all().map(|(_, value)| value).chain([0.0]), BOTTOM - TOP);
    let place = |(live, value): (f64, f64)| (LEFT + x.at(live), BOTTOM - y.at(value));
    html! {
        text x=(WIDTH / 2.0) y="22" font-size="15" text-anchor="middle" {
            (title) " (" (safe(&sweep.label)) ")"
        }
        (axes(x, y))
        @for line in &lines {
            @let places = || line.points.iter().copied().map(place);
            path d=(path(places())) fill="none" stroke=(line.colour) stroke-width="2" {}
            path d=(dots(places())) fill="none" stroke=(line.colour) stroke-width="8"
                stroke-linecap="round" {}
        }
        @let shown = lines.iter().filter(|line| !line.points.is_empty());
        @for (number, line) in shown.enumerate() {
            @let middle = TOP + 14.0 + 18.0 * number as f64;
            path d=(format!("M{} {middle}h18", LEFT + 12.0)) stroke=(line.colour)
                stroke-width="2" {}
            text x=(LEFT + 36.0) y=(middle + 4.0) { (line.name) }
        }
    }
}

fn axes(x: Scale, y: Scale) -> Markup {
    html! {
        @for tick in ticks(y.low, y.high) {
            @let top = format!("{:.1}", BOTTOM - y.at(tick));
            path d=(format!("M{LEFT} {top}H{RIGHT}")) stroke="#dddddd" {}
            text x=(LEFT - 8.0) y=(top) text-anchor="end" dominant-baseline="middle" {
                (number(tick))
            }
        }
        @for tick in ticks(x.low, x.high) {
            @let left = format!("{:.1}", LEFT + x.at(tick));
            path d=(format!("M{left} {BOTTOM}v5")) stroke="#000000" {}
            text x=(left) y=(BOTTOM + 19.0) text-anchor="middle" { (number(tick)) }
        }
        path d=(format!("M{LEFT} {TOP}V{BOTTOM}H{RIGHT}")) fill="none" stroke="#000000" {}
        text x=((LEFT + RIGHT) / 2.0) y=(BOTTOM + 38.0) text-anchor="middle" {
            "live mappings next to the workload"
        }
    }
}

#[cfg(test)]
mod tests {
    use dmarig_model::{metrics::SWEPT, sweep::Point};

    use super::*;

    fn sweep(label: &str) -> Sweep {
        let point = |live: u32| {
            let value = f64::from(live);
            let values = SWEPT.iter().map(|_| [Some(value), Some(2.0 * value + 5.0)]);
            Point { cell: String::new(), live, values: values.collect() }
        };
        let points = [0, 1000, 4000].map(point).into();
        Sweep { case: "sweep".into(), label: label.into(), points }
    }

    #[test]
    fn draws_a_line_for_each_side_in_each_panel() {
        let picture = sweep_picture(&sweep("policy=lazy"));
        for colour in [OWN, CONTROL] {
            assert_eq!(picture.matches(&format!("stroke=\"{colour}\"")).count(), 6, "{picture}");
        }
        assert!(!picture.contains("NaN"), "{picture}");
    }

    #[test]
    fn a_label_cannot_break_out_of_the_picture() {
        let picture = sweep_picture(&sweep("</text><script>"));
        assert!(!picture.contains("<script"), "{picture}");
    }

    #[test]
    fn an_empty_sweep_has_empty_panels() {
        let empty = Sweep { points: Vec::new(), ..sweep("") };
        assert!(!sweep_picture(&empty).contains("NaN"));
    }
}
