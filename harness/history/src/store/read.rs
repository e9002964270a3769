//! Queries.

use dmarig_digest::short_id;
use dmarig_records::{EarlyEnd, Environment};
use std::collections::BTreeMap;

use dmarig_model::observation::Outcome;
use rusqlite::{OptionalExtension, Row, ToSql, params, types::Type};
use serde::de::DeserializeOwned;

use super::{
    History, HistoryError,
    rows::{CellVisit, ImportState, Outcomes, Point, RunRow, SeriesFilter, SeriesRow, Summary},
    write::outcome_name,
};
use crate::entry::{CellEntry, CellKey, Sample, SeriesKey};

const RUN: &str = "SELECT run, id, started, dmarig, command, host, rules, reference, synthetic, \
    planned \
    FROM runs";

const SERIES: &str = "SELECT series.id, case_name, variant, kernel, metric, unit, \
    series.reference, fingerprint, count(points.run), max(runs.started) \
    FROM series JOIN places USING (place) JOIN environments USING (environment) \
    JOIN points USING (series) JOIN runs ON runs.run = points.run";

impl History {
    /// Counts all that the history contains.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn summary(&self) -> Result<Summary, HistoryError> {
        let count = |what: &str| {
            let sql = format!("SELECT count(*) FROM {what}");
            let count = self.connection.query_row(&sql, (), |row| row.get::<_, i64>(0));
            count.map(|count| count.unsigned_abs()).map_err(HistoryError::sql(&self.path))
        };
        Ok(Summary {
            schema: super::HISTORY_SCHEMA,
            runs: count("runs")?,
            synthetic: count("runs WHERE synthetic")?,
            cells: count("cells")?,
            series: count("series")?,
            points: count("points")?,
            samples: count("samples")?,
        })
    }

    /// Whether the history contains a synthetic run. Then every page and table must say so.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn is_synthetic(&self) -> Result<bool, HistoryError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM runs WHERE synthetic)";
        self.connection.query_row(sql, (), |row| row.get(0)).map_err(HistoryError::sql(&self.path))
    }

    /// A hash of all imported runs and events. While it stays the same, everything derived from the
    /// history stays the same. Cached results, such as change points, are not part of it.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn revision(&self) -> Result<String, HistoryError> {
        let sql =
            "SELECT id, digest FROM runs UNION ALL SELECT id, '' FROM alert_events ORDER BY 1, 2";
        let rows = self.rows(sql, (), |row| Ok([row.get(0)?, row.get::<_, String>(1)?]))?;
        Ok(short_id(rows.iter().flatten().map(String::as_str), 32))
    }

    /// The newest runs, newest first; all if there is no limit.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn runs(&self, limit: Option<u32>) -> Result<Vec<RunRow>, HistoryError> {
        let sql = format!("{RUN} ORDER BY started DESC, id DESC LIMIT ?");
        let rows = self.rows(&sql, params![limit.map_or(-1, i64::from)], run_row)?;
        let mut outcomes = self.outcomes(None)?;
        Ok(rows.into_iter().map(|row| with_outcomes(row, &mut outcomes)).collect())
    }

    /// The run with this id.
    ///
    /// # Errors
    /// [`HistoryError::Unknown`], [`HistoryError::Sql`]
    pub fn run(&self, id: &str) -> Result<RunRow, HistoryError> {
        let rows = self.rows(&format!("{RUN} WHERE id = ?"), params![id], run_row)?;
        let row = rows.into_iter().next().ok_or_else(|| self.unknown("run", id))?;
        let mut outcomes = self.outcomes(Some(row.number))?;
        Ok(with_outcomes(row, &mut outcomes))
    }

    /// Whether the history contains a run.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn has_run(&self, id: &str) -> Result<bool, HistoryError> {
        Ok(self.record_bytes(id)?.is_some())
    }

    /// The imported part of a run's `cells.jsonl`, in bytes; `None` if the run is not in the
    /// history.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn record_bytes(&self, id: &str) -> Result<Option<u64>, HistoryError> {
        let sql = "SELECT record_bytes FROM runs WHERE id = ?";
        let bytes = self.connection.query_row(sql, [id], |row| row.get::<_, i64>(0)).optional();
        bytes.map(|bytes| bytes.map(i64::unsigned_abs)).map_err(HistoryError::sql(&self.path))
    }

    /// The state of a run's import; `None` if the run is not in the history.
    pub(crate) fn import_state(&self, id: &str) -> Result<Option<ImportState>, HistoryError> {
        let sql = "SELECT record_bytes, derivation, reference FROM runs WHERE id = ?";
        let states = self.rows(sql, params![id], |row| {
            let bytes = row.get::<_, i64>(0)?.unsigned_abs();
            Ok(ImportState { bytes, derivation: row.get(1)?, reference: row.get(2)? })
        })?;
        Ok(states.into_iter().next())
    }

    /// The cells of a run, in the order in which they ended.
    ///
    /// # Errors
    /// [`HistoryError::Unknown`], [`HistoryError::Sql`]
    pub fn cells(&self, run: &str) -> Result<Vec<CellEntry>, HistoryError> {
        if !self.has_run(run)? {
            return Err(self.unknown("run", run));
        }
        let sql = "SELECT number, cells.id, case_name, variant, kernel, outcome, reasons, \
            cells.checks, release, group_type, warning, duration_us, environments.facts, \
            builds.facts, judgements.checks \
            FROM cells LEFT JOIN judgements USING (judgement) JOIN places USING (place) \
            JOIN environments USING (environment) JOIN builds USING (build) \
            WHERE run = (SELECT run FROM runs WHERE id = ?) \
            ORDER BY number";
        self.rows(sql, params![run], |row| {
            Ok(CellEntry {
                number: row.get(0)?,
                id: row.get(1)?,
                place: place(row, 2)?,
                outcome: outcome(row, 5)?,
                reasons: json(row, 6)?,
                checks: json(row, 7)?,
                release: row.get(8)?,
                group_type: row.get(9)?,
                warning: row.get(10)?,
                duration_us: row.get::<_, i64>(11)?.unsigned_abs(),
                environment: json(row, 12)?,
                build: json(row, 13)?,
                judged: optional_json(row, 14)?,
            })
        })
    }

    /// The keys of all cells, in order.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn places(&self) -> Result<Vec<CellKey>, HistoryError> {
        let sql =
            "SELECT case_name, variant, kernel FROM places ORDER BY case_name, variant, kernel";
        self.rows(sql, (), |row| place(row, 0))
    }

    /// A cell in each run that has it, oldest first; in the newest runs only if there is a limit.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn visits(
        &self,
        place: &CellKey,
        limit: Option<u32>,
    ) -> Result<Vec<CellVisit>, HistoryError> {
        let sql = "SELECT runs.id, started, number, outcome, checks, fingerprint, builds.facts, \
            release \
            FROM cells JOIN runs USING (run) JOIN places USING (place) \
            JOIN environments USING (environment) JOIN builds USING (build) \
            WHERE case_name = ? AND variant = ? AND kernel = ? \
            ORDER BY started DESC, runs.id DESC, number DESC LIMIT ?";
        let limit = limit.map_or(-1, i64::from);
        let words = params![place.case, place.variant, place.kernel, limit];
        let mut visits = self.rows(sql, words, |row| {
            Ok(CellVisit {
                run: row.get(0)?,
                started: row.get(1)?,
                number: row.get(2)?,
                outcome: outcome(row, 3)?,
                checks: json(row, 4)?,
                environment: row.get(5)?,
                build: json(row, 6)?,
                release: row.get(7)?,
            })
        })?;
        visits.reverse();
        Ok(visits)
    }

    /// All environments, by fingerprint.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn environments(&self) -> Result<BTreeMap<String, Environment>, HistoryError> {
        let sql = "SELECT fingerprint, facts FROM environments";
        let all = self.rows(sql, (), |row| Ok((row.get(0)?, json(row, 1)?)))?;
        Ok(all.into_iter().collect())
    }

    /// The series that match a filter, in the order of their keys.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn series(&self, filter: &SeriesFilter) -> Result<Vec<SeriesRow>, HistoryError> {
        let mut sql = format!("{SERIES} WHERE true");
        let mut words: Vec<&dyn ToSql> = Vec::new();
        for (column, value) in [
            ("case_name", &filter.case),
            ("variant", &filter.variant),
            ("kernel", &filter.kernel),
            ("metric", &filter.metric),
            ("fingerprint", &filter.environment),
        ] {
            if let Some(value) = value {
                sql.push_str(&format!(" AND {column} = ?"));
                words.push(value);
            }
        }
        match filter.ratios {
            Some(true) => sql.push_str(" AND series.reference IS NOT NULL"),
            Some(false) => sql.push_str(" AND series.reference IS NULL"),
            None => {}
        }
        sql.push_str(
            " GROUP BY series.series ORDER BY case_name, variant, kernel, metric, unit, \
             series.reference, fingerprint",
        );
        self.rows(&sql, words.as_slice(), series_row)
    }

    /// The series with this id.
    ///
    /// # Errors
    /// [`HistoryError::Unknown`], [`HistoryError::Sql`]
    pub fn series_by_id(&self, id: &str) -> Result<SeriesRow, HistoryError> {
        let sql = format!("{SERIES} WHERE series.id = ? GROUP BY series.series");
        let rows = self.rows(&sql, params![id], series_row)?;
        rows.into_iter().next().ok_or_else(|| self.unknown("series", id))
    }

    /// The points of a series, oldest first.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn points(&self, series: &str) -> Result<Vec<Point>, HistoryError> {
        let sql = "SELECT runs.id, started, points.cell, outcome, value, builds.facts, release, \
            synthetic \
            FROM points JOIN runs ON runs.run = points.run JOIN cells ON cells.run = points.run \
            AND cells.number = points.cell JOIN builds USING (build) \
            WHERE series = (SELECT series FROM series WHERE id = ?) \
            ORDER BY started, runs.id";
        self.rows(sql, params![series], |row| {
            Ok(Point {
                run: row.get(0)?,
                started: row.get(1)?,
                cell: row.get(2)?,
                outcome: outcome(row, 3)?,
                value: row.get(4)?,
                build: json(row, 5)?,
                release: row.get(6)?,
                synthetic: row.get(7)?,
            })
        })
    }

    /// All samples of a series, each with the id of its run, in the order of measurement.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn samples(&self, series: &str) -> Result<Vec<(String, Sample)>, HistoryError> {
        let sql = "SELECT runs.id, cell, window, pair, value \
            FROM samples JOIN runs USING (run) \
            WHERE series = (SELECT series FROM series WHERE id = ?) \
            ORDER BY started, runs.id, cell, window";
        self.rows(sql, params![series], |row| Ok((row.get(0)?, sample(row, 1)?)))
    }

    /// The points of a run: each series with its value, in the order of their keys.
    ///
    /// # Errors
    /// [`HistoryError::Unknown`], [`HistoryError::Sql`]
    pub fn numbers(&self, run: &str) -> Result<Vec<(SeriesKey, f64)>, HistoryError> {
        if !self.has_run(run)? {
            return Err(self.unknown("run", run));
        }
        let sql = "SELECT case_name, variant, kernel, metric, unit, series.reference, \
            fingerprint, value \
            FROM points JOIN series USING (series) JOIN places USING (place) \
            JOIN environments USING (environment) \
            WHERE run = (SELECT run FROM runs WHERE id = ?)";
        let mut all = self.rows(sql, params![run], |row| Ok((series_key(row, 0)?, row.get(7)?)))?;
        all.sort_by(|(a, _), (b, _): &(SeriesKey, f64)| a.cmp(b));
        Ok(all)
    }

    /// Outcomes of cells, by the number of the run in the file.
    fn outcomes(&self, run: Option<i64>) -> Result<BTreeMap<i64, Outcomes>, HistoryError> {
        let only = if run.is_some() { "run = ?" } else { "?1 IS NULL" };
        let sql =
            format!("SELECT run, outcome, count(*) FROM cells WHERE {only} GROUP BY run, outcome");
        let counted = self.rows(&sql, params![run], |row| {
            Ok((row.get::<_, i64>(0)?, outcome(row, 1)?, row.get::<_, i64>(2)?.unsigned_abs()))
        })?;
        let mut all: BTreeMap<i64, Outcomes> = BTreeMap::new();
        for (run, outcome, count) in counted {
            all.entry(run).or_default().insert(outcome, count);
        }
        Ok(all)
    }

    pub(crate) fn rows<T>(
        &self,
        sql: &str,
        words: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, HistoryError> {
        let query = || -> rusqlite::Result<Vec<T>> {
            self.connection.prepare_cached(sql)?.query_map(words, read)?.collect()
        };
        query().map_err(HistoryError::sql(&self.path))
    }
}

