//! The document about a comparison: a candidate and a baseline, metric by metric.

use std::{io, path::Path};

use dmarig_model::{
    axes::{Axes, Axis},
    measure::metric,
    metrics::{metric_names, unit_of},
    observation::{Observation, Outcome},
    windows::Side,
};
use dmarig_stats::{paired::Judgement, sequence::Finding, unpaired};
use serde::{Deserialize, Serialize};

use crate::{error::LoadError, sidecar::RecordFile};

/// Version of [`Comparison`]; those of 1 know neither boots that failed nor how a cell ended.
pub const COMPARISON_SCHEMA: u32 = 2;

/// Metrics that say what another says: the rates of what `elapsed` is the time of, and percentiles of
/// which each has a neighbour. They are compared where they are asked for by name.
const REPEATED: &[&str] =
    &["throughput", "iops", "latency-mean", "latency-p90", "latency-p999", "latency-max"];

/// A candidate beside a baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// [`COMPARISON_SCHEMA`] of the writer.
    pub schema: u32,
    /// What is judged, as the user named it.
    pub candidate: String,
    /// What it is compared with.
    pub baseline: String,
    /// How pairs were made; null of what was not paired.
    pub pairing: Option<Pairing>,
    /// The cells of both.
    pub cells: Vec<CellComparison>,
    /// What a reader must know to trust it.
    pub notes: Vec<String>,
}

/// How pairs were made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pairing {
    /// From which the order of pairs was drawn.
    pub seed: u64,
    /// The error that was promised: of a wrong pass, and of a wrong failure, all cells together.
    pub error: f64,
    /// What each interval may err by on either side; not known of records of old.
    #[serde(default)]
    pub level: Option<f64>,
    /// Numbers of pairs after which it was looked at.
    pub looks: Vec<usize>,
    /// Version of the rule that judged.
    pub rule: u32,
    /// Whether both of a pair ran in one boot.
    pub one_boot: bool,
}

/// Two cells that differ in nothing but what is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellComparison {
    /// What both have in common, such as `timing/policy=strict`.
    pub label: String,
    /// What was timed.
    pub metrics: Vec<MetricComparison>,
    /// Counts that differ; those that repeat exactly need no statistics.
    pub counts: Vec<CountDifference>,
    /// How boots went of the candidate and of the baseline; null of what was not run for it.
    #[serde(default)]
    pub boots: Option<[Boots; 2]>,
    /// How it ended.
    #[serde(default)]
    pub ended: CellEnd,
}

impl CellComparison {
    /// Whether nothing was timed of it and no count differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty() && self.counts.is_empty()
    }
}

/// How the boots of one side went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boots {
    /// How many there were.
    pub all: u32,
    /// Those that did not pass what is expected of the kernel by itself, or came to nothing.
    pub bad: Vec<BadBoot>,
}

/// A boot that did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadBoot {
    /// Its cell in the record.
    pub cell: String,
    /// What was thought of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
}

impl Boots {
    /// The boots of which the kernel is to blame.
    pub fn failed(&self) -> impl Iterator<Item = &BadBoot> {
        self.bad.iter().filter(|boot| matches!(boot.outcome, Outcome::Failed | Outcome::TimedOut))
    }
}

/// How the comparison of a cell ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum CellEnd {
    /// All pairs that were due were made.
    #[default]
    Done,
    /// It can't be run so.
    Skipped {
        /// Why.
        why: String,
    },
    /// On its way, by the host, the rig or its user.
    Stopped {
        /// Why.
        why: String,
    },
}

/// One metric of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricComparison {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// What the candidate gave; of pairs, in their order.
    pub candidate: Vec<f64>,
    /// What the baseline gave.
    pub baseline: Vec<f64>,
    /// What comes of that.
    pub result: MetricResult,
}

/// What comes of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum MetricResult {
    /// Of pairs: may be judged.
    Paired(Finding),
    /// Of two lots: only estimated. Null where there is no ratio.
    Unpaired {
        /// The estimate.
        estimate: Option<unpaired::Estimate>,
    },
}

/// A count of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountDifference {
    /// Its name.
    pub name: String,
    /// What the candidate had.
    pub candidate: f64,
    /// What the baseline had.
    pub baseline: f64,
}

/// Whether a metric is compared: one that is asked for, or where none is, one that says something of
/// its own.
#[must_use]
pub fn is_wanted(name: &str, wanted: &[String]) -> bool {
    if wanted.is_empty() { !REPEATED.contains(&name) } else { wanted.iter().any(|one| one == name) }
}

/// What two cells of the same case have in common, which differ in these axes.
#[must_use]
pub fn label(case: &str, axes: &Axes, varied: &[Axis], but: &[Axis]) -> String {
    let words = varied.iter().filter(|axis| !but.contains(axis));
    let words: Vec<String> = words.map(|axis| format!("{axis}={}", axis.value(axes))).collect();
    format!("{case}/{}", words.join(","))
}

impl RecordFile for Comparison {
    const FILE: &str = "comparison.json";
    const WHAT: &str = "comparison";
    const SCHEMA: u32 = COMPARISON_SCHEMA;
}

impl Comparison {
    /// Puts it into the run's record, where it may not be yet.
    ///
    /// # Errors
    /// What the system says, with the place.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        self.put(directory)
    }

    /// Reads it from a run's record; `None` where that has none.
    ///
    /// # Errors
    /// Where it can't be read, is damaged, or was written by a newer dmarig.
    pub fn read(directory: &Path) -> Result<Option<Self>, LoadError> {
        Self::get(directory)
    }

    /// What is thought of all of it: the worst of what is thought of each metric with a limit, of which
    /// one that was left open is inconclusive. `None` where nothing has a limit.
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
    /// What is thought of the candidate, in the words of a cell: failed where it is worse than a limit, or
    /// failed by itself; what was left open is no failure. Errored where a cell was stopped on its way,
    /// skipped where none could be run.
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

    /// Why a cell was not compared to its end, of the first such.
    #[must_use]
    pub fn stopped(&self) -> Option<&str> {
        self.cells.iter().find_map(|cell| match &cell.ended {
            CellEnd::Stopped { why } => Some(why.as_str()),
            CellEnd::Done | CellEnd::Skipped { .. } => None,
        })
    }
}

/// The counts of the candidate and of the baseline that differ.
#[must_use]
pub fn differing_counts(seen: [&Observation; 2], sides: [Side; 2]) -> Vec<CountDifference> {
    let names = metric_names().filter(|name| unit_of(name) == Some("1"));
    let value = |of: usize, name: &str| Some(metric(seen[of], sides[of], name)?.median());
    let both = |name: &str| {
        let (candidate, baseline) = (value(0, name)?, value(1, name)?);
        let count = CountDifference { name: name.to_owned(), candidate, baseline };
        (candidate != baseline).then_some(count)
    };
    names.filter_map(both).collect()
}
