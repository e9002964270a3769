//! Verdicts that turned since the night before. A cell is held against itself on the same machine and
//! hypervisor; where those were changed, against what it was before they were, and the page says so.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use dmarig_model::observation::Outcome;
use maud::{Markup, html};

use super::health::Results;
use crate::{
    index::{Index, anchor},
    page::{outcome, scrolling},
    text::{Safe, many},
};

/// Most rows.
const MOST: usize = 40;

/// How cells ended, each with the run that it is of.
pub(crate) type Ends = BTreeMap<usize, (usize, Outcome)>;

/// What came of a night's cells, without what was checked.
pub(crate) fn ends(results: &Results<'_>) -> Ends {
    results.iter().map(|(cell, (run, result))| (*cell, (*run, result.outcome))).collect()
}

/// A cell that ended otherwise than before.
struct VerdictChange {
    cell: usize,
    run: usize,
    before: Option<Outcome>,
    after: Option<Outcome>,
    /// Whether it ran in another environment before.
    moved: bool,
}

/// What is other than before.
#[derive(Default)]
pub(crate) struct Turns {
    /// The worst first.
    turns: Vec<VerdictChange>,
    /// Cells that ran then and now.
    common: usize,
    /// Cells that ran in one environment then and in another now.
    moved: BTreeMap<[usize; 2], usize>,
    /// Cells in environments of machines that ran nothing now.
    gone: BTreeMap<usize, usize>,
    /// Cells that went well in environments of machines that ran nothing before.
    come: BTreeMap<usize, usize>,
}

/// What turned from the first of two lots to the second. Of a second lot that is a mere part of the first, what it
/// leaves out has not gone.
pub(crate) fn turns(of: &Index, before: &Ends, after: &Ends) -> Turns {
    let environment = |cell: &usize| of.site.cells[*cell].environment;
    let (then, now) = (machines(of, before), machines(of, after));
    let moved = moved(of, before, after);
    let mut found = Turns::default();
    for (cell, (run, outcome)) in after {
        let own = moved.get(cell).unwrap_or(cell);
        let earlier = before.get(own).map(|(_, outcome)| *outcome);
        if earlier.is_some() {
            found.common += 1;
        }
        if own != cell {
            *found.moved.entry([environment(own), environment(cell)]).or_default() += 1;
        }
        let fine = matches!(outcome, Outcome::Passed | Outcome::Skipped);
        if earlier.is_none() && fine && !then.contains(of.site.runs[*run].machine.as_str()) {
            *found.come.entry(environment(cell)).or_default() += 1;
        } else if earlier != Some(*outcome) {
            let (cell, run, moved) = (*cell, *run, own != cell);
            found.turns.push(VerdictChange {
                cell,
                run,
                before: earlier,
                after: Some(*outcome),
                moved,
            });
        }
    }
    if 2 * after.len() >= before.len() {
        let known: BTreeSet<&usize> = moved.values().collect();
        let gone = |cell: &usize| !after.contains_key(cell) && !known.contains(cell);
        for (cell, (run, outcome)) in before.iter().filter(|(cell, _)| gone(cell)) {
            if now.contains(of.site.runs[*run].machine.as_str()) {
                let (cell, run, before) = (*cell, *run, Some(*outcome));
                found.turns.push(VerdictChange { cell, run, before, after: None, moved: false });
            } else {
                *found.gone.entry(environment(cell)).or_default() += 1;
            }
        }
    }
    let rank = |turn: &VerdictChange| match (turn.before, turn.after) {
        (_, Some(Outcome::Failed | Outcome::TimedOut)) => 0,
        (_, Some(Outcome::Errored)) => 1,
        (Some(_), Some(_)) => 2,
        (None, _) => 3,
        (_, None) => 4,
    };
    found.turns.sort_by_key(|turn| (rank(turn), turn.cell));
    found
}

/// Machines that ran these cells.
fn machines<'a>(of: &'a Index, ends: &Ends) -> BTreeSet<&'a str> {
    ends.values().map(|(run, _)| of.site.runs[*run].machine.as_str()).collect()
}

