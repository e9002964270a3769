//! One series: its line with noise and changes, the changes in words, and every point.

use dmarig_report::{
    number::{change, quantity},
    safe,
};
use maud::{Markup, html};

use crate::{
    chart::{ChartMarks, line, way},
    index::Index,
    noise::{BAND, last_loss},
    page::{Page, alert_state, changed},
    pages::{run_cells::group_anchor, series_list::short},
    site::{Alert, Better, Series, Subject},
    text::{Safe, day, many, minute},
};

/// Points that are told of a series that never moved.
const NEWEST: usize = 60;
/// Most series of the same kind that are named.
const RELATIVES: usize = 8;

pub(crate) fn page(of: &Index, index: usize) -> Markup {
    let series = &of.site.series[index];
    let times = of.times(series);
    let label = |number: usize| {
        let one = &series.changes[number];
        let (before, after) = (one.before, one.after);
        let way = way(series.better, before, after);
        let when = times.get(one.at).map_or_else(String::new, |time| day(*time));
        (format!("{when}: {}, {}", change(before, after), way.word()), format!("#change-{number}"))
    };
    let marks = ChartMarks { segments: &of.segments[index], times: &times, label: &label };
    let body = html! {
        nav.crumbs aria-label="Where this is" {
            a href="../series.html" { "Series" }
        }
        h1 {
            (Safe(&series.metric))
            @if let Some(reference) = &series.reference {
                small { "in relation to " (Safe(reference)) }
            }
        }
        p.chips {
            span.chip { (Safe(&series.case)) }
            span.chip { (Safe(&series.variant)) }
            span.chip.strong { (Safe(&series.kernel)) }
            @if !of.environment(series.environment).is_empty() {
                span.chip.quiet title="where it is measured" {
                    (Safe(of.environment(series.environment)))
                }
            }
            span.muted {
                @match series.better {
                    Better::Lower => "lower is better",
                    Better::Higher => "higher is better",
                    Better::Unknown => "",
                }
            }
        }
        (summary(of, index))
        (relatives(of, index))
        (line(series, &marks))
        p.legend {
            span.key-line { "a point a run" }
            span.key-level { "level" }
            span.key-band { "noise: " (BAND) " robust standard deviations" }
            span.key-mark { "a change" }
            span.scripted hidden {
                "drag, or "
                kbd { "+" }
                " and "
                kbd { "\u{2212}" }
                ", to zoom; "
                kbd { "\u{2190}" }
                kbd { "\u{2192}" }
                " from point to point; "
                kbd { "Esc" }
                " for all"
            }
        }
        (changes(of, index, &times))
        (points(of, series, &times))
    };
    let title = format!("{} {} {}", series.metric, series.variant, series.kernel);
    Page { title, entry: "Series", root: "../", data: &[], body }.render(of)
}

fn summary(of: &Index, index: usize) -> Markup {
    let series = &of.site.series[index];
    let Some(last) = series.points.last() else { return html! {} };
    let segment = of.segments[index].last();
    let loss = last_loss(series);
    html! {
        dl.tally {
            div {
                dt { "last" }
                dd { (quantity(last.value, &series.unit)) }
            }
            @if let Some(segment) = segment {
                div {
                    dt { "level" }
                    dd {
                        (quantity(segment.level, &series.unit))
                        @if last.value != segment.level {
                            small { (change(segment.level, last.value)) }
                        }
                    }
                }
                @if segment.is_level() {
                    div {
                        dt { "noise" }
                        dd {
                            @if segment.level == 0.0 || segment.sd == 0.0 {
                                (quantity(segment.sd, &series.unit))
                            } @else {
                                ({
                                    format!(
                                        "{:.2} %",
                                        (segment.sd / segment.level).abs() * 100.0,
                                    )
                                })
                            }
                        }
                    }
                }
            }
            div {
                dt { "points" }
                dd { (series.points.len()) }
            }
            div {
                dt { "changes" }
                dd { (series.changes.len()) }
            }
            @if let Some(loss) = loss {
                div.(if loss > BAND { "failed" } else { "passed" }) {
                    dt { "last point" }
                    dd {
                        @if loss > BAND { "outside" } @else { "within noise" }
                    }
                }
            }
        }
    }
}

/// The same metric of the same cells, on other kernels, in relation to another, or measured elsewhere.
fn relatives(of: &Index, index: usize) -> Markup {
    let series = &of.site.series[index];
    let like = |(at, other): &(usize, &Series)| {
        *at != index
            && other.metric == series.metric
            && other.case == series.case
            && other.variant == series.variant
    };
    let all: Vec<(usize, &Series)> = of.site.series.iter().enumerate().filter(like).collect();
    html! {
        @if !all.is_empty() {
            p.chips {
                span.muted { "the same of" }
                @for (at, other) in all.iter().take(RELATIVES) {
                    a.chip href={ "../" (of.series_path(*at)) } {
                        (Safe(&other.kernel))
                        @if let Some(reference) = &other.reference {
                            " in relation to "
                            (Safe(short(reference)))
                        }
                        @if other.environment != series.environment {
                            ", "
                            (Safe(of.environment(other.environment)))
                        }
                    }
                }
                @if all.len() > RELATIVES {
                    span.muted { "and " (all.len() - RELATIVES) " more" }
                }
            }
        }
    }
}

