//! One comparison as a page of its own: a single file without a script, fit for a mail or an archive.

use std::{fmt::Write as _, time::SystemTime};

use dmarig_records::{CellComparison, Comparison, CountDifference, MetricComparison, MetricResult};
use dmarig_report::{
    Column, JudgedMetric, MetricVerdict, Range, Reference, comparison_heading, comparison_notes,
    number::{number, quantity, ratio_as_change, readable_unit},
    safe,
    svg::ticks,
};
use dmarig_stats::{median, paired::Better};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{
    assets,
    chart::Way,
    page::scrolling,
    text::{Safe, many, minute},
};

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
                      base-uri 'none'; form-action 'none'";

/// Columns that stand between the change's bounds and the verdict.
const MORE: [Column; 3] = [Column::Limit, Column::Basis, Column::Resolution];

/// The page, made at this time.
#[must_use]
pub fn comparison_page(comparison: &Comparison, made: SystemTime) -> String {
    let Comparison { candidate, baseline, cells, .. } = comparison;
    let title = format!("{} against {}", safe(candidate), safe(baseline));
    // How the others ended is in a note.
    let cells = cells.iter().filter(|cell| !cell.is_empty());
    let notes = comparison_notes(comparison);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " \u{b7} dmarig" }
                // Ours alone, and it has no `<` in it.
                style { (PreEscaped(assets::STYLE)) }
            }
            body {
                main #main {
                    (hero(comparison, made))
                    @for cell in cells { (section(cell)) }
                    @if !notes.is_empty() {
                        h2 { "Notes" }
                        ul.reasons {
                            @for note in &notes {
                                li { (Safe(note)) }
                            }
                        }
                    }
                }
                footer {
                    "Made by dmarig compare. Nothing on this page is loaded from elsewhere."
                }
            }
        }
    };
    page.into_string()
}

fn hero(comparison: &Comparison, made: SystemTime) -> Markup {
    let judged = comparison.judgement().map(MetricVerdict::Judged);
    let class = judged.map_or("skipped", verdict_class);
    html! {
        section.hero.(class) {
            div {
                p.when { "Comparison, " (minute(seconds(made))) }
                h1 {
                    code { (Safe(&comparison.candidate)) }
                    span.against { " against " }
                    code { (Safe(&comparison.baseline)) }
                }
                p.meta {
                    @if let Some(judged) = judged { (verdict(judged)) }
                    (Safe(&comparison_heading(comparison)))
                }
            }
        }
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or_default()
}

const fn verdict_class(verdict: MetricVerdict) -> &'static str {
    match verdict.is_good() {
        Some(true) => "passed",
        Some(false) => "failed",
        None => "errored",
    }
}

/// A verdict with its sign.
pub(crate) fn verdict(verdict: MetricVerdict) -> Markup {
    let sign = match verdict.is_good() {
        Some(true) => "\u{2713}",
        Some(false) => "\u{2717}",
        None => "?",
    };
    let class = verdict_class(verdict);
    html! {
        span.state.(class) {
            span.sign.(class) aria-hidden="true" { (sign) }
            (verdict.name())
        }
    }
}

/// A metric of a candidate and a baseline.
struct Row<'a> {
    metric: &'a MetricComparison,
    judged: JudgedMetric,
    /// Bounds of the ratio; one that is not known is open.
    bounds: (Option<f64>, Option<f64>),
    /// The ratio at which it is as much worse as is allowed.
    limit: Option<f64>,
}

impl<'a> Row<'a> {
    fn new(metric: &'a MetricComparison) -> Self {
        let judged = JudgedMetric::from(metric);
        let bounds = match judged.range {
            Range::Ratio(low, high) => (low, high),
            _ => (None, None),
        };
        let limit = match &metric.result {
            MetricResult::Unpaired { .. } => None,
            MetricResult::Paired(finding) => {
                finding.metric.limit.map(|limit| match finding.metric.better {
                    Better::Lower => 1.0 + limit / 100.0,
                    Better::Higher => 1.0 - limit / 100.0,
                })
            }
        };
        Self { metric, judged, bounds, limit }
    }

    /// Whether the values are pairs, in their order.
    fn is_paired(&self) -> bool {
        matches!(self.metric.result, MetricResult::Paired(_))
    }
}

