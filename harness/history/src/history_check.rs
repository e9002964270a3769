//! A run's numbers beside those of earlier runs: which numbers of the history stand beside which of the run,
//! and what comes of it. How they are judged is [`dmarig_stats::prediction`]'s.

use dmarig_records::{LoadError, RecordFile};
use std::{collections::BTreeSet, io, path::Path};

use dmarig_model::{case::Case, limit::HistoryLimit, metrics, observation::Outcome, text::shown};
use dmarig_stats::{
    paired::{Better, Judgement},
    prediction::{ERROR, LEAST, Prediction, RULE_VERSION, Subject, Unfit, judge},
};
use serde::{Deserialize, Serialize};

use crate::{
    entry::{CellKey, PointEntry, RunEntry, SeriesKey},
    store::{History, HistoryError},
};

/// Version of [`HistoryJudgement`].
pub const HISTORY_JUDGEMENT_SCHEMA: u32 = 1;

/// A run beside the runs before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryJudgement {
    /// [`HISTORY_JUDGEMENT_SCHEMA`] of the writer.
    pub schema: u32,
    /// The run.
    pub run: String,
    /// The file of the history.
    pub history: String,
    /// Version of the rule that judged.
    pub rule: u32,
    /// The error that was promised: of a wrong failure among a cell's metrics, and of a wrong pass.
    pub error: f64,
    /// Each number that a case limits.
    pub metrics: Vec<HistoryMetric>,
}

/// One number of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryMetric {
    /// Of which cells.
    pub place: CellKey,
    /// Fingerprint of the environment.
    pub environment: String,
    /// Name of the metric.
    pub metric: String,
    /// Most percent by which it may be worse.
    pub limit: f64,
    /// Which of two values is better; null where that is not known.
    pub better: Option<metrics::Better>,
    /// The series that it belongs to, with its id; null where there is no such number.
    pub series: Option<(String, SeriesKey)>,
    /// The number; null where there is none.
    pub value: Option<f64>,
    /// The kernel that it is judged beside in pairs instead, which tells more; the comparison has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
    /// What comes of it.
    pub result: HistoryVerdict,
}

/// What comes of a number beside those of earlier runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum HistoryVerdict {
    /// It was judged.
    Judged {
        /// What was found.
        found: Prediction,
        /// The runs that it was judged by, oldest first, with their numbers.
        earlier: Vec<(String, f64)>,
        /// Later ones that were left out of account, since they would have failed themselves.
        set_aside: Vec<(String, f64)>,
    },
    /// Too few earlier runs: nothing is said of it, which is not that it is no worse.
    TooFew {
        /// How many there are.
        runs: usize,
        /// How many are needed.
        needed: usize,
        /// Whether there are more, from before the series changed.
        changed: bool,
        /// How many there are besides that have another number of samples.
        #[serde(default)]
        other_samples: usize,
    },
    /// It can't be judged, or is not to be.
    NotCompared {
        /// Why, and what to do about it.
        why: String,
    },
}

/// What a run's standing is made of.
pub struct HistoryCheckInput<'a> {
    /// The run.
    pub run: &'a RunEntry,
    /// Its cases, of which some have limits against the history.
    pub cases: &'a [Case],
    /// The history; `None` where there is none yet.
    pub history: Option<&'a History>,
    /// Its name.
    pub file: &'a str,
    /// What a metric of a cell was measured beside in pairs, where it was: then that decides.
    pub beside: &'a dyn Fn(&CellKey, &str) -> Option<String>,
}

