//! Judges the numbers of a run by those of earlier runs. This module selects the numbers;
//! [`dmarig_stats::prediction`] judges them.

use dmarig_records::RecordFile;
use std::collections::{BTreeMap, BTreeSet};

use dmarig_model::{case::Case, limit::HistoryLimit, metrics, observation::Outcome, text::shown};
use dmarig_stats::{
    paired::{Better, Judgement},
    prediction::{ERROR, LEAST, NotComparableSeries, Prediction, RULE_VERSION, Subject, judge},
};
use serde::{Deserialize, Serialize};

use crate::{
    entry::{CellKey, PointEntry, RunEntry, SeriesKey},
    error::HistoryError,
    store::History,
};

/// Version of [`HistoryJudgement`].
pub const HISTORY_JUDGEMENT_SCHEMA: u32 = 1;

/// The judgement of a run by earlier runs: `history.json` of its record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryJudgement {
    /// [`HISTORY_JUDGEMENT_SCHEMA`] of the writer.
    pub schema: u32,
    /// The run.
    pub run: String,
    /// Path of the history.
    pub history: String,
    /// Version of the decision rule.
    pub rule: u32,
    /// Largest probability of a false failure among the metrics of a cell, and of a false pass.
    pub error: f64,
    /// The metrics with a limit.
    pub metrics: Vec<HistoryMetric>,
}

/// One metric of a run with a limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryMetric {
    /// The cell.
    pub place: CellKey,
    /// Fingerprint of the environment.
    pub environment: String,
    /// Name of the metric.
    pub metric: String,
    /// Largest allowed worsening, in percent.
    pub limit: f64,
    /// The better direction; null if unknown.
    pub better: Option<metrics::Better>,
    /// Id and key of the series; null if there is no number.
    pub series: Option<(String, SeriesKey)>,
    /// The number; null if there is none.
    pub value: Option<f64>,
    /// The baseline that the metric is compared with in pairs instead. That is more sensitive; the
    /// result is in the comparison.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
    /// The verdict.
    pub result: HistoryVerdict,
}

/// The verdict on a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum HistoryVerdict {
    /// The metric was judged.
    Judged {
        /// The prediction and the judgement.
        found: Prediction,
        /// The runs that it was judged by, oldest first, with their values.
        earlier: Vec<(String, f64)>,
        /// Later runs that were not used, since they would have failed themselves, with their
        /// values.
        set_aside: Vec<(String, f64)>,
    },
    /// There are too few earlier runs for a judgement.
    TooFew {
        /// Number of earlier runs.
        runs: usize,
        /// Number of runs that are needed.
        needed: usize,
        /// Whether there are more runs before the last change of the series.
        changed: bool,
        /// Number of further runs with another number of samples.
        #[serde(default)]
        other_samples: usize,
    },
    /// The metric can't be judged, or is judged in pairs.
    NotCompared {
        /// The reason, and what to do.
        why: String,
    },
}

/// The input of [`HistoryJudgement::new`].
pub struct HistoryCheckInput<'a> {
    /// The run.
    pub run: &'a RunEntry,
    /// The cases of the run, with their `history` limits.
    pub cases: &'a [Case],
    /// The history; `None` if it does not exist yet.
    pub history: Option<&'a History>,
    /// Path of the history, for the document.
    pub file: &'a str,
    /// Returns the baseline that a metric of a cell was compared with in pairs, if it was: then the
    /// comparison decides.
    pub beside: &'a dyn Fn(&CellKey, &str) -> Option<String>,
}

impl HistoryJudgement {
    /// Judges the numbers of a run by the history. The metrics of a cell share the error
    /// probability.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn new(input: &HistoryCheckInput<'_>) -> Result<Self, HistoryError> {
        let mut metrics = Vec::new();
        for case in input.cases.iter().filter(|case| !case.history.is_empty()) {
            for (key, environment) in cells(input.run, &case.name) {
                let mut drafts = Vec::new();
                for limit in &case.history {
                    drafts.push(Draft::new(input, &key, &environment, limit)?);
                }
                metrics.extend(judge_together(drafts));
            }
        }
        Ok(Self {
            schema: HISTORY_JUDGEMENT_SCHEMA,
            run: input.run.id.clone(),
            history: input.file.to_owned(),
            rule: RULE_VERSION,
            error: ERROR,
            metrics,
        })
    }

    /// The worst judgement of all metrics; `None` if none was judged.
    #[must_use]
    pub fn judgement(&self) -> Option<Judgement> {
        let judged: Vec<Judgement> =
            self.metrics.iter().filter_map(HistoryMetric::judgement).collect();
        [Judgement::Fail, Judgement::Inconclusive, Judgement::Pass]
            .into_iter()
            .find(|judgement| judged.contains(judgement))
    }
}

