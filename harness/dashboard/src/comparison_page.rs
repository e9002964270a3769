//! One comparison as a page of its own: a single file without a script, fit for a mail or an archive.

use std::fmt::Write as _;

use dmarig_report::{
    number::{number, quantity, readable_unit},
    safe,
};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::{
    assets,
    chart::{Way, ticks},
    page::scrolling,
    text::{Safe, minute},
};

/// A candidate beside a baseline.
#[derive(Debug, Clone, Default)]
pub struct Compared {
    /// What is judged.
    pub candidate: String,
    /// What it is compared with.
    pub baseline: String,
    /// How it was measured, in a sentence.
    pub how: String,
    /// What is thought of all of it: a word such as `pass`, and whether that is good; `None` where
    /// nothing was judged.
    pub verdict: Option<(String, Option<bool>)>,
    /// When it was made, in seconds since 1970.
    pub made: i64,
    /// The cells of both.
    pub groups: Vec<ComparedGroup>,
    /// What a reader must know to trust it.
    pub notes: Vec<String>,
}

/// Two cells that differ in nothing but what is compared.
#[derive(Debug, Clone, Default)]
pub struct ComparedGroup {
    /// What both have in common.
    pub label: String,
    /// What was timed.
    pub rows: Vec<ComparedRow>,
    /// Counts that differ: name, candidate, baseline.
    pub counts: Vec<(String, f64, f64)>,
}

/// One metric of both.
#[derive(Debug, Clone, Default)]
pub struct ComparedRow {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Whether the values are pairs, in their order.
    pub paired: bool,
    /// What the candidate gave.
    pub candidate: Vec<f64>,
    /// What the baseline gave.
    pub baseline: Vec<f64>,
    /// Candidate over baseline.
    pub ratio: Option<f64>,
    /// Bounds of the ratio; one that is not known is open.
    pub bounds: (Option<f64>, Option<f64>),
    /// The ratio at which it is as much worse as is allowed.
    pub limit: Option<f64>,
    /// What is thought of it: a word, and whether that is good.
    pub verdict: Option<(String, Option<bool>)>,
    /// More fields: head and value, such as noise.
    pub more: Vec<(String, String)>,
}

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

/// The page.
#[must_use]
pub fn comparison_page(compared: &Compared) -> String {
    let title = format!("{} against {}", safe(&compared.candidate), safe(&compared.baseline));
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
                    section.hero.(verdict_class(compared.verdict.as_ref().map(|(_, good)| *good))) { div {
                        p.when { "Comparison, " (minute(compared.made)) }
                        h1 { code { (Safe(&compared.candidate)) } span.against { " against " } code { (Safe(&compared.baseline)) } }
                        p.meta { @if let Some(verdict) = &compared.verdict { (told(verdict)) } (Safe(&compared.how)) }
                    } }
                    @for group in &compared.groups { (section(group)) }
                    @if !compared.notes.is_empty() { h2 { "Notes" } ul.reasons { @for note in &compared.notes { li { (Safe(note)) } } } }
                }
                footer { "Made by dmarig compare. Nothing on this page is loaded from elsewhere." }
            }
        }
    };
    page.into_string()
}

pub(crate) const fn verdict_class(good: Option<Option<bool>>) -> &'static str {
    match good {
        Some(Some(true)) => "passed",
        Some(Some(false)) => "failed",
        Some(None) => "errored",
        None => "skipped",
    }
}

/// What is thought of something, with a sign.
pub(crate) fn told((word, good): &(String, Option<bool>)) -> Markup {
    let sign = match good {
        Some(true) => "\u{2713}",
        Some(false) => "\u{2717}",
        None => "?",
    };
    let class = verdict_class(Some(*good));
    html! { span.state.(class) { span.sign.(class) aria-hidden="true" { (sign) } (Safe(word)) } }
}

fn section(group: &ComparedGroup) -> Markup {
    let heads: Vec<&str> = group
        .rows
        .first()
        .map_or_else(Vec::new, |row| row.more.iter().map(|(head, _)| head.as_str()).collect());
    let span = group.rows.iter().flat_map(reach).fold(0.02_f64, f64::max).min(4.0);
    html! { section {
        h2 { (Safe(&group.label)) }
        (scrolling("Metrics", &html! { table {
            thead { tr {
                th scope="col" { "metric" } th.number scope="col" { "candidate" } th.number scope="col" { "baseline" } th.number scope="col" { "change" }
                th scope="col" { "interval, and limit" } th.number scope="col" { "bounds" }
                @for head in &heads { th.number scope="col" { (Safe(head)) } }
                th scope="col" { "verdict" }
            } }
            tbody { @for row in &group.rows { tr {
                td { strong { (Safe(&row.name)) } }
                td.number { (quantity(middle(&row.candidate), &row.unit)) }
                td.number { (quantity(middle(&row.baseline), &row.unit)) }
                td.number { @match row.ratio { Some(ratio) => (percent(ratio)), None => "\u{2013}" } }
                td { (interval(row, span)) }
                td.number { (bounds(row)) }
                @for (_, value) in &row.more { td.number { (Safe(value)) } }
                td { @if let Some(verdict) = &row.verdict { (told(verdict)) } }
            } } }
        } }))
        @if !group.counts.is_empty() { (scrolling("Counts that differ", &html! { table {
            thead { tr { th scope="col" { "count that differs" } th.number scope="col" { "candidate" } th.number scope="col" { "baseline" } } }
            tbody { @for (name, ours, theirs) in &group.counts { tr { td { (Safe(name)) } td.number { (number(*ours)) } td.number { (number(*theirs)) } } } }
        } })) }
        div.plots { @for row in group.rows.iter().filter(|row| row.candidate.len() > 1) { (plots(row)) } }
    } }
}

