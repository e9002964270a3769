//! Exports of a history for other programs.

mod bencher;
mod csv;
mod influx;
mod openmetrics;

use dmarig_records::began_us;
use std::io::Write;

use crate::{
    error::HistoryError,
    store::{History, Point, SeriesFilter, SeriesRow},
};

/// The format of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// OpenMetrics text, version 1.0: each series is a gauge in base units, with a timestamp for
    /// each point.
    OpenMetrics,
    /// InfluxDB's line protocol, with nanoseconds since 1970: one line for each point.
    Influx,
    /// Bencher's metric format: a JSON object of one run, without times.
    Bencher,
    /// Comma-separated values (RFC 4180) with a header: one line for each point.
    Csv,
}

/// Selects what is exported.
#[derive(Debug, Clone, Default)]
pub struct ExportSelection {
    /// The exported series.
    pub series: SeriesFilter,
    /// The only exported run; `None` exports all runs, and the newest one in Bencher's format.
    pub run: Option<String>,
}

impl History {
    /// Writes the selected points in a format.
    ///
    /// # Errors
    /// [`HistoryError`]
    pub fn export(
        &self,
        format: ExportFormat,
        selection: &ExportSelection,
        out: &mut impl Write,
    ) -> Result<(), HistoryError> {
        if let Some(run) = &selection.run
            && !self.has_run(run)?
        {
            return Err(self.unknown("run", run));
        }
        match format {
            ExportFormat::OpenMetrics => openmetrics::write(self, selection, out),
            ExportFormat::Influx => influx::write(self, selection, out),
            ExportFormat::Bencher => bencher::write(self, selection, out),
            ExportFormat::Csv => csv::write(self, selection, out),
        }
    }

    fn exported_points(
        &self,
        series: &SeriesRow,
        selection: &ExportSelection,
    ) -> Result<ExportedPoints, HistoryError> {
        let points = self.points(&series.id)?;
        let synthetic = points.iter().any(|point| point.synthetic);
        let mut timed = timed(points);
        if let Some(run) = &selection.run {
            timed.retain(|(_, point)| point.run == *run);
        }
        Ok(ExportedPoints { synthetic, timed })
    }
}

/// The exported points of a series.
struct ExportedPoints {
    /// Whether any point of the series is synthetic, also one that is not exported: it decides the
    /// labels.
    synthetic: bool,
    /// Points, each with its time in microseconds since 1970.
    timed: Vec<(i64, Point)>,
}

/// Adds times to the points of a series. Times must differ, since a database replaces a point by a
/// later one with the same time. Runs that started in the same second differ by the microseconds in
/// their ids; without these, as in old records, each gets a millisecond more than the one before.
fn timed(points: Vec<Point>) -> Vec<(i64, Point)> {
    let mut timed: Vec<(i64, Point)> =
        points.into_iter().map(|point| (began_us(&point.run, point.started), point)).collect();
    timed.sort_by(|(a_us, a), (b_us, b)| (a_us, &a.run).cmp(&(b_us, &b.run)));
    let mut last = None;
    for (us, _) in &mut timed {
        if let Some(last) = last
            && *us <= last
        {
            *us = last + 1000;
        }
        last = Some(*us);
    }
    timed
}

/// Turns a text into an identifier of letters, digits and underscores that does not begin with a
/// digit.
fn identifier(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = text.chars().map(plain).collect();
    match name.chars().next() {
        Some(first) if !first.is_ascii_digit() => name,
        _ => format!("_{name}"),
    }
}
