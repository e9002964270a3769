//! The cells of one run: those that did not pass with all that is known of them, then all.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dmarig_model::observation::Outcome;
use dmarig_report::{FactColumn, number::quantity, safe};
use maud::{Markup, html};

use crate::{
    index::{Index, anchor},
    names::readable,
    page::{class, outcome, sign},
    pages::runs::filter,
    site::{Cell, CellDetails, CellResult, Check, RunDetails},
    text::{Safe, log, many},
};

/// Cells that did not pass and are told in full; a broken host fails them all alike.
const IN_FULL: usize = 60;

/// Case, variant, kernel and environment: what the numbers of a cell have in common with it.
type Where<'a> = (&'a str, &'a str, &'a str, usize);

/// Where a case's table is on its run's page.
pub(crate) fn group_anchor(case: &str) -> String {
    format!("case-{}", readable(case))
}

/// Cells that did not pass, each with its reasons, evidence, log and command.
pub(crate) fn problems(of: &Index, run: usize, details: &RunDetails) -> Markup {
    let known: HashMap<usize, &CellDetails> =
        details.cells.iter().map(|details| (details.cell, details)).collect();
    let mut bad: Vec<&CellResult> = of.site.runs[run]
        .results
        .iter()
        .filter(|result| !matches!(result.outcome, Outcome::Passed | Outcome::Skipped))
        .collect();
    bad.sort_by_key(|result| (result.outcome, result.cell));
    if bad.is_empty() {
        return html! {};
    }
    let place = places(of, run);
    html! {
        section aria-labelledby="problems" {
            h2 #problems { "What did not pass" }
            @for result in bad.iter().take(IN_FULL) {
                @if let Some(cell) = of.site.cells.get(result.cell) {
                    ({
                        problem(
                            cell,
                            result,
                            known.get(&result.cell).copied(),
                            place(cell),
                        )
                    })
                }
            }
            @if bad.len() > IN_FULL {
                p.muted {
                    "and "
                    (many(bad.len() - IN_FULL, "cell"))
                    " more, in the tables below"
                }
            }
        }
    }
}

/// Tells where a cell of a run ran; of a run that was all in one environment, nothing.
fn places<'a>(of: &'a Index, run: usize) -> impl Fn(&Cell) -> &'a str {
    let cells =
        of.site.runs[run].results.iter().filter_map(|result| of.site.cells.get(result.cell));
    let environments: BTreeSet<usize> = cells.map(|cell| cell.environment).collect();
    let several = environments.len() > 1;
    move |cell| if several { of.environment(cell.environment) } else { "" }
}

fn problem(cell: &Cell, result: &CellResult, details: Option<&CellDetails>, place: &str) -> Markup {
    html! {
        article.problem.(class(result.outcome)) id=(anchor(result.cell, &cell.id)) {
            h3 {
                (sign(result.outcome))
                strong { (Safe(&cell.case)) }
                " "
                (Safe(&cell.variant))
                " "
                span.muted {
                    (Safe(&cell.kernel))
                    @if !result.kernel.is_empty() { " \u{b7} " (Safe(&result.kernel)) }
                    @if !place.is_empty() { " \u{b7} on " (Safe(place)) }
                }
            }
            p.outcome {
                (outcome(result.outcome))
                @for name in &result.broken {
                    span.chip { (Safe(name)) }
                }
            }
            @if let Some(details) = details {
                @if !details.reasons.is_empty() {
                    ul.reasons {
                        @for reason in details.reasons.iter().take(30) {
                            li { (Safe(reason)) }
                        }
                    }
                }
                @for check in details.checks.iter().filter(|check| check.held != Some(true)) {
                    (broken(check))
                }
                @for (name, lines) in &details.logs {
                    @if !lines.is_empty() {
                        details open[lines.len() < 15] {
                            summary { (Safe(name)) }
                            pre tabindex="0" role="group" aria-label={ "log " (safe(name)) } {
                                (log(lines))
                            }
                        }
                    }
                }
                @if !details.again.is_empty() {
                    div.command {
                        code { (Safe(&details.again)) }
                        button.copy type="button" hidden { "Copy" }
                    }
                }
            }
        }
    }
}

fn broken(check: &Check) -> Markup {
    html! {
        div.check {
            p {
                strong { (Safe(&check.name)) }
                ": found "
                b { (Safe(&check.found)) }
                ", expected "
                b { (Safe(&check.expected)) }
                @if check.held.is_none() { " (could not be judged)" }
            }
            @if !check.evidence.is_empty() {
                pre tabindex="0" role="group" aria-label={ "evidence of " (safe(&check.name)) } {
                    (log(&check.evidence))
                }
            }
        }
    }
}

