//! The errors of the crate.

use std::{io, path::Path};

use dmarig_records::RecordError;
use rusqlite::ErrorCode;

use crate::store::HISTORY_SCHEMA;

/// Why a history can't be opened, read, written or exported.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file does not exist.
    #[error("there is no history at {path}: `dmarig history add` creates it from recorded runs")]
    Missing {
        /// The file.
        path: String,
    },
    /// The file, or one next to it, can't be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// The error of the system.
        error: io::Error,
    },
    /// A newer version of dmarig wrote the file.
    #[error(
        "{path} has history version {found}, this dmarig reads up to {HISTORY_SCHEMA}: use a newer \
         dmarig, or name another file with --history"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its version.
        found: i64,
    },
    /// The file is the database of another program.
    #[error("{path} is not a history of dmarig's: name another file with --history")]
    Foreign {
        /// The file.
        path: String,
    },
    /// SQLite failed.
    #[error("history {path}: {error}{}", rebuild_hint(.error))]
    Sql {
        /// The file.
        path: String,
        /// SQLite's error.
        error: rusqlite::Error,
    },
    /// The file can't be migrated to the current version.
    #[error("can't migrate the history {path} to version {HISTORY_SCHEMA}: {error}")]
    Migration {
        /// The file.
        path: String,
        /// The error of the migration.
        error: rusqlite_migration::Error,
    },
    /// The history has nothing of this name.
    #[error("there is no {what} `{name}` in the history {path}")]
    Unknown {
        /// The file.
        path: String,
        /// What was requested: a run, a series, an alert.
        what: &'static str,
        /// The requested name.
        name: String,
    },
    /// A newer version of dmarig wrote an event of an alert.
    #[error("{path}: line {line}: event version {found}: use a newer dmarig")]
    NewerEvent {
        /// The file of events.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The version of the event.
        found: u32,
    },
    /// A line in the file of events is not valid.
    #[error("{path}: line {line}: {error}; correct or remove that line")]
    DamagedEvent {
        /// The file of events.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The error of the parser.
        error: serde_json::Error,
    },
    /// A record can't be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The output of an export can't be written.
    #[error("can't write the export: {0}")]
    Export(#[from] io::Error),
    /// The history has no run to export.
    #[error("the history {path} has no run: `dmarig history add` adds recorded runs")]
    Empty {
        /// The file.
        path: String,
    },
}

impl From<csv::Error> for HistoryError {
    fn from(error: csv::Error) -> Self {
        Self::Export(match error.into_kind() {
            csv::ErrorKind::Io(error) => error,
            other => io::Error::other(format!("{other:?}")),
        })
    }
}

impl HistoryError {
    /// Adds the path to an error of the system.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { path: path.display().to_string(), error }
    }

    /// Adds the path to an error of SQLite.
    pub(crate) fn sql(path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        move |error| Self::Sql { path: path.display().to_string(), error }
    }
}

fn rebuild_hint(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "; move it away, and `dmarig history add` makes it anew from the records that are \
             there: runs whose records `dmarig history gc` has removed were in this file alone, so \
             keep it, restore a copy of it, or save with `sqlite3 FILE .recover` what can still be \
             read of it"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "; another dmarig writes to it, try again"
        }
        _ => "",
    }
}
