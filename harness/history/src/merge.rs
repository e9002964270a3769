//! Histories of several machines in one, and a history as text.

use std::{
    io::{self, Write},
    path::Path,
};

use rusqlite::{Connection, OpenFlags, Row, params};

use crate::{
    entry::{PointEntry, RunEntry, Sample},
    events,
    store::{History, HistoryError, InsertOutcome},
};

/// What became of another history's runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MergeReport {
    /// Runs that were new.
    pub added: u64,
    /// Runs of which more was known there.
    pub replaced: u64,
    /// Runs that were in it.
    pub known: u64,
}

impl History {
    /// Takes over all that another history has and this one has not. In which order histories are
    /// merged, and how often, does not matter. The other file is only read.
    ///
    /// # Errors
    /// [`HistoryError`]; the runs that came before the trouble are in.
    pub fn merge(&mut self, other: &Path) -> Result<MergeReport, HistoryError> {
        // What was said there may be newer in the file than in the table.
        let said = events::read(&events::events_file(other))?;
        let (other, _copy) = open_copy(other)?;
        let mut merged = MergeReport::default();
        for id in other.run_ids()? {
            let entry = other.entry_of(&id)?;
            match self.put([&entry])?[0] {
                InsertOutcome::Added => merged.added += 1,
                InsertOutcome::Replaced => merged.replaced += 1,
                InsertOutcome::Known => merged.known += 1,
            }
        }
        self.add_events(&[other.events()?, said].concat())?;
        Ok(merged)
    }

    /// Ids of all runs, in order.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn run_ids(&self) -> Result<Vec<String>, HistoryError> {
        self.rows("SELECT id FROM runs ORDER BY id", (), |row| row.get(0))
    }

    /// All that is kept of a run.
    ///
    /// # Errors
    /// [`HistoryError::Unknown`], [`HistoryError::Sql`]
    pub fn entry_of(&self, run: &str) -> Result<RunEntry, HistoryError> {
        let told = self.run(run)?;
        let sql = "SELECT derivation, record_bytes, planned FROM runs WHERE id = ?";
        let kept = self.rows(sql, params![run], |row| {
            Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?.unsigned_abs(), row.get(2)?))
        })?;
        let (derivation, record_bytes, planned) = kept[0];
        Ok(RunEntry {
            derivation,
            id: told.id,
            started: told.started,
            dmarig: told.dmarig,
            command: told.command,
            host: told.host,
            rules: told.rules,
            reference: told.reference,
            synthetic: told.synthetic,
            planned,
            record_bytes,
            cells: self.cells(run)?,
            points: self.points_of(run)?,
        })
    }

    fn points_of(&self, run: &str) -> Result<Vec<PointEntry>, HistoryError> {
        let sql = "SELECT case_name, variant, kernel, metric, unit, series.reference, fingerprint, \
             points.cell, points.value, series.series, points.run FROM points \
             JOIN series USING (series) JOIN places USING (place) \
             JOIN environments USING (environment) \
             WHERE points.run = (SELECT run FROM runs WHERE id = ?)";
        let points = self.rows(sql, params![run], |row| {
            let samples = (row.get::<_, i64>(9)?, row.get::<_, i64>(10)?);
            let (series, value) = (crate::store::key(row, 0)?, row.get(8)?);
            let point = PointEntry { series, cell: row.get(7)?, value, samples: Vec::new() };
            Ok((point, samples))
        })?;
        let sql = "SELECT cell, window, pair, value FROM samples WHERE series = ? AND run = ? \
             ORDER BY cell, window";
        let mut whole = Vec::with_capacity(points.len());
        for (point, (series, run)) in points {
            let samples: Vec<Sample> = self.rows(sql, params![series, run], sample)?;
            whole.push(PointEntry { samples, ..point });
        }
        whole.sort_by(|a, b| a.series.cmp(&b.series));
        Ok(whole)
    }

    /// Writes all that is in it, a line each: two histories that hold the same give the same text.
    ///
    /// # Errors
    /// [`HistoryError::Sql`], or [`HistoryError::Io`] where it can't be written.
    pub fn dump(&self, out: &mut impl Write) -> Result<(), HistoryError> {
        let failed =
            |error: io::Error| HistoryError::Io { path: self.path().display().to_string(), error };
        for id in self.run_ids()? {
            let entry = self.entry_of(&id)?;
            serde_json::to_writer(&mut *out, &entry).map_err(|error| failed(error.into()))?;
            out.write_all(b"\n").map_err(failed)?;
        }
        for event in self.events()? {
            serde_json::to_writer(&mut *out, &event).map_err(|error| failed(error.into()))?;
            out.write_all(b"\n").map_err(failed)?;
        }
        Ok(())
    }
}

fn sample(row: &Row<'_>) -> rusqlite::Result<Sample> {
    Ok(Sample { cell: row.get(0)?, window: row.get(1)?, pair: row.get(2)?, value: row.get(3)? })
}

/// Another machine's file is not ours to change: what is read is a copy, which may be brought up to
/// date.
fn open_copy(path: &Path) -> Result<(History, tempfile::TempDir), HistoryError> {
    let shown = || path.display().to_string();
    if !path.exists() {
        return Err(HistoryError::Missing { path: shown() });
    }
    let directory =
        tempfile::tempdir().map_err(|error| HistoryError::Io { path: shown(), error })?;
    let copy = directory.path().join("copy.sqlite");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let copied = Connection::open_with_flags(path, flags)
        .and_then(|theirs| theirs.execute("VACUUM INTO ?", [copy.display().to_string()]));
    copied.map_err(|error| HistoryError::Sql { path: shown(), error })?;
    match History::open(&copy) {
        Ok(history) => Ok((history, directory)),
        // It is about theirs.
        Err(HistoryError::Newer { found, .. }) => Err(HistoryError::Newer { path: shown(), found }),
        Err(HistoryError::Foreign { .. }) => Err(HistoryError::Foreign { path: shown() }),
        Err(error) => Err(error),
    }
}
