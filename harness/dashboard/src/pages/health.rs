//! A night's health by case, kernel and check: at a glance by kinds of checks, then check by check.

use std::collections::{BTreeMap, BTreeSet};

use dmarig_model::{metrics::Family, observation::Outcome};
use dmarig_report::safe;
use maud::{Markup, html};

use crate::{
    chart::strip,
    checks::{CheckState, Checks, Tile},
    index::Index,
    outcomes::worst,
    page::{class, scrolling, sign},
    pages::run_cells::group_anchor,
    site::CellResult,
    text::{Safe, many},
};

/// Nights of the small histories.
const NIGHTS: usize = 30;
/// Nights of which is told how often a check did not hold.
const LATELY: usize = 14;

/// How each cell ended, with the run that it is of.
pub(crate) type Results<'a> = BTreeMap<usize, (usize, &'a CellResult)>;

/// The two matrices of a night.
pub(crate) fn health(of: &Index, results: &Results<'_>) -> Markup {
    let checks = Checks::new(&of.site, results.values().copied());
    let cell = |index: usize| &of.site.cells[index];
    let kernels: BTreeSet<&str> = results.keys().map(|at| cell(*at).kernel.as_str()).collect();
    let cases: BTreeSet<&str> = results.keys().map(|at| cell(*at).case.as_str()).collect();
    let environments: BTreeSet<usize> = results.keys().map(|at| cell(*at).environment).collect();
    let night = Night {
        of,
        several: environments.len() > 1,
        results,
        checks: &checks,
        kernels: kernels.into_iter().collect(),
        cases: cases.into_iter().collect(),
    };
    html! {
        section aria-labelledby="health" {
            h2 #health {
                "Health "
                small { "by case, kernel and kind of check" }
            }
            (legend())
            @if night.kernels.len() > 1 {
                p.sideways.muted {
                    "There are "
                    (night.kernels.len())
                    " kernels: the table scrolls sideways."
                }
            }
            (night.matrix())
            @if checks.half_known > 0 {
                p.quiet {
                    "Of "
                    (many(checks.half_known, "cell"))
                    " is only known what did not hold: an older dmarig put them into the history. "
                    code { "dmarig history add" }
                    " reads their records again, where they are still there."
                }
            }
        }
        (night.details())
    }
}

fn legend() -> Markup {
    let all = [CheckState::Held, CheckState::Broken, CheckState::Unjudged, CheckState::Unasked];
    html! {
        p.keys {
            @for came in all {
                span { (mark(came)) (came.words()) }
                " "
            }
        }
    }
}

fn mark(came: CheckState) -> Markup {
    html! {
        i.(came.class()) { (came.symbol()) }
    }
}

struct Night<'a> {
    of: &'a Index,
    /// Whether not all of it ran on one machine and hypervisor.
    several: bool,
    results: &'a Results<'a>,
    checks: &'a Checks<'a>,
    kernels: Vec<&'a str>,
    cases: Vec<&'a str>,
}

