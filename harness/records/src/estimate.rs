//! The comparison of two stored runs, metric by metric. They were not measured in pairs, so
//! differences are estimated and never judged.

use std::collections::BTreeSet;

use dmarig_model::{
    axes::Axis,
    conditions::AxisSets,
    measure::{Measured, times},
    observation::{End, Observation},
    text::shown,
    windows::Side,
};
use dmarig_stats::unpaired;

use crate::{
    across::LEVEL,
    comparison::{
        COMPARISON_SCHEMA, CellComparison, CellEnd, Comparison, MetricComparison, MetricResult,
        differing_counts, is_wanted, label,
    },
    error::RecordError,
    meta::HostFacts,
    stored::StoredRun,
};

/// A stored run, or a part of it.
#[derive(Debug, Clone, Copy)]
pub struct RunPart<'a> {
    /// The run.
    pub run: &'a StoredRun,
    /// The values that its cells must have.
    pub only: &'a AxisSets,
    /// The windows to use: with the kernel as it is, or with batching forced.
    pub side: Side,
}

/// Compares two stored runs, or parts of them, by the `wanted` metrics, or by all that are compared
/// by default if none is named. Nothing is judged, since the runs were not measured in pairs.
///
/// # Errors
/// [`RecordError::PairedRun`], [`RecordError::AmbiguousCell`], [`RecordError::NoCommonCells`],
/// [`RecordError::UnknownMetric`]
pub fn compare_runs(
    names: [&str; 2],
    parts: [RunPart<'_>; 2],
    wanted: &[String],
) -> Result<Comparison, RecordError> {
    for (name, part) in names.iter().zip(&parts) {
        if part.run.is_comparison() {
            let (run, id) = (shown(name), shown(&part.run.meta.id));
            return Err(RecordError::PairedRun { run, id });
        }
    }
    let cells = compare_cells(names, parts, wanted)?;
    let [candidate, baseline] = names.map(str::to_owned);
    if cells.is_empty() {
        return Err(RecordError::NoCommonCells { candidate, baseline });
    }
    let is_missing = |name: &&String| {
        let mut metrics = cells.iter().flat_map(|cell| &cell.metrics);
        !metrics.any(|metric| metric.name == **name)
    };
    if let Some(missing) = wanted.iter().find(is_missing) {
        let known = timed_metrics(&parts[0]);
        return Err(RecordError::UnknownMetric { metric: shown(missing), known });
    }
    Ok(Comparison {
        schema: COMPARISON_SCHEMA,
        candidate,
        baseline,
        pairing: None,
        cells,
        notes: notes(parts.map(|part| &part.run.meta.host)),
    })
}

/// Compares each cell of the candidate that has a counterpart in the baseline.
fn compare_cells(
    names: [&str; 2],
    parts: [RunPart<'_>; 2],
    wanted: &[String],
) -> Result<Vec<CellComparison>, RecordError> {
    let sides = parts.map(|part| part.side);
    let [candidates, baselines] = parts.map(|part| completed_cells(&part));
    let differs = |axis: &Axis| {
        let mut values = candidates.iter().map(|observation| axis.value(&observation.axes));
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    let varied: Vec<Axis> = Axis::ALL.into_iter().filter(differs).collect();
    let named: Vec<Axis> = parts.iter().flat_map(|part| part.only.given()).collect();
    let free = [&[Axis::Kernel, Axis::Qemu], named.as_slice()].concat();
    let mut cells = Vec::new();
    for candidate in candidates {
        let Some(baseline) = counterpart(candidate, &baselines, &free, names[1])? else {
            continue;
        };
        let pair = [candidate, baseline];
        cells.push(CellComparison {
            label: label(&candidate.case, &candidate.axes, &varied, &named),
            metrics: metrics(pair, sides, wanted),
            counts: differing_counts(pair, sides),
            boots: None,
            ended: CellEnd::Done,
        });
    }
    Ok(cells)
}

fn completed_cells<'a>(part: &RunPart<'a>) -> Vec<&'a Observation> {
    let only = part.only;
    let observations = part.run.cells.iter().map(|record| &record.observation);
    observations
        .filter(|observation| observation.end == End::Completed && only.contains(&observation.axes))
        .collect()
}

/// Names of all timed metrics of a part, for a message.
fn timed_metrics(part: &RunPart<'_>) -> String {
    let mut names = BTreeSet::new();
    for observation in completed_cells(part) {
        for metric in times(observation, part.side) {
            names.insert(shown(&metric.name));
        }
    }
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.into_iter().collect::<Vec<_>>().join(", "),
    }
}

