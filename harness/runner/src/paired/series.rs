//! What pairs gave, metric by metric, and the test that decides on it.

use dmarig_model::{limit::Limit, measure::Measured, metrics, text::shown};
use dmarig_records::{MetricComparison, MetricResult, is_wanted};
use dmarig_stats::{
    paired::{Better, Judgement},
    sequence::{Finding, Metric, Pair, Plan, Rule, Sequence, Turn},
};

use super::PairError;
use crate::event::PairedValue;

/// What is added to a count before it is divided by another one, which may be zero.
const NEARLY_NOTHING: f64 = 0.01;

/// Pairs after which a count is believed that was the same in each of them.
pub(crate) const EXACT_AFTER: usize = 2;

/// The metrics of a comparison with the values of all pairs so far.
pub(crate) struct MetricSeries {
    sequence: Sequence,
    metrics: Vec<MetricValues>,
    /// Added to each value that the test sees.
    offset: f64,
}

/// One metric.
struct MetricValues {
    name: String,
    unit: String,
    /// The candidate's and the baseline's, in the order of the pairs.
    values: [Vec<f64>; 2],
}

impl MetricSeries {
    /// A series of the metrics that the first boots of both sides gave and that are limited or wanted
    /// (by default those that say something of their own).
    ///
    /// # Errors
    /// [`PairError::Final`] for a metric that both lack, or whose better direction is not known.
    pub(crate) fn of_first_boots(
        seed: u64,
        rule: &Rule,
        limits: &[Limit],
        wanted: &[String],
        both: &[Vec<Measured>; 2],
    ) -> Result<Self, PairError> {
        let [ours, theirs] = both;
        let limit_of = |name: &str| limits.iter().find(|limit| limit.metric == name);
        let compared: Vec<&Measured> = ours
            .iter()
            .filter(|metric| theirs.iter().any(|other| other.name == metric.name))
            .filter(|metric| limit_of(&metric.name).is_some() || is_wanted(&metric.name, wanted))
            .collect();
        for name in limits.iter().map(|limit| &limit.metric).chain(wanted) {
            if !compared.iter().any(|metric| metric.name == *name) {
                let known: Vec<&str> = ours.iter().map(|metric| metric.name.as_str()).collect();
                let (name, known) = (shown(name), shown(&known.join(", ")));
                return Err(PairError::Final(format!(
                    "both have no metric `{name}`; there are {known}"
                )));
            }
        }
        let mut metrics = Vec::new();
        for measured in &compared {
            let limit = limit_of(&measured.name);
            let direction = limit
                .and_then(|limit| limit.better)
                .or_else(|| metrics::Better::of(&measured.name, &measured.unit));
            if let (Some(limit), None) = (limit, direction) {
                let (name, percent) = (shown(&measured.name), limit.percent);
                return Err(PairError::Final(format!(
                    "which `{name}` is better? write --limit {name}:lower={percent} or {name}:higher={percent}"
                )));
            }
            let limit = limit.map(|limit| limit.percent);
            metrics.push(Metric { name: measured.name.clone(), better: better(direction), limit });
        }
        let plan = Plan { seed, rule: rule.clone(), metrics };
        let sequence = Sequence::new(plan).map_err(|error| PairError::Final(error.to_string()))?;
        let metrics = compared.iter().map(|measured| MetricValues {
            name: measured.name.clone(),
            unit: measured.unit.clone(),
            values: [Vec::new(), Vec::new()],
        });
        Ok(Self { sequence, metrics: metrics.collect(), offset: 0.0 })
    }

    /// A series of one metric, which is judged by its limit. Counts may be zero, so the test sees them with
    /// a small offset.
    ///
    /// # Errors
    /// [`PairError::Final`] for a limit that cannot be tested.
    pub(crate) fn of_metric(
        seed: u64,
        rule: Rule,
        metric: Metric,
        unit: &str,
    ) -> Result<Self, PairError> {
        let name = metric.name.clone();
        let plan = Plan { seed, rule, metrics: vec![metric] };
        let sequence = Sequence::new(plan).map_err(|error| PairError::Final(error.to_string()))?;
        let offset = if unit == "1" { NEARLY_NOTHING } else { 0.0 };
        let metric = MetricValues { name, unit: unit.to_owned(), values: [Vec::new(), Vec::new()] };
        Ok(Self { sequence, metrics: vec![metric], offset })
    }

