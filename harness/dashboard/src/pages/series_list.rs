//! All series, a row each with a small picture.

use dmarig_report::{
    number::{change, quantity},
    safe,
};
use maud::{Markup, html};

use crate::{
    chart::{spark, way},
    index::Index,
    noise::{BAND, last_loss},
    page::{Page, changed},
    pages::runs::filter,
    text::{Safe, day},
};

/// With more series than this, those with hardly a point and those that never moved are left out: their runs
/// tell them, and a table of thousands is slow to filter and says nothing.
const MANY: usize = 600;
/// Points that make a series.
const LEAST: usize = 3;

pub(crate) fn page(of: &Index) -> Markup {
    let site = &of.site;
    let several = site.series.iter().any(|series| series.environment != site.series[0].environment);
    let mut order: Vec<usize> = (0..site.series.len()).collect();
    let all = order.len();
    let (mut few, mut still) = (0, 0);
    if all > MANY {
        order.retain(|at| {
            let series = &site.series[*at];
            let (short, moved) = (series.points.len() < LEAST, series.moved());
            few += usize::from(short);
            still += usize::from(!short && !moved);
            !short && moved
        });
    }
    let key = |at: usize| {
        let series = &site.series[at];
        (&series.case, &series.variant, &series.metric, &series.kernel)
    };
    order.sort_by(|a, b| key(*a).cmp(&key(*b)));
    let body = html! {
        h1 { "Series" }
        @if few > 0 {
            p.muted {
                (few)
                " series have fewer than three points and are only shown on the pages of their runs."
            }
        }
        @if still > 0 {
            p.muted {
                (still)
                " series never moved: each has the same value at all of its points. The pages of their runs lead to them."
            }
        }
        @if all == 0 {
            p.quiet { "There are none yet: no run in the history has numbers." }
        } @else {
            (filter())
            div.scroll tabindex="0" role="group" aria-label="Series" {
                table.sortable.filtered.dense {
                    thead {
                        tr {
                            th scope="col" { "case" }
                            th scope="col" { "variant" }
                            th scope="col" { "metric" }
                            th scope="col" { "kernel" }
                            @if several {
                                th scope="col" { "measured on" }
                            }
                            th scope="col" { "so far" }
                            th.number scope="col" { "last" }
                            th.number scope="col" { "from level" }
                            th scope="col" { "last change" }
                        }
                    }
                    tbody {
                        @for at in order { (row(of, at, several)) }
                    }
                }
            }
        }
    };
    Page { title: "Series".into(), entry: "Series", root: "", data: &[], body }.render(of)
}

fn row(of: &Index, at: usize, several: bool) -> Markup {
    let series = &of.site.series[at];
    let values: Vec<f64> = series.points.iter().map(|point| point.value).collect();
    let last = values.last().copied();
    let level = of.segments[at].last().map(|segment| segment.level);
    let loss = last_loss(series);
    let outside = loss.is_some_and(|loss| loss.abs() > BAND);
    let newest = series.changes.last().filter(|change| change.at < series.points.len());
    html! {
        tr {
            td { (Safe(&series.case)) }
            td.small { (Safe(&series.variant)) }
            td {
                a href=(of.series_path(at)) { (Safe(&series.metric)) }
                @if let Some(reference) = &series.reference {
                    " "
                    small.muted title=(safe(reference)) { "of " (Safe(short(reference))) }
                }
            }
            td.name { (Safe(&series.kernel)) }
            @if several {
                td.small { (Safe(of.environment(series.environment))) }
            }
            td { (spark(&values)) }
            td.number data-v=[last.filter(|last| last.is_finite())] {
                @if let Some(last) = last { (quantity(last, &series.unit)) }
            }
            td.number data-v=(loss.unwrap_or(0.0)) {
                @if let (Some(last), Some(level)) = (last, level) {
                    @if outside {
                        ({
                            changed(
                                way(series.better, level, last),
                                &change(level, last),
                            )
                        })
                    } @else {
                        span.muted { (change(level, last)) }
                    }
                }
            }
            td data-v=[newest.map(|change| series.points[change.at].run)] {
                @if let Some(one) = newest {
                    ({
                        changed(
                            way(series.better, one.before, one.after),
                            &change(one.before, one.after),
                        )
                    })
                    " "
                    small.muted {
                        ({
                            day(
                                of
                                    .site
                                    .runs
                                    .get(series.points[one.at].run)
                                    .map_or(0, |run| run.started),
                            )
                        })
                    }
                }
            }
        }
    }
}

/// A reference without the build that it was.
pub(super) fn short(reference: &str) -> &str {
    reference.split_once('@').map_or(reference, |(name, _)| name)
}
