//! The first page: how last night went, in five seconds; then what is new.

use std::collections::{BTreeMap, BTreeSet};

use dmarig_model::observation::Outcome;
use maud::{Markup, html};

use super::{
    alerts::alerts_table,
    moves::{moves, moves_table, turns, turns_table},
};
use crate::{
    chart::strip,
    dashboard::Dashboard,
    nights::Night,
    page::{Page, WORST, class, scrolling, sign, symbol, worst},
    pages::run_cells::group_anchor,
    site::{AlertState, CellResult},
    text::{Safe, long_day, many, minute},
};

/// Nights of the small histories.
const NIGHTS: usize = 30;
/// Most alerts and checks on this page.
const FEW: usize = 12;

type Results<'a> = BTreeMap<usize, (usize, &'a CellResult)>;

pub(crate) fn page(of: &Dashboard) -> Markup {
    let (title, body) = match of.nights.split_last() {
        None => ("No runs yet".to_owned(), empty()),
        Some((last, before)) => {
            let results = last.results(&of.site);
            (headline(&results), filled(of, last, before.last(), &results))
        }
    };
    Page { title, entry: "Overview", root: "", data: &[], body }.render(of)
}

fn empty() -> Markup {
    html! {
        h1 { "No runs yet" }
        p { "Run something, put it into the history, and make this page again:" }
        pre { code { "dmarig run\ndmarig history add\ndmarig dashboard --out site" } }
    }
}

fn headline(results: &Results<'_>) -> String {
    let bad = |outcome: &Outcome| !matches!(outcome, Outcome::Passed | Outcome::Skipped);
    let all = || results.values().map(|(_, result)| result.outcome);
    let count = all().filter(bad).count();
    match worst(all()) {
        None => "Nothing ran".to_owned(),
        Some(_) if count > 0 => format!("{count} of {} did not pass", many(results.len(), "cell")),
        Some(Outcome::Skipped) => "Every cell was skipped".to_owned(),
        Some(_) => {
            let passed = all().filter(|outcome| *outcome == Outcome::Passed).count();
            let skipped = results.len() - passed;
            match skipped {
                0 => format!("All {} passed", many(passed, "cell")),
                _ => format!("{} passed, {skipped} skipped", many(passed, "cell")),
            }
        }
    }
}

fn filled(of: &Dashboard, last: &Night, before: Option<&Night>, results: &Results<'_>) -> Markup {
    let state = worst(results.values().map(|(_, result)| result.outcome));
    let state = state.unwrap_or(Outcome::Skipped);
    let outcomes = |results: &Results<'_>| -> BTreeMap<usize, (usize, Outcome)> {
        results.iter().map(|(cell, (run, result))| (*cell, (*run, result.outcome))).collect()
    };
    let earlier = before.map(|night| night.results(&of.site));
    let turned = earlier.as_ref().map(|earlier| turns(&outcomes(earlier), &outcomes(results)));
    let moved = moves(of, &last.runs);
    html! {
        section.hero.(class(state)) {
            div {
                p.when { "Night of " time { (long_day(last.started)) } }
                h1 { span.big aria-hidden="true" { (symbol(state)) } (headline(results)) }
                p.meta {
                    @for run in last.runs.iter().rev().take(4) {
                        a href=(of.run_path(*run)) { "run of " (minute(of.site.runs[*run].started)) }
                    }
                    @if last.runs.len() > 4 { a href="runs.html" { "and " (last.runs.len() - 4) " more" } }
                    @if before.is_some() { a href={ (of.run_path(last.newest())) "#since" } { "beside the night before" } }
                }
            }
            (tally(results, earlier.as_ref()))
        }
        section aria-labelledby="health" {
            h2 #health { "Health " small { "by case and kernel" } }
            (matrix(of, results))
        }
        (checks(of, results))
        section aria-labelledby="alerts" {
            h2 #alerts { "New alerts" }
            @let new: Vec<usize> = (0..of.site.alerts.len()).filter(|at| of.site.alerts[*at].state == AlertState::New).collect();
            @if new.is_empty() { p.quiet { "None: every change that was found has been looked at." } }
            @else {
                (alerts_table(of, &new[..new.len().min(FEW)], ""))
                @if new.len() > FEW { p { a href="alerts.html" { "All " (new.len()) " new alerts" } } }
            }
        }
        @if let Some(turned) = turned {
            section aria-labelledby="turned" {
                h2 #turned { "Since the night before " small { "verdicts that turned" } }
                (turns_table(of, &turned, ""))
            }
        }
        section aria-labelledby="moved" {
            h2 #moved { "Numbers outside their noise " small { "more than three standard deviations from the level before" } }
            (moves_table(of, &moved[..moved.len().min(FEW)], ""))
            @if moved.len() > FEW { p { a href={ (of.run_path(last.newest())) "#since" } { "All " (moved.len()) } } }
        }
    }
}

/// How many cells ended in which way, and how many more than the night before.
fn tally(results: &Results<'_>, earlier: Option<&Results<'_>>) -> Markup {
    let count = |results: &Results<'_>, outcome| {
        results.values().filter(|(_, result)| result.outcome == outcome).count()
    };
    html! { dl.tally { @for outcome in WORST {
        @let now = count(results, outcome);
        @let before = earlier.map(|earlier| count(earlier, outcome));
        @if now > 0 || before.is_some_and(|before| before > 0) || outcome == Outcome::Passed {
            div.(class(outcome)).none[now == 0] {
                dt { (sign(outcome)) (outcome.name()) }
                dd { (now)
                    @if let Some(before) = before { @if before != now {
                        small title="than the night before" { @if now > before { "+" (now - before) } @else { "\u{2212}" (before - now) } }
                    } }
                }
            }
        }
    } } }
}

