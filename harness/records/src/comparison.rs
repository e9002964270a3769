//! `comparison.json`: a candidate compared with a baseline, metric by metric.

use dmarig_model::{
    axes::{Axes, Axis},
    measure::metric,
    metrics::{metric_names, unit_of},
    observation::{Observation, Outcome},
    windows::Side,
};
use dmarig_stats::{paired::Judgement, sequence::Finding, unpaired};
use serde::{Deserialize, Serialize};

use crate::sidecar::RecordFile;

/// Version of [`Comparison`]. Version 1 has neither boots nor how cells ended.
pub const COMPARISON_SCHEMA: u32 = 2;

/// Metrics that repeat another one: rates of the same work as `elapsed`, and percentiles next to
/// those that are compared. They are compared only if they are requested by name.
const REPEATED: &[&str] =
    &["throughput", "iops", "latency-mean", "latency-p90", "latency-p999", "latency-max"];

/// The result of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// [`COMPARISON_SCHEMA`] of the writer.
    pub schema: u32,
    /// Name of the candidate, as the user gave it.
    pub candidate: String,
    /// Name of the baseline.
    pub baseline: String,
    /// How pairs were measured; null without pairs.
    pub pairing: Option<Pairing>,
    /// The compared cells.
    pub cells: Vec<CellComparison>,
    /// Notes on how far the result can be trusted.
    pub notes: Vec<String>,
}

/// How pairs were measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pairing {
    /// Random seed for the order of pairs.
    pub seed: u64,
    /// Largest probability of a false pass, and of a false failure, over all cells.
    pub error: f64,
    /// Probability that an interval misses the true change, on either side; null in old records.
    #[serde(default)]
    pub level: Option<f64>,
    /// Numbers of pairs after which the test was evaluated.
    pub looks: Vec<usize>,
    /// Version of the decision rule.
    pub rule: u32,
    /// Whether both sides of a pair ran in one boot.
    pub one_boot: bool,
}

/// The comparison of two cells that differ only in what is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellComparison {
    /// What both cells have in common, such as `timing/policy=strict`.
    pub label: String,
    /// The timed metrics.
    pub metrics: Vec<MetricComparison>,
    /// The counts that differ. Counts repeat exactly, so they need no statistics.
    pub counts: Vec<CountDifference>,
    /// Boots of the candidate and of the baseline; null if stored runs were compared.
    #[serde(default)]
    pub boots: Option<[Boots; 2]>,
    /// How the comparison of the cell ended.
    #[serde(default)]
    pub ended: CellEnd,
}

impl CellComparison {
    /// Whether no metric was timed and no count differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty() && self.counts.is_empty()
    }
}

/// The boots of one side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boots {
    /// Number of boots.
    pub all: u32,
    /// The boots that did not pass: they broke an expectation, or did not complete.
    pub bad: Vec<BadBoot>,
}

/// A boot that did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadBoot {
    /// Its cell in the record.
    pub cell: String,
    /// Its outcome.
    pub outcome: Outcome,
    /// The first reason of its verdict.
    pub reason: String,
}

impl Boots {
    /// The boots that failed because of the kernel.
    pub fn failed(&self) -> impl Iterator<Item = &BadBoot> {
        self.bad.iter().filter(|boot| matches!(boot.outcome, Outcome::Failed | Outcome::TimedOut))
    }
}

/// How the comparison of a cell ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum CellEnd {
    /// All pairs were measured.
    #[default]
    Done,
    /// The cell can't run in this combination.
    Skipped {
        /// The reason.
        why: String,
    },
    /// The host, the rig or the user stopped it before its end.
    Stopped {
        /// The reason.
        why: String,
    },
}

/// The comparison of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricComparison {
    /// Name of the metric.
    pub name: String,
    /// Unit of the metric.
    pub unit: String,
    /// Samples of the candidate, in the order of pairs if there are pairs.
    pub candidate: Vec<f64>,
    /// Samples of the baseline, in the same order.
    pub baseline: Vec<f64>,
    /// The result.
    pub result: MetricResult,
}