impl HistoryJudgement {
    /// Judges a run's numbers by the history, a cell's together.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn new(asked: &HistoryCheckInput<'_>) -> Result<Self, HistoryError> {
        let mut metrics = Vec::new();
        for case in asked.cases.iter().filter(|case| !case.history.is_empty()) {
            for (place, environment) in cells(asked.run, &case.name) {
                let drafts = case
                    .history
                    .iter()
                    .map(|limit| Draft::new(asked, (&place, &environment), limit));
                metrics.extend(together(drafts.collect::<Result<_, _>>()?));
            }
        }
        Ok(Self {
            schema: HISTORY_JUDGEMENT_SCHEMA,
            run: asked.run.id.clone(),
            history: asked.file.to_owned(),
            rule: RULE_VERSION,
            error: ERROR,
            metrics,
        })
    }

    /// What is thought of all of it: the worst of what is thought of each number that was judged. `None`
    /// where none was.
    #[must_use]
    pub fn judgement(&self) -> Option<Judgement> {
        let judged: Vec<Judgement> =
            self.metrics.iter().filter_map(HistoryMetric::judgement).collect();
        [Judgement::Fail, Judgement::Inconclusive, Judgement::Pass]
            .into_iter()
            .find(|judgement| judged.contains(judgement))
    }

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
}

impl RecordFile for HistoryJudgement {
    const FILE: &str = "history.json";
    const WHAT: &str = "standing";
    const SCHEMA: u32 = HISTORY_JUDGEMENT_SCHEMA;
}

impl HistoryMetric {
    /// What is thought of it, where it was judged.
    #[must_use]
    pub fn judgement(&self) -> Option<Judgement> {
        match &self.result {
            HistoryVerdict::Judged { found, .. } => Some(found.judgement),
            HistoryVerdict::TooFew { .. } | HistoryVerdict::NotCompared { .. } => None,
        }
    }

    /// Why nothing was judged, where nothing was.
    #[must_use]
    pub fn not_compared(&self) -> Option<String> {
        match &self.result {
            HistoryVerdict::Judged { .. } => None,
            HistoryVerdict::TooFew { runs, needed, changed, other_samples } => {
                let since = if *changed { "since the series changed" } else { "so far" };
                let mut why = format!("{runs} runs {since}, {needed} needed");
                if *other_samples > 0 {
                    let other = "left out, which have another number of samples";
                    why.push_str(&format!("; {other_samples} more are {other}"));
                }
                Some(why)
            }
            HistoryVerdict::NotCompared { why } => Some(why.clone()),
        }
    }
}

/// The cells of a case that completed, but for those of the reference kernel.
fn cells(run: &RunEntry, case: &str) -> BTreeSet<(CellKey, String)> {
    let judged = |outcome| matches!(outcome, Outcome::Passed | Outcome::Failed);
    let of_case = run.cells.iter().filter(|cell| cell.place.case == case && judged(cell.outcome));
    let tested = of_case.filter(|cell| Some(&cell.place.kernel) != run.reference.as_ref());
    tested.map(|cell| (cell.place.clone(), cell.environment.fingerprint())).collect()
}

/// A number whose judgement waits for that of the others.
struct Draft {
    told: HistoryMetric,
    ready: Option<(Subject, Vec<(String, f64)>)>,
}

impl Draft {
    fn new(
        asked: &HistoryCheckInput<'_>,
        (place, environment): (&CellKey, &str),
        limit: &HistoryLimit,
    ) -> Result<Self, HistoryError> {
        let result = HistoryVerdict::NotCompared { why: String::new() };
        let told = HistoryMetric {
            place: place.clone(),
            environment: environment.to_owned(),
            metric: shown(&limit.metric),
            limit: limit.percent,
            better: limit.better,
            series: None,
            value: None,
            beside: None,
            result,
        };
        let mut draft = Self { told, ready: None };
        if let Err(result) = draft.fill(asked, limit)? {
            draft.told.result = result;
        }
        Ok(draft)
    }

