//! Seeded bugs that only cost time: pairs of runs with the good kernel judge them.

use dmarig_records::MetricResult;
use dmarig_stats::{
    paired::Judgement,
    sequence::{Finding, Metric},
};

use crate::{paired::CompareOutcome, trial::Trial};

/// The check that fails where a kernel takes longer than the good one.
pub const CHECK: &str = "slower";
/// The case whose limits judge.
pub const CASE: &str = "prove-time";

/// Whether pairs have to tell: nothing else did, or the bug has to be caught by this.
pub fn is_due(trial: &Trial) -> bool {
    trial.bug.is_some() && (trial.failed.is_empty() || trial.owns(CHECK))
}

/// What pairs of runs say of a kernel: each finding of the check with its cell, or why nothing is said.
pub fn findings(outcome: &CompareOutcome) -> Result<Vec<(String, String)>, String> {
    let comparison = &outcome.comparison;
    let mut found = Vec::new();
    for cell in &comparison.cells {
        for metric in &cell.metrics {
            let MetricResult::Paired(finding) = &metric.result else { continue };
            if finding.judgement == Some(Judgement::Fail) {
                found.push((cell.label.clone(), sentence(finding)));
            }
        }
    }
    conclude(found, comparison.stopped(), comparison.judgement())
}

/// Only what was compared to its end and found no worse was missed: noise that did not let it be told, and a
/// comparison that was stopped, say nothing of the kernel.
fn conclude(
    found: Vec<(String, String)>,
    stopped: Option<&str>,
    judgement: Option<Judgement>,
) -> Result<Vec<(String, String)>, String> {
    match (judgement, stopped) {
        _ if !found.is_empty() => Ok(found),
        (_, Some(why)) => Err(format!("not compared with the good kernel: {why}")),
        (Some(Judgement::Pass), None) => Ok(found),
        (Some(Judgement::Inconclusive), None) => {
            Err("too much noise to compare it with the good kernel".to_owned())
        }
        _ => Err("not compared with the good kernel".to_owned()),
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
        let told = |judgement, stopped| conclude(Vec::new(), stopped, judgement);
        assert_eq!(told(Some(Judgement::Pass), None), Ok(Vec::new()));
        for (judgement, stopped, why) in [
            (Some(Judgement::Inconclusive), None, "too much noise"),
            (Some(Judgement::Pass), Some("it died"), "it died"),
            (Some(Judgement::Inconclusive), Some("it died"), "it died"),
            (None, None, "not compared"),
        ] {
            assert!(
                told(judgement, stopped).unwrap_err().contains(why),
                "{judgement:?} {stopped:?}"
            );
        }
        // What was found stands, though another part is missing.
        let found = vec![("cell".to_owned(), "1.5 times".to_owned())];
        assert_eq!(conclude(found.clone(), Some("why"), Some(Judgement::Fail)), Ok(found));
    }
}