fn section(cell: &CellComparison) -> Markup {
    let rows: Vec<Row<'_>> = cell.metrics.iter().map(Row::new).collect();
    html! {
        section {
            h2 { (Safe(&cell.label)) }
            (scrolling("Metrics", &metrics(&rows)))
            @if !cell.counts.is_empty() {
                (scrolling("Counts that differ", &counts(&cell.counts)))
            }
            div.plots {
                @for row in rows.iter().filter(|row| row.metric.candidate.len() > 1) {
                    (plots(row))
                }
            }
        }
    }
}

fn metrics(rows: &[Row<'_>]) -> Markup {
    let span = rows.iter().flat_map(reach).fold(0.02_f64, f64::max).min(4.0);
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "metric" }
                    th.number scope="col" { "candidate" }
                    th.number scope="col" { "baseline" }
                    th.number scope="col" { "change" }
                    th scope="col" { "interval, and limit" }
                    th.number scope="col" { "bounds" }
                    @if !rows.is_empty() {
                        @for column in MORE {
                            th.number scope="col" { (column.head(Reference::Baseline)) }
                        }
                    }
                    th scope="col" { "verdict" }
                }
            }
            tbody {
                @for row in rows { (metric(row, span)) }
            }
        }
    }
}

fn metric(row: &Row<'_>, span: f64) -> Markup {
    let values = [&row.metric.candidate, &row.metric.baseline];
    html! {
        tr {
            td {
                strong { (Safe(&row.judged.name)) }
            }
            @for values in values {
                td.number { (quantity(middle(values), &row.judged.unit)) }
            }
            td.number {
                @match row.judged.ratio {
                    Some(ratio) => (ratio_as_change(ratio)),
                    None => "\u{2013}",
                }
            }
            td { (interval(row, span)) }
            td.number { (row.judged.text(Column::Range)) }
            @for column in MORE {
                td.number { (Safe(&row.judged.text(column))) }
            }
            td {
                @if let MetricVerdict::Judged(_) | MetricVerdict::Open = row.judged.verdict {
                    (verdict(row.judged.verdict))
                }
            }
        }
    }
}

fn counts(counts: &[CountDifference]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "count that differs" }
                    th.number scope="col" { "candidate" }
                    th.number scope="col" { "baseline" }
                }
            }
            tbody {
                @for count in counts {
                    tr {
                        td { (Safe(&count.name)) }
                        td.number { (number(count.candidate)) }
                        td.number { (number(count.baseline)) }
                    }
                }
            }
        }
    }
}

/// How far from 1 a row reaches, as a share.
fn reach(row: &Row<'_>) -> impl Iterator<Item = f64> + use<> {
    let all = [row.judged.ratio, row.bounds.0, row.bounds.1, row.limit];
    all.into_iter()
        .flatten()
        .filter(|ratio| ratio.is_finite())
        .map(|ratio| (ratio - 1.0).abs() * 1.1)
}

/// The interval of a ratio around no change, with the limit.
fn interval(row: &Row<'_>, span: f64) -> Markup {
    let x = |ratio: f64| (50.0 + (ratio - 1.0) / span * 50.0).clamp(0.0, 100.0);
    let Some(ratio) = row.judged.ratio.filter(|ratio| ratio.is_finite()) else { return html! {} };
    let (low, high) = (row.bounds.0.map_or(0.0, x), row.bounds.1.map_or(100.0, x));
    let known = row.bounds.0.is_some() || row.bounds.1.is_some();
    let label = format!("{}, {}", ratio_as_change(ratio), row.judged.text(Column::Range));
    html! {
        svg .interval
            viewBox="0 0 100 16"
            preserveAspectRatio="none"
            role="img"
            aria-label=(label)
        {
            path.grid d="M50 0V16" {}
            @if let Some(limit) = row.limit {
                path.limit d={ "M" (format!("{:.1}", x(limit))) " 0V16" } {}
            }
            @if known {
                path.range d={ "M" (format!("{low:.1}")) " 8H" (format!("{high:.1}")) } {}
            }
            path.dots d={ "M" (format!("{:.1}", x(ratio))) " 8h0" } {}
        }
    }
}

fn middle(values: &[f64]) -> f64 {
    median(values).unwrap_or(f64::NAN)
}

/// Both lots over one axis, and of pairs each pair's ratio in its order.
fn plots(row: &Row<'_>) -> Markup {
    let all = row
        .metric
        .candidate
        .iter()
        .chain(&row.metric.baseline)
        .copied()
        .filter(|value| value.is_finite());
    let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high {
        return html! {};
    }
    let room = ((high - low) * 0.05).max(high.abs() * 1e-6).max(f64::MIN_POSITIVE);
    let (low, high) = (low - room, high + room);
    html! {
        figure.plots {
            figcaption { (Safe(&row.judged.name)) }
            (lots(row, low, high))
            @if row.is_paired() { (pairs(row)) }
        }
    }
}