/// Cells that did not run in their environment before, but in another one that did not run them now: of the same
/// machine, whose system or QEMU changed, or of one that this one came in place of. Each with what it was.
fn moved(of: &Index, before: &Ends, after: &Ends) -> BTreeMap<usize, usize> {
    let cell = |at: usize| &of.site.cells[at];
    let machine = |ends: &Ends, at: usize| of.site.runs[ends[&at].0].machine.as_str();
    let (then, now) = (machines(of, before), machines(of, after));
    let mut left: BTreeMap<[&str; 4], Vec<usize>> = BTreeMap::new();
    for at in before.keys().filter(|at| !after.contains_key(at)) {
        left.entry(cell(*at).place()).or_default().push(*at);
    }
    let mut moved = BTreeMap::new();
    for at in after.keys().filter(|at| !before.contains_key(at)) {
        let Some(left) = left.get_mut(&cell(*at).place()) else { continue };
        let own = machine(after, *at);
        let same = |other: usize| machine(before, other) == own;
        let fits = |other: usize| {
            cell(other).environment != cell(*at).environment
                && (same(other) || !then.contains(own) && !now.contains(machine(before, other)))
        };
        let rank = |other: usize| {
            let alike = changes(of, cell(other).environment, cell(*at).environment).count();
            (same(other), Reverse(alike), before[&other].0, Reverse(other))
        };
        let best = (0..left.len())
            .filter(|index| fits(left[*index]))
            .max_by_key(|index| rank(left[*index]));
        if let Some(index) = best {
            moved.insert(*at, left.swap_remove(index));
        }
    }
    moved
}

/// What is other in the second of two environments: name, before and after.
fn changes(of: &Index, before: usize, after: usize) -> impl Iterator<Item = [&str; 3]> {
    let facts = |at: usize| of.site.environments.get(at).map_or(&[][..], |one| &one.facts);
    let pairs = facts(before).iter().zip(facts(after));
    pairs.filter(|(old, new)| old != new).map(|((name, old), (_, new))| [&**name, old, new])
}

/// A table of turned verdicts, and what is to be said of where cells ran.
pub(crate) fn turns_table(of: &Index, found: &Turns, root: &str) -> Markup {
    html! {
        @for ([old, new], count) in found.moved.iter().take(MOST) {
            p.quiet {
                (many(*count, "cell"))
                " ran in another environment the night before: "
                @for (at, [name, old, new]) in changes(of, *old, *new).enumerate() {
                    @if at > 0 { "; " }
                    (Safe(name))
                    " "
                    (told(old))
                    " \u{2192} "
                    (told(new))
                }
                "."
            }
        }
        @for (environment, count) in found.come.iter().take(MOST) {
            p.quiet {
                (many(*count, "cell"))
                " went well on a machine that ran nothing the night before: "
                (Safe(of.environment(*environment)))
                "."
            }
        }
        @for (environment, count) in found.gone.iter().take(MOST) {
            p.quiet {
                (many(*count, "cell"))
                " ran the night before on a machine that has run nothing since: "
                (Safe(of.environment(*environment)))
                "."
            }
        }
        @if !found.turns.is_empty() { (table(of, &found.turns, root)) } @else if found.common > 0 {
            p.quiet { "No verdict turned." }
        } @else {
            p.quiet { "There is no cell that ran then and now." }
        }
    }
}

fn told(fact: &str) -> Markup {
    html! {
        @if fact.is_empty() { "unknown" } @else { (Safe(fact)) }
    }
}

fn table(of: &Index, turns: &[VerdictChange], root: &str) -> Markup {
    let told = |of: Option<Outcome>| {
        of.map_or_else(
            || {
                html! {
                    span.muted { "not there" }
                }
            },
            outcome,
        )
    };
    let environment = |turn: &VerdictChange| of.site.cells[turn.cell].environment;
    let several =
        turns.iter().any(|turn| turn.moved || environment(turn) != environment(&turns[0]));
    scrolling(
        "Verdicts that turned",
        &html! {
            table {
                thead {
                    tr {
                        th scope="col" { "cell" }
                        th scope="col" { "kernel" }
                        @if several {
                            th scope="col" { "ran on" }
                        }
                        th scope="col" { "before" }
                        th scope="col" { "now" }
                    }
                }
                tbody {
                    @for turn in turns.iter().take(MOST) {
                        @let cell = &of.site.cells[turn.cell];
                        tr {
                            td {
                                a   href={
                                        (root)
                                        (of.run_path(turn.run))
                                        "#"
                                        (anchor(turn.cell, &cell.id))
                                    }
                                {
                                    strong { (Safe(&cell.case)) }
                                    " "
                                    (Safe(&cell.variant))
                                }
                            }
                            td { (Safe(&cell.kernel)) }
                            @if several {
                                td.small {
                                    (Safe(of.environment(cell.environment)))
                                    @if turn.moved { " (changed)" }
                                }
                            }
                            td { (told(turn.before)) }
                            td { (told(turn.after)) }
                        }
                    }
                }
            }
            @if turns.len() > MOST {
                p.muted { "and " (many(turns.len() - MOST, "cell")) " more" }
            }
        },
    )
}