impl RecordFile for HistoryJudgement {
    const FILE: &str = "history.json";
    const NAME: &str = "history judgement";
    const SCHEMA: u32 = HISTORY_JUDGEMENT_SCHEMA;
}

impl HistoryMetric {
    /// The judgement; `None` if the metric was not judged.
    #[must_use]
    pub fn judgement(&self) -> Option<Judgement> {
        match &self.result {
            HistoryVerdict::Judged { found, .. } => Some(found.judgement),
            HistoryVerdict::TooFew { .. } | HistoryVerdict::NotCompared { .. } => None,
        }
    }

    /// The reason why the metric was not judged; `None` if it was.
    #[must_use]
    pub fn not_compared(&self) -> Option<String> {
        match &self.result {
            HistoryVerdict::Judged { .. } => None,
            HistoryVerdict::TooFew { runs, needed, changed, other_samples } => {
                let since = if *changed { "since the series changed" } else { "so far" };
                let mut why = format!("{runs} runs {since}, {needed} needed");
                if *other_samples > 0 {
                    let skipped = format!("; {other_samples} more have another number of samples");
                    why.push_str(&skipped);
                }
                Some(why)
            }
            HistoryVerdict::NotCompared { why } => Some(why.clone()),
        }
    }
}

/// The completed cells of a case, without those of the reference kernel, each with its environment.
fn cells(run: &RunEntry, case: &str) -> BTreeSet<(CellKey, String)> {
    let mut cells = BTreeSet::new();
    for cell in run.cells.iter().filter(|cell| cell.place.case == case) {
        let is_completed = matches!(cell.outcome, Outcome::Passed | Outcome::Failed);
        if is_completed && Some(&cell.place.kernel) != run.reference.as_ref() {
            cells.insert((cell.place.clone(), cell.environment.fingerprint()));
        }
    }
    cells
}

/// Why a metric is not compared with the history.
#[derive(Debug, thiserror::Error)]
enum NotComparable {
    #[error("judged in pairs with {baseline} instead")]
    JudgedInPairs { baseline: String },
    #[error("it was not measured in this run")]
    NotMeasured,
    #[error("times drift with the machine: name a reference kernel with --reference")]
    NoReference,
    #[error("the reference {reference} has no such number in this run")]
    NotMeasuredOfReference { reference: String },
    #[error(
        "the better direction is unknown: write `better: lower` or `better: higher` in the case"
    )]
    UnknownDirection,
    #[error("{value} has no percentages: bound the metric by a rule of `expect`")]
    NoPercentage { value: f64 },
    #[error(transparent)]
    InvalidLimit(NotComparableSeries),
}

impl From<NotComparable> for HistoryVerdict {
    fn from(reason: NotComparable) -> Self {
        Self::NotCompared { why: reason.to_string() }
    }
}

/// A metric, with what it is to be judged by. The metrics of a cell are judged together.
struct Draft {
    metric: HistoryMetric,
    /// The subject of the judgement with the earlier runs; `None` if the metric is not judged.
    judgeable: Option<(Subject, Vec<(String, f64)>)>,
}

impl Draft {
    fn new(
        input: &HistoryCheckInput<'_>,
        key: &CellKey,
        environment: &str,
        limit: &HistoryLimit,
    ) -> Result<Self, HistoryError> {
        let name = shown(&limit.metric);
        let paired_with = (input.beside)(key, &name);
        let point = point(input.run, key, environment, &name);
        let (point, result) = match (&paired_with, point) {
            (Some(baseline), _) => {
                (None, NotComparable::JudgedInPairs { baseline: shown(baseline) }.into())
            }
            (None, Err(reason)) => (None, reason.into()),
            (None, Ok(point)) => (Some(point), NotComparable::UnknownDirection.into()),
        };
        let better = limit.better.or_else(|| point.and_then(|point| point.series.better()));
        let mut draft = Self {
            metric: HistoryMetric {
                place: key.clone(),
                environment: environment.to_owned(),
                metric: name,
                limit: limit.percent,
                better,
                series: point.map(|point| (point.series.id(), point.series.clone())),
                value: point.map(|point| point.value),
                beside: paired_with,
                result,
            },
            judgeable: None,
        };
        if let (Some(point), Some(better)) = (point, better) {
            draft.compare(input, limit, point, better)?;
        }
        Ok(draft)
    }