/// Each value as a stroke, in two rows, with the medians.
fn lots(row: &Row<'_>, low: f64, high: f64) -> Markup {
    let x = |value: f64| (value - low) / (high - low) * 1000.0;
    let strokes = |values: &[f64], y: f64| {
        let mut d = String::new();
        for value in values.iter().filter(|value| value.is_finite()) {
            // Writing to a String can't fail.
            let _ = write!(d, "M{:.1} {y}v26", x(*value));
        }
        d
    };
    let (scale, unit) = readable_unit(high, &row.judged.unit);
    let ticks = ticks(low / scale, high / scale);
    let place = |tick: f64| format!("left:{:.2}%", x(tick * scale) / 10.0);
    let grid: String = ticks.iter().map(|tick| format!("M{:.1} 0V72", x(tick * scale))).collect();
    let ours = x(middle(&row.metric.candidate));
    let theirs = x(middle(&row.metric.baseline));
    let label = format!(
        "{} of the candidate above {} of the baseline",
        many(row.metric.candidate.len(), "value"),
        row.metric.baseline.len()
    );
    html! {
        div.lots {
            div.names aria-hidden="true" {
                span { "candidate" }
                span { "baseline" }
            }
            div {
                svg viewBox="0 0 1000 72"
                    preserveAspectRatio="none"
                    role="img"
                    aria-label=(label)
                {
                    path.grid d=(grid) {}
                    path.ours d=(strokes(&row.metric.candidate, 5.0)) {}
                    path.theirs d=(strokes(&row.metric.baseline, 41.0)) {}
                    path.middle d=(format!("M{ours:.1} 0v36M{theirs:.1} 36v36")) {}
                }
                div.x aria-hidden="true" {
                    @for tick in &ticks {
                        span style=(place(*tick)) { (number(*tick)) " " (Safe(unit)) }
                    }
                }
            }
        }
    }
}

/// The ratio of each pair, in the order in which they were measured: a drift would show.
fn pairs(row: &Row<'_>) -> Markup {
    let ratios: Vec<f64> = row
        .metric
        .candidate
        .iter()
        .zip(&row.metric.baseline)
        .map(|(ours, theirs)| ours / theirs)
        .filter(|ratio| ratio.is_finite())
        .collect();
    if ratios.len() < 2 {
        return html! {};
    }
    let span = ratios
        .iter()
        .copied()
        .chain(row.limit)
        .map(|ratio| (ratio - 1.0).abs())
        .fold(0.01, f64::max)
        * 1.1;
    let y = |ratio: f64| 60.0 - (ratio - 1.0) / span * 60.0;
    let step = 1000.0 / ratios.len() as f64;
    let dots: String = ratios
        .iter()
        .enumerate()
        .map(|(at, ratio)| format!("M{:.1} {:.1}h0", (at as f64 + 0.5) * step, y(*ratio)))
        .collect();
    let stems: String = ratios
        .iter()
        .enumerate()
        .map(|(at, ratio)| format!("M{:.1} 60V{:.1}", (at as f64 + 0.5) * step, y(*ratio)))
        .collect();
    let edge = ratio_as_change(1.0 + span / 1.1);
    let way =
        if row.judged.ratio.is_some_and(|ratio| ratio > 1.0) { Way::Worse } else { Way::Better };
    let label = format!("Change in each of {} pairs, in their order", ratios.len());
    html! {
        div.lots {
            div.names aria-hidden="true" {
                span { (edge) }
                span { "0 %" }
                span { (ratio_as_change(1.0 - span / 1.1)) }
            }
            div {
                svg .pairs
                    .(way.class())
                    viewBox="0 0 1000 120"
                    preserveAspectRatio="none"
                    role="img"
                    aria-label=(label)
                {
                    path.grid d="M0 60H1000" {}
                    @if let Some(limit) = row.limit {
                        path.limit d={ "M0 " (format!("{:.1}", y(limit))) "H1000" } {}
                    }
                    path.stems d=(stems) {}
                    path.dots d=(dots) {}
                }
                div.x aria-hidden="true" {
                    span style="left:0" { "pair 1" }
                    span.end style="left:100%" { "pair " (ratios.len()) }
                }
            }
        }
    }
}
