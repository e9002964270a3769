//! InfluxDB's line protocol.

use std::io::Write;

use super::{ExportError, ExportSelection};
use crate::store::History;

pub(super) fn write(
    history: &History,
    what: &ExportSelection,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    for series in history.series(&what.series)? {
        let key = &series.key;
        let points = history.exported_points(&series, what)?;
        // In the order of their names, which the database likes best.
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
        let told = tags.iter().filter(|(_, value)| !value.is_empty());
        let tags: String = told.map(|(name, value)| format!(",{name}={}", tag(value))).collect();
        for (us, point) in points.timed {
            let (value, run) = (point.value, string(&point.run));
            let build = string(&point.build.short());
            let ns = i128::from(us) * 1000;
            writeln!(out, "dmarig{tags} value={value:?},run={run},build={build} {ns}")?;
        }
    }
    Ok(())
}

/// A tag's value. There is no way to write a backslash that stands before the end or before what has to
/// be escaped, and none at all to write a line's end.
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

/// A field that is a text.
fn string(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