impl Night<'_> {
    /// Cases by kernels, with a mark for each kind of check.
    fn matrix(&self) -> Markup {
        let nights = self.of.nights.len();
        scrolling(
            "Health by case, kernel and kind of check",
            &html! {
                table.matrix.health {
                    thead {
                        tr {
                            th scope="col" { "case" }
                            @for kernel in &self.kernels {
                                th scope="col" {
                                    (Safe(kernel))
                                    span.axis aria-hidden="true" {
                                        @for family in &self.checks.families {
                                            i { (family.name()) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                    tbody {
                        @for (at, case) in self.cases.iter().enumerate() {
                            tr {
                                th scope="row" {
                                    @if self.has_checks(case) {
                                        a href={ "#checks-" (at) } { (Safe(case)) }
                                    } @else { (Safe(case)) }
                                }
                                @for kernel in &self.kernels { (self.tile(case, kernel)) }
                            }
                        }
                    }
                    @if nights > 1 {
                        tfoot {
                            tr {
                                th scope="row" { "last " (nights.min(NIGHTS)) " nights" }
                                @for kernel in &self.kernels {
                                    td { (history(self.of, kernel)) }
                                }
                            }
                        }
                    }
                }
            },
        )
    }

    fn has_checks(&self, case: &str) -> bool {
        self.checks.squares.iter().any(|((of, _), square)| *of == case && !square.checks.is_empty())
    }

    fn tile(&self, case: &str, kernel: &str) -> Markup {
        let cells = &self.of.site.cells;
        let fits = |at: usize| cells[at].case == case && cells[at].kernel == kernel;
        let of_tile: Vec<(usize, &CellResult)> =
            self.results.iter().filter(|(at, _)| fits(**at)).map(|(_, of)| *of).collect();
        let Some(state) = worst(of_tile.iter().map(|(_, result)| result.outcome)) else {
            return html! {
                td.tile {
                    span.absent title="does not run here" { "\u{b7}" }
                }
            };
        };
        let worst = || of_tile.iter().filter(|(_, result)| result.outcome == state);
        let like = worst().count();
        let run = worst().map(|(run, _)| *run).max().unwrap_or(0);
        let label = format!("{like} of {} {}", many(of_tile.len(), "cell"), state.name());
        html! {
            td.tile {
                a   .(class(state))
                    href={ (self.of.run_path(run)) "#" (group_anchor(case)) }
                    title=(label)
                {
                    span.unseen { (safe(kernel)) ": " }
                    (sign(state))
                    b {
                        (like)
                        @if like != of_tile.len() {
                            span.of { "/" (of_tile.len()) }
                        }
                    }
                    span.unseen { " " (state.name()) }
                }
                @if let Some(square) = self.checks.squares.get(&(case, kernel)) {
                    (self.marks(square))
                }
                @if self.several && !matches!(state, Outcome::Passed | Outcome::Skipped) {
                    (self.places(&of_tile, state))
                }
            }
        }
    }

    /// Where cells of a tile ended like this.
    fn places(&self, of_tile: &[(usize, &CellResult)], state: Outcome) -> Markup {
        let cells = &self.of.site.cells;
        let environments = |keep: &dyn Fn(Outcome) -> bool| -> BTreeSet<usize> {
            let kept = of_tile.iter().filter(|(_, result)| keep(result.outcome));
            kept.map(|(_, result)| cells[result.cell].environment).collect()
        };
        let (all, like) = (environments(&|_| true), environments(&|outcome| outcome == state));
        let names: Vec<&str> = like.iter().map(|at| self.of.environment(*at)).collect();
        let text = match names.as_slice() {
            [name] => format!("on {name}"),
            _ if like.len() == all.len() => format!("on all {} it ran on", all.len()),
            names => format!("on {} of {}: {}", names.len(), all.len(), names.join("; ")),
        };
        html! {
            small.on title=(safe(&text)) { (Safe(&text)) }
        }
    }

    /// A mark for each kind of check, always in the same place; read out are those that did not hold.
    fn marks(&self, square: &Tile<'_>) -> Markup {
        let families: Vec<(Family, CheckState, Vec<&str>)> = self
            .checks
            .families
            .iter()
            .map(|family| {
                let (came, names) = square.family(*family);
                (*family, came, names)
            })
            .collect();
        let told = |wanted: CheckState| {
            let names = families.iter().filter(|(_, came, _)| *came == wanted);
            names.map(|(family, ..)| family.name()).collect::<Vec<_>>().join(", ")
        };
        html! {
            span.marks aria-hidden="true" {
                @for (family, came, names) in &families {
                    i   .(came.class())
                        title={
                            (family.name())
                            " "
                            (came.words())
                            @if *came > CheckState::Held { ": " (safe(&names.join(", "))) }
                        }
                    { (came.symbol()) }
                }
            }
            @for came in [CheckState::Broken, CheckState::Unjudged] {
                @let names = told(came);
                @if !names.is_empty() {
                    span.unseen { ", " (came.words()) ": " (names) }
                }
            }
        }
    }

    /// Each case's checks by kernels; open where one did not hold.
    fn details(&self) -> Markup {
        let lately = lately(self.of);
        html! {
            section aria-labelledby="checks" {
                h2 #checks {
                    "Checks "
                    small { "by case and kernel: how often each held, or did not" }
                }
                @for (at, case) in self.cases.iter().enumerate() {
                    (self.case(at, case, &lately))
                }
            }
        }
    }

    fn case(&self, at: usize, case: &str, lately: &BTreeMap<(&str, &str), u64>) -> Markup {
        let mut names: Vec<(Family, &str)> = self.checks.of_case(case).into_iter().collect();
        let older = lately.keys().filter(|(of, _)| *of == case).map(|(_, name)| *name);
        for name in older {
            if !names.iter().any(|(_, known)| *known == name) {
                names.push((Family::of_check(name), name));
            }
        }
        names.sort_unstable();
        if names.is_empty() {
            return html! {};
        }
        let with = |came: CheckState| -> Vec<&str> {
            let on =
                |name: &str, kernel: &&str| self.checks.count(case, kernel, name).came() == came;
            let any = |name: &&str| self.kernels.iter().any(|kernel| on(name, kernel));
            names.iter().map(|(_, name)| *name).filter(any).collect()
        };
        let (broken, unjudged) = (with(CheckState::Broken), with(CheckState::Unjudged));
        html! {
            details.case.failed[!broken.is_empty()] open[!broken.is_empty()] {
                summary {
                    ({
                        sign(
                            if broken.is_empty() {
                                Outcome::Passed
                            } else {
                                Outcome::Failed
                            },
                        )
                    })
                    strong { (Safe(case)) }
                    " "
                    @if broken.is_empty() { (many(with(CheckState::Held).len(), "check")) " held" } @else {
                        (broken.len())
                        " of "
                        (many(names.len(), "check"))
                        " did not hold: "
                        (Safe(&broken.join(", ")))
                    }
                    @if !unjudged.is_empty() {
                        span.muted { "; somewhere not judged: " (Safe(&unjudged.join(", "))) }
                    }
                }
                div id={ "checks-" (at) } {
                    ({
                        scrolling(
                            &format!("Checks of {} by kernel", safe(case)),
                            &self.table(case, &names, lately),
                        )
                    })
                }
            }
        }
    }

    fn table(
        &self,
        case: &str,
        names: &[(Family, &str)],
        lately: &BTreeMap<(&str, &str), u64>,
    ) -> Markup {
        html! {
            table.matrix.bycheck {
                thead {
                    tr {
                        th scope="col" { "kind" }
                        th scope="col" { "check" }
                        @for kernel in &self.kernels {
                            th scope="col" { (Safe(kernel)) }
                        }
                        th.number scope="col" { "broken in two weeks" }
                    }
                }
                @for family in Family::ALL {
                    @let of_family: Vec<&str> = names
                        .iter()
                        .filter(|(of, _)| *of == family)
                        .map(|(_, name)| *name)
                        .collect();
                    @if !of_family.is_empty() {
                        tbody {
                            @for (at, name) in of_family.iter().enumerate() {
                                tr {
                                    @if at == 0 {
                                        th.kind scope="rowgroup" rowspan=(of_family.len()) {
                                            (family.name())
                                        }
                                    }
                                    th scope="row" { (Safe(name)) }
                                    @for kernel in &self.kernels {
                                        (self.count(case, kernel, name))
                                    }
                                    td.number {
                                        (lately.get(&(case, *name)).copied().unwrap_or(0))
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn count(&self, case: &str, kernel: &str, name: &str) -> Markup {
        let count = self.checks.count(case, kernel, name);
        let came = count.came();
        let run = self.checks.squares.get(&(case, kernel)).and_then(|square| square.broken_in);
        html! {
            td.(came.class()) {
                @match (came, run) {
                    (CheckState::Broken, Some(run)) => a   href={
                            (self.of.run_path(run))
                            "#"
                            (group_anchor(case))
                        }
                    { (came.symbol()) " " (count.broken) "/" (count.broken + count.held) },
                    (CheckState::Unasked, _) => (came.symbol()),
                    (CheckState::Unjudged, _) => { (came.symbol()) " " (count.unjudged) }
                    _ => { (came.symbol()) " " (count.held) }
                }
            }
        }
    }
}

/// How often checks did not hold of late, by case and name.
fn lately(of: &Index) -> BTreeMap<(&str, &str), u64> {
    let mut counts = BTreeMap::new();
    for night in &of.nights[of.nights.len().saturating_sub(LATELY)..] {
        for (cell, (_, result)) in night.results(&of.site) {
            let case = of.site.cells[cell].case.as_str();
            for name in &result.broken {
                *counts.entry((case, &**name)).or_default() += 1;
            }
        }
    }
    counts
}

/// What share of a kernel's cells went wrong, night by night.
fn history(of: &Index, kernel: &str) -> Markup {
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
    html! {
        (strip(&shares))
        span.unseen { (many(bad_nights, "night")) " with trouble" }
    }
}
