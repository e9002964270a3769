//! A comparison as a page.

use std::time::SystemTime;

use dmarig_dashboard::{Compared as Page, ComparedGroup, ComparedRow, comparison_page};
use dmarig_records::{Compared, ComparedCell, ComparedMetric, Comparison};
use dmarig_stats::paired::{Better, Judgement};

use crate::report::{comparison_heading, comparison_notes};

/// The page, in one file.
pub(crate) fn comparison_html(comparison: &Comparison) -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let made = since.ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0);
    page(comparison, made)
}

fn page(comparison: &Comparison, made: i64) -> String {
    comparison_page(&Page {
        candidate: comparison.candidate.clone(),
        baseline: comparison.baseline.clone(),
        how: comparison_heading(comparison),
        verdict: comparison.judgement().map(told),
        made,
        // Of the others a note tells how they ended.
        groups: comparison.cells.iter().filter(|cell| !cell.is_empty()).map(group).collect(),
        notes: comparison_notes(comparison),
    })
}

/// A judgement as a word, and whether it is good.
pub(super) fn told(judgement: Judgement) -> (String, Option<bool>) {
    let good = match judgement {
        Judgement::Pass => Some(true),
        Judgement::Fail => Some(false),
        Judgement::Inconclusive => None,
    };
    (judgement.name().to_owned(), good)
}

fn group(cell: &ComparedCell) -> ComparedGroup {
    ComparedGroup {
        label: cell.label.clone(),
        rows: cell.metrics.iter().map(row).collect(),
        counts: cell
            .counts
            .iter()
            .map(|count| (count.name.clone(), count.candidate, count.baseline))
            .collect(),
    }
}

fn row(metric: &ComparedMetric) -> ComparedRow {
    let percent =
        |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.1} %"));
    let mut row = ComparedRow {
        name: metric.name.clone(),
        unit: metric.unit.clone(),
        candidate: metric.candidate.clone(),
        baseline: metric.baseline.clone(),
        ..ComparedRow::default()
    };
    let (mut noise, mut resolves, mut limit) = (None, None, None);
    match &metric.result {
        Compared::Unpaired { estimate: Some(found) } => {
            row.ratio = Some(found.ratio);
            row.bounds = (found.low, found.high);
            noise = found.noise.map(|noise| noise * 100.0);
        }
        Compared::Unpaired { estimate: None } => {}
        Compared::Paired(finding) => {
            row.paired = true;
            if let Some(found) = finding.estimate {
                row.ratio = Some(found.ratio);
                row.bounds = (found.low, found.high);
                noise = Some(found.noise * 100.0);
                resolves = Some(found.resolvable);
            }
            limit = finding.metric.limit;
            row.limit = limit.map(|limit| match finding.metric.better {
                Better::Lower => 1.0 + limit / 100.0,
                Better::Higher => 1.0 - limit / 100.0,
            });
            // What has a limit and was not decided was left open.
            let open = || ("open".to_owned(), None);
            row.verdict = limit.map(|_| finding.judgement.map_or_else(open, told));
        }
    }
    let limit = limit.map_or_else(|| "-".to_owned(), |limit| format!("{limit} % worse"));
    row.more = vec![
        ("limit".to_owned(), limit),
        ("noise".to_owned(), percent(noise)),
        ("resolves".to_owned(), percent(resolves)),
    ];
    row
}
