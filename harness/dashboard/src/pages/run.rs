//! One run: what did not pass and why, how to see it again, what is other than before, all cells.

use dmarig_model::observation::Outcome;
use maud::{Markup, html};

use super::{
    limits,
    outliers::{MOST, moves, moves_table},
    run_cells::{problems, tables},
    runs::{counts, state},
    verdict_changes::{ends, turns, turns_table},
};
use crate::{
    index::Index,
    nights::results,
    page::{Page, class, symbol},
    site::{Run, RunDetails},
    text::{Safe, many, minute},
};

pub(crate) fn page(of: &Index, index: usize, details: &RunDetails) -> Markup {
    let run = &of.site.runs[index];
    let state = state(of, index).unwrap_or(Outcome::Skipped);
    let body = html! {
        nav.crumbs aria-label="Where this is" {
            a href="../runs.html" { "Runs" }
        }
        section.hero.(class(state)) {
            div {
                p.when {
                    "Run of "
                    time { (minute(run.started)) }
                }
                h1 {
                    span.big aria-hidden="true" { (symbol(state)) }
                    code { (Safe(&run.id)) }
                }
                p.meta { (counts(of, index)) (neighbours(of, index)) }
            }
        }
        @if let Some(early) = run.ended_early() {
            p.note { "It " (early) "." }
        }
        @for note in &details.notes {
            p.note { (Safe(note)) }
        }
        (facts(run))
        (problems(of, index, details))
        (limits::of_run(of, index))
        (since(of, index))
        (tables(of, index, details))
    };
    let title = format!("{} {}", symbol(state), run.id);
    Page { title, entry: "Runs", root: "../", data: &[], body }.render(of)
}

fn neighbours(of: &Index, index: usize) -> Markup {
    html! {
        @if index > 0 {
            a rel="prev" href={ "../" (of.run_path(index - 1)) } { "\u{2190} the run before" }
        }
        @if index + 1 < of.site.runs.len() {
            a rel="next" href={ "../" (of.run_path(index + 1)) } { "the next run \u{2192}" }
        }
        @if index > 0 {
            a   .scripted
                hidden
                href={ "../compare.html#" (of.run_names[index]) "," (of.run_names[index - 1]) }
            { "compare with any" }
        }
    }
}

fn facts(run: &Run) -> Markup {
    html! {
        @if !run.command.is_empty() {
            div.command {
                code { (Safe(&run.command)) }
                button.copy type="button" hidden { "Copy" }
            }
        }
        @if !run.environment.is_empty() {
            details.facts {
                summary { "Where it ran" }
                dl {
                    @for (name, value) in &run.environment {
                        div {
                            dt { (Safe(name)) }
                            dd { (Safe(value)) }
                        }
                    }
                }
            }
        }
    }
}

/// Beside the night before: as these pages are made from run to run, it needs no script.
fn since(of: &Index, index: usize) -> Markup {
    let Some(earlier) = of.before(index) else { return html! {} };
    let [Some(first), Some(last)] = [earlier.first(), earlier.last()] else { return html! {} };
    let machine = |run: &usize| of.site.runs[*run].machine.as_str();
    // What other machines ran is no part of this run, unless this machine came in place of another.
    let own = earlier.iter().any(|run| machine(run) == machine(&index));
    let now = of.night_of(index).map_or(&[][..], |night| &night.runs);
    let mut before = ends(&results(&of.site, earlier));
    before.retain(|_, (run, _)| match own {
        true => machine(run) == machine(&index),
        false => now.iter().all(|other| machine(other) != machine(run)),
    });
    let after = ends(&results(&of.site, &[index]));
    let moved = moves(of, &[index]);
    html! {
        section aria-labelledby="since" {
            h2 #since {
                "Since the night before "
                small {
                    a href={ "../" (of.run_path(*last)) } {
                        (minute(of.site.runs[*first].started))
                    }
                }
            }
            h3 { "Verdicts" }
            (turns_table(of, &turns(of, &before, &after), "../"))
            h3 { "Numbers outside their noise" }
            (moves_table(of, &moved, MOST, "../"))
            @if moved.moves.len() > MOST {
                p.muted { "and " (many(moved.moves.len() - MOST, "number")) " more" }
            }
        }
    }
}
