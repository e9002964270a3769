//! The first page: how last night went, in five seconds; then what is new.

use dmarig_model::observation::Outcome;
use maud::{Markup, html};

use super::{
    alerts::alerts_table,
    health::{Results, health},
    limits,
    machines::machines,
    outliers::{moves, moves_table},
    verdict_changes::{ends, turns, turns_table},
};
use crate::{
    index::Index,
    nights::{Night, before},
    outcomes::{WORST, worst},
    page::{Page, class, sign, symbol},
    site::AlertState,
    text::{day, long_day, many, minute},
};

/// Most alerts and numbers on this page.
const FEW: usize = 12;
/// Most runs of the night that are named.
const FEW_RUNS: usize = 4;

pub(crate) fn page(of: &Index) -> Markup {
    let (title, body) = match of.nights.split_last() {
        None => ("No runs yet".to_owned(), empty()),
        Some((last, earlier)) => {
            let before = before(&of.site, &of.nights, earlier.len()).map(|at| &of.nights[at]);
            let results = last.results(&of.site);
            let headline = headline(of, last, &results);
            let body = filled(of, last, before, &results, &headline);
            (headline, body)
        }
    };
    Page { title, entry: "Overview", root: "", data: &[], body }.render(of)
}

fn empty() -> Markup {
    html! {
        h1 { "No runs yet" }
        p { "Run something, put it into the history, and make this page again:" }
        pre {
            code { "dmarig run\ndmarig history add\ndmarig dashboard --out site" }
        }
    }
}

/// One sentence, of cells, of numbers, and of what never ran.
fn headline(of: &Index, night: &Night, results: &Results<'_>) -> String {
    let cut = night.cut_short(&of.site);
    let mut text = of_cells(results, cut.is_empty());
    let first = night.wrong_first(&of.site, results);
    for outcome in WORST.iter().filter(|outcome| first.contains_key(outcome)) {
        text.push_str(&format!(", {} {} first", first[outcome], outcome.name()));
    }
    match limits::Count::of(of, &night.runs).bad {
        0 => {}
        1 => text.push_str(", 1 number is too much worse"),
        bad => text.push_str(&format!(", {bad} numbers are too much worse")),
    }
    match cut.as_slice() {
        [] => {}
        [run] => text.push_str(&format!("; a run {}", run.ended_early().unwrap_or_default())),
        runs => {
            let not_run = many(runs.iter().map(|run| run.not_run).sum(), "cell");
            text.push_str(&format!("; {} runs ended early, {not_run} did not run", runs.len()));
        }
    }
    text
}

/// Where a run was cut short, these are not all.
fn of_cells(results: &Results<'_>, all_ran: bool) -> String {
    let bad = |outcome: &Outcome| !matches!(outcome, Outcome::Passed | Outcome::Skipped);
    let all = || results.values().map(|(_, result)| result.outcome);
    let count = all().filter(bad).count();
    match worst(all()) {
        None => "Nothing ran".to_owned(),
        Some(_) if count > 0 => format!("{count} of {} did not pass", many(results.len(), "cell")),
        Some(Outcome::Skipped) if all_ran => "Every cell was skipped".to_owned(),
        Some(_) => {
            let passed = all().filter(|outcome| *outcome == Outcome::Passed).count();
            let skipped = results.len() - passed;
            match skipped {
                0 if all_ran => format!("All {} passed", many(passed, "cell")),
                0 => format!("{} passed", many(passed, "cell")),
                _ => format!("{} passed, {skipped} skipped", many(passed, "cell")),
            }
        }
    }
}

