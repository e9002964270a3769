//! Where the cells of a night ran, if that was not all in one environment.

use std::collections::{BTreeMap, BTreeSet};

use dmarig_model::observation::Outcome;
use maud::{Markup, html};

use super::{health::Results, runs::tallied};
use crate::{
    index::Index,
    outcomes::worst,
    page::outcome,
    text::{Safe, minute},
};

/// Runs of one environment that are named.
const FEW: usize = 4;

/// What ran in one environment.
#[derive(Default)]
struct Ran {
    runs: BTreeSet<usize>,
    outcomes: Vec<Outcome>,
}

/// How each machine and hypervisor did, in the order of their names.
pub(crate) fn machines(of: &Index, results: &Results<'_>) -> Markup {
    let mut all: BTreeMap<(&str, usize), Ran> = BTreeMap::new();
    for (cell, (run, result)) in results {
        let environment = of.site.cells[*cell].environment;
        let ran = all.entry((of.environment(environment), environment)).or_default();
        ran.runs.insert(*run);
        ran.outcomes.push(result.outcome);
    }
    if all.len() < 2 {
        return html! {};
    }
    html! {
        section aria-labelledby="machines" {
            h2 #machines {
                "Machines and hypervisors "
                small { "a cell counts on each that it ran on" }
            }
            div .scroll
                tabindex="0"
                role="group"
                aria-label="How each machine and hypervisor did"
            {
                table {
                    thead {
                        tr {
                            th scope="col" { "ran on" }
                            th scope="col" { "verdict" }
                            th scope="col" { "cells" }
                            th scope="col" { "runs" }
                        }
                    }
                    tbody {
                        @for ((name, _), Ran { runs, outcomes }) in &all {
                            tr {
                                td { (Safe(name)) }
                                td {
                                    @if let Some(worst) = worst(outcomes.iter().copied()) {
                                        (outcome(worst))
                                    }
                                }
                                td { (tallied(outcomes)) }
                                td {
                                    @for (at, run) in runs.iter().rev().take(FEW).enumerate() {
                                        @if at > 0 { ", " }
                                        a href=(of.run_path(*run)) {
                                            (minute(of.site.runs[*run].started))
                                        }
                                    }
                                    @if runs.len() > FEW { " and " (runs.len() - FEW) " more" }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
