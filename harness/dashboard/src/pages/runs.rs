//! All runs.

use std::collections::BTreeSet;

use dmarig_model::observation::Outcome;
use maud::{Markup, html};

use super::limits;
use crate::{
    index::Index,
    outcomes::{WORST, worst},
    page::{Page, class, outcome, sign},
    text::{Safe, many, minute},
};

pub(crate) fn page(of: &Index) -> Markup {
    let body = html! {
        h1 { "Runs" }
        @if of.site.runs.is_empty() {
            p.quiet { "There are none yet." }
        } @else {
            (filter())
            div.scroll tabindex="0" role="group" aria-label="Runs" {
                table.sortable.filtered {
                    thead {
                        tr {
                            th scope="col" { "started" }
                            th scope="col" { "verdict" }
                            th scope="col" { "cells" }
                            th scope="col" { "kernels" }
                            th.number scope="col" { "numbers" }
                            th scope="col" { "id" }
                        }
                    }
                    tbody {
                        @for run in (0..of.site.runs.len()).rev() { (row(of, run)) }
                    }
                }
            }
            @let unread = of.site.judged_from;
            @if unread > 0 {
                p.muted {
                    "Of the oldest "
                    @if unread == 1 { "run the verdict is that of its cells alone" } @else {
                        (unread)
                        " runs the verdict is that of their cells alone"
                    }
                    ": how numbers were judged is read from the records of the newest runs ("
                    code { "--detailed" }
                    ")."
                }
            }
        }
    };
    Page { title: "Runs".into(), entry: "Runs", root: "", data: &[], body }.render(of)
}

/// A field that keeps only rows with some words; it works where there is a script, and is not there
/// otherwise.
pub(crate) fn filter() -> Markup {
    html! {
        p.filter hidden {
            label {
                "Filter "
                input type="search" placeholder="words, such as nvme lazy failed" size="32";
            }
            span.matches role="status" {}
            span.key {
                kbd { "/" }
            }
        }
    }
}

fn row(of: &Index, index: usize) -> Markup {
    let run = &of.site.runs[index];
    let cells = run.results.iter().filter_map(|result| of.site.cells.get(result.cell));
    let kernels: BTreeSet<&str> = cells.map(|cell| cell.kernel.as_str()).collect();
    html! {
        tr {
            td data-v=(run.started) {
                a href=(of.run_path(index)) {
                    time { (minute(run.started)) }
                }
            }
            td {
                @match state(of, index) {
                    Some(state) => (outcome(state)),
                    None => span.muted { "nothing ran" },
                }
            }
            td data-v=(run.results.len()) {
                (counts(of, index))
                @if let Some(early) = run.ended_early() {
                    p.muted { (early) }
                }
            }
            td {
                @for (at, kernel) in kernels.iter().take(4).enumerate() {
                    @if at > 0 { ", " }
                    (Safe(kernel))
                }
                @if kernels.len() > 4 { " and " (kernels.len() - 4) " more" }
            }
            td.number { (of.points[index].len()) }
            td.id { (Safe(&run.id)) }
        }
    }
}

/// How a run ended; what never ran is as if it had errored. `None` where nothing was to run.
pub(crate) fn state(of: &Index, index: usize) -> Option<Outcome> {
    let run = &of.site.runs[index];
    let cut = (run.not_run > 0).then_some(Outcome::Errored);
    let state = worst(run.results.iter().map(|result| result.outcome).chain(cut));
    state.map(|state| limits::Count::of(of, &[index]).state(state))
}

/// How many cells of a run ended in which way.
pub(crate) fn counts(of: &Index, run: usize) -> Markup {
    let results = &of.site.runs[run].results;
    tallied(&results.iter().map(|result| result.outcome).collect::<Vec<_>>())
}

/// How many of these there are of each kind.
pub(crate) fn tallied(outcomes: &[Outcome]) -> Markup {
    let count = |outcome| outcomes.iter().filter(|other| **other == outcome).count();
    html! {
        span.counts {
            @for outcome in WORST {
                @if count(outcome) > 0 {
                    span
                        .(class(outcome))
                        title={ (many(count(outcome), "cell")) " " (outcome.name()) }
                    {
                        (sign(outcome))
                        (count(outcome))
                        span.unseen { " " (outcome.name()) }
                    }
                }
            }
        }
    }
}
