//! OpenMetrics text, version 1.0.

use std::{collections::BTreeMap, io::Write};

use super::{ExportError, ExportSelection, identifier};
use crate::{
    entry::SeriesKey,
    store::{History, SeriesRow},
};

/// A family of metrics: those of one name and unit.
struct Family {
    unit: String,
    help: String,
    /// By how much values are multiplied to be in that unit.
    factor: f64,
    series: Vec<SeriesRow>,
}

pub(super) fn write(
    history: &History,
    what: &ExportSelection,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for series in history.series(&what.series)? {
        let (unit, factor) = base_unit(&series.key);
        let mut base = format!("dmarig_{}", identifier(&series.key.metric));
        // Of one family all have one unit: a count may be named as a time is with its unit.
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
            let points = history.exported_points(series, what)?;
            let labels = labels(&series.key, points.synthetic);
            for (time, point) in points.timed {
                let (value, (seconds, us)) = (point.value * family.factor, parts(time));
                writeln!(out, "{name}{{{labels}}} {value:?} {seconds}.{us:06}")?;
            }
        }
    }
    writeln!(out, "# EOF")?;
    Ok(())
}

/// Of times after 1970, as those of runs are.
fn parts(us: i64) -> (i64, i64) {
    (us.div_euclid(1_000_000), us.rem_euclid(1_000_000))
}

/// The base unit, and the factor to it; empty of a plain number.
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
        // Different metrics may be one name.
        ("metric", &key.metric),
        ("environment", &key.environment),
    ];
    if let Some(reference) = &key.reference {
        all.push(("reference", reference));
    }
    if synthetic {
        all.push(("synthetic", "true"));
    }
    let told = all.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    told.collect::<Vec<_>>().join(",")
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