/// How far from 1 a row reaches, as a share.
fn reach(row: &ComparedRow) -> impl Iterator<Item = f64> {
    let all = [row.ratio, row.bounds.0, row.bounds.1, row.limit];
    all.into_iter()
        .flatten()
        .filter(|ratio| ratio.is_finite())
        .map(|ratio| (ratio - 1.0).abs() * 1.1)
}

fn percent(ratio: f64) -> String {
    format!("{:+.1} %", (ratio - 1.0) * 100.0)
}

fn bounds(row: &ComparedRow) -> String {
    let told = |bound: Option<f64>| {
        bound.map_or_else(|| "?".to_owned(), |bound| format!("{:+.1}", (bound - 1.0) * 100.0))
    };
    match row.bounds {
        (None, None) => "too few".to_owned(),
        (low, high) => format!("{} .. {} %", told(low), told(high)),
    }
}

/// The interval of a ratio around no change, with the limit.
fn interval(row: &ComparedRow, span: f64) -> Markup {
    let x = |ratio: f64| (50.0 + (ratio - 1.0) / span * 50.0).clamp(0.0, 100.0);
    let Some(ratio) = row.ratio.filter(|ratio| ratio.is_finite()) else { return html! {} };
    let (low, high) = (row.bounds.0.map_or(0.0, x), row.bounds.1.map_or(100.0, x));
    let known = row.bounds.0.is_some() || row.bounds.1.is_some();
    html! { svg.interval viewBox="0 0 100 16" preserveAspectRatio="none" role="img" aria-label={ (percent(ratio)) ", " (bounds(row)) } {
        path.grid d="M50 0V16" {}
        @if let Some(limit) = row.limit { path.limit d={ "M" (format!("{:.1}", x(limit))) " 0V16" } {} }
        @if known { path.range d={ "M" (format!("{low:.1}")) " 8H" (format!("{high:.1}")) } {} }
        path.dots d={ "M" (format!("{:.1}", x(ratio))) " 8h0" } {}
    } }
}

fn middle(values: &[f64]) -> f64 {
    crate::noise::median(&mut values.to_vec()).unwrap_or(f64::NAN)
}

/// Both lots over one axis, and of pairs each pair's ratio in its order.
fn plots(row: &ComparedRow) -> Markup {
    let all = row.candidate.iter().chain(&row.baseline).copied().filter(|value| value.is_finite());
    let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high {
        return html! {};
    }
    let room = ((high - low) * 0.05).max(high.abs() * 1e-6).max(f64::MIN_POSITIVE);
    let (low, high) = (low - room, high + room);
    html! { figure.plots {
        figcaption { (Safe(&row.name)) }
        (lots(row, low, high))
        @if row.paired { (pairs(row)) }
    } }
}

/// Each value as a stroke, in two rows, with the medians.
fn lots(row: &ComparedRow, low: f64, high: f64) -> Markup {
    let x = |value: f64| (value - low) / (high - low) * 1000.0;
    let strokes = |values: &[f64], y: f64| {
        let mut d = String::new();
        for value in values.iter().filter(|value| value.is_finite()) {
            // Writing to a String can't fail.
            let _ = write!(d, "M{:.1} {y}v26", x(*value));
        }
        d
    };
    let (scale, unit) = readable_unit(high, &row.unit);
    let ticks = ticks(low / scale, high / scale);
    let place = |tick: f64| format!("left:{:.2}%", x(tick * scale) / 10.0);
    html! { div.lots {
        div.names aria-hidden="true" { span { "candidate" } span { "baseline" } }
        div {
            svg viewBox="0 0 1000 72" preserveAspectRatio="none" role="img"
                aria-label={ (crate::text::many(row.candidate.len(), "value")) " of the candidate above " (row.baseline.len()) " of the baseline" } {
                path.grid d=(ticks.iter().map(|tick| format!("M{:.1} 0V72", x(tick * scale))).collect::<String>()) {}
                path.ours d=(strokes(&row.candidate, 5.0)) {}
                path.theirs d=(strokes(&row.baseline, 41.0)) {}
                path.middle d={ "M" (format!("{:.1}", x(middle(&row.candidate)))) " 0v36M" (format!("{:.1}", x(middle(&row.baseline)))) " 36v36" } {}
            }
            div.x aria-hidden="true" { @for tick in &ticks { span style=(place(*tick)) { (number(*tick)) " " (Safe(unit)) } } }
        }
    } }
}

/// The ratio of each pair, in the order in which they were measured: a drift would show.
fn pairs(row: &ComparedRow) -> Markup {
    let ratios: Vec<f64> = row
        .candidate
        .iter()
        .zip(&row.baseline)
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
    let edge = percent(1.0 + span / 1.1);
    let way = if row.ratio.is_some_and(|ratio| ratio > 1.0) { Way::Worse } else { Way::Better };
    html! { div.lots {
        div.names aria-hidden="true" { span { (edge) } span { "0 %" } span { (percent(1.0 - span / 1.1)) } }
        div { svg.pairs.(way.class()) viewBox="0 0 1000 120" preserveAspectRatio="none" role="img" aria-label={ "Change in each of " (ratios.len()) " pairs, in their order" } {
            path.grid d="M0 60H1000" {}
            @if let Some(limit) = row.limit { path.limit d={ "M0 " (format!("{:.1}", y(limit))) "H1000" } {} }
            path.stems d=(stems) {}
            path.dots d=(dots) {}
        }
        div.x aria-hidden="true" { span style="left:0" { "pair 1" } span.end style="left:100%" { "pair " (ratios.len()) } } }
    } }
}
