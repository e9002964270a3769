//! Numbers that were judged beside others: those of the runs before, or a baseline's.

use std::collections::BTreeMap;

use dmarig_model::observation::Outcome;
use dmarig_report::{Column, safe};
use maud::{Markup, html};

use crate::{
    comparison_page::verdict,
    index::Index,
    outcomes::worst,
    page::scrolling,
    site::{JudgedNumber, JudgedNumbers},
    text::{Safe, many},
};

/// Most numbers in a table; a case may limit many metrics of many cells.
const MOST: usize = 300;

/// How many numbers came out in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// As good as they have to be.
    pub(crate) good: usize,
    /// Too much worse.
    pub(crate) bad: usize,
    /// Neither: it is not sure, or there was nothing to judge it by.
    pub(crate) unsure: usize,
}

impl Count {
    /// Of runs.
    pub(crate) fn of(dashboard: &Index, runs: &[usize]) -> Self {
        let mut count = Self::default();
        for (_, _, number) in numbers(dashboard, runs) {
            *match number.metric.verdict.is_good() {
                Some(true) => &mut count.good,
                Some(false) => &mut count.bad,
                None => &mut count.unsure,
            } += 1;
        }
        count
    }

    /// How runs ended whose cells ended like this.
    pub(crate) fn state(self, cells: Outcome) -> Outcome {
        if self.bad > 0 { worst([cells, Outcome::Failed]).unwrap_or(cells) } else { cells }
    }
}

/// Each number as it was judged last, with the run.
fn numbers<'a>(
    of: &'a Index,
    runs: &'a [usize],
) -> impl Iterator<Item = (usize, &'a JudgedNumbers, &'a JudgedNumber)> {
    let all = runs.iter().flat_map(move |run| {
        let judged = of.site.runs[*run].judged.iter();
        judged.flat_map(move |some| some.numbers.iter().map(move |number| (*run, some, number)))
    });
    let named = all.map(|(run, some, number)| (number.key.as_str(), (run, some, number)));
    named.collect::<BTreeMap<_, _>>().into_values()
}

/// All numbers of a run that were judged, for its own page.
pub(crate) fn of_run(of: &Index, run: usize) -> Markup {
    let all = &of.site.runs[run].judged;
    if all.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="judged" {
            h2 #judged { "Numbers that were judged" }
            @for some in all {
                h3 { (Safe(&some.against)) }
                @if !some.numbers.is_empty() {
                    ({
                        scrolling(
                            &format!("Numbers {}", safe(&some.against)),
                            &table(of, some),
                        )
                    })
                }
                @if some.numbers.len() > MOST {
                    p.muted { "and " (many(some.numbers.len() - MOST, "number")) " more" }
                }
                @if !some.notes.is_empty() { (notes(some)) }
            }
        }
    }
}

/// The columns of a table, but for the verdict, which stands last with its sign.
fn columns() -> impl Iterator<Item = Column> {
    Column::ALL.into_iter().filter(|column| *column != Column::Verdict)
}

fn table(of: &Index, some: &JudgedNumbers) -> Markup {
    html! {
        table.sortable {
            thead {
                tr {
                    th scope="col" { "of" }
                    @for column in columns() {
                        th.number[column != Column::Metric] scope="col" {
                            (column.head(some.reference))
                        }
                    }
                    th scope="col" { "verdict" }
                }
            }
            tbody {
                @for number in some.numbers.iter().take(MOST) {
                    tr {
                        td { (Safe(&number.place)) }
                        @for column in columns() {
                            td.number[column != Column::Metric] {
                                @if column == Column::Metric { (name(of, number, "../")) } @else {
                                    (Safe(&number.metric.text(column)))
                                }
                            }
                        }
                        td { (verdict(number.metric.verdict)) }
                    }
                }
            }
        }
    }
}

fn notes(some: &JudgedNumbers) -> Markup {
    html! {
        details open[some.numbers.is_empty()] {
            summary { (many(some.notes.len(), "note")) }
            ul.reasons {
                @for note in some.notes.iter().take(MOST) {
                    li { (Safe(note)) }
                }
            }
        }
    }
}

/// Those of a night that are too much worse, and how many are not.
pub(crate) fn of_night(of: &Index, runs: &[usize], few: usize) -> Markup {
    let count = Count::of(of, runs);
    if count == Count::default() {
        return html! {};
    }
    let is_bad = |number: &JudgedNumber| number.metric.verdict.is_good() == Some(false);
    let bad: Vec<_> = numbers(of, runs).filter(|(_, _, number)| is_bad(number)).collect();
    html! {
        section aria-labelledby="judged" {
            h2 #judged {
                "Numbers against their limits "
                small { (count.good) " within, " (count.bad) " beyond, " (count.unsure) " open" }
            }
            @if count.good + count.bad == 0 {
                p.quiet { "None could be judged yet; the pages of their runs have the reasons." }
            } @else if bad.is_empty() {
                p.quiet { "None is beyond its limit." }
            } @else {
                ({
                    scrolling(
                        "Numbers beyond their limits",
                        &beyond(of, &bad[..bad.len().min(few)]),
                    )
                })
                @if bad.len() > few {
                    p.muted {
                        "and "
                        (many(bad.len() - few, "number"))
                        " more, on the pages of their runs"
                    }
                }
            }
        }
    }
}

fn beyond(of: &Index, bad: &[(usize, &JudgedNumbers, &JudgedNumber)]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "number" }
                    th scope="col" { "of" }
                    th.number scope="col" { "change" }
                    th.number scope="col" { "limit" }
                    th scope="col" { "verdict" }
                    th scope="col" { "against" }
                }
            }
            tbody {
                @for (run, some, number) in bad {
                    tr {
                        td { (name(of, number, "")) }
                        td { (Safe(&number.place)) }
                        td.number { (Safe(&number.metric.text(Column::Change))) }
                        td.number { (Safe(&number.metric.text(Column::Limit))) }
                        td { (verdict(number.metric.verdict)) }
                        td {
                            a href={ (of.run_path(*run)) "#judged" } { (Safe(&some.against)) }
                        }
                    }
                }
            }
        }
    }
}

fn name(of: &Index, number: &JudgedNumber, root: &str) -> Markup {
    let name = number.metric.text(Column::Metric);
    let series = number.series.filter(|series| *series < of.site.series.len());
    html! {
        @match series {
            Some(series) => a href={ (root) (of.series_path(series)) } {
                strong { (Safe(&name)) }
            },
            None => strong { (Safe(&name)) },
        }
    }
}