    /// Looks up the earlier runs that a point is to be judged by.
    fn compare(
        &mut self,
        input: &HistoryCheckInput<'_>,
        limit: &HistoryLimit,
        point: &PointEntry,
        better: metrics::Better,
    ) -> Result<(), HistoryError> {
        let EarlierRuns { runs: earlier, other_samples } = match input.history {
            Some(history) => EarlierRuns::read(history, input.run, point)?,
            None => EarlierRuns::default(),
        };
        let better = match better {
            metrics::Better::Lower => Better::Lower,
            metrics::Better::Higher => Better::Higher,
        };
        let values: Vec<f64> = earlier.iter().map(|(_, value)| *value).collect();
        match Subject::new(better, limit.percent, &values, limit.runs as usize, point.value) {
            Ok(subject) => self.judgeable = Some((subject, earlier)),
            Err(NotComparableSeries::TooFew { runs, changed }) => {
                let needed = LEAST;
                self.metric.result =
                    HistoryVerdict::TooFew { runs, needed, changed, other_samples };
            }
            Err(NotComparableSeries::NoRatio(value)) => {
                self.metric.result = NotComparable::NoPercentage { value }.into();
            }
            Err(unfit @ NotComparableSeries::Limit(_)) => {
                self.metric.result = NotComparable::InvalidLimit(unfit).into();
            }
        }
        Ok(())
    }
}

/// The judged point of a metric: that of a count itself, and the ratio to the reference kernel
/// otherwise.
fn point<'a>(
    run: &'a RunEntry,
    key: &CellKey,
    environment: &str,
    metric: &str,
) -> Result<&'a PointEntry, NotComparable> {
    let is_of_metric = |point: &&PointEntry| {
        let series = &point.series;
        series.place == *key && series.environment == environment && series.metric == metric
    };
    let mut points = run.points.iter().filter(is_of_metric);
    let absolute = points.clone().find(|point| point.series.reference.is_none());
    let absolute = absolute.ok_or(NotComparable::NotMeasured)?;
    if absolute.series.unit == "1" {
        return Ok(absolute);
    }
    match (points.find(|point| point.series.reference.is_some()), &run.reference) {
        (Some(ratio), _) => Ok(ratio),
        (None, None) => Err(NotComparable::NoReference),
        (None, Some(reference)) => {
            Err(NotComparable::NotMeasuredOfReference { reference: shown(reference) })
        }
    }
}

/// The runs before a run in the same series.
#[derive(Default)]
struct EarlierRuns {
    /// Runs with the same number of samples, oldest first, with their values.
    runs: Vec<(String, f64)>,
    /// Number of runs with another number of samples, as after a comparison with many pairs: their
    /// noise differs, so they do not predict this run's.
    other_samples: usize,
}

impl EarlierRuns {
    fn read(history: &History, run: &RunEntry, point: &PointEntry) -> Result<Self, HistoryError> {
        let series = point.series.id();
        let mut sample_counts = BTreeMap::new();
        for (run, _) in history.samples(&series)? {
            *sample_counts.entry(run).or_insert(0_usize) += 1;
        }
        let mut earlier = Self::default();
        for other in history.points(&series)? {
            if (other.started, &other.run) >= (run.started, &run.id) {
                continue;
            }
            if sample_counts.get(&other.run) == Some(&point.samples.len()) {
                earlier.runs.push((other.run, other.value));
            } else {
                earlier.other_samples += 1;
            }
        }
        Ok(earlier)
    }
}

/// Judges the metrics of a cell together.
fn judge_together(drafts: Vec<Draft>) -> Vec<HistoryMetric> {
    let mut subjects: Vec<Subject> = Vec::new();
    for (subject, _) in drafts.iter().filter_map(|draft| draft.judgeable.as_ref()) {
        subjects.push(subject.clone());
    }
    let mut predictions = judge(&subjects).into_iter();
    let mut metrics = Vec::new();
    for Draft { mut metric, judgeable } in drafts {
        if let Some((subject, runs)) = judgeable
            && let Some(found) = predictions.next()
        {
            let range = subject.range();
            let set_aside = runs[range.end..].to_vec();
            let earlier = runs[range].to_vec();
            metric.result = HistoryVerdict::Judged { found, earlier, set_aside };
        }
        metrics.push(metric);
    }
    metrics
}
