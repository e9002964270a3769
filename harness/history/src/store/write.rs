//! Inserting and replacing of runs.

use dmarig_digest::short_id;
use dmarig_model::observation::Outcome;
use dmarig_records::{Build, Environment};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::Serialize;

use super::{History, HistoryError};
use crate::entry::{CellEntry, CellKey, CheckTallies, PointEntry, RunEntry, SeriesKey};

/// The effect of inserting a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertOutcome {
    /// The run is new.
    Added,
    /// The run replaced an entry with the same id and a lower rank.
    Replaced,
    /// The history has the run already, or an entry with the same id and a higher rank.
    Unchanged,
}

impl History {
    /// Inserts runs in one transaction; when this returns, they are on the disk. If two have the
    /// same id, the higher rank wins: a newer derivation, then more cells, then a greater hash. So
    /// the order of insertion does not matter.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]; then no run was inserted.
    pub fn insert_runs<'a>(
        &mut self,
        runs: impl IntoIterator<Item = &'a RunEntry>,
    ) -> Result<Vec<InsertOutcome>, HistoryError> {
        self.insert_or_replace(runs, false)
    }

    /// Inserts runs as [`Self::insert_runs`]; with `replace`, they replace entries of a higher
    /// rank, too.
    pub(crate) fn insert_or_replace<'a>(
        &mut self,
        runs: impl IntoIterator<Item = &'a RunEntry>,
        replace: bool,
    ) -> Result<Vec<InsertOutcome>, HistoryError> {
        self.change(|transaction| {
            let insert = |run| insert(transaction, run, replace);
            runs.into_iter().map(insert).collect::<rusqlite::Result<_>>()
        })
    }

    /// Runs `act` in one transaction.
    pub(crate) fn change<T>(
        &mut self,
        act: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, HistoryError> {
        let transact = || {
            // Immediate: a transaction that reads first could not write any more after another
            // process has.
            let behavior = TransactionBehavior::Immediate;
            let transaction = self.connection.transaction_with_behavior(behavior)?;
            let result = act(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        transact().map_err(HistoryError::sql(&self.path))
    }
}

fn insert(
    transaction: &Transaction<'_>,
    run: &RunEntry,
    replace: bool,
) -> rusqlite::Result<InsertOutcome> {
    let digest = digest(run);
    let rank = (i64::from(run.derivation), run.cells.len() as i64, digest);
    let known = transaction
        .prepare_cached("SELECT run, derivation, cells, digest FROM runs WHERE id = ?")?
        .query_row([&run.id], |row| {
            Ok((row.get::<_, i64>(0)?, (row.get(1)?, row.get(2)?, row.get::<_, String>(3)?)))
        })
        .optional()?;
    let outcome = match known {
        Some((_, stored)) if stored == rank || stored > rank && !replace => {
            return Ok(InsertOutcome::Unchanged);
        }
        Some((number, _)) => {
            remove(transaction, number)?;
            InsertOutcome::Replaced
        }
        None => InsertOutcome::Added,
    };
    let number = insert_run(transaction, run, &rank.2)?;
    for cell in &run.cells {
        insert_cell(transaction, number, cell)?;
    }
    for point in &run.points {
        insert_point(transaction, number, run, point)?;
    }
    Ok(outcome)
}

/// A hash of an entry.
fn digest(run: &RunEntry) -> String {
    short_id([json(run).as_str()], 32)
}

/// A value as JSON. It never fails: the values here are names and finite numbers.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Removes a run, and all rows that only it used, so that a history does not depend on what it once
/// had.
fn remove(transaction: &Transaction<'_>, run: i64) -> rusqlite::Result<()> {
    for statement in [
        "DELETE FROM changes WHERE series IN (SELECT series FROM points WHERE run = ?1)",
        "DELETE FROM searched WHERE series IN (SELECT series FROM points WHERE run = ?1)",
        "DELETE \
         FROM samples \
         WHERE run = ?1 AND series IN (SELECT series \
         FROM points \
         WHERE run = ?1)",
        "DELETE FROM points WHERE run = ?1",
        "DELETE FROM cells WHERE run = ?1",
        "DELETE FROM runs WHERE run = ?1",
    ] {
        transaction.prepare_cached(statement)?.execute([run])?;
    }
    for statement in [
        "DELETE \
         FROM series \
         WHERE NOT EXISTS (SELECT 1 \
         FROM points \
         WHERE points.series = series.series)",
        "DELETE \
         FROM places \
         WHERE NOT EXISTS (SELECT 1 \
         FROM cells \
         WHERE cells.place = places.place)",
        "DELETE FROM environments WHERE environment NOT IN (SELECT environment FROM cells)",
        "DELETE FROM builds WHERE build NOT IN (SELECT build FROM cells)",
        "DELETE \
         FROM judgements \
         WHERE judgement NOT IN (SELECT judgement \
         FROM cells \
         WHERE judgement IS NOT NULL)",
    ] {
        transaction.execute(statement, ())?;
    }
    Ok(())
}

fn insert_run(connection: &Connection, run: &RunEntry, digest: &str) -> rusqlite::Result<i64> {
    connection
        .prepare_cached(
            "INSERT INTO runs (id, started, dmarig, command, host, rules, reference, synthetic, \
             planned, derivation, cells, record_bytes, digest) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .insert(params![
            run.id,
            run.started,
            run.dmarig,
            json(&run.command),
            json(&run.host),
            run.rules,
            run.reference,
            run.synthetic,
            run.planned,
            run.derivation,
            run.cells.len() as i64,
            i64::try_from(run.record_bytes).unwrap_or(i64::MAX),
            digest,
        ])
}

fn insert_cell(connection: &Connection, run: i64, cell: &CellEntry) -> rusqlite::Result<()> {
    let place = place(connection, &cell.place)?;
    let environment = environment(connection, &cell.environment)?;
    let build = build(connection, &cell.build)?;
    let judgement = cell.judged.as_ref().map(|judged| judgement(connection, judged)).transpose()?;
    connection
        .prepare_cached(
            "INSERT INTO cells (run, number, place, environment, build, id, outcome, reasons, \
             checks, release, group_type, warning, duration_us, judgement) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            run,
            cell.number,
            place,
            environment,
            build,
            cell.id,
            outcome_name(cell.outcome),
            json(&cell.reasons),
            json(&cell.checks),
            cell.release,
            cell.group_type,
            cell.warning,
            i64::try_from(cell.duration_us).unwrap_or(i64::MAX),
            judgement,
        ])?;
    Ok(())
}