/// A row of `runs`, without what is computed from its cells.
struct StoredRunRow {
    number: i64,
    run: RunRow,
    planned: Option<u32>,
}

fn run_row(row: &Row<'_>) -> rusqlite::Result<StoredRunRow> {
    let run = RunRow {
        id: row.get(1)?,
        started: row.get(2)?,
        dmarig: row.get(3)?,
        command: json(row, 4)?,
        host: json(row, 5)?,
        rules: row.get(6)?,
        reference: row.get(7)?,
        synthetic: row.get(8)?,
        outcomes: Outcomes::new(),
        ended_early: None,
    };
    Ok(StoredRunRow { number: row.get(0)?, run, planned: row.get(9)? })
}

/// Adds the outcomes of its cells. A run is imported only after its end, so missing cells did not
/// run.
fn with_outcomes(row: StoredRunRow, outcomes: &mut BTreeMap<i64, Outcomes>) -> RunRow {
    let outcomes = outcomes.remove(&row.number).unwrap_or_default();
    let ended_early = EarlyEnd::new(row.planned, outcomes.values().sum::<u64>());
    RunRow { outcomes, ended_early, ..row.run }
}

fn series_row(row: &Row<'_>) -> rusqlite::Result<SeriesRow> {
    Ok(SeriesRow {
        id: row.get(0)?,
        key: series_key(row, 1)?,
        points: row.get::<_, i64>(8)?.unsigned_abs(),
        last: row.get(9)?,
    })
}