fn filled(
    of: &Index,
    last: &Night,
    before: Option<&Night>,
    results: &Results<'_>,
    headline: &str,
) -> Markup {
    // What never ran is as if it had errored.
    let cut = (!last.cut_short(&of.site).is_empty()).then_some(Outcome::Errored);
    let state = worst(results.values().map(|(_, result)| result.outcome).chain(cut));
    let count = limits::Count::of(of, &last.runs);
    let state = count.state(state.unwrap_or(Outcome::Skipped));
    let earlier = before.map(|night| night.results(&of.site));
    let turned = earlier.as_ref().map(|earlier| turns(of, &ends(earlier), &ends(results)));
    let moved = moves(of, &last.runs);
    html! {
        section.hero.(class(state)) {
            div {
                p.when {
                    "Night of "
                    time { (long_day(last.started)) }
                }
                h1 {
                    span.big aria-hidden="true" { (symbol(state)) }
                    (headline)
                }
                p.meta {
                    @for run in last.own().iter().rev().take(FEW_RUNS) {
                        a href=(of.run_path(*run)) {
                            "run of "
                            (minute(of.site.runs[*run].started))
                        }
                    }
                    @if last.own().len() > FEW_RUNS {
                        a href="runs.html" { "and " (last.own().len() - FEW_RUNS) " more" }
                    }
                    @if before.is_some() {
                        a href={ (of.run_path(last.newest())) "#since" } {
                            "compared with the previous night"
                        }
                    }
                }
                (since(of, last))
            }
            (tally(results, earlier.as_ref()))
        }
        (machines(of, results))
        (health(of, results))
        (limits::of_night(of, &last.runs, FEW))
        section aria-labelledby="alerts" {
            h2 #alerts { "New alerts" }
            @let new: Vec<usize> = (0..of.site.alerts.len())
                .filter(|at| of.site.alerts[*at].state == AlertState::New)
                .collect();
            @if of.site.alerts.iter().all(|alert| alert.state == AlertState::Improved) {
                p.quiet { "None was found." }
            } @else if new.is_empty() {
                p.quiet { "None: every change that was found has been looked at." }
            } @else {
                (alerts_table(of, &new[..new.len().min(FEW)], ""))
                @if new.len() > FEW {
                    p {
                        a href="alerts.html" { "All " (new.len()) " new alerts" }
                    }
                }
            }
        }
        @if let Some(turned) = turned {
            section aria-labelledby="turned" {
                h2 #turned {
                    "Since the night before "
                    small {
                        "verdicts that turned"
                        @if let Some(before) = before { " since " (day(before.started)) }
                    }
                }
                (turns_table(of, &turned, ""))
            }
        }
        section aria-labelledby="moved" {
            h2 #moved {
                "Numbers outside their noise "
                small { "more than three standard deviations from the level before" }
            }
            (moves_table(of, &moved, FEW, ""))
            @if moved.moves.len() > FEW {
                p {
                    a href={ (of.run_path(last.newest())) "#since" } {
                        "All "
                        (moved.moves.len())
                    }
                }
            }
        }
    }
}

/// What ran after the night, too little to be one by itself.
fn since(of: &Index, night: &Night) -> Markup {
    let later = night.later();
    let outcomes = |run: usize| of.site.runs[run].results.iter().map(|result| result.outcome);
    html! {
        @if !later.is_empty() {
            p.since {
                "Since then, and counted instead of what the night had of the same cells: "
                @for (at, run) in later.iter().rev().take(FEW_RUNS).enumerate() {
                    @if at > 0 { ", " }
                    a href=(of.run_path(*run)) {
                        "a run of "
                        (many(of.site.runs[*run].results.len(), "cell"))
                    }
                    " ("
                    @if let Some(worst) = worst(outcomes(*run)) { (worst.name()) ", " }
                    (minute(of.site.runs[*run].started))
                    ")"
                }
                @if later.len() > FEW_RUNS {
                    ", "
                    a href="runs.html" { "and " (later.len() - FEW_RUNS) " more" }
                }
            }
        }
    }
}

/// How many cells ended in which way, and how many more than the night before.
fn tally(results: &Results<'_>, earlier: Option<&Results<'_>>) -> Markup {
    let count = |results: &Results<'_>, outcome| {
        results.values().filter(|(_, result)| result.outcome == outcome).count()
    };
    html! {
        dl.tally {
            @for outcome in WORST {
                @let now = count(results, outcome);
                @let before = earlier.map(|earlier| count(earlier, outcome));
                @if {
                    now > 0 || before.is_some_and(|before| before > 0)
                        || outcome == Outcome::Passed
                } {
                    div.(class(outcome)).none[now == 0] {
                        dt { (sign(outcome)) (outcome.name()) }
                        dd {
                            (now)
                            @if let Some(before) = before {
                                @if before != now {
                                    small title="than the night before" {
                                        @if now > before { "+" (now - before) } @else {
                                            "\u{2212}"
                                            (before - now)
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
}
