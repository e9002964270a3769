//! Charts as SVG that fits any width: lines are drawn in an area that stretches, words stand around it
//! as text of the page. The script only adds to them; without it they are whole.

use std::fmt::Write as _;

use dmarig_report::{
    number::{number, readable_unit},
    svg::{Scale, dots, path, ticks},
};
use maud::{Markup, html};

use crate::{
    noise::Segment,
    site::{Better, Series},
    text::{day, month, short_day},
};

/// Size of the area that stretches.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 300.0;
/// Points of a sparkline, at most.
const SPARKS: usize = 48;
const DAY: i64 = 86_400;

/// What a chart shows besides its points.
pub(crate) struct ChartMarks<'a> {
    /// Parts between changes.
    pub(crate) segments: &'a [Segment],
    /// The time of each point, in seconds.
    pub(crate) times: &'a [i64],
    /// What a change is called, by its number, and where it is told.
    pub(crate) label: &'a dyn Fn(usize) -> (String, String),
}

/// The line of a series with its noise and its changes.
pub(crate) fn line(series: &Series, marks: &ChartMarks<'_>) -> Markup {
    let finite: Vec<usize> =
        (0..series.points.len()).filter(|at| series.points[*at].value.is_finite()).collect();
    let (Some(first), Some(last)) = (finite.first(), finite.last()) else {
        return html! {
            p.muted { "There are no points." }
        };
    };
    let (from, to) = (marks.times[*first], marks.times[*last]);
    let (from, to) = if from == to { (from - DAY / 2, to + DAY / 2) } else { (from, to) };
    let bands = marks.segments.iter().flat_map(|part| <[f64; 2]>::from(part.band()));
    let values = finite.iter().map(|at| series.points[*at].value);
    let y = Scale::new(values.chain(bands), HEIGHT);
    let x = |at: usize| (marks.times[at] - from) as f64 / (to - from) as f64 * WIDTH;
    let top = |value: f64| HEIGHT - y.at(value);
    let (scale, unit) = readable_unit(y.high, &series.unit);
    let ticks = ticks(y.low / scale, y.high / scale);
    let percent = |value: f64| format!("{:.2}%", 100.0 - y.at(value * scale) / HEIGHT * 100.0);
    html! {
        figure
            .chart
            data-from=(from)
            data-to=(to)
            data-low=(y.low)
            data-high=(y.high)
            data-scale=(scale)
            data-unit=(dmarig_report::safe(unit))
        {
            div.y aria-hidden="true" {
                @for tick in &ticks {
                    span style={ "top:" (percent(*tick)) } { (number(*tick)) }
                }
                @if !unit.is_empty() {
                    b { (crate::text::Safe(unit)) }
                }
            }
            div .plot
                tabindex="0"
                role="group"
                aria-label={
                    (dmarig_report::safe(&series.metric))
                    " by night; left and right go from point to point, plus and minus zoom"
                }
            {
                svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) }
                    preserveAspectRatio="none"
                    aria-hidden="true"
                {
                    path.grid d=(lines(ticks.iter().map(|tick| top(tick * scale)))) {}
                    (bands_and_levels(marks.segments, &x, &top))
                    path
                        .line
                        d=({
                            path(
                                finite
                                    .iter()
                                    .map(|at| (x(*at), top(series.points[*at].value))),
                            )
                        }) {}
                    path
                        .dots
                        d=({
                            dots(
                                finite
                                    .iter()
                                    .map(|at| (x(*at), top(series.points[*at].value))),
                            )
                        }) {}
                }
                (changes(series, marks, &x))
            }
            div.x aria-hidden="true" { (times(from, to)) }
        }
    }
}

fn bands_and_levels(
    segments: &[Segment],
    x: &dyn Fn(usize) -> f64,
    top: &dyn Fn(f64) -> f64,
) -> Markup {
    let mut band = String::new();
    let mut level = String::new();
    for part in segments {
        let (left, right) = (x(part.start), x(part.end - 1));
        let (low, high) = part.band();
        let (low, high) = (top(low), top(high));
        // Writing to a String can't fail.
        let _ = write!(band, "M{left:.1} {high:.1}H{right:.1}V{low:.1}H{left:.1}z");
        let _ = write!(level, "M{left:.1} {:.1}H{right:.1}", top(part.level));
    }
    html! {
        path.band d=(band) {}
        path.level d=(level) {}
    }
}

fn changes(series: &Series, marks: &ChartMarks<'_>, x: &dyn Fn(usize) -> f64) -> Markup {
    html! {
        @for (number, change) in series.changes.iter().enumerate() {
            @if change.at < series.points.len() {
                @let (label, link) = (marks.label)(number);
                @let way = way(series.better, change.before, change.after);
                a   .mark
                    .(way.class())
                    href=(link)
                    data-at=(marks.times[change.at])
                    style={ "left:" (format!("{:.2}", x(change.at) / WIDTH * 100.0)) "%" }
                    title=(label)
                    aria-label=(label)
                {
                    span aria-hidden="true" { (way.symbol()) }
                }
            }
        }
    }
}

