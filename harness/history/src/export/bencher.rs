//! Bencher's metric format: benchmarks, each with measures, each with a value and its bounds.

use std::{collections::BTreeMap, io::Write};

use serde::Serialize;

use super::ExportSelection;
use crate::{
    entry::{Sample, SeriesKey},
    error::HistoryError,
    store::History,
};

/// Largest number of characters in the name of a benchmark.
const BENCHMARK_LENGTH: usize = 1024;
/// Largest number of characters in the name of a measure.
const MEASURE_LENGTH: usize = 64;

#[derive(Serialize)]
struct Metric {
    value: f64,
    lower_value: f64,
    upper_value: f64,
}

pub(super) fn write(
    history: &History,
    selection: &ExportSelection,
    out: &mut impl Write,
) -> Result<(), HistoryError> {
    let run = match &selection.run {
        Some(run) => history.run(run)?,
        None => match history.runs(Some(1))?.pop() {
            Some(run) => run,
            None => return Err(HistoryError::Empty { path: history.path().display().to_string() }),
        },
    };
    let mut all: BTreeMap<String, BTreeMap<String, Metric>> = BTreeMap::new();
    let wanted = history.series(&selection.series)?;
    for point in history.run_entry(&run.id)?.points {
        if !wanted.iter().any(|series| series.key == point.series) {
            continue;
        }
        let bound = |pick: fn(f64, f64) -> f64| {
            point.samples.iter().map(|Sample { value, .. }| *value).fold(point.value, pick)
        };
        let metric = Metric {
            value: point.value,
            lower_value: bound(f64::min),
            upper_value: bound(f64::max),
        };
        let benchmark = benchmark(&point.series, run.synthetic);
        let measures = all.entry(benchmark).or_default();
        let mut name = measure(&point.series);
        // Different long names may be equal after they are cut.
        while measures.contains_key(&name) {
            name = cut(&name, MEASURE_LENGTH - 1) + "+";
        }
        measures.insert(name, metric);
    }
    serde_json::to_writer_pretty(&mut *out, &all).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

fn benchmark(key: &SeriesKey, synthetic: bool) -> String {
    let prefix = if synthetic { "MADE UP " } else { "" };
    let divisor = key.reference.as_deref().map(|name| format!(" / {name}")).unwrap_or_default();
    cut(&format!("{prefix}{} [{}]{divisor}", key.place, key.environment), BENCHMARK_LENGTH)
}

fn measure(key: &SeriesKey) -> String {
    let name = key.metric.replace('/', "-");
    // All values of a measure have one unit.
    let name = match key.value_unit() {
        _ if key.reference.is_some() => format!("{name}-ratio"),
        "1" | "" => name,
        unit => format!("{name}-{}", unit.replace('/', "-per-")),
    };
    cut(&name, MEASURE_LENGTH)
}

fn cut(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}