/// All cells, a table for each case.
pub(crate) fn tables(of: &Index, run: usize, details: &RunDetails) -> Markup {
    let known: HashMap<usize, &CellDetails> =
        details.cells.iter().map(|details| (details.cell, details)).collect();
    let mut cases: BTreeMap<&str, Vec<(&Cell, &CellResult)>> = BTreeMap::new();
    for result in &of.site.runs[run].results {
        let Some(cell) = of.site.cells.get(result.cell) else { continue };
        cases.entry(&cell.case).or_default().push((cell, result));
    }
    for cells in cases.values_mut() {
        cells.sort_by_key(|(cell, _)| (&cell.variant, &cell.kernel));
    }
    let mut numbers: HashMap<Where<'_>, Vec<(usize, usize)>> = HashMap::new();
    for (series, at) in &of.points[run] {
        let one = &of.site.series[*series];
        numbers
            .entry((&one.case, &one.variant, &one.kernel, one.environment))
            .or_default()
            .push((*series, *at));
    }
    let place = places(of, run);
    html! {
        section aria-labelledby="cells" {
            h2 #cells { "All cells" }
            (filter())
            @for (case, cells) in &cases {
                h3 id=(group_anchor(case)) {
                    (Safe(case))
                    " "
                    small { (many(cells.len(), "cell")) }
                }
                @let label = format!("cells of {}", safe(case));
                @let columns = columns(cells, &known);
                div.scroll tabindex="0" role="group" aria-label=(label) {
                    table.filtered.sortable {
                        thead {
                            tr {
                                th scope="col" { "variant" }
                                th scope="col" { "kernel" }
                                th scope="col" { "verdict" }
                                @for column in &columns {
                                    th.number scope="col" { (column.head()) }
                                }
                                th scope="col" { "numbers and checks" }
                            }
                        }
                        tbody {
                            @for (cell, result) in cells {
                                @let details = known.get(&result.cell).copied();
                                @let numbers = numbers.get(&series_place(cell));
                                @let numbers = numbers.map_or(&[][..], Vec::as_slice);
                                ({
                                    row(
                                        of,
                                        (cell, result),
                                        &columns,
                                        details,
                                        numbers,
                                        place(cell),
                                    )
                                })
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The place of the series that are measured in this cell.
fn series_place(cell: &Cell) -> Where<'_> {
    (&cell.case, &cell.variant, &cell.kernel, cell.environment)
}

/// The columns of facts: counts only where a cell has them.
fn columns(
    cells: &[(&Cell, &CellResult)],
    known: &HashMap<usize, &CellDetails>,
) -> Vec<FactColumn> {
    let facts = || cells.iter().filter_map(|(_, result)| Some(&known.get(&result.cell)?.facts));
    let is_shown = |column: &FactColumn| {
        if column.is_count() {
            facts().any(|facts| facts.text(*column).is_some())
        } else {
            facts().next().is_some()
        }
    };
    FactColumn::ALL.into_iter().filter(is_shown).collect()
}

fn row(
    of: &Index,
    (cell, result): (&Cell, &CellResult),
    columns: &[FactColumn],
    details: Option<&CellDetails>,
    numbers: &[(usize, usize)],
    place: &str,
) -> Markup {
    let fact = |column: FactColumn| match details {
        None => "\u{2013}".to_owned(),
        Some(details) => {
            let unknown = if column.is_count() { "\u{2013}" } else { "-" };
            details.facts.text(column).unwrap_or_else(|| unknown.to_owned())
        }
    };
    // What did not pass is told in full above, under the same anchor.
    let fine = matches!(result.outcome, Outcome::Passed | Outcome::Skipped);
    let link = anchor(result.cell, &cell.id);
    let checks = details.map_or(&[][..], |details| &details.checks);
    html! {
        tr id=[fine.then_some(&link)] {
            td {
                @if fine { (Safe(&cell.variant)) } @else {
                    a href={ "#" (link) } { (Safe(&cell.variant)) }
                }
                @if !place.is_empty() {
                    br;
                    small.muted { (Safe(place)) }
                }
            }
            td {
                (Safe(&cell.kernel))
                @if !result.kernel.is_empty() && *result.kernel != *cell.kernel {
                    br;
                    small.muted { (Safe(&result.kernel)) }
                }
            }
            td {
                (outcome(result.outcome))
                @if result.outcome == Outcome::Skipped {
                    @for reason in details.iter().flat_map(|details| &details.reasons).take(2) {
                        br;
                        small.muted { (Safe(reason)) }
                    }
                }
            }
            @for column in columns {
                td.number { (Safe(&fact(*column))) }
            }
            td {
                @if !numbers.is_empty() || !checks.is_empty() {
                    details {
                        summary {
                            @if !numbers.is_empty() { (many(numbers.len(), "number")) }
                            @if !numbers.is_empty() && !checks.is_empty() { ", " }
                            @if !checks.is_empty() { (many(checks.len(), "check")) }
                        }
                        @if !numbers.is_empty() {
                            ul.numbers {
                                @for (series, at) in numbers {
                                    @let series_of = &of.site.series[*series];
                                    li {
                                        a href={ "../" (of.series_path(*series)) } {
                                            (Safe(&series_of.metric))
                                        }
                                        " "
                                        b {
                                            (quantity(series_of.points[*at].value, &series_of.unit))
                                        }
                                        @if let Some(reference) = &series_of.reference {
                                            span.muted { " of " (Safe(reference)) }
                                        }
                                    }
                                }
                            }
                        }
                        @if !checks.is_empty() {
                            ul.checks {
                                @for check in checks { (held(check)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn held(check: &Check) -> Markup {
    let state = match check.held {
        Some(true) => Outcome::Passed,
        Some(false) => Outcome::Failed,
        None => Outcome::Skipped,
    };
    html! {
        li {
            (sign(state))
            (Safe(&check.name))
            " "
            b { (Safe(&check.found)) }
            @if check.expected.trim_start_matches("exactly ") != check.found {
                span.muted { " of " (Safe(&check.expected)) }
            }
        }
    }
}
