//! Two sides beside each other, metric by metric: what was measured in pairs, and two stored runs.

use std::{collections::BTreeSet, io, path::Path};

use dmarig_model::{
    axes::{Axes, Axis},
    conditions::AxisSets,
    measure::{Measured, metric, times},
    metrics::{metric_names, unit_of},
    observation::{End, Observation, Outcome},
    text::shown,
    windows::Side,
};
use dmarig_stats::{paired::Judgement, sequence::Finding, unpaired};
use serde::{Deserialize, Serialize};

use crate::{
    beside::Beside,
    ratio::LEVEL,
    record::{HostFacts, LoadError, StoredRun},
};

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
    pub cells: Vec<ComparedCell>,
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
pub struct ComparedCell {
    /// What both have in common, such as `timing/policy=strict`.
    pub label: String,
    /// What was timed.
    pub metrics: Vec<ComparedMetric>,
    /// Counts that differ; those that repeat exactly need no statistics.
    pub counts: Vec<ComparedCount>,
    /// How boots went of the candidate and of the baseline; null of what was not run for it.
    #[serde(default)]
    pub boots: Option<[Boots; 2]>,
    /// How it ended.
    #[serde(default)]
    pub ended: CellEnded,
}

impl ComparedCell {
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
pub enum CellEnded {
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
pub struct ComparedMetric {
    /// Its name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// What the candidate gave; of pairs, in their order.
    pub candidate: Vec<f64>,
    /// What the baseline gave.
    pub baseline: Vec<f64>,
    /// What comes of that.
    pub result: Compared,
}

/// What comes of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum Compared {
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
pub struct ComparedCount {
    /// Its name.
    pub name: String,
    /// What the candidate had.
    pub candidate: f64,
    /// What the baseline had.
    pub baseline: f64,
}

/// A stored run, or a part of it.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The run.
    pub run: &'a StoredRun,
    /// Only cells with these values.
    pub only: &'a AxisSets,
    /// What was measured with the kernel as it is, or made to batch.
    pub side: Side,
}

/// Why two runs can't be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// Nothing in common.
    #[error(
        "no cell of {candidate} that completed has its like in {baseline}: they may differ in kernel, QEMU \
         and what is named, and in nothing else"
    )]
    Nothing {
        /// The candidate's run.
        candidate: String,
        /// The baseline's run.
        baseline: String,
    },
    /// More than one that could be meant.
    #[error("{cell} could be compared with {count} cells of {baseline}: name one, as in {remedy}")]
    Ambiguous {
        /// The candidate's cell.
        cell: String,
        /// How many.
        count: usize,
        /// The baseline's run.
        baseline: String,
        /// The baseline with the first of them named.
        remedy: String,
    },
    /// A metric that neither has.
    #[error("no cell of both has a metric `{metric}`; there are {known}")]
    Metric {
        /// Its name.
        metric: String,
        /// Those that there are.
        known: String,
    },
    /// Pairs, of which only their own comparison knows which belong together.
    #[error(
        "{run} is the record of a comparison, whose boots are told together: `dmarig compare {id}` tells it"
    )]
    Pairs {
        /// The run, as it was named.
        run: String,
        /// Its id.
        id: String,
    },
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

/// Compares two stored runs, or parts of them, by the metrics of these names (all that say something
/// of their own where there is none). Nothing of it is judged: they were not measured in pairs.
///
/// # Errors
/// [`CompareError`]
pub fn compare_runs(
    names: [&str; 2],
    parts: [Part<'_>; 2],
    wanted: &[String],
) -> Result<Comparison, CompareError> {
    let [candidate, baseline] = parts;
    for (name, part) in names.iter().zip(&parts) {
        if part.run.compares() {
            let (run, id) = (shown(name), shown(&part.run.meta.id));
            return Err(CompareError::Pairs { run, id });
        }
    }
    let mut free = vec![Axis::Kernel, Axis::Qemu];
    free.extend(candidate.only.given().into_iter().chain(baseline.only.given()));
    let ours = cells(&candidate);
    let theirs = cells(&baseline);
    let differ = |axis: &Axis| {
        let mut values = ours.iter().map(|seen| axis.value(&seen.axes));
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    let varied: Vec<Axis> = Axis::ALL.into_iter().filter(differ).collect();
    let named: Vec<Axis> =
        candidate.only.given().into_iter().chain(baseline.only.given()).collect();
    let mut compared = Vec::new();
    for seen in &ours {
        let Some(other) = like(seen, &theirs, &free, names[1])? else { continue };
        compared.push(ComparedCell {
            label: label(&seen.case, &seen.axes, &varied, &named),
            metrics: metrics([seen, other], [candidate.side, baseline.side], wanted),
            counts: differing_counts([seen, other], [candidate.side, baseline.side]),
            boots: None,
            ended: CellEnded::Done,
        });
    }
    if compared.is_empty() {
        let [candidate, baseline] = names.map(str::to_owned);
        return Err(CompareError::Nothing { candidate, baseline });
    }
    let there = |name: &&String| {
        let named = |metric: &ComparedMetric| metric.name == **name;
        !compared.iter().any(|cell| cell.metrics.iter().any(named))
    };
    if let Some(missing) = wanted.iter().find(there) {
        let all = ours.iter().flat_map(|seen| times(seen, candidate.side));
        let known: BTreeSet<String> = all.map(|metric| shown(&metric.name)).collect();
        let known = match known.is_empty() {
            true => "none".to_owned(),
            false => known.into_iter().collect::<Vec<_>>().join(", "),
        };
        return Err(CompareError::Metric { metric: shown(missing), known });
    }
    let mut notes = vec![
        "not measured in pairs: what the machine did between the two is in every difference, so nothing is \
         judged; `dmarig compare` of two kernels or variants runs both, turn and turn about"
            .to_owned(),
        format!(
            "an interval leaves out the true change with a probability of at most {} % on either side, if \
             samples are independent",
            LEVEL * 100.0
        ),
    ];
    notes.extend(hosts(&candidate.run.meta.host, &baseline.run.meta.host));
    let [candidate, baseline] = names.map(str::to_owned);
    Ok(Comparison {
        schema: COMPARISON_SCHEMA,
        candidate,
        baseline,
        pairing: None,
        cells: compared,
        notes,
    })
}

impl Beside for Comparison {
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
                Compared::Paired(finding) => finding
                    .metric
                    .limit
                    .map(|_| finding.judgement.unwrap_or(Judgement::Inconclusive)),
                Compared::Unpaired { .. } => None,
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
        let failed = |cell: &ComparedCell| {
            cell.boots.as_ref().is_some_and(|[candidate, _]| candidate.failed().next().is_some())
        };
        let mut skipped = self
            .cells
            .iter()
            .map(|cell| matches!(cell.ended, CellEnded::Skipped { .. }))
            .peekable();
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
            CellEnded::Stopped { why } => Some(why.as_str()),
            CellEnded::Done | CellEnded::Skipped { .. } => None,
        })
    }
}

