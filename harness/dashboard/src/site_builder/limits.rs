//! Numbers that were judged beside others, as a run's record has them.

use std::{collections::HashMap, path::Path};

use dmarig_history::HistoryJudgement;
use dmarig_model::text::shown;
use dmarig_records::{Comparison, MetricComparison, MetricResult, RecordFile};
use dmarig_report::{Reference, comparison_heading, comparison_notes, standing_notes};

use crate::{JudgedNumber, JudgedNumbers};

/// What the record of a run on this machine has of them; what can't be read is told in a note. Series have indices
/// by their ids.
pub(super) fn judged(
    directory: &Path,
    machine: &str,
    series: &HashMap<String, usize>,
) -> Vec<JudgedNumbers> {
    let standing =
        HistoryJudgement::read(directory).map(|found| found.map(|one| of_history(&one, series)));
    let compared =
        Comparison::read(directory).map(|found| found.map(|one| of_pairs(&one, machine)));
    let told = [standing, compared].into_iter().filter_map(|found| {
        found.unwrap_or_else(|error| {
            Some(JudgedNumbers {
                against: "What can't be read".to_owned(),
                notes: vec![error.to_string()],
                ..JudgedNumbers::default()
            })
        })
    });
    told.filter(|some| !(some.numbers.is_empty() && some.notes.is_empty())).collect()
}

fn of_history(standing: &HistoryJudgement, series: &HashMap<String, usize>) -> JudgedNumbers {
    // Where pairs decide, the comparison has the number, and here only a note is left of it.
    let own = standing.metrics.iter().filter(|metric| metric.beside.is_none());
    let numbers = own.map(|metric| {
        let known = metric.series.as_ref().and_then(|(id, _)| series.get(id).copied());
        // Two QEMUs or machines of one name are two numbers.
        let key = format!("{}\0{}\0{}", metric.place, metric.environment, metric.metric);
        JudgedNumber {
            key,
            place: shown(&metric.place.to_string()),
            series: known,
            metric: metric.into(),
        }
    });
    JudgedNumbers {
        against: "against the runs before".to_owned(),
        reference: Reference::EarlierRuns,
        numbers: numbers.collect(),
        notes: standing_notes(standing),
    }
}

/// Only what was to be judged: a comparison without a limit has no verdict.
fn of_pairs(comparison: &Comparison, machine: &str) -> JudgedNumbers {
    let numbers = comparison.cells.iter().flat_map(|cell| {
        let limited = |metric: &&MetricComparison| {
            matches!(&metric.result, MetricResult::Paired(finding) if finding.metric.limit.is_some())
        };
        let rows = cell.metrics.iter().filter(limited);
        rows.map(|metric| {
            let Comparison { candidate, baseline, .. } = comparison;
            // What one machine judged is not judged again by another.
            let key = [machine, candidate, baseline, &cell.label, &metric.name].join("\0");
            JudgedNumber { key, place: shown(&cell.label), series: None, metric: metric.into() }
        })
    });
    let numbers: Vec<JudgedNumber> = numbers.collect();
    let notes = if numbers.is_empty() { Vec::new() } else { comparison_notes(comparison) };
    JudgedNumbers {
        against: comparison_heading(comparison),
        reference: Reference::Baseline,
        numbers,
        notes,
    }
}

#[cfg(test)]
mod tests {
    use dmarig_demo::synthetic_year;
    use dmarig_history::{CellKey, HistoryCheckInput};
    use dmarig_model::{case::Case, observation::Outcome};

    use super::*;

    #[test]
    fn what_pairs_decide_is_no_open_number_of_the_history() {
        let run = synthetic_year(1).next().unwrap();
        let passed = run.cells.iter().find(|cell| cell.outcome == Outcome::Passed).unwrap();
        let case = format!(
            "case: {}\nworkload: {{block: {{ops: 64}}}}\nwindows: {{time: 1}}\n\
             history: [{{metric: elapsed, percent: 5}}, {{metric: psi-per-unmap, percent: 10}}]\n",
            passed.place.case
        );
        let cases = [Case::parse("case.yaml", &case).unwrap()];
        let beside =
            |_: &CellKey, metric: &str| (metric == "elapsed").then(|| "baseline".to_owned());
        let asked = HistoryCheckInput {
            run: &run,
            cases: &cases,
            history: None,
            file: "h",
            beside: &beside,
        };
        let told = of_history(&HistoryJudgement::new(&asked).unwrap(), &HashMap::new());
        let names: Vec<&str> =
            told.numbers.iter().map(|number| number.metric.name.as_str()).collect();
        assert!(
            !names.is_empty() && names.iter().all(|name| *name == "psi-per-unmap"),
            "{names:?}"
        );
        // Who looks for it is told where it is.
        assert!(told.notes.iter().any(|note| note.contains("in pairs with baseline")), "{told:?}");
    }
}