    /// Looks up what it is to be judged by, or says why there is nothing.
    fn fill(
        &mut self,
        asked: &HistoryCheckInput<'_>,
        limit: &HistoryLimit,
    ) -> Result<Result<(), HistoryVerdict>, HistoryError> {
        let not = |why: String| Ok(Err(HistoryVerdict::NotCompared { why }));
        let told = &mut self.told;
        if let Some(baseline) = (asked.beside)(&told.place, &told.metric) {
            let why = format!("judged in pairs with {} instead", shown(&baseline));
            told.beside = Some(baseline);
            return not(why);
        }
        let point = match point(asked.run, told) {
            Ok(point) => point,
            Err(why) => return not(why),
        };
        told.series = Some((point.series.id(), point.series.clone()));
        told.value = Some(point.value);
        told.better = told.better.or_else(|| point.series.better());
        let Some(better) = told.better else {
            return not(
                "which is better? write `better: lower` or `better: higher` in the case".into()
            );
        };
        let earlier = match asked.history {
            Some(history) => earlier(history, asked.run, point)?,
            None => Earlier::default(),
        };
        let Earlier { alike: earlier, other_samples } = earlier;
        let better = match better {
            metrics::Better::Lower => Better::Lower,
            metrics::Better::Higher => Better::Higher,
        };
        let values: Vec<f64> = earlier.iter().map(|(_, value)| *value).collect();
        let subject =
            Subject::new(better, limit.percent, &values, limit.runs as usize, point.value);
        Ok(match subject {
            Ok(subject) => {
                self.ready = Some((subject, earlier));
                Ok(())
            }
            Err(Unfit::TooFew { runs, changed }) => {
                Err(HistoryVerdict::TooFew { runs, needed: LEAST, changed, other_samples })
            }
            Err(Unfit::NoRatio(value)) => Err(HistoryVerdict::NotCompared {
                why: format!(
                    "of {value} nothing is so many percent: bound it by a rule of `expect`"
                ),
            }),
            Err(unfit @ Unfit::Limit(_)) => {
                Err(HistoryVerdict::NotCompared { why: unfit.to_string() })
            }
        })
    }
}

/// The number of a run that is judged: a count as it is, anything else in relation to the reference kernel.
fn point<'a>(run: &'a RunEntry, told: &HistoryMetric) -> Result<&'a PointEntry, String> {
    let own = |point: &&PointEntry| {
        let SeriesKey { place, metric, environment, .. } = &point.series;
        (place, metric, environment) == (&told.place, &told.metric, &told.environment)
    };
    let bare = run.points.iter().filter(own).find(|point| point.series.reference.is_none());
    let bare = bare.ok_or("it was not measured in this run")?;
    if bare.series.unit == "1" {
        return Ok(bare);
    }
    let ratio = run.points.iter().filter(own).find(|point| point.series.reference.is_some());
    ratio.ok_or_else(|| match &run.reference {
        None => {
            "by itself it wanders with the machine: run a reference kernel beside, by --reference"
                .into()
        }
        Some(reference) => {
            format!("the reference {} has no such number in this run", shown(reference))
        }
    })
}

/// The runs before this one in the same series.
#[derive(Default)]
struct Earlier {
    /// Those that were measured alike, oldest first, with their numbers.
    alike: Vec<(String, f64)>,
    /// How many were measured otherwise, such as in many pairs: their numbers are less noisy or more, so they
    /// say nothing of how noisy this one is.
    other_samples: usize,
}

fn earlier(history: &History, run: &RunEntry, point: &PointEntry) -> Result<Earlier, HistoryError> {
    let id = point.series.id();
    let mut samples = std::collections::BTreeMap::new();
    for (run, _) in history.samples(&id)? {
        *samples.entry(run).or_insert(0_usize) += 1;
    }
    let before = history
        .points(&id)?
        .into_iter()
        .filter(|other| !other.synthetic && (other.started, &other.run) < (run.started, &run.id));
    let (alike, others): (Vec<_>, Vec<_>) =
        before.partition(|other| samples.get(&other.run) == Some(&point.samples.len()));
    let alike = alike.into_iter().map(|other| (other.run, other.value)).collect();
    Ok(Earlier { alike, other_samples: others.len() })
}

/// Judges what is ready.
fn together(drafts: Vec<Draft>) -> Vec<HistoryMetric> {
    let subjects: Vec<Subject> =
        drafts.iter().filter_map(|draft| Some(draft.ready.as_ref()?.0.clone())).collect();
    let mut found = judge(&subjects).into_iter();
    let finish = |Draft { told, ready }| {
        let Some((subject, all)) = ready else { return told };
        let Some(found) = found.next() else { return told };
        let range = subject.range();
        let set_aside = all[range.end..].to_vec();
        let result = HistoryVerdict::Judged { found, earlier: all[range].to_vec(), set_aside };
        HistoryMetric { result, ..told }
    };
    drafts.into_iter().map(finish).collect()
}