/// Whether something went for the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Better,
    Worse,
    Other,
}

impl Way {
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Other => "other",
        }
    }

    /// A sign that needs no colour.
    pub(crate) const fn symbol(self) -> &'static str {
        match self {
            Self::Better => "\u{2713}",
            Self::Worse => "!",
            Self::Other => "\u{25c7}",
        }
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Other => "changed",
        }
    }
}

/// Which way it is from one value to another.
pub(crate) fn way(better: Better, before: f64, after: f64) -> Way {
    match better {
        Better::Unknown => Way::Other,
        _ if before == after => Way::Other,
        Better::Lower if after < before => Way::Better,
        Better::Higher if after > before => Way::Better,
        _ => Way::Worse,
    }
}

/// A small line, for a row of a table.
pub(crate) fn spark(values: &[f64]) -> Markup {
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    if finite.len() < 2 {
        return html! {
            span.muted { "\u{2013}" }
        };
    }
    let chunk = finite.len().div_ceil(SPARKS);
    let means: Vec<f64> =
        finite.chunks(chunk).map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
    let y = Scale::new(means.iter().copied(), 24.0);
    let step = 100.0 / (means.len() - 1).max(1) as f64;
    let whole =
        |at: usize| ((at as f64 * step).round() as i32, (24.0 - y.at(means[at])).round() as i32);
    let mut d = String::new();
    let mut last = whole(0);
    let _ = write!(d, "M{} {}", last.0, last.1);
    for at in 1..means.len() {
        let next = whole(at);
        let _ = write!(d, "l{} {}", next.0 - last.0, next.1 - last.1);
        last = next;
    }
    html! {
        svg.spark viewBox="-2 -2 104 28" preserveAspectRatio="none" aria-hidden="true" {
            path d=(d) {}
            path.dots d={ "M" (last.0) " " (last.1) "h0" } {}
        }
    }
}

/// A bar for each night: how high tells how much of it went wrong.
pub(crate) fn strip(shares: &[Option<f64>]) -> Markup {
    let mut fine = String::new();
    let mut bad = String::new();
    for (at, share) in shares.iter().enumerate() {
        let x = at * 5;
        match share {
            None => {}
            Some(0.0) => {
                let _ = write!(fine, "M{x} 20h4v-4h-4z");
            }
            Some(share) => {
                let height = 6.0 + 14.0 * share;
                let _ = write!(bad, "M{x} 20h4v-{height:.0}h-4z");
            }
        }
    }
    html! {
        svg .strip
            width=(shares.len() * 5)
            height="20"
            viewBox={ "0 0 " (shares.len() * 5) " 20" }
            preserveAspectRatio="none"
            aria-hidden="true"
        {
            path.fine d=(fine) {}
            path.bad d=(bad) {}
        }
    }
}

fn lines(heights: impl Iterator<Item = f64>) -> String {
    let mut d = String::new();
    for y in heights {
        let _ = write!(d, "M0 {y:.1}H{WIDTH}");
    }
    d
}

/// Marks of the time axis, at round dates.
fn times(from: i64, to: i64) -> Markup {
    let days = (to - from) / DAY;
    let at = |time: i64| format!("{:.2}%", (time - from) as f64 / (to - from) as f64 * 100.0);
    // A name there would stand out of the chart.
    let at_the_end = |time: i64| (time - from) as f64 / (to - from) as f64 > 0.94;
    let stops: Vec<(i64, String)> = if days > 70 {
        let mut months: Vec<(i64, String)> = Vec::new();
        for time in (from..=to).step_by(DAY as usize) {
            let name = month(time);
            if day(time).ends_with("-01") && months.last().is_none_or(|(_, last)| *last != name) {
                months.push((time / DAY * DAY, name));
            }
        }
        let every = months.len().div_ceil(7);
        months.into_iter().step_by(every.max(1)).collect()
    } else {
        let step = (days / 6).max(1) * DAY;
        let first = (from + DAY - 1) / DAY * DAY;
        (first..=to).step_by(step as usize).map(|time| (time, short_day(time))).collect()
    };
    html! {
        @for (time, name) in stops {
            @if time >= from {
                span.end[at_the_end(time)] style={ "left:" (at(time)) } { (name) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_series_draws_what_is_no_number() {
        for values in
            [&[1.0, f64::NAN, 2.0][..], &[f64::INFINITY, 1.0], &[0.0; 3], &[1e300, -1e300]]
        {
            let text = spark(values).into_string();
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }
}
