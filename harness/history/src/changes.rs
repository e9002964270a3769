//! Change points of series. They are computed from points alone, and cached until the points
//! change.

use dmarig_stats::change_points::Search;
use rusqlite::params;
use serde::Serialize;

use crate::{error::HistoryError, store::History};

/// Number of series that are searched in one transaction. A killed search continues after the last
/// one.
const BATCH: usize = 64;

/// A change point of a series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChangeRow {
    /// The first run after the change.
    pub run: String,
    /// The last run before the change.
    pub before_run: String,
    /// Index of `run` among the series' points.
    pub at: usize,
    /// Permutation p-value.
    pub p: f64,
    /// Median of the points between the previous change, or the start, and this one.
    pub before: f64,
    /// Median of the points between this change and the next one, or the end.
    pub after: f64,
}

impl History {
    /// Searches each series with new points for changes, and returns the number of such series.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn search_changes(&mut self) -> Result<usize, HistoryError> {
        let sql = "SELECT series FROM series WHERE series NOT IN (SELECT series FROM searched)";
        let stale: Vec<i64> = self.rows(sql, (), |row| row.get(0))?;
        for batch in stale.chunks(BATCH) {
            self.change(|transaction| {
                for series in batch {
                    search(transaction, *series)?;
                }
                Ok(())
            })?;
        }
        Ok(stale.len())
    }

    /// The changes of a series that the last search found, oldest first.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn changes(&self, series: &str) -> Result<Vec<ChangeRow>, HistoryError> {
        let sql = "SELECT runs.id, earlier.id, p, before, after, (SELECT count(*) \
            FROM points JOIN runs AS others USING (run) \
            WHERE points.series = changes.series \
            AND (others.started, others.id) < (runs.started, runs.id)) \
            FROM changes JOIN runs ON runs.run = changes.run \
            JOIN runs AS earlier ON earlier.run = changes.before_run \
            WHERE series = (SELECT series FROM series WHERE id = ?) \
            ORDER BY runs.started, runs.id";
        self.rows(sql, params![series], |row| {
            Ok(ChangeRow {
                run: row.get(0)?,
                before_run: row.get(1)?,
                p: row.get(2)?,
                before: row.get(3)?,
                after: row.get(4)?,
                at: row.get::<_, u32>(5)? as usize,
            })
        })
    }
}

fn search(transaction: &rusqlite::Transaction<'_>, series: i64) -> rusqlite::Result<()> {
    let points: Vec<(i64, f64)> = transaction
        .prepare_cached(
            "SELECT run, value \
             FROM points JOIN runs USING (run) \
             WHERE series = ? \
             ORDER BY started, runs.id",
        )?
        .query_map([series], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    // The search fails for infinite values only, which a history does not contain.
    let changes = Search::default().changes(&values).unwrap_or_default();
    transaction.prepare_cached("DELETE FROM changes WHERE series = ?")?.execute([series])?;
    let mut insert = transaction.prepare_cached(
        "INSERT INTO changes (series, run, before_run, strength, p, before, after) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    for change in changes {
        let (run, before_run) = (points[change.at].0, points[change.at - 1].0);
        let (before, after) = (change.before, change.after);
        insert.execute(params![
            series,
            run,
            before_run,
            change.strength,
            change.p,
            before,
            after
        ])?;
    }
    transaction.prepare_cached("INSERT INTO searched (series) VALUES (?)")?.execute([series])?;
    Ok(())
}
