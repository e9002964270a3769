//! Where series changed. What is found is derived from their points alone, and kept until they change.

use dmarig_stats::change_points::Search;
use rusqlite::params;
use serde::Serialize;

use crate::store::{History, HistoryError};

/// Series that are searched in one transaction: a search that is killed is taken up again.
const BATCH: usize = 64;

/// A change of a series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChangeRow {
    /// The first run of what is new.
    pub run: String,
    /// The last run of what was.
    pub before_run: String,
    /// Index of `run` among the series' points.
    pub at: usize,
    /// Part of shufflings with a change as strong.
    pub p: f64,
    /// Median from the change before, or the start, up to here.
    pub before: f64,
    /// Median from here to the next change, or the end.
    pub after: f64,
}

impl History {
    /// Searches every series that has changed since it was last searched; gives how many there were.
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

    /// The changes of a series, oldest first, as they were last searched for.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn changes(&self, series: &str) -> Result<Vec<ChangeRow>, HistoryError> {
        let sql = "SELECT runs.id, earlier.id, p, before, after, \
             (SELECT count(*) FROM points JOIN runs AS others USING (run) \
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
            "SELECT run, value FROM points JOIN runs USING (run) WHERE series = ? \
             ORDER BY started, runs.id",
        )?
        .query_map([series], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    // Numbers in a history are finite.
    let found = Search::default().changes(&values).unwrap_or_default();
    transaction.prepare_cached("DELETE FROM changes WHERE series = ?")?.execute([series])?;
    let mut insert = transaction.prepare_cached(
        "INSERT INTO changes (series, run, before_run, strength, p, before, after) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    for change in found {
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
