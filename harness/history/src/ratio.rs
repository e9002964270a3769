//! Cells of one run beside each other, as their case asks for it.

use dmarig_model::{
    case::Case,
    judge::{self, Interval},
    observation::{Check, Observation},
};
use dmarig_stats::unpaired::Estimate;

/// What a bound of a ratio may err by on its side, were the samples independent.
pub(crate) const LEVEL: f64 = 0.025;

/// Judges the ratios that a case asks for, as [`judge::judge_ratios`] does; those of times by the interval
/// that two lots of samples have which were not measured in pairs.
#[must_use]
pub fn judge_ratios(case: &Case, observations: &[Observation]) -> Vec<(String, Check)> {
    judge::judge_ratios(case, observations, &interval)
}

fn interval(ours: &[f64], theirs: &[f64]) -> Option<Interval> {
    let Estimate { ratio, low, high, .. } = Estimate::new(ours, theirs, LEVEL)?;
    Some(Interval { ratio, low: low?, high: high? })
}

#[cfg(test)]
mod tests {
    use dmarig_model::limit::LEAST_SAMPLES;

    use super::*;

    #[test]
    fn a_case_may_ask_for_ratios_from_as_many_samples_on_as_bound_one() {
        let lot = |samples: u32| -> Vec<f64> { (0..samples).map(|at| f64::from(1 + at)).collect() };
        let enough = lot(LEAST_SAMPLES);
        assert!(interval(&enough, &enough).is_some());
        let few = lot(LEAST_SAMPLES - 1);
        assert_eq!(interval(&few, &few), None);
        assert_eq!(interval(&[0.0; 9], &[1.0; 9]), None);
    }
}
