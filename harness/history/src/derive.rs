//! Derives the entry of a run from its record.

use dmarig_records::{Build, Environment, PairedBoot, StoredRun};
use std::collections::BTreeMap;

use dmarig_model::{
    axes::Axis,
    document::CellResult,
    measure::{Measured, metric, times},
    metrics::{CONTROL_PREFIX, metric_names, unit_of},
    observation::{End, Observation, Outcome, Verdict, WindowKind},
    text::shown,
    windows::Side,
};

use crate::entry::{
    CellEntry, CellKey, CheckTallies, DERIVATION_VERSION, PointEntry, RunEntry, Sample, SeriesKey,
    variant,
};

/// Largest number of metrics of a cell: a program in the guest may print any number.
const MAX_METRICS: usize = 256;
/// Largest number of checks of a cell: a case may have any number of rules.
const MAX_CHECKS: usize = 512;

impl RunEntry {
    /// Derives the entry of a run. `reference` names the reference kernel if the record does not.
    #[must_use]
    pub fn new(run: StoredRun, reference: Option<&str>) -> Self {
        let StoredRun { meta, cells, bytes, .. } = run;
        let mut entries = Vec::with_capacity(cells.len());
        let mut points = BTreeMap::new();
        for (number, record) in (0u32..).zip(cells) {
            let environment = Environment::new(&meta.host, &record.observation);
            let entry = cell(number, &record.observation, &record.verdict, environment);
            measure(&mut points, &record.observation, record.boot.as_ref(), &entry);
            entries.push(entry);
        }
        let reference = meta.reference.or_else(|| reference.map(str::to_owned));
        let mut points: Vec<PointEntry> = points.into_iter().map(median_point).collect();
        if let Some(reference) = &reference {
            points.extend(reference_ratios(&points, &entries, &shown(reference)));
        }
        points.sort_by(|a, b| a.series.cmp(&b.series));
        Self {
            derivation: DERIVATION_VERSION,
            id: shown(&meta.id),
            started: meta.started,
            dmarig: shown(&meta.dmarig),
            command: meta.command.iter().map(|word| shown(word)).collect(),
            host: meta.host,
            rules: shown(&meta.rules),
            reference: reference.as_deref().map(shown),
            synthetic: false,
            planned: meta.planned,
            record_bytes: bytes,
            cells: entries,
            points,
        }
    }
}

fn cell(
    number: u32,
    observation: &Observation,
    verdict: &Verdict,
    environment: Environment,
) -> CellEntry {
    let result = CellResult::new(observation, verdict);
    let place = CellKey {
        case: shown(&observation.case),
        variant: variant(&observation.axes),
        kernel: shown(&Axis::Kernel.value(&observation.axes)),
    };
    CellEntry {
        number,
        id: shown(&result.id),
        place,
        outcome: result.outcome,
        reasons: result.reasons.iter().map(|reason| shown(reason)).collect(),
        checks: failed_checks(verdict),
        judged: Some(tallies(verdict)),
        release: result.axes.kernel,
        group_type: result.group_type,
        warning: result.warning,
        duration_us: result.duration_us,
        environment,
        build: Build::new(observation),
    }
}

fn failed_checks(verdict: &Verdict) -> Vec<String> {
    let checks = verdict.checks.iter().filter(|check| check.held == Some(false));
    let mut names: Vec<String> = checks.map(|check| shown(&check.name)).collect();
    names.sort();
    names.dedup();
    names
}

fn tallies(verdict: &Verdict) -> CheckTallies {
    let mut tallies = CheckTallies::new();
    for check in verdict.checks.iter().take(MAX_CHECKS) {
        tallies.entry(shown(&check.name)).or_default().count(check.held);
    }
    tallies
}

/// The samples of a run, by series.
type SamplesBySeries = BTreeMap<SeriesKey, Vec<Sample>>;

/// Adds the samples of a cell. A cell that did not complete, or whose measurements failed, has
/// none.
fn measure(
    samples_by_series: &mut SamplesBySeries,
    observation: &Observation,
    boot: Option<&PairedBoot>,
    cell: &CellEntry,
) {
    let is_warm_up = boot.is_some_and(|boot| boot.warm_up);
    let is_judged = matches!(cell.outcome, Outcome::Passed | Outcome::Failed);
    if observation.end != End::Completed || !is_judged || is_warm_up {
        return;
    }
    let pairs = PairNumbers::new(observation, boot);
    let environment = cell.environment.fingerprint();
    for side in [Side::Own, Side::Control] {
        let prefix = if side == Side::Control { CONTROL_PREFIX } else { "" };
        for (kind, Measured { name, unit, samples }) in measured(observation, side) {
            let windows = window_indices(observation, side, kind);
            let values = (0u32..).zip(samples).zip(windows);
            let samples: Vec<Sample> = values
                .filter(|((_, value), _)| value.is_finite())
                .map(|((index, value), window)| Sample {
                    cell: cell.number,
                    window,
                    pair: pairs.for_sample(kind, index),
                    // Turns -0 into 0: SQLite does not distinguish them.
                    value: value + 0.0,
                })
                .collect();
            if samples.is_empty() {
                continue;
            }
            let series = SeriesKey {
                place: cell.place.clone(),
                metric: shown(&format!("{prefix}{name}")),
                unit: shown(&unit),
                reference: None,
                environment: environment.clone(),
            };
            samples_by_series.entry(series).or_default().extend(samples);
        }
    }
}