fn cells<'a>(part: &Part<'a>) -> Vec<&'a Observation> {
    let only = part.only;
    let all = part.run.cells.iter().map(|record| &record.observation);
    all.filter(|seen| seen.end == End::Completed && only.contains(&seen.axes)).collect()
}

/// The cell that differs from this one in nothing but what is free; of several the one that differs in
/// nothing at all.
fn like<'a>(
    seen: &Observation,
    among: &[&'a Observation],
    free: &[Axis],
    baseline: &str,
) -> Result<Option<&'a Observation>, CompareError> {
    let fits = |other: &&&Observation| {
        let same =
            |axis: &Axis| free.contains(axis) || axis.value(&seen.axes) == axis.value(&other.axes);
        other.case == seen.case && Axis::ALL.iter().all(same)
    };
    let fitting: Vec<&Observation> = among.iter().filter(fits).copied().collect();
    let exact = fitting.iter().find(|other| other.axes == seen.axes);
    match (exact, fitting.as_slice()) {
        (Some(exact), _) => Ok(Some(exact)),
        (None, []) => Ok(None),
        (None, [one]) => Ok(Some(one)),
        (None, several) => {
            let differ = |axis: &Axis| {
                several.iter().any(|one| axis.value(&one.axes) != axis.value(&several[0].axes))
            };
            let axes = Axis::ALL.into_iter().filter(differ);
            let words = axes.map(|axis| format!("{axis}={}", axis.value(&several[0].axes)));
            let separator = if baseline.contains(':') { "," } else { ":" };
            let words = words.collect::<Vec<_>>().join(",");
            Err(CompareError::Ambiguous {
                cell: shown(&seen.cell),
                count: several.len(),
                baseline: shown(baseline),
                remedy: shown(&format!("{baseline}{separator}{words}")),
            })
        }
    }
}

fn metrics(seen: [&Observation; 2], sides: [Side; 2], wanted: &[String]) -> Vec<ComparedMetric> {
    let theirs = times(seen[1], sides[1]);
    let ours =
        times(seen[0], sides[0]).into_iter().filter(|metric| is_wanted(&metric.name, wanted));
    let both = |ours: Measured| {
        let same = |theirs: &&Measured| theirs.name == ours.name && theirs.unit == ours.unit;
        let baseline = theirs.iter().find(same)?.samples.clone();
        let estimate = unpaired::Estimate::new(&ours.samples, &baseline, LEVEL);
        Some(ComparedMetric {
            name: ours.name,
            unit: ours.unit,
            candidate: ours.samples,
            baseline,
            result: Compared::Unpaired { estimate },
        })
    };
    ours.filter_map(both).collect()
}

/// The counts of the candidate and of the baseline that differ.
#[must_use]
pub fn differing_counts(seen: [&Observation; 2], sides: [Side; 2]) -> Vec<ComparedCount> {
    let names = metric_names().filter(|name| unit_of(name) == Some("1"));
    let value = |of: usize, name: &str| Some(metric(seen[of], sides[of], name)?.median());
    let both = |name: &str| {
        let (candidate, baseline) = (value(0, name)?, value(1, name)?);
        let count = ComparedCount { name: name.to_owned(), candidate, baseline };
        (candidate != baseline).then_some(count)
    };
    names.filter_map(both).collect()
}

/// What differs between the hosts.
fn hosts(candidate: &HostFacts, baseline: &HostFacts) -> Option<String> {
    let facts = |host: &HostFacts| {
        [
            ("machine", if host.machine.is_empty() { "unnamed" } else { &host.machine }.to_owned()),
            ("CPU", host.cpu.clone()),
            ("CPUs", host.cpus.to_string()),
            ("kernel", host.kernel.clone()),
            ("memory in KiB", host.memory_kib.to_string()),
        ]
    };
    let differ = facts(candidate).into_iter().zip(facts(baseline)).filter(|(a, b)| a != b);
    let told: Vec<String> =
        differ.map(|((what, ours), (_, theirs))| format!("{what} {ours}, not {theirs}")).collect();
    (!told.is_empty()).then(|| format!("the hosts differ: {}", told.join("; ")))
}

#[cfg(test)]
mod tests;
