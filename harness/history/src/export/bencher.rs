//! Bencher's metric format: benchmarks, of each its measures, of each a value and what it lay between.

use std::{collections::BTreeMap, io::Write};

use serde::Serialize;

use super::{ExportError, ExportSelection};
use crate::{
    entry::{Sample, SeriesKey},
    store::History,
};

/// Characters of a benchmark's name, and of a measure's.
const LONGEST: (usize, usize) = (1024, 64);

#[derive(Serialize)]
struct Metric {
    value: f64,
    lower_value: f64,
    upper_value: f64,
}

pub(super) fn write(
    history: &History,
    what: &ExportSelection,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let run = match &what.run {
        Some(run) => history.run(run)?,
        None => match history.runs(Some(1))?.pop() {
            Some(run) => run,
            None => return Err(ExportError::Empty(history.path().display().to_string())),
        },
    };
    let mut all: BTreeMap<String, BTreeMap<String, Metric>> = BTreeMap::new();
    let wanted = history.series(&what.series)?;
    for point in history.entry_of(&run.id)?.points {
        if !wanted.iter().any(|series| series.key == point.series) {
            continue;
        }
        let ends = |pick: fn(f64, f64) -> f64| {
            point.samples.iter().map(|Sample { value, .. }| *value).fold(point.value, pick)
        };
        let metric =
            Metric { value: point.value, lower_value: ends(f64::min), upper_value: ends(f64::max) };
        let benchmark = benchmark(&point.series, run.synthetic);
        let measures = all.entry(benchmark).or_default();
        let mut name = measure(&point.series);
        // Names that are too long may be one when they are cut.
        while measures.contains_key(&name) {
            name = cut(&name, LONGEST.1 - 1) + "+";
        }
        measures.insert(name, metric);
    }
    serde_json::to_writer_pretty(&mut *out, &all).map_err(std::io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

fn benchmark(key: &SeriesKey, synthetic: bool) -> String {
    let made_up = if synthetic { "MADE UP " } else { "" };
    let against = key.reference.as_deref().map(|name| format!(" / {name}")).unwrap_or_default();
    cut(&format!("{made_up}{} [{}]{against}", key.place, key.environment), LONGEST.0)
}

fn measure(key: &SeriesKey) -> String {
    let name = key.metric.replace('/', "-");
    // A measure has one unit.
    let name = match key.value_unit() {
        _ if key.reference.is_some() => format!("{name}-ratio"),
        "1" | "" => name,
        unit => format!("{name}-{}", unit.replace('/', "-per-")),
    };
    cut(&name, LONGEST.1)
}

fn cut(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}
