//! From a record to what the history keeps of it.

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

/// Metrics of one cell that are kept: a program in the guest may print any number of them.
const MAX_METRICS: usize = 256;
/// Checks of one cell that are counted: a case may have any number of rules.
const MAX_CHECKS: usize = 512;

impl RunEntry {
    /// What is kept of a run. `reference` names the kernel that the others are set in relation to, where
    /// the record itself does not.
    #[must_use]
    pub fn new(run: StoredRun, reference: Option<&str>) -> Self {
        let StoredRun { meta, cells, bytes, .. } = run;
        let mut entries = Vec::with_capacity(cells.len());
        let mut points = BTreeMap::new();
        for (number, record) in (0u32..).zip(cells) {
            let environment = Environment::of(&meta.host, &record.observation);
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

fn cell(number: u32, seen: &Observation, verdict: &Verdict, environment: Environment) -> CellEntry {
    let result = CellResult::new(seen, verdict);
    let place = CellKey {
        case: shown(&seen.case),
        variant: variant(&seen.axes),
        kernel: shown(&Axis::Kernel.value(&seen.axes)),
    };
    CellEntry {
        number,
        id: shown(&result.id),
        place,
        outcome: result.outcome,
        reasons: result.reasons.iter().map(|reason| shown(reason)).collect(),
        checks: not_held(verdict),
        judged: Some(judged(verdict)),
        release: result.axes.kernel,
        group_type: result.group_type,
        warning: result.warning,
        duration_us: result.duration_us,
        environment,
        build: Build::of(seen),
    }
}

fn not_held(verdict: &Verdict) -> Vec<String> {
    let checks = verdict.checks.iter().filter(|check| check.held == Some(false));
    let mut names: Vec<String> = checks.map(|check| shown(&check.name)).collect();
    names.sort();
    names.dedup();
    names
}

fn judged(verdict: &Verdict) -> CheckTallies {
    let mut judged = CheckTallies::new();
    for check in verdict.checks.iter().take(MAX_CHECKS) {
        judged.entry(shown(&check.name)).or_default().count(check.held);
    }
    judged
}

/// Samples by series, while the run is gone through.
type Points = BTreeMap<SeriesKey, Vec<Sample>>;

/// Adds what was measured in a cell. One that came to no end, or of which the rig saw too little, has
/// no numbers.
fn measure(points: &mut Points, seen: &Observation, boot: Option<&PairedBoot>, cell: &CellEntry) {
    let warm_up = boot.is_some_and(|boot| boot.warm_up);
    let first_pair = boot.and_then(|boot| boot.pair);
    let judged = matches!(cell.outcome, Outcome::Passed | Outcome::Failed);
    if seen.end != End::Completed || !judged || warm_up {
        return;
    }
    let twins = seen.windows.iter().any(|window| window.side() == Side::Control);
    let environment = cell.environment.fingerprint();
    for side in [Side::Own, Side::Control] {
        let prefix = if side == Side::Control { CONTROL_PREFIX } else { "" };
        let counts = metric_names().filter(|name| unit_of(name) == Some("1"));
        let counts =
            counts.filter_map(|name| Some((WindowKind::Counting, metric(seen, side, name)?)));
        let timed = times(seen, side).into_iter().map(|metric| (WindowKind::Timing, metric));
        for (kind, measured) in timed.chain(counts).take(MAX_METRICS) {
            let windows = windows(seen, side, kind);
            let Measured { name, unit, samples } = measured;
            let key = SeriesKey {
                place: cell.place.clone(),
                metric: shown(&format!("{prefix}{name}")),
                unit: shown(&unit),
                reference: None,
                environment: environment.clone(),
            };
            let paired = kind == WindowKind::Timing && (twins || first_pair.is_some());
            let first = first_pair.unwrap_or(0);
            // Windows of a pair's boot belong to it alone, unless both of a pair share the boot.
            let pair = |at: u32| paired.then_some(if twins { first + at } else { first });
            let samples = (0u32..).zip(samples).zip(windows).map(|((at, value), window)| Sample {
                cell: cell.number,
                window,
                pair: pair(at),
                // Of the two zeros SQLite keeps one.
                value: value + 0.0,
            });
            let samples: Vec<Sample> = samples.filter(|sample| sample.value.is_finite()).collect();
            if !samples.is_empty() {
                points.entry(key).or_default().extend(samples);
            }
        }
    }
}

fn windows(
    seen: &Observation,
    side: Side,
    kind: WindowKind,
) -> impl Iterator<Item = u32> + use<'_> {
    let all = (0u32..).zip(&seen.windows);
    all.filter(move |(_, window)| window.kind == kind && window.side() == side).map(|(at, _)| at)
}

/// The point of a series in one run: the median of its samples, of which there is at least one.
#[must_use]
pub fn median_point((series, samples): (SeriesKey, Vec<Sample>)) -> PointEntry {
    let value = median(samples.iter().map(|sample| sample.value));
    PointEntry { series, cell: samples[0].cell, value, samples }
}

/// Each number in relation to the reference kernel's in the same run: the median of the ratios of pairs
/// where there are pairs, and the ratio of medians where there are none. `points` stand in the order of
/// their series.
#[must_use]
pub fn reference_ratios(
    points: &[PointEntry],
    cells: &[CellEntry],
    reference: &str,
) -> Vec<PointEntry> {
    let like = |point: &PointEntry| {
        let mut key = point.series.clone();
        reference.clone_into(&mut key.place.kernel);
        // They come in the order of their series.
        let at = points.binary_search_by(|other| other.series.cmp(&key)).ok()?;
        Some(&points[at])
    };
    let ratio = |point: &PointEntry| {
        let other = like(point)?;
        let build = &cells.get(other.cell as usize)?.build;
        let samples = paired(&point.samples, &other.samples);
        let value = match samples.is_empty() {
            true => point.value / other.value,
            false => median(samples.iter().map(|sample| sample.value)),
        };
        let samples = match samples.is_empty() {
            true => vec![Sample { pair: None, value, ..point.samples[0] }],
            false => samples,
        };
        let mut series = point.series.clone();
        series.reference = Some(format!("{reference}@{}", build.identity()));
        value.is_finite().then_some(PointEntry { series, cell: point.cell, value, samples })
    };
    let others = points.iter().filter(|point| point.series.place.kernel != reference);
    others.filter_map(ratio).collect()
}

/// The ratios of what has the same pair's number: of boots, each of which is one of a pair, the medians.
fn paired(ours: &[Sample], theirs: &[Sample]) -> Vec<Sample> {
    let by_pair = |samples: &[Sample]| {
        let mut pairs: BTreeMap<u32, Vec<Sample>> = BTreeMap::new();
        for sample in samples {
            if let Some(pair) = sample.pair {
                pairs.entry(pair).or_default().push(*sample);
            }
        }
        pairs
    };
    let theirs = by_pair(theirs);
    let ratio = |(pair, ours): (u32, Vec<Sample>)| {
        let value = |samples: &[Sample]| median(samples.iter().map(|sample| sample.value));
        let value = value(&ours) / value(theirs.get(&pair)?);
        value.is_finite().then_some(Sample { value, ..ours[0] })
    };
    by_pair(ours).into_iter().filter_map(ratio).collect()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let samples = values.collect();
    Measured { name: String::new(), unit: String::new(), samples }.median()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_pairs_each_is_divided_by_its_like() {
        let sample = |pair, value| Sample { cell: 0, window: 0, pair, value };
        let ours = [sample(Some(1), 2.0), sample(Some(2), 9.0), sample(Some(3), 1.0)];
        let theirs = [sample(Some(2), 3.0), sample(Some(1), 1.0), sample(None, 5.0)];
        let found: Vec<f64> = paired(&ours, &theirs).iter().map(|sample| sample.value).collect();
        assert_eq!(found, [2.0, 3.0]);
        assert!(paired(&[sample(Some(1), 1.0)], &[sample(Some(1), 0.0)]).is_empty());
    }
}