/// Reads a key from seven columns, of which `at` is the first.
pub(crate) fn series_key(row: &Row<'_>, at: usize) -> rusqlite::Result<SeriesKey> {
    Ok(SeriesKey {
        place: place(row, at)?,
        metric: row.get(at + 3)?,
        unit: row.get(at + 4)?,
        reference: row.get(at + 5)?,
        environment: row.get(at + 6)?,
    })
}

fn place(row: &Row<'_>, at: usize) -> rusqlite::Result<CellKey> {
    Ok(CellKey { case: row.get(at)?, variant: row.get(at + 1)?, kernel: row.get(at + 2)? })
}

/// Reads a sample from four columns, of which `at` is the first.
pub(crate) fn sample(row: &Row<'_>, at: usize) -> rusqlite::Result<Sample> {
    Ok(Sample {
        cell: row.get(at)?,
        window: row.get(at + 1)?,
        pair: row.get(at + 2)?,
        value: row.get(at + 3)?,
    })
}

fn outcome(row: &Row<'_>, at: usize) -> rusqlite::Result<Outcome> {
    let word: String = row.get(at)?;
    let all =
        [Outcome::Passed, Outcome::Failed, Outcome::Skipped, Outcome::TimedOut, Outcome::Errored];
    let found = all.into_iter().find(|outcome| outcome_name(*outcome) == word);
    found.ok_or_else(|| {
        let error = format!("invalid outcome `{word}`").into();
        rusqlite::Error::FromSqlConversionFailure(at, Type::Text, error)
    })
}

fn optional_json<T: DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<T>> {
    match row.get_ref(at)?.as_str_or_null()? {
        Some(_) => json(row, at).map(Some),
        None => Ok(None),
    }
}

fn json<T: DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    let text: String = row.get(at)?;
    serde_json::from_str(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, Box::new(error)))
}