/// The alert that is of a change, if there is one.
fn alert_of(of: &Index, index: usize, at: usize) -> Option<(usize, &Alert)> {
    let is = |alert: &&Alert| matches!(alert.subject, Subject::Series { series, point } if series == index && point == at);
    of.site.alerts.iter().enumerate().find(|(_, alert)| is(alert))
}

fn changes(of: &Index, index: usize, times: &[i64]) -> Markup {
    let series = &of.site.series[index];
    if !series.searched && series.changes.is_empty() {
        return html! {
            h2 { "Changes" }
            p.quiet {
                "They are looked for in counts as they are, and in times in relation to a reference kernel that ran "
                "instead: the speed of a machine varies from night to night, and absolute times with it."
            }
        };
    }
    if series.changes.is_empty() {
        return html! {
            h2 { "Changes" }
            p.quiet { "None was found." }
        };
    }
    html! {
        h2 { "Changes" }
        div.scroll tabindex="0" role="group" aria-label="Changes" {
            table {
                thead {
                    tr {
                        th scope="col" { "between" }
                        th.number scope="col" { "before" }
                        th.number scope="col" { "after" }
                        th.number scope="col" { "change" }
                        th scope="col" { "kernels" }
                        th.number scope="col" { "p" }
                        th scope="col" { "alert" }
                    }
                }
                tbody {
                    @for (number, one) in series.changes.iter().enumerate().rev() {
                        @if let (Some(now), Some(before)) = {
                            (
                                series.points.get(one.at),
                                one.at.checked_sub(1).and_then(|at| series.points.get(at)),
                            )
                        } {
                            tr id={ "change-" (number) } {
                                td {
                                    a href={ "../" (of.run_path(before.run)) } {
                                        (day(times[one.at - 1]))
                                    }
                                    " and "
                                    a href={ "../" (of.run_path(now.run)) "#since" } {
                                        (day(times[one.at]))
                                    }
                                }
                                td.number { (quantity(one.before, &series.unit)) }
                                td.number { (quantity(one.after, &series.unit)) }
                                td.number {
                                    ({
                                        changed(
                                            way(series.better, one.before, one.after),
                                            &change(one.before, one.after),
                                        )
                                    })
                                }
                                td { (range(&before.kernel, &now.kernel)) }
                                td.number { (dmarig_report::number::number(one.p)) }
                                td {
                                    @match alert_of(of, index, one.at) {
                                        Some((at, alert)) => a   href={
                                                "../alerts.html#alert-"
                                                (at)
                                            }
                                        { (alert_state(alert.state)) },
                                        None => span.muted { "none" },
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// From one kernel to another.
pub(crate) fn range(good: &str, bad: &str) -> Markup {
    html! {
        @if good == bad {
            code { (Safe(good)) }
        } @else {
            code { (Safe(good)) }
            " \u{2192} "
            code { (Safe(bad)) }
        }
    }
}

/// Every point. The chart's script reads them here. Of a series that never moved the newest say it all: most
/// of a night's are such, and their points would be most of the site.
fn points(of: &Index, series: &Series, times: &[i64]) -> Markup {
    let counted = series.points.iter().any(|point| point.samples > 0);
    let all = series.points.len();
    let least = if series.moved() { 0 } else { all.saturating_sub(NEWEST) };
    html! {
        h2 { "Points" }
        details {
            summary {
                @if least > 0 { "All " (all) " are alike; the newest " (NEWEST) } @else {
                    "All "
                    (many(all, "point"))
                    ", the newest first"
                }
            }
            // The chart would tell of those alone that it finds here.
            div.scroll tabindex="0" role="group" aria-label="Points" {
                table id=[(least == 0).then_some("points")] {
                    thead {
                        tr {
                            th scope="col" { "run" }
                            th.number scope="col" { "value" }
                            @if counted {
                                th.number scope="col" { "samples" }
                            }
                            th scope="col" { "kernel" }
                        }
                    }
                    tbody {
                        @for (at, point) in series.points.iter().enumerate().skip(least).rev() {
                            tr  data-t=(times[at])
                                data-v=[point.value.is_finite().then_some(point.value)]
                            {
                                td {
                                    a   href={
                                            "../"
                                            (of.run_path(point.run))
                                            "#"
                                            (group_anchor(&series.case))
                                        }
                                    { (minute(times[at])) }
                                }
                                td.number { (quantity(point.value, &series.unit)) }
                                @if counted {
                                    td.number.samples { (point.samples) }
                                }
                                td {
                                    code { (safe(&point.kernel)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