/// The cell of the baseline that differs from the candidate's in the `free` axes only; if several
/// do, the one that has all axes in common.
fn counterpart<'a>(
    candidate: &Observation,
    baselines: &[&'a Observation],
    free: &[Axis],
    baseline_name: &str,
) -> Result<Option<&'a Observation>, RecordError> {
    let is_counterpart = |baseline: &&&Observation| {
        let is_equal = |axis: &Axis| {
            free.contains(axis) || axis.value(&candidate.axes) == axis.value(&baseline.axes)
        };
        baseline.case == candidate.case && Axis::ALL.iter().all(is_equal)
    };
    let fitting: Vec<&Observation> = baselines.iter().filter(is_counterpart).copied().collect();
    let exact = fitting.iter().find(|baseline| baseline.axes == candidate.axes);
    match (exact, fitting.as_slice()) {
        (Some(exact), _) => Ok(Some(exact)),
        (None, []) => Ok(None),
        (None, [single]) => Ok(Some(single)),
        (None, several) => Err(RecordError::AmbiguousCell {
            cell: shown(&candidate.cell),
            count: several.len(),
            baseline: shown(baseline_name),
            remedy: shown(&narrowed(baseline_name, several)),
        }),
    }
}

/// The baseline's name with the values that select the first of several cells.
fn narrowed(baseline_name: &str, cells: &[&Observation]) -> String {
    let first = &cells[0].axes;
    let differs =
        |axis: &Axis| cells.iter().any(|cell| axis.value(&cell.axes) != axis.value(first));
    let axes = Axis::ALL.into_iter().filter(differs);
    let values: Vec<String> = axes.map(|axis| format!("{axis}={}", axis.value(first))).collect();
    let separator = if baseline_name.contains(':') { "," } else { ":" };
    format!("{baseline_name}{separator}{}", values.join(","))
}

fn metrics(
    [candidate, baseline]: [&Observation; 2],
    sides: [Side; 2],
    wanted: &[String],
) -> Vec<MetricComparison> {
    let baseline_times = times(baseline, sides[1]);
    let mut metrics = Vec::new();
    for ours in times(candidate, sides[0]) {
        let is_same = |theirs: &&Measured| theirs.name == ours.name && theirs.unit == ours.unit;
        let Some(theirs) = baseline_times.iter().find(is_same) else { continue };
        if !is_wanted(&ours.name, wanted) {
            continue;
        }
        let estimate = unpaired::Estimate::new(&ours.samples, &theirs.samples, LEVEL);
        metrics.push(MetricComparison {
            name: ours.name,
            unit: ours.unit,
            candidate: ours.samples,
            baseline: theirs.samples.clone(),
            result: MetricResult::Unpaired { estimate },
        });
    }
    metrics
}

fn notes([candidate, baseline]: [&HostFacts; 2]) -> Vec<String> {
    let mut notes = vec![
        "not measured in pairs: what the machine did between the two is in every difference, so \
         nothing is judged; `dmarig compare` of two kernels or variants runs both, interleaved"
            .to_owned(),
        format!(
            "an interval leaves out the true change with a probability of at most {} % on either \
             side, if samples are independent",
            LEVEL * 100.0
        ),
    ];
    notes.extend(host_differences(candidate, baseline));
    notes
}

fn host_differences(candidate: &HostFacts, baseline: &HostFacts) -> Option<String> {
    let facts = |host: &HostFacts| {
        [
            ("machine", if host.machine.is_empty() { "unnamed" } else { &host.machine }.to_owned()),
            ("CPU", host.cpu.clone()),
            ("CPUs", host.cpus.to_string()),
            ("kernel", host.kernel.clone()),
            ("memory in KiB", host.memory_kib.to_string()),
        ]
    };
    let mut differences = Vec::new();
    for ((name, ours), (_, theirs)) in facts(candidate).into_iter().zip(facts(baseline)) {
        if ours != theirs {
            differences.push(format!("{name} {ours}, not {theirs}"));
        }
    }
    match differences.is_empty() {
        true => None,
        false => Some(format!("the hosts differ: {}", differences.join("; "))),
    }
}

#[cfg(test)]
mod tests;
