//! JUnit XML for continuous integration.

use std::time::Duration;

use dmarig_model::{document::CellResult, matrix::Cell, observation::Outcome};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

/// The cells as a report: a suite a case.
///
/// # Errors
/// Where the XML can't be written, which is a mistake of this program.
pub(crate) fn junit(cells: &[(&Cell, &CellResult)]) -> Result<String, quick_junit::SerializeError> {
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
    report.add_test_suites(suites);
    report.to_string()
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
