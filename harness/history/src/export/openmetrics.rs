//! OpenMetrics text, version 1.0.

use std::{collections::BTreeMap, io::Write};

use super::{ExportSelection, identifier};
use crate::{
    entry::SeriesKey,
    error::HistoryError,
    store::{History, SeriesRow},
};

/// A metric family: all series with one name and unit.
struct Family {
    unit: String,
    help: String,
    /// Converts values to the unit.
    factor: f64,
    series: Vec<SeriesRow>,
}

pub(super) fn write(
    history: &History,
    selection: &ExportSelection,
    out: &mut impl Write,
) -> Result<(), HistoryError> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for series in history.series(&selection.series)? {
        let (unit, factor) = base_unit(&series.key);
        let mut base = format!("dmarig_{}", identifier(&series.key.metric));
        // All series of a family have one unit, and a count may have the name of a time with its
        // unit.
        let name = loop {
            let name = if unit.is_empty() { base.clone() } else { format!("{base}_{unit}") };
            match families.get(&name) {
                Some(family) if family.unit != unit => base.push_str("_other"),
                _ => break name,
            }
        };
        let family = families.entry(name).or_insert_with(|| Family {
            help: help(&series.key),
            unit,
            factor,
            series: Vec::new(),
        });
        family.series.push(series);
    }
    for (name, family) in &families {
        writeln!(out, "# TYPE {name} gauge")?;
        if !family.unit.is_empty() {
            writeln!(out, "# UNIT {name} {}", family.unit)?;
        }
        writeln!(out, "# HELP {name} {}", escaped(&family.help))?;
        for series in &family.series {
            let points = history.exported_points(series, selection)?;
            let labels = labels(&series.key, points.synthetic);
            for (time, point) in points.timed {
                let (value, (seconds, us)) = (point.value * family.factor, split_seconds(time));
                writeln!(out, "{name}{{{labels}}} {value:?} {seconds}.{us:06}")?;
            }
        }
    }
    writeln!(out, "# EOF")?;
    Ok(())
}

/// Splits microseconds since 1970 into seconds and microseconds.
fn split_seconds(us: i64) -> (i64, i64) {
    (us.div_euclid(1_000_000), us.rem_euclid(1_000_000))
}

/// The base unit of a series, empty for a plain number, and the factor that converts values to it.
fn base_unit(key: &SeriesKey) -> (String, f64) {
    match key.value_unit() {
        _ if key.reference.is_some() => ("ratio".to_owned(), 1.0),
        "1" | "" => (String::new(), 1.0),
        "s" => ("seconds".to_owned(), 1.0),
        "ms" => ("seconds".to_owned(), 1e-3),
        "us" => ("seconds".to_owned(), 1e-6),
        "ns" => ("seconds".to_owned(), 1e-9),
        "bytes/s" => ("bytes_per_second".to_owned(), 1.0),
        "1/s" => ("per_second".to_owned(), 1.0),
        other => (identifier(&other.replace('/', "_per_")), 1.0),
    }
}

fn help(key: &SeriesKey) -> String {
    let what = if key.reference.is_some() { ", as a ratio to the reference kernel's" } else { "" };
    format!("Median of {} in a run{what}.", key.metric)
}

fn labels(key: &SeriesKey, synthetic: bool) -> String {
    let mut all = vec![
        ("case", key.place.case.as_str()),
        ("variant", &key.place.variant),
        ("kernel", &key.place.kernel),
        // Different metrics may have the same family name.
        ("metric", &key.metric),
        ("environment", &key.environment),
    ];
    if let Some(reference) = &key.reference {
        all.push(("reference", reference));
    }
    if synthetic {
        all.push(("synthetic", "true"));
    }
    let labels = all.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    labels.collect::<Vec<_>>().join(",")
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
