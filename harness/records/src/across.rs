//! Verdicts that need more than one cell, and verdicts of the boots of a comparison.

use dmarig_model::{
    case::Case,
    judge::{self, Interval, judge},
    observation::{Observation, PlannedWindow, Verdict, WindowKind},
    windows::Windows,
};
use dmarig_stats::unpaired::Estimate;

/// Probability that a bound of a ratio misses the true ratio, if samples are independent.
pub(crate) const LEVEL: f64 = 0.025;

/// Adds the checks that compare cells of one run with each other (ratios, growth) to their
/// verdicts. Returns the positions of the cells whose verdict got a check, in ascending order. Call
/// it once, after all cells of the run have ended.
pub fn judge_across_cells(
    cases: &[Case],
    cells: &mut [(&Observation, &mut Verdict)],
) -> Vec<usize> {
    let mut amended = Vec::new();
    for case in cases {
        let of_case: Vec<&Observation> = cells
            .iter()
            .map(|(observation, _)| *observation)
            .filter(|observation| observation.case == case.name)
            .collect();
        for (id, check) in judge::judge_ratios(case, &of_case, &interval) {
            let found = cells.iter().position(|(observation, _)| observation.cell == id);
            if let Some(position) = found {
                cells[position].1.add(check);
                amended.push(position);
            }
        }
    }
    amended.sort_unstable();
    amended.dedup();
    amended
}

/// Judges one boot of a comparison: by its case, with the windows that were planned for that boot.
/// Without a plan (records of version 1) the windows that ran stand in for it.
#[must_use]
pub fn judge_boot(
    case: &Case,
    planned: Option<&[PlannedWindow]>,
    observation: &Observation,
) -> Verdict {
    let kinds: Vec<WindowKind> = match planned {
        Some(planned) => planned.iter().map(|window| window.kind).collect(),
        None => observation.windows.iter().map(|window| window.kind).collect(),
    };
    let timing = kinds.iter().filter(|kind| **kind == WindowKind::Timing).count();
    let windows = Windows {
        count: case.windows.count && kinds.contains(&WindowKind::Counting),
        time: case.windows.time.min(u32::try_from(timing).unwrap_or(u32::MAX)),
        ..case.windows
    };
    judge(&Case { windows, ..case.clone() }, observation)
}

/// The interval of a ratio of times that were not measured in pairs.
fn interval(ours: &[f64], theirs: &[f64]) -> Option<Interval> {
    let Estimate { ratio, low, high, .. } = Estimate::new(ours, theirs, LEVEL)?;
    Some(Interval { ratio, low: low?, high: high? })
}

#[cfg(test)]
mod tests {
    use dmarig_model::limit::LEAST_SAMPLES;

    use super::*;

    #[test]
    fn bounds_ratios_from_the_least_samples_that_cases_may_have() {
        let lot = |samples: u32| -> Vec<f64> { (0..samples).map(|at| f64::from(1 + at)).collect() };
        let enough = lot(LEAST_SAMPLES);
        assert!(interval(&enough, &enough).is_some());
        let few = lot(LEAST_SAMPLES - 1);
        assert_eq!(interval(&few, &few), None);
        assert_eq!(interval(&[0.0; 9], &[1.0; 9]), None);
    }
}
