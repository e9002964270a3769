//! Changes that somebody is to look at, and what became of them.

use dmarig_report::number::{change, quantity};
use maud::{Markup, html};

use super::series::range;
use crate::{
    chart::{spark, way},
    index::{Index, anchor},
    names::readable,
    page::{Page, alert_state, changed, scrolling},
    pages::runs::filter,
    site::{Alert, AlertState, Subject},
    text::{Safe, day, many},
};

const STATES: [AlertState; 5] = [
    AlertState::New,
    AlertState::Confirmed,
    AlertState::Fixed,
    AlertState::Improved,
    AlertState::Invalid,
];

pub(crate) fn page(of: &Index) -> Markup {
    let alerts = &of.site.alerts;
    let with = |state| -> Vec<usize> {
        (0..alerts.len()).filter(|at| alerts[*at].state == state).collect()
    };
    let body = html! {
        h1 { "Alerts" }
        @if alerts.is_empty() {
            p.quiet { "None: no series has changed." }
        } @else {
            p.muted {
                "A state is set by "
                code { "dmarig alerts set ID confirmed|invalid|fixed" }
                ", and shown here when the pages are made again."
            }
            (filter())
            @for state in STATES {
                @let of_state = with(state);
                @if !of_state.is_empty() {
                    section aria-labelledby={ "state-" (readable(state.name())) } {
                        h2 id={ "state-" (readable(state.name())) } {
                            (alert_state(state))
                            " "
                            small { (many(of_state.len(), "alert")) }
                        }
                        @if matches!(state, AlertState::New | AlertState::Confirmed) {
                            (alerts_table(of, &of_state, ""))
                        } @else {
                            details {
                                summary { "Show" }
                                (alerts_table(of, &of_state, ""))
                            }
                        }
                    }
                }
            }
        }
    };
    Page { title: "Alerts".into(), entry: "Alerts", root: "", data: &[], body }.render(of)
}

/// A table of these alerts.
pub(crate) fn alerts_table(of: &Index, alerts: &[usize], root: &str) -> Markup {
    scrolling(
        "Alerts",
        &html! {
            table.filtered.sortable {
                thead {
                    tr {
                        th scope="col" { "what" }
                        th scope="col" { "lately" }
                        th.number scope="col" { "change" }
                        th scope="col" { "since" }
                        th scope="col" { "kernels" }
                        th scope="col" { "state" }
                    }
                }
                tbody {
                    @for at in alerts {
                        @if let Some(alert) = of.site.alerts.get(*at) {
                            (row(of, *at, alert, root))
                        }
                    }
                }
            }
        },
    )
}

fn row(of: &Index, at: usize, alert: &Alert, root: &str) -> Markup {
    let started = |run: usize| of.site.runs.get(run).map(|run| run.started);
    html! {
        tr id={ "alert-" (at) } {
            (what(of, alert, root))
            td.dates data-v=[alert.first_bad.and_then(started)] {
                @if let Some(run) = alert.first_bad {
                    @if let Some(time) = started(run) {
                        a href={ (root) (of.run_path(run)) "#since" } { (day(time)) }
                    }
                }
                @if let Some(run) = alert.last_good {
                    @if let Some(time) = started(run) {
                        br;
                        small.muted {
                            "good "
                            a href={ (root) (of.run_path(run)) } { (day(time)) }
                        }
                    }
                }
                @if let Some(run) = alert.until {
                    @if let Some(time) = started(run) {
                        br;
                        small.muted {
                            "until "
                            a href={ (root) (of.run_path(run)) } { (day(time)) }
                        }
                    }
                }
            }
            td {
                @if !alert.good_kernel.is_empty() || !alert.bad_kernel.is_empty() {
                    (range(&alert.good_kernel, &alert.bad_kernel))
                }
            }
            td {
                (alert_state(alert.state))
                @if !alert.note.is_empty() {
                    br;
                    small { (Safe(&alert.note)) }
                }
                br;
                small.id { (Safe(&alert.id)) }
            }
        }
    }
}

/// In which of several environments it happened.
fn place(of: &Index, environment: usize) -> Markup {
    html! {
        @if of.site.environments.len() > 1 {
            br;
            "on "
            (Safe(of.environment(environment)))
        }
    }
}

/// The first three fields: what it is about, its picture, how large it is.
fn what(of: &Index, alert: &Alert, root: &str) -> Markup {
    match alert.subject {
        Subject::Series { series, point } if series < of.site.series.len() => {
            let one = &of.site.series[series];
            let values: Vec<f64> = one.points.iter().map(|point| point.value).collect();
            let from = point.saturating_sub(60).min(values.len());
            let found = one.changes.iter().find(|change| change.at == point);
            html! {
                td {
                    a href={ (root) (of.series_path(series)) } {
                        strong { (Safe(&one.metric)) }
                    }
                    " "
                    (Safe(&one.kernel))
                    br;
                    small.muted {
                        (Safe(&one.case))
                        " "
                        (Safe(&one.variant))
                        @if !alert.what.is_empty() { ": " (Safe(&alert.what)) }
                        (place(of, one.environment))
                    }
                }
                td { (spark(&values[from..])) }
                td.number {
                    @if let Some(found) = found {
                        ({
                            changed(
                                way(one.better, found.before, found.after),
                                &change(found.before, found.after),
                            )
                        })
                        br;
                        small.muted {
                            (quantity(found.before, &one.unit))
                            " \u{2192} "
                            (quantity(found.after, &one.unit))
                        }
                    }
                }
            }
        }
        Subject::Cell(cell) if cell < of.site.cells.len() => {
            let cell_of = &of.site.cells[cell];
            let run = alert.first_bad.map(|run| of.run_path(run));
            html! {
                td {
                    @match run {
                        Some(path) => a href={ (root) (path) "#" (anchor(cell, &cell_of.id)) } {
                            strong { (Safe(&cell_of.case)) }
                        },
                        None => strong { (Safe(&cell_of.case)) },
                    }
                    " "
                    (Safe(&cell_of.kernel))
                    br;
                    small.muted {
                        (Safe(&cell_of.variant))
                        @if !alert.what.is_empty() { ": " (Safe(&alert.what)) }
                        (place(of, cell_of.environment))
                    }
                }
                td {}
                td.number {}
            }
        }
        Subject::Other(ref text) => {
            html! {
                td {
                    strong { (Safe(text)) }
                    " "
                    (Safe(&alert.what))
                }
                td {}
                td.number {}
            }
        }
        Subject::Series { .. } | Subject::Cell(_) => {
            html! {
                td { (Safe(&alert.what)) }
                td {}
                td.number {}
            }
        }
    }
}