    /// The pair that is due next; `None` when all limits are decided, or all pairs were run.
    pub(crate) fn due(&self) -> Option<Turn> {
        self.sequence.due()
    }

    /// The pairs up to the next look at the numbers.
    pub(crate) fn batch(&self) -> Vec<Turn> {
        self.sequence.batch()
    }

    /// Takes a pair: the medians of what both sides gave, or their samples at position `at`.
    ///
    /// # Errors
    /// [`PairError::Discarded`] where a side gave no value, or one that has no ratio.
    pub(crate) fn add(
        &mut self,
        both: &[Vec<Measured>; 2],
        at: Option<usize>,
    ) -> Result<(), PairError> {
        let value = |side: usize, name: &str| {
            let measured = both[side].iter().find(|metric| metric.name == name)?;
            match at {
                None => Some(measured.median()),
                Some(at) => measured.samples.get(at).copied(),
            }
        };
        let mut sides = [Vec::new(), Vec::new()];
        for (side, values) in sides.iter_mut().enumerate() {
            for metric in &self.metrics {
                match value(side, &metric.name) {
                    Some(value) => values.push(value),
                    None => {
                        let name = shown(&metric.name);
                        let reason = format!("it gave no {name} this time");
                        return Err(PairError::Discarded(reason));
                    }
                }
            }
        }
        let [candidate, baseline] = sides.clone();
        let with_offset =
            |values: Vec<f64>| values.iter().map(|value| value + self.offset).collect();
        let pair = Pair { candidate: with_offset(candidate), baseline: with_offset(baseline) };
        self.sequence.add(&pair).map_err(|error| PairError::Discarded(error.to_string()))?;
        for (position, metric) in self.metrics.iter_mut().enumerate() {
            for (side, values) in sides.iter().enumerate() {
                metric.values[side].push(values[position]);
            }
        }
        Ok(())
    }

    /// Number of pairs that were measured.
    pub(crate) fn pairs(&self) -> usize {
        self.metrics.first().map_or(0, |metric| metric.values[0].len())
    }

    /// What one pair gave; `number` counts from 1.
    pub(crate) fn pair(&self, number: usize) -> Vec<PairedValue> {
        let values = self.metrics.iter().map(|metric| PairedValue {
            metric: metric.name.clone(),
            unit: metric.unit.clone(),
            candidate: metric.values[0][number - 1],
            baseline: metric.values[1][number - 1],
        });
        values.collect()
    }

    /// Whether a count is exact and needs no more pairs: the same on each side in each of the first
    /// [`EXACT_AFTER`] pairs.
    pub(crate) fn is_exact(&self) -> bool {
        let [metric] = self.metrics.as_slice() else { return false };
        let [candidate, baseline] = &metric.values;
        let constant = |values: &[f64]| values.iter().all(|value| *value == values[0]);
        metric.unit == "1"
            && candidate.len() == EXACT_AFTER
            && constant(candidate)
            && constant(baseline)
    }

    /// Whether an exact count is more than `percent` worse, lower being better.
    pub(crate) fn exact_is_worse(&self, percent: f64) -> bool {
        let last = self.pair(self.pairs());
        last[0].candidate > last[0].baseline * (1.0 + percent / 100.0) + NEARLY_NOTHING
    }

    /// The decision on all limits, once there is one.
    pub(crate) fn decision(&self) -> Option<Judgement> {
        self.sequence.decision()
    }

    /// What the pairs say about each metric.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        self.sequence.findings()
    }

    /// The metrics as they are recorded.
    pub(crate) fn compared(self) -> Vec<MetricComparison> {
        let findings = self.sequence.findings();
        let metrics = self.metrics.into_iter().zip(findings).map(|(metric, finding)| {
            let [candidate, baseline] = metric.values;
            MetricComparison {
                name: metric.name,
                unit: metric.unit,
                candidate,
                baseline,
                result: MetricResult::Paired(finding),
            }
        });
        metrics.collect()
    }
}

/// A direction in the words of the tests. Lower is better where nothing is known.
pub(crate) fn better(better: Option<metrics::Better>) -> Better {
    match better {
        Some(metrics::Better::Higher) => Better::Higher,
        Some(metrics::Better::Lower) | None => Better::Lower,
    }
}
