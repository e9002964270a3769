//! Two sides beside each other, metric by metric: what was measured in pairs, and two stored runs.

use std::{io, path::Path};

use dmarig_model::{
    axes::{Axes, Axis},
    conditions::AxisSets,
    expect::{metric_names, unit_of},
    measure::{Measured, metric, times},
    observation::{End, Observation},
    windows::Side,
};
use dmarig_stats::{paired::Judgement, sequence::Finding, unpaired};
use serde::{Deserialize, Serialize};

use crate::{
    beside::Beside,
    ratio::LEVEL,
    record::{HostFacts, LoadError, StoredRun},
};

/// Version of [`Comparison`].
pub const COMPARISON_SCHEMA: u32 = 1;

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
    /// The error that was promised: of a wrong pass, and of a wrong failure.
    pub error: f64,
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
    #[error(
        "{cell} could be compared with {count} cells of {baseline}: name an axis, as in {baseline}:kernel=NAME"
    )]
    Ambiguous {
        /// The candidate's cell.
        cell: String,
        /// How many.
        count: usize,
        /// The baseline's run.
        baseline: String,
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
            counts: counts([seen, other], [candidate.side, baseline.side]),
        });
    }
    if compared.is_empty() {
        let [candidate, baseline] = names.map(str::to_owned);
        return Err(CompareError::Nothing { candidate, baseline });
    }
    let mut notes = vec![
        "not measured in pairs: what the machine did between the two is in every difference, so nothing is \
         judged; `dmarig compare` of two kernels or variants runs both, turn and turn about"
            .to_owned(),
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
        (None, several) => Err(CompareError::Ambiguous {
            cell: seen.cell.clone(),
            count: several.len(),
            baseline: baseline.to_owned(),
        }),
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

fn counts(seen: [&Observation; 2], sides: [Side; 2]) -> Vec<ComparedCount> {
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
