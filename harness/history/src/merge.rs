//! Merging of histories, and the dump of a history as text.

use std::{
    io::{self, Write},
    path::Path,
};

use rusqlite::{Connection, OpenFlags, params};
use serde::Serialize;

use crate::{
    entry::{PointEntry, RunEntry, Sample},
    error::HistoryError,
    events,
    store::{History, InsertOutcome, sample, series_key},
};

/// Numbers of runs of a merged history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MergeReport {
    /// Number of added runs.
    pub added: u64,
    /// Number of runs that replaced an entry of a lower rank.
    pub replaced: u64,
    /// Number of runs that the history had already.
    pub unchanged: u64,
}

impl History {
    /// Adds all runs and events of another history. The order of merges, and repeating them, makes
    /// no difference. The other file is only read.
    ///
    /// # Errors
    /// [`HistoryError`]; the runs before the failure are merged.
    pub fn merge(&mut self, other: &Path) -> Result<MergeReport, HistoryError> {
        // The file of events may be newer than the table.
        let file_events = events::read(&events::events_file(other))?;
        let (other, _copy) = open_copy(other)?;
        let mut merged = MergeReport::default();
        for id in other.run_ids()? {
            let entry = other.run_entry(&id)?;
            match self.insert_runs([&entry])?[0] {
                InsertOutcome::Added => merged.added += 1,
                InsertOutcome::Replaced => merged.replaced += 1,
                InsertOutcome::Unchanged => merged.unchanged += 1,
            }
        }
        self.add_events(&[other.events()?, file_events].concat())?;
        Ok(merged)
    }

    /// Ids of all runs, sorted.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn run_ids(&self) -> Result<Vec<String>, HistoryError> {
        self.rows("SELECT id FROM runs ORDER BY id", (), |row| row.get(0))
    }

    /// The whole entry of a run.
    ///
    /// # Errors
    /// [`HistoryError::Unknown`], [`HistoryError::Sql`]
    pub fn run_entry(&self, run: &str) -> Result<RunEntry, HistoryError> {
        let row = self.run(run)?;
        let sql = "SELECT derivation, record_bytes, planned FROM runs WHERE id = ?";
        let stored = self.rows(sql, params![run], |row| {
            Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?.unsigned_abs(), row.get(2)?))
        })?;
        let (derivation, record_bytes, planned) = stored[0];
        Ok(RunEntry {
            derivation,
            id: row.id,
            started: row.started,
            dmarig: row.dmarig,
            command: row.command,
            host: row.host,
            rules: row.rules,
            reference: row.reference,
            synthetic: row.synthetic,
            planned,
            record_bytes,
            cells: self.cells(run)?,
            points: self.points_of(run)?,
        })
    }

    fn points_of(&self, run: &str) -> Result<Vec<PointEntry>, HistoryError> {
        let sql = "SELECT case_name, variant, kernel, metric, unit, series.reference, \
            fingerprint, points.cell, points.value, series.series, points.run \
            FROM points JOIN series USING (series) JOIN places USING (place) \
            JOIN environments USING (environment) \
            WHERE points.run = (SELECT run FROM runs WHERE id = ?)";
        let points = self.rows(sql, params![run], |row| {
            let samples = (row.get::<_, i64>(9)?, row.get::<_, i64>(10)?);
            let (series, value) = (series_key(row, 0)?, row.get(8)?);
            let point = PointEntry { series, cell: row.get(7)?, value, samples: Vec::new() };
            Ok((point, samples))
        })?;
        let sql = "SELECT cell, window, pair, value \
            FROM samples \
            WHERE series = ? AND run = ? \
            ORDER BY cell, window";
        let mut complete = Vec::with_capacity(points.len());
        for (point, (series, run)) in points {
            let samples: Vec<Sample> =
                self.rows(sql, params![series, run], |row| sample(row, 0))?;
            complete.push(PointEntry { samples, ..point });
        }
        complete.sort_by(|a, b| a.series.cmp(&b.series));
        Ok(complete)
    }

    /// Writes all runs and events as lines of JSON. Histories with equal contents give equal text.
    ///
    /// # Errors
    /// [`HistoryError::Sql`], [`HistoryError::Export`]
    pub fn dump(&self, out: &mut impl Write) -> Result<(), HistoryError> {
        for id in self.run_ids()? {
            write_line(out, &self.run_entry(&id)?)?;
        }
        for event in self.events()? {
            write_line(out, &event)?;
        }
        Ok(())
    }
}

fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Opens a copy of a history, since opening may migrate the file and another machine's must not
/// change.
fn open_copy(path: &Path) -> Result<(History, tempfile::TempDir), HistoryError> {
    if !path.exists() {
        return Err(HistoryError::Missing { path: path.display().to_string() });
    }
    let directory = tempfile::tempdir().map_err(HistoryError::io(path))?;
    let copy = directory.path().join("copy.sqlite");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copied = Connection::open_with_flags(path, flags)
        .and_then(|connection| connection.execute("VACUUM INTO ?", [copy.display().to_string()]));
    copied.map_err(HistoryError::sql(path))?;
    let original = path.display().to_string();
    match History::open(&copy) {
        Ok(history) => Ok((history, directory)),
        // These errors are about the original.
        Err(HistoryError::Newer { found, .. }) => {
            Err(HistoryError::Newer { path: original, found })
        }
        Err(HistoryError::Foreign { .. }) => Err(HistoryError::Foreign { path: original }),
        Err(error) => Err(error),
    }
}
