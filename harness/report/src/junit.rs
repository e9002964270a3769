//! JUnit XML for continuous integration.

use std::time::Duration;

use dmarig_history::HistoryJudgement;
use dmarig_model::{document::CellResult, matrix::Cell, observation::Outcome};
use dmarig_records::{CellComparison, CellEnd, Comparison, MetricResult};
use dmarig_stats::paired::Judgement;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::{number::ratio_as_change, standing::standing_message};

/// The cells as a report: a suite a case.
///
/// # Errors
/// Where the XML can't be written, which is a mistake of this program.
pub(crate) fn junit<'a>(
    cells: &[(&Cell, &CellResult)],
    comparisons: impl IntoIterator<Item = &'a Comparison>,
    standing: Option<&HistoryJudgement>,
) -> Result<String, quick_junit::SerializeError> {
    let mut report = Report::new("dmarig");
    let mut suites: Vec<TestSuite> = Vec::new();
    for (cell, result) in cells {
        let case = test_case(cell, result);
        match suites.iter_mut().find(|suite| suite.name.as_str() == cell.case) {
            Some(suite) => {
                suite.add_test_case(case);
            }
            None => {
                let mut suite = TestSuite::new(cell.case.clone());
                suite.add_test_case(case);
                suites.push(suite);
            }
        }
    }
    suites.extend(comparisons.into_iter().map(comparison_suite));
    suites.extend(standing.filter(|standing| !standing.metrics.is_empty()).map(standing_suite));
    report.add_test_suites(suites);
    report.to_string()
}

/// A comparison: a test case for each metric that has a limit, of which one that could not be told is
/// skipped, and one for the boots of each cell.
fn comparison_suite(comparison: &Comparison) -> TestSuite {
    let Comparison { candidate, baseline, cells, .. } = comparison;
    let mut suite = TestSuite::new(format!("{candidate} against {baseline}"));
    for cell in cells {
        let mut case = TestCase::new(format!("{} boots", cell.label), boots(cell));
        case.set_classname(suite.name.as_str().to_owned());
        suite.add_test_case(case);
        for metric in &cell.metrics {
            let MetricResult::Paired(found) = &metric.result else { continue };
            let Some(limit) = found.metric.limit else { continue };
            let worse = found.estimate.map_or_else(String::new, |estimate| {
                format!("estimated {}", ratio_as_change(estimate.ratio))
            });
            let said = |mut status: TestCaseStatus, what: &str| {
                let pairs = metric.candidate.len();
                let message = format!("{what} after {pairs} pairs: {worse}, limit {limit} % worse");
                status.set_message(message);
                status
            };
            let status = match found.judgement {
                Some(Judgement::Pass) => TestCaseStatus::success(),
                Some(Judgement::Fail) => {
                    said(TestCaseStatus::non_success(NonSuccessKind::Failure), "worse")
                }
                Some(Judgement::Inconclusive) | None => {
                    said(TestCaseStatus::skipped(), "inconclusive")
                }
            };
            let mut case = TestCase::new(format!("{} {}", cell.label, metric.name), status);
            case.set_classname(suite.name.as_str().to_owned());
            suite.add_test_case(case);
        }
    }
    suite
}

/// How a cell's boots went: the candidate's decide, and then how it ended.
fn boots(cell: &CellComparison) -> TestCaseStatus {
    let failed = cell.boots.iter().flat_map(|[candidate, _]| candidate.failed()).next();
    let (mut status, message) = match (failed, &cell.ended) {
        (Some(boot), _) => {
            let message = format!("{}: {}", boot.outcome.name(), boot.reason);
            (TestCaseStatus::non_success(NonSuccessKind::Failure), message)
        }
        (None, CellEnd::Done) => return TestCaseStatus::success(),
        (None, CellEnd::Skipped { why }) => (TestCaseStatus::skipped(), why.clone()),
        (None, CellEnd::Stopped { why }) => {
            (TestCaseStatus::non_success(NonSuccessKind::Error), why.clone())
        }
    };
    status.set_message(message);
    status
}

/// A run beside its history: a test case for each number that has a limit. One that was not compared, or
/// could not be told, is skipped.
fn standing_suite(standing: &HistoryJudgement) -> TestSuite {
    let mut suite = TestSuite::new("against the history");
    for metric in &standing.metrics {
        let mut status = match metric.judgement() {
            Some(Judgement::Pass) => TestCaseStatus::success(),
            Some(Judgement::Fail) => TestCaseStatus::non_success(NonSuccessKind::Failure),
            Some(Judgement::Inconclusive) | None => TestCaseStatus::skipped(),
        };
        if metric.judgement() != Some(Judgement::Pass) {
            status.set_message(standing_message(metric));
        }
        let mut case = TestCase::new(format!("{} {}", metric.place, metric.metric), status);
        case.set_classname(suite.name.as_str().to_owned());
        suite.add_test_case(case);
    }
    suite
}

fn test_case(cell: &Cell, result: &CellResult) -> TestCase {
    let bad = |kind| {
        let mut status = TestCaseStatus::non_success(kind);
        status.set_message(result.reasons.first().cloned().unwrap_or_default());
        status.set_type(result.outcome.name());
        status.set_description(result.reasons.join("\n"));
        status
    };
    let status = match result.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Failed | Outcome::TimedOut => bad(NonSuccessKind::Failure),
        Outcome::Errored => bad(NonSuccessKind::Error),
        Outcome::Skipped => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(result.reasons.first().cloned().unwrap_or_default());
            status
        }
    };
    let mut case = TestCase::new(cell.id.clone(), status);
    case.set_classname(cell.case.clone()).set_time(Duration::from_micros(result.duration_us));
    case
}
