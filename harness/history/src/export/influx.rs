//! InfluxDB's line protocol.

use std::io::Write;

use super::ExportSelection;
use crate::{error::HistoryError, store::History};

pub(super) fn write(
    history: &History,
    selection: &ExportSelection,
    out: &mut impl Write,
) -> Result<(), HistoryError> {
    for series in history.series(&selection.series)? {
        let key = &series.key;
        let points = history.exported_points(&series, selection)?;
        // Sorted by name, as InfluxDB recommends.
        let mut tags = [
            ("case", key.place.case.as_str()),
            ("environment", &key.environment),
            ("kernel", &key.place.kernel),
            ("metric", &key.metric),
            ("reference", key.reference.as_deref().unwrap_or_default()),
            ("synthetic", ""),
            ("unit", key.value_unit()),
            ("variant", &key.place.variant),
        ];
        if points.synthetic {
            tags[5].1 = "true";
        }
        let given = tags.iter().filter(|(_, value)| !value.is_empty());
        let tags: String = given.map(|(name, value)| format!(",{name}={}", tag(value))).collect();
        for (us, point) in points.timed {
            let (value, run) = (point.value, string(&point.run));
            let build = string(&point.build.short());
            let ns = i128::from(us) * 1000;
            writeln!(out, "dmarig{tags} value={value:?},run={run},build={build} {ns}")?;
        }
    }
    Ok(())
}

/// Escapes the value of a tag. The format can't express a backslash at the end or before a
/// character that must be escaped, nor a line break, so these are replaced.
fn tag(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ',' | '=' | ' ' => out.extend(['\\', c]),
            '\\' => out.push('/'),
            c if c.is_control() => out.push('_'),
            c => out.push(c),
        }
    }
    out
}

/// Quotes the text of a field.
fn string(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
