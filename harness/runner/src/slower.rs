//! Seeded bugs that only cost time: pairs of runs with the good kernel judge them.

use dmarig_records::MetricResult;
use dmarig_stats::{
    paired::Judgement,
    sequence::{Finding, Metric},
};

use crate::{paired::CompareOutcome, trial::NotCompared};

/// The case whose limits judge.
pub const CASE: &str = "prove-time";

/// Findings of the check in pairs of runs, each with its cell.
///
/// # Errors
/// [`NotCompared`]
pub fn findings(outcome: &CompareOutcome) -> Result<Vec<(String, String)>, NotCompared> {
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

/// A bug was missed only if a comparison ran to its end and found nothing worse. Noise and a stopped
/// comparison are not verdicts about the kernel.
fn conclude(
    found: Vec<(String, String)>,
    stopped: Option<&str>,
    judgement: Option<Judgement>,
) -> Result<Vec<(String, String)>, NotCompared> {
    match (judgement, stopped) {
        _ if !found.is_empty() => Ok(found),
        (_, Some(why)) => Err(NotCompared::Stopped(why.to_owned())),
        (Some(Judgement::Pass), None) => Ok(found),
        (Some(Judgement::Inconclusive), None) => Err(NotCompared::Noise),
        _ => Err(NotCompared::Nothing),
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
    fn only_a_finished_comparison_shows_that_nothing_is_slower() {
        let conclude_nothing = |judgement, stopped| conclude(Vec::new(), stopped, judgement);
        assert_eq!(conclude_nothing(Some(Judgement::Pass), None), Ok(Vec::new()));
        let stopped = NotCompared::Stopped("it died".to_owned());
        for (judgement, why, expected) in [
            (Some(Judgement::Inconclusive), None, NotCompared::Noise),
            (Some(Judgement::Pass), Some("it died"), stopped.clone()),
            (Some(Judgement::Inconclusive), Some("it died"), stopped),
            (None, None, NotCompared::Nothing),
        ] {
            assert_eq!(conclude_nothing(judgement, why), Err(expected), "{judgement:?} {why:?}");
        }
        // What was found stands, though another part is missing.
        let found = vec![("cell".to_owned(), "1.5 times".to_owned())];
        assert_eq!(conclude(found.clone(), Some("why"), Some(Judgement::Fail)), Ok(found));
    }
}