/// The times and counts of a cell, each with the kind of window that it is measured in.
fn measured(observation: &Observation, side: Side) -> Vec<(WindowKind, Measured)> {
    let timed = times(observation, side).into_iter().map(|metric| (WindowKind::Timing, metric));
    let count_names = metric_names().filter(|name| unit_of(name) == Some("1"));
    let counts = count_names.filter_map(|name| metric(observation, side, name));
    let counts = counts.map(|metric| (WindowKind::Counting, metric));
    timed.chain(counts).take(MAX_METRICS).collect()
}

fn window_indices(
    observation: &Observation,
    side: Side,
    kind: WindowKind,
) -> impl Iterator<Item = u32> + use<'_> {
    let windows = (0u32..).zip(&observation.windows);
    windows
        .filter(move |(_, window)| window.kind == kind && window.side() == side)
        .map(|(index, _)| index)
}

/// Assigns pair numbers to timed samples.
struct PairNumbers {
    /// Number of the boot's first pair; `None` outside of comparisons.
    first: Option<u32>,
    /// Whether both sides of each pair run in this boot.
    both_sides: bool,
}

impl PairNumbers {
    fn new(observation: &Observation, boot: Option<&PairedBoot>) -> Self {
        Self {
            first: boot.and_then(|boot| boot.pair),
            both_sides: observation.windows.iter().any(|window| window.side() == Side::Control),
        }
    }

    /// The pair of a sample. All windows of a boot belong to one pair, unless both sides share the
    /// boot: then each window has its own.
    fn for_sample(&self, kind: WindowKind, index: u32) -> Option<u32> {
        match (kind, self.both_sides) {
            (WindowKind::Timing, true) => Some(self.first.unwrap_or(0) + index),
            (WindowKind::Timing, false) => self.first,
            _ => None,
        }
    }
}

/// The point of a series in one run: the median of its samples, of which there must be one at
/// least.
#[must_use]
pub fn median_point((series, samples): (SeriesKey, Vec<Sample>)) -> PointEntry {
    let value = median_of_samples(&samples);
    PointEntry { series, cell: samples[0].cell, value, samples }
}

/// The ratio of each point to the reference kernel's point in the same run: the median of the
/// ratios of pairs, or the ratio of medians if there are no pairs. `points` must be sorted by
/// series.
#[must_use]
pub fn reference_ratios(
    points: &[PointEntry],
    cells: &[CellEntry],
    reference: &str,
) -> Vec<PointEntry> {
    let mut ratios = Vec::new();
    for point in points.iter().filter(|point| point.series.place.kernel != reference) {
        let mut key = point.series.clone();
        reference.clone_into(&mut key.place.kernel);
        let Ok(index) = points.binary_search_by(|other| other.series.cmp(&key)) else { continue };
        let divisor = &points[index];
        let Some(cell) = cells.get(divisor.cell as usize) else { continue };
        let mut samples = pair_ratios(&point.samples, &divisor.samples);
        let value = match samples.is_empty() {
            true => point.value / divisor.value,
            false => median_of_samples(&samples),
        };
        if !value.is_finite() {
            continue;
        }
        if samples.is_empty() {
            samples.push(Sample { pair: None, value, ..point.samples[0] });
        }
        let mut series = point.series.clone();
        series.reference = Some(format!("{reference}@{}", cell.build.identity()));
        ratios.push(PointEntry { series, cell: point.cell, value, samples });
    }
    ratios
}

/// The ratios of samples with the same pair number. Several samples of a pair count as their
/// median.
fn pair_ratios(ours: &[Sample], theirs: &[Sample]) -> Vec<Sample> {
    let theirs = samples_by_pair(theirs);
    let mut ratios = Vec::new();
    for (pair, ours) in samples_by_pair(ours) {
        let Some(theirs) = theirs.get(&pair) else { continue };
        let value = median_of_samples(&ours) / median_of_samples(theirs);
        if value.is_finite() {
            ratios.push(Sample { value, ..ours[0] });
        }
    }
    ratios
}

fn samples_by_pair(samples: &[Sample]) -> BTreeMap<u32, Vec<Sample>> {
    let mut pairs: BTreeMap<u32, Vec<Sample>> = BTreeMap::new();
    for sample in samples {
        if let Some(pair) = sample.pair {
            pairs.entry(pair).or_default().push(*sample);
        }
    }
    pairs
}

fn median_of_samples(samples: &[Sample]) -> f64 {
    let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
    dmarig_stats::median(&values).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(pair: Option<u32>, value: f64) -> Sample {
        Sample { cell: 0, window: 0, pair, value }
    }

    #[test]
    fn divides_samples_of_the_same_pair() {
        let ours = [sample(Some(1), 2.0), sample(Some(2), 9.0), sample(Some(3), 1.0)];
        let theirs = [sample(Some(2), 3.0), sample(Some(1), 1.0), sample(None, 5.0)];
        let ratios: Vec<f64> =
            pair_ratios(&ours, &theirs).iter().map(|sample| sample.value).collect();
        assert_eq!(ratios, [2.0, 3.0]);
    }

    #[test]
    fn leaves_out_ratios_to_zero() {
        assert_eq!(pair_ratios(&[sample(Some(1), 1.0)], &[sample(Some(1), 0.0)]), []);
    }
}
