//! Two stored runs compared metric by metric. They were not measured in pairs, so differences are
//! estimated and never judged.

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
    meta::HostFacts,
    stored::StoredRun,
};

/// A stored run, or a part of it.
#[derive(Debug, Clone, Copy)]
pub struct RunPart<'a> {
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

/// Compares two stored runs, or parts of them, by the metrics of these names (all that say something
/// of their own where there is none). Nothing of it is judged: they were not measured in pairs.
///
/// # Errors
/// [`CompareError`]
pub fn compare_runs(
    names: [&str; 2],
    parts: [RunPart<'_>; 2],
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
        compared.push(CellComparison {
            label: label(&seen.case, &seen.axes, &varied, &named),
            metrics: metrics([seen, other], [candidate.side, baseline.side], wanted),
            counts: differing_counts([seen, other], [candidate.side, baseline.side]),
            boots: None,
            ended: CellEnd::Done,
        });
    }
    if compared.is_empty() {
        let [candidate, baseline] = names.map(str::to_owned);
        return Err(CompareError::Nothing { candidate, baseline });
    }
    let there = |name: &&String| {
        let named = |metric: &MetricComparison| metric.name == **name;
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

fn cells<'a>(part: &RunPart<'a>) -> Vec<&'a Observation> {
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

fn metrics(seen: [&Observation; 2], sides: [Side; 2], wanted: &[String]) -> Vec<MetricComparison> {
    let theirs = times(seen[1], sides[1]);
    let ours =
        times(seen[0], sides[0]).into_iter().filter(|metric| is_wanted(&metric.name, wanted));
    let both = |ours: Measured| {
        let same = |theirs: &&Measured| theirs.name == ours.name && theirs.unit == ours.unit;
        let baseline = theirs.iter().find(same)?.samples.clone();
        let estimate = unpaired::Estimate::new(&ours.samples, &baseline, LEVEL);
        Some(MetricComparison {
            name: ours.name,
            unit: ours.unit,
            candidate: ours.samples,
            baseline,
            result: MetricResult::Unpaired { estimate },
        })
    };
    ours.filter_map(both).collect()
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
