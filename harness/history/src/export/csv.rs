//! Comma-separated values.

use dmarig_records::rfc3339;
use std::{borrow::Cow, collections::HashMap, io::Write};

use csv::{Terminator, WriterBuilder};

use super::ExportSelection;
use crate::{error::HistoryError, store::History};

const HEADER: [&str; 14] = [
    "time",
    "run",
    "case",
    "variant",
    "kernel",
    "release",
    "build",
    "metric",
    "unit",
    "reference",
    "environment",
    "synthetic",
    "value",
    "samples",
];

pub(super) fn write(
    history: &History,
    selection: &ExportSelection,
    out: &mut impl Write,
) -> Result<(), HistoryError> {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out);
    writer.write_record(HEADER)?;
    for series in history.series(&selection.series)? {
        let key = &series.key;
        let points = history.exported_points(&series, selection)?;
        let mut samples: HashMap<String, Vec<String>> = HashMap::new();
        for (run, sample) in history.samples(&series.id)? {
            samples.entry(run).or_default().push(format!("{:?}", sample.value));
        }
        for (us, point) in points.timed {
            let (time, build) = (rfc3339(us), point.build.short());
            let texts = [
                time.as_str(),
                &point.run,
                &key.place.case,
                &key.place.variant,
                &key.place.kernel,
                point.release.as_deref().unwrap_or_default(),
                &build,
                &key.metric,
                key.value_unit(),
                key.reference.as_deref().unwrap_or_default(),
                &key.environment,
            ]
            .map(without_formula);
            for text in &texts {
                writer.write_field(text.as_bytes())?;
            }
            writer.write_field(u8::from(point.synthetic).to_string())?;
            writer.write_field(format!("{:?}", point.value))?;
            let values = samples.remove(&point.run).unwrap_or_default();
            writer.write_field(values.join(" "))?;
            writer.write_record(None::<&[u8]>)?;
        }
    }
    writer.flush()?;
    Ok(())
}

/// Puts an apostrophe before a text that a spreadsheet would run as a formula: much text comes from
/// guests.
fn without_formula(text: &str) -> Cow<'_, str> {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}").into(),
        false => text.into(),
    }
}
