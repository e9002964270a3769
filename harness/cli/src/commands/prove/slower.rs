//! Bugs that show in nothing but the time that they take, by pairs of runs with the good kernel.

use dmarig_history::Compared;
use dmarig_stats::{
    paired::Judgement,
    sequence::{Finding, Metric},
};

use crate::interleave::Ended;

use super::trial::Trial;

/// The check that fails where a kernel takes longer than the good one.
pub(crate) const CHECK: &str = "slower";
/// The case whose limits judge.
pub(crate) const CASE: &str = "prove-time";

/// Whether pairs have to tell: nothing else did, or the bug has to be caught by this.
pub(crate) fn is_due(trial: &Trial) -> bool {
    trial.bug.is_some() && (trial.failed.is_empty() || trial.owns(CHECK))
}

/// What pairs of runs say of a kernel: each finding of the check with its cell, or why nothing is said.
pub(crate) fn findings(ended: &Ended) -> Result<Vec<(String, String)>, String> {
    let comparison = &ended.comparison;
    let mut found = Vec::new();
    for cell in &comparison.cells {
        for metric in &cell.metrics {
            let Compared::Paired(finding) = &metric.result else { continue };
            if finding.judgement == Some(Judgement::Fail) {
                found.push((cell.label.clone(), sentence(finding)));
            }
        }
    }
    match (found.is_empty(), ended.stopped, comparison.judgement()) {
        // Part of it may be missing: what was found stands.
        (false, ..) => Ok(found),
        (true, true, _) | (true, _, None) => {
            let why = comparison.notes.first().map_or("nothing was judged", String::as_str);
            Err(format!("not compared with the good kernel: {why}"))
        }
        (true, ..) => Ok(found),
    }
}

fn sentence(finding: &Finding) -> String {
    let Metric { name, limit, .. } = &finding.metric;
    let limit = limit.unwrap_or_default();
    let Some(estimate) = &finding.estimate else {
        return format!("{name} is more than {limit} % worse than the good kernel's");
    };
    let bound = |bound: Option<f64>| bound.map_or("?".to_owned(), |bound| format!("{bound:.2}"));
    format!(
        "{name} is {:.2} times the good kernel's ({} to {}, {} pairs), expected at most {limit} % more",
        estimate.ratio,
        bound(estimate.low),
        bound(estimate.high),
        estimate.pairs
    )
}
