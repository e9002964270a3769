//! Comma-separated values.

use dmarig_records::rfc3339;
use std::{collections::HashMap, io::Write};

use super::{ExportError, ExportSelection};
use crate::store::History;

pub(super) fn write(
    history: &History,
    what: &ExportSelection,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let header = "time,run,case,variant,kernel,release,build,metric,unit,reference,environment,synthetic,\
         value,samples\r\n";
    out.write_all(header.as_bytes())?;
    for series in history.series(&what.series)? {
        let key = &series.key;
        let points = history.exported_points(&series, what)?;
        let mut samples: HashMap<String, Vec<String>> = HashMap::new();
        for (run, sample) in history.samples(&series.id)? {
            samples.entry(run).or_default().push(format!("{:?}", sample.value));
        }
        for (us, point) in points.timed {
            let values = samples.remove(&point.run).unwrap_or_default();
            let fields = [
                rfc3339(us),
                field(&point.run),
                field(&key.place.case),
                field(&key.place.variant),
                field(&key.place.kernel),
                field(point.release.as_deref().unwrap_or_default()),
                field(&point.build.short()),
                field(&key.metric),
                field(key.value_unit()),
                field(key.reference.as_deref().unwrap_or_default()),
                field(&key.environment),
                u8::from(point.synthetic).to_string(),
                format!("{:?}", point.value),
                values.join(" "),
            ];
            write!(out, "{}\r\n", fields.join(","))?;
        }
    }
    Ok(())
}

/// A field. A text that a spreadsheet would take for a formula gets an apostrophe: much of it comes from
/// guests.
fn field(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}