fn insert_point(
    connection: &Connection,
    run: i64,
    entry: &RunEntry,
    point: &PointEntry,
) -> rusqlite::Result<()> {
    let series = series(connection, entry, point)?;
    connection
        .prepare_cached("INSERT INTO points (series, run, cell, value) VALUES (?, ?, ?, ?)")?
        .execute(params![series, run, point.cell, point.value])?;
    connection.prepare_cached("DELETE FROM searched WHERE series = ?")?.execute([series])?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO samples (series, run, cell, window, pair, value) VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    for sample in &point.samples {
        let cell = sample.cell;
        insert.execute(params![series, run, cell, sample.window, sample.pair, sample.value])?;
    }
    Ok(())
}

fn series(connection: &Connection, entry: &RunEntry, point: &PointEntry) -> rusqlite::Result<i64> {
    let key: &SeriesKey = &point.series;
    let id = key.id();
    let known = connection
        .prepare_cached("SELECT series FROM series WHERE id = ?")?
        .query_row([&id], |row| row.get(0))
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    let place = place(connection, &key.place)?;
    let environment = match entry.cells.get(point.cell as usize) {
        Some(cell) => environment(connection, &cell.environment)?,
        None => return Err(rusqlite::Error::InvalidParameterName(key.to_string())),
    };
    connection
        .prepare_cached(
            "INSERT INTO series (id, place, metric, unit, reference, environment) \
             VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .insert(params![id, place, key.metric, key.unit, key.reference, environment])
}

fn place(connection: &Connection, place: &CellKey) -> rusqlite::Result<i64> {
    let words = params![place.case, place.variant, place.kernel];
    let known = connection
        .prepare_cached(
            "SELECT place FROM places WHERE case_name = ? AND variant = ? AND kernel = ?",
        )?
        .query_row(words, |row| row.get(0))
        .optional()?;
    match known {
        Some(known) => Ok(known),
        None => connection
            .prepare_cached("INSERT INTO places (case_name, variant, kernel) VALUES (?, ?, ?)")?
            .insert(words),
    }
}

fn environment(connection: &Connection, environment: &Environment) -> rusqlite::Result<i64> {
    let fingerprint = environment.fingerprint();
    let known = connection
        .prepare_cached("SELECT environment FROM environments WHERE fingerprint = ?")?
        .query_row([&fingerprint], |row| row.get(0))
        .optional()?;
    match known {
        Some(known) => Ok(known),
        None => connection
            .prepare_cached("INSERT INTO environments (fingerprint, facts) VALUES (?, ?)")?
            .insert(params![fingerprint, json(environment)]),
    }
}

fn build(connection: &Connection, build: &Build) -> rusqlite::Result<i64> {
    let identity = build.identity();
    let known = connection
        .prepare_cached("SELECT build FROM builds WHERE identity = ?")?
        .query_row([&identity], |row| row.get(0))
        .optional()?;
    match known {
        Some(known) => Ok(known),
        None => connection
            .prepare_cached("INSERT INTO builds (identity, facts) VALUES (?, ?)")?
            .insert(params![identity, json(build)]),
    }
}

fn judgement(connection: &Connection, judged: &CheckTallies) -> rusqlite::Result<i64> {
    let checks = json(judged);
    let known = connection
        .prepare_cached("SELECT judgement FROM judgements WHERE checks = ?")?
        .query_row([&checks], |row| row.get(0))
        .optional()?;
    match known {
        Some(known) => Ok(known),
        None => connection
            .prepare_cached("INSERT INTO judgements (checks) VALUES (?)")?
            .insert([checks]),
    }
}

/// Name of an outcome in the file.
pub(super) const fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
        Outcome::TimedOut => "timed-out",
        Outcome::Errored => "errored",
    }
}
