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
    let note = comparison.notes.first().map_or("", String::as_str);
    conclude(found, ended.stopped, comparison.judgement(), note)
}

/// Only what was compared to its end and found no worse was missed: noise that did not let it be told, and a
/// comparison that was stopped, say nothing of the kernel.
fn conclude(
    found: Vec<(String, String)>,
    stopped: bool,
    judgement: Option<Judgement>,
    note: &str,
) -> Result<Vec<(String, String)>, String> {
    match judgement {
        _ if !found.is_empty() => Ok(found),
        Some(Judgement::Pass) if !stopped => Ok(found),
        Some(Judgement::Inconclusive) if !stopped => {
            Err(format!("too much noise to compare it with the good kernel: {note}"))
        }
        _ => Err(format!("not compared with the good kernel: {note}")),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_comparison_that_was_told_says_that_nothing_is_slower() {
        let told = |judgement, stopped| conclude(Vec::new(), stopped, judgement, "why");
        assert_eq!(told(Some(Judgement::Pass), false), Ok(Vec::new()));
        for (judgement, stopped) in [
            (Some(Judgement::Inconclusive), false),
            (Some(Judgement::Pass), true),
            (Some(Judgement::Inconclusive), true),
            (None, false),
        ] {
            assert!(
                told(judgement, stopped).unwrap_err().contains("why"),
                "{judgement:?} {stopped}"
            );
        }
        // What was found stands, though another part is missing.
        let found = vec![("cell".to_owned(), "1.5 times".to_owned())];
        assert_eq!(conclude(found.clone(), true, Some(Judgement::Fail), ""), Ok(found));
    }
}
