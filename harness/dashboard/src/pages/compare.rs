//! Two runs of the reader's choice, by the script; without it, each run beside the night before, on its
//! own page. The numbers are in a script for each run, since a page from a disk may load nothing else.

use std::collections::BTreeMap;

use dmarig_report::safe;
use maud::{Markup, html};
use serde_json::{Map, Value, json};

use crate::{
    index::Index,
    noise::LEAST,
    page::Page,
    site::Better,
    text::{json as script, minute},
};

pub(crate) fn page(of: &Index) -> Markup {
    let runs = &of.site.runs;
    let choice = |label: &str, id: &str| {
        html! {
            label for=(id) { (label) }
            select id=(id) {
                @for at in (0..runs.len()).rev() {
                    option value=(of.run_names[at]) {
                        (minute(runs[at].started))
                        "  "
                        (safe(&runs[at].id))
                    }
                }
            }
        }
    };
    let body = html! {
        h1 { "Compare two runs" }
        @if runs.len() < 2 {
            p.quiet { "There are not two runs yet." }
        } @else {
            noscript {
                p {
                    "Without scripts, the page of each run compares it with the previous night:"
                }
                ul.columns {
                    @for at in (1..runs.len()).rev() {
                        li {
                            a href={ (of.run_path(at)) "#since" } { (minute(runs[at].started)) }
                        }
                    }
                }
            }
            form.compare.scripted hidden {
                (choice("Candidate", "candidate"))
                button.swap type="button" aria-label="Swap the two" title="Swap the two" {
                    "\u{21c4}"
                }
                (choice("Baseline", "baseline"))
                label.check {
                    input type="checkbox" id="everything";
                    " also what lies within noise"
                }
            }
            p.muted.scripted hidden {
                "Two runs are not measured in pairs: what the machine did between them is in every difference. "
                "Noise is that of the series the number belongs to."
            }
            div #comparison aria-live="polite" {}
        }
    };
    Page { title: "Compare".into(), entry: "Compare", root: "", data: &["data/series.js"], body }
        .render(of)
}

/// Names of all series and cells, as a script.
pub(crate) fn series_data(of: &Index) -> String {
    let series: Vec<Value> = of
        .site
        .series
        .iter()
        .enumerate()
        .map(|(at, one)| {
            let better = match one.better {
                Better::Lower => -1,
                Better::Higher => 1,
                Better::Unknown => 0,
            };
            // What has no level has no noise either, and nothing lies within it.
            let level = of.segments[at].last().filter(|segment| segment.is_level());
            let sd = level.map(|segment| segment.sd);
            json!([
                safe(&one.metric),
                format!("{} {}", safe(&one.case), safe(&one.variant)),
                safe(&one.kernel),
                safe(&one.unit),
                better,
                sd,
                of.series_path(at),
            ])
        })
        .collect();
    // A cell that ran elsewhere is known by the first of its kind.
    let mut places: BTreeMap<[&str; 4], usize> = BTreeMap::new();
    let cells = of.site.cells.iter().enumerate().map(|(at, cell)| {
        let label = format!("{} {}", safe(&cell.case), safe(&cell.variant));
        let place = *places.entry(cell.place()).or_insert(at);
        json!([label, safe(&cell.kernel), place, cell.environment])
    });
    let cells: Vec<Value> = cells.collect();
    let environments: Vec<Value> =
        of.site.environments.iter().map(|one| json!(safe(&one.name))).collect();
    let all =
        json!({ "series": series, "least": LEAST, "cells": cells, "environments": environments });
    format!("window.dmarig.names({});\n", script(&all))
}

/// The numbers and verdicts of one run, as a script.
pub(crate) fn run_data(of: &Index, run: usize) -> String {
    let values: Map<String, Value> = of.points[run]
        .iter()
        .map(|(series, at)| (series.to_string(), json!(of.site.series[*series].points[*at].value)))
        .collect();
    let known = of.site.runs[run].results.iter().filter(|result| result.cell < of.site.cells.len());
    let cells: Map<String, Value> =
        known.map(|result| (result.cell.to_string(), json!(result.outcome.name()))).collect();
    let name = json!(of.run_names[run]);
    let page = json!(of.run_path(run));
    format!(
        "window.dmarig.run({}, {});\n",
        script(&name),
        script(&json!({ "page": page, "values": values, "cells": cells }))
    )
}