/// The result of the comparison of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum MetricResult {
    /// Measured in pairs: judged if the metric has a limit.
    Paired(Finding),
    /// Measured in two separate runs: estimated and never judged.
    Unpaired {
        /// The estimate; null if there is no ratio.
        estimate: Option<unpaired::Estimate>,
    },
}

/// A count that differs between the candidate and the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountDifference {
    /// Name of the count.
    pub name: String,
    /// Value of the candidate.
    pub candidate: f64,
    /// Value of the baseline.
    pub baseline: f64,
}

/// Whether a metric is compared: it is among the wanted ones, or none is named and it does not
/// repeat another metric.
#[must_use]
pub fn is_wanted(name: &str, wanted: &[String]) -> bool {
    match wanted.is_empty() {
        true => !REPEATED.contains(&name),
        false => wanted.iter().any(|wanted_name| wanted_name == name),
    }
}

/// Names what two cells of a case have in common: the case, and the values of the `varied` axes
/// without `but`.
#[must_use]
pub fn label(case: &str, axes: &Axes, varied: &[Axis], but: &[Axis]) -> String {
    let words = varied.iter().filter(|axis| !but.contains(axis));
    let words: Vec<String> = words.map(|axis| format!("{axis}={}", axis.value(axes))).collect();
    format!("{case}/{}", words.join(","))
}

impl RecordFile for Comparison {
    const FILE: &str = "comparison.json";
    const NAME: &str = "comparison";
    const SCHEMA: u32 = COMPARISON_SCHEMA;
}

impl Comparison {
    /// The worst judgement of all metrics with a limit; an undecided one is inconclusive. `None` if
    /// no metric has a limit.
    #[must_use]
    pub fn judgement(&self) -> Option<Judgement> {
        let all = self.cells.iter().flat_map(|cell| &cell.metrics);
        let judged: Vec<Judgement> = all
            .filter_map(|metric| match &metric.result {
                MetricResult::Paired(finding) => finding
                    .metric
                    .limit
                    .map(|_| finding.judgement.unwrap_or(Judgement::Inconclusive)),
                MetricResult::Unpaired { .. } => None,
            })
            .collect();
        [Judgement::Fail, Judgement::Inconclusive, Judgement::Pass]
            .into_iter()
            .find(|judgement| judged.contains(judgement))
    }
}

impl Comparison {
    /// The comparison as the outcome of one cell. Failed if the candidate is worse than a limit or
    /// one of its boots failed, errored if a cell was stopped, skipped if no cell could run, passed
    /// otherwise; an inconclusive metric does not fail.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let failed = |cell: &CellComparison| {
            cell.boots.as_ref().is_some_and(|[candidate, _]| candidate.failed().next().is_some())
        };
        let mut skipped =
            self.cells.iter().map(|cell| matches!(cell.ended, CellEnd::Skipped { .. })).peekable();
        if self.judgement() == Some(Judgement::Fail) || self.cells.iter().any(failed) {
            Outcome::Failed
        } else if self.stopped().is_some() {
            Outcome::Errored
        } else if skipped.peek().is_some() && skipped.all(|skipped| skipped) {
            Outcome::Skipped
        } else {
            Outcome::Passed
        }
    }

    /// Why the first of the stopped cells was stopped.
    #[must_use]
    pub fn stopped(&self) -> Option<&str> {
        self.cells.iter().find_map(|cell| match &cell.ended {
            CellEnd::Stopped { why } => Some(why.as_str()),
            CellEnd::Done | CellEnd::Skipped { .. } => None,
        })
    }
}

/// The counts that differ between the candidate and the baseline.
#[must_use]
pub fn differing_counts(seen: [&Observation; 2], sides: [Side; 2]) -> Vec<CountDifference> {
    let names = metric_names().filter(|name| unit_of(name) == Some("1"));
    let value = |of: usize, name: &str| Some(metric(seen[of], sides[of], name)?.median());
    let both = |name: &str| {
        let (candidate, baseline) = (value(0, name)?, value(1, name)?);
        let difference = CountDifference { name: name.to_owned(), candidate, baseline };
        if candidate == baseline { None } else { Some(difference) }
    };
    names.filter_map(both).collect()
}