/// Cases by kernels.
fn matrix(of: &Dashboard, results: &Results<'_>) -> Markup {
    let cell = |index: usize| &of.site.cells[index];
    let kernels: BTreeSet<&str> = results.keys().map(|at| cell(*at).kernel.as_str()).collect();
    let cases: BTreeSet<&str> = results.keys().map(|at| cell(*at).case.as_str()).collect();
    let tile = |case: &str, kernel: &str| {
        let of_tile =
            results.iter().filter(|(at, _)| cell(**at).case == case && cell(**at).kernel == kernel);
        let of_tile: Vec<(usize, &CellResult)> =
            of_tile.map(|(_, (run, result))| (*run, *result)).collect();
        tile(of, &of_tile, case, kernel)
    };
    scrolling(
        "Health by case and kernel",
        &html! { table.matrix {
            thead {
                tr { th scope="col" { "case" } @for kernel in &kernels { th scope="col" { (Safe(kernel)) } } }
            }
            tbody { @for case in &cases { tr {
                th scope="row" { (Safe(case)) }
                @for kernel in &kernels { (tile(case, kernel)) }
            } } }
            @if of.nights.len() > 1 {
                tfoot { tr {
                    th scope="row" { "last " (of.nights.len().min(NIGHTS)) " nights" }
                    @for kernel in &kernels { td { (history(of, kernel)) } }
                } }
            }
        } },
    )
}

fn tile(of: &Dashboard, results: &[(usize, &CellResult)], case: &str, kernel: &str) -> Markup {
    let Some(state) = worst(results.iter().map(|(_, result)| result.outcome)) else {
        return html! { td.tile { span.absent title="does not run here" { "\u{b7}" } } };
    };
    let like = results.iter().filter(|(_, result)| result.outcome == state).count();
    let run = results.iter().map(|(run, _)| *run).max().unwrap_or(0);
    let broken: BTreeSet<&str> = results
        .iter()
        .filter(|(_, result)| result.outcome != Outcome::Passed)
        .flat_map(|(_, result)| result.broken.iter().map(|name| &**name))
        .collect();
    let label = format!("{like} of {} {}", many(results.len(), "cell"), state.name());
    html! { td.tile {
        a.(class(state)) href={ (of.run_path(run)) "#" (group_anchor(case)) } title=(label) {
            span.unseen { (crate::text::safe(kernel)) ": " }
            (sign(state)) b { (like) @if like != results.len() { span.of { "/" (results.len()) } } }
            span.unseen { " " (state.name()) }
            @for name in broken.iter().take(2) { small { (Safe(name)) } }
            @if broken.len() > 2 { small { "and " (broken.len() - 2) " more" } }
        }
    } }
}

/// What share of a kernel's cells went wrong, night by night.
fn history(of: &Dashboard, kernel: &str) -> Markup {
    let first = of.nights.len().saturating_sub(NIGHTS);
    let mut bad_nights = 0;
    let shares: Vec<Option<f64>> = of.nights[first..]
        .iter()
        .map(|night| {
            let results = night.results(&of.site);
            let of_kernel = results.iter().filter(|(at, _)| of.site.cells[**at].kernel == kernel);
            let (mut all, mut bad) = (0_usize, 0_usize);
            for (_, (_, result)) in of_kernel {
                all += 1;
                bad += usize::from(!matches!(result.outcome, Outcome::Passed | Outcome::Skipped));
            }
            bad_nights += usize::from(bad > 0);
            (all > 0).then(|| bad as f64 / all as f64)
        })
        .collect();
    html! { (strip(&shares)) span.unseen { (many(bad_nights, "night")) " with trouble" } }
}

/// Checks that did not hold, by kernels: those of tonight, and those of late.
fn checks(of: &Dashboard, results: &Results<'_>) -> Markup {
    let mut tonight: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut kernels = BTreeSet::new();
    for (at, (_, result)) in results {
        let kernel = of.site.cells[*at].kernel.as_str();
        kernels.insert(kernel);
        for name in &result.broken {
            *tonight.entry((name, kernel)).or_default() += 1;
        }
    }
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let first = of.nights.len().saturating_sub(14);
    for night in &of.nights[first..] {
        for (_, result) in night.results(&of.site).values() {
            for name in &result.broken {
                *names.entry(name).or_default() += 1;
            }
        }
    }
    if names.is_empty() {
        return html! {};
    }
    // What is broken tonight comes first.
    let count = |name: &str| {
        kernels.iter().filter_map(|kernel| tonight.get(&(name, *kernel))).sum::<usize>()
    };
    let mut names: Vec<(&str, usize)> = names.into_iter().collect();
    names.sort_by_key(|(name, weeks)| (std::cmp::Reverse((count(name), *weeks)), *name));
    html! { section aria-labelledby="checks" {
        h2 #checks { "Checks " small { "that did not hold, tonight or within two weeks" } }
        (scrolling("Checks by kernel", &html! { table.matrix {
            thead { tr { th scope="col" { "check" } @for kernel in &kernels { th scope="col" { (Safe(kernel)) } } th.number scope="col" { "two weeks" } } }
            tbody { @for (name, weeks) in names.iter().take(2 * FEW) { tr {
                th scope="row" { (Safe(name)) }
                @for kernel in &kernels { td.tile { @match tonight.get(&(*name, *kernel)) {
                    Some(count) => span.failed { (sign(Outcome::Failed)) b { (count) } span.unseen { " did not hold" } },
                    None => span.passed { (sign(Outcome::Passed)) span.unseen { "held" } },
                } } }
                td.number { (weeks) }
            } } }
        } }))
    } }
}
