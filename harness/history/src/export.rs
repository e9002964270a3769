//! The history for other programs, in the formats that they read.

mod bencher;
mod csv;
mod influx;
mod openmetrics;

use dmarig_records::began_us;
use std::io::{self, Write};

use crate::store::{History, HistoryError, Point, SeriesFilter, SeriesRow};

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// OpenMetrics text, version 1.0: each series a gauge in base units, with a timestamp a point.
    OpenMetrics,
    /// InfluxDB's line protocol, with nanoseconds since 1970: a line a point.
    Influx,
    /// Bencher's metric format: a JSON object of one run, which has no place for time.
    Bencher,
    /// Comma-separated values (RFC 4180) with a header: a line a point.
    Csv,
}

/// What is exported.
#[derive(Debug, Clone, Default)]
pub struct ExportSelection {
    /// Only these series.
    pub series: SeriesFilter,
    /// Only of this run. Where none is named, Bencher's format takes the newest.
    pub run: Option<String>,
}

/// Why there is no export, or half of one.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The history can't be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// It can't be written.
    #[error("can't write the export: {0}")]
    Io(#[from] io::Error),
    /// There is nothing in it.
    #[error("the history {0} has no run: `dmarig history add` puts some in")]
    Empty(String),
}

impl History {
    /// Writes points in a format.
    ///
    /// # Errors
    /// [`ExportError`]
    pub fn export(
        &self,
        format: ExportFormat,
        what: &ExportSelection,
        out: &mut impl Write,
    ) -> Result<(), ExportError> {
        if let Some(run) = &what.run
            && !self.has_run(run)?
        {
            return Err(self.unknown("run", run).into());
        }
        match format {
            ExportFormat::OpenMetrics => openmetrics::write(self, what, out),
            ExportFormat::Influx => influx::write(self, what, out),
            ExportFormat::Bencher => bencher::write(self, what, out),
            ExportFormat::Csv => csv::write(self, what, out),
        }
    }

    fn exported_points(
        &self,
        series: &SeriesRow,
        what: &ExportSelection,
    ) -> Result<ExportedPoints, HistoryError> {
        let points = self.points(&series.id)?;
        let synthetic = points.iter().any(|point| point.synthetic);
        let mut timed = timed(points);
        if let Some(run) = &what.run {
            timed.retain(|(_, point)| point.run == *run);
        }
        Ok(ExportedPoints { synthetic, timed })
    }
}

/// The points of a series, as far as they are exported. What is said of one does not depend on how far.
struct ExportedPoints {
    /// Whether any point of the series was made up.
    synthetic: bool,
    /// Points, each after its time in microseconds since 1970.
    timed: Vec<(i64, Point)>,
}

/// All points of a series with their times: no two may share one, since a database takes the second for
/// the first, corrected. Runs of one second differ by the microseconds in their ids; of ids without,
/// which records of old have, the later ones are a millisecond apart.
fn timed(points: Vec<Point>) -> Vec<(i64, Point)> {
    let mut timed: Vec<(i64, Point)> =
        points.into_iter().map(|point| (began_us(&point.run, point.started), point)).collect();
    timed.sort_by(|(a, one), (b, other)| (a, &one.run).cmp(&(b, &other.run)));
    let mut last = None;
    for (us, _) in &mut timed {
        *us = last.filter(|last| *us <= *last).map_or(*us, |last| last + 1000);
        last = Some(*us);
    }
    timed
}

/// `text` as the name of something: letters, digits and underscores, the first no digit.
fn identifier(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = text.chars().map(plain).collect();
    match name.chars().next() {
        Some(first) if !first.is_ascii_digit() => name,
        _ => format!("_{name}"),
    }
}
