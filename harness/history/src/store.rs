//! The history as an SQLite file: derived from records, so that it can be made again as far as they are
//! there. Of runs whose records were collected it is the only copy.

mod read;
mod rows;
mod write;

use dmarig_records::state_directory;
use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rusqlite_migration::{M, Migrations};

pub(crate) use self::{read::key, rows::Known};
pub use self::{
    rows::{CellVisit, Outcomes, Point, RunRow, SeriesFilter, SeriesRow, Summary},
    write::InsertOutcome,
};

/// Version of the file's layout; each migration below makes one of it.
pub const HISTORY_SCHEMA: u32 = MIGRATIONS.len() as u32;

const MIGRATIONS: &[M<'_>] = &[
    M::up(include_str!("store/schema/v1.sql")),
    M::up(include_str!("store/schema/v2.sql")),
    M::up(include_str!("store/schema/v3.sql")),
    M::up(include_str!("store/schema/v4.sql")),
];

/// Marks the file as a history of ours: `dmar` in ASCII.
const APPLICATION_ID: i32 = 0x646d_6172;

/// How long another process may hold the file before this one gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long another process' migration may be in the way of this one's.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(5);

/// How long it is until one looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Why a history can't be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is none.
    #[error(
        "there is no history at {path}: `dmarig history add` makes it from the records of runs"
    )]
    Missing {
        /// Where it was looked for.
        path: String,
    },
    /// It can't be made, or something beside it can't be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// The system's words.
        error: io::Error,
    },
    /// Written by a newer dmarig.
    #[error(
        "{path} has history version {found}, this dmarig knows those up to {HISTORY_SCHEMA}: use a newer \
         dmarig, or name another file with --history"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its version.
        found: i64,
    },
    /// A database of something else.
    #[error("{path} is not a history of dmarig's: name another file with --history")]
    Foreign {
        /// The file.
        path: String,
    },
    /// SQLite can't do it.
    #[error("history {path}: {error}{}", rebuild_hint(.error))]
    Sql {
        /// The file.
        path: String,
        /// SQLite's words.
        error: rusqlite::Error,
    },
    /// The layout can't be brought up to date.
    #[error("history {path} can't be brought to version {HISTORY_SCHEMA}: {error}")]
    Migration {
        /// The file.
        path: String,
        /// What went wrong.
        error: rusqlite_migration::Error,
    },
    /// There is none of that name in it.
    #[error("there is no {what} `{name}` in the history {path}")]
    Unknown {
        /// The file.
        path: String,
        /// What was asked for: a run, a series, an alert.
        what: &'static str,
        /// Its name.
        name: String,
    },
}

fn rebuild_hint(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "; move it away, and `dmarig history add` makes it anew from the records that are there: runs whose \
             records `dmarig history gc` has removed were in this file alone, so keep it, restore a copy of \
             it, or save with `sqlite3 FILE .recover` what can still be read of it"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "; another dmarig writes to it, try again"
        }
        _ => "",
    }
}

/// Where the history is kept: `$XDG_STATE_HOME/dmarig/history.sqlite` or
/// `~/.local/state/dmarig/history.sqlite`.
#[must_use]
pub fn history_file() -> Option<PathBuf> {
    Some(state_directory()?.join("history.sqlite"))
}

/// An open history.
#[derive(Debug)]
pub struct History {
    connection: Connection,
    path: PathBuf,
}

impl History {
    /// Opens a history to read and to write, and makes it where there is none. One of an older version
    /// is brought up to date.
    ///
    /// # Errors
    /// [`HistoryError`]
    pub fn create(path: &Path) -> Result<Self, HistoryError> {
        let failed = |error| HistoryError::Io { path: path.display().to_string(), error };
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::connect(path, flags)
    }

    /// Opens a history that is there. One of an older version is brought up to date.
    ///
    /// # Errors
    /// [`HistoryError`]
    pub fn open(path: &Path) -> Result<Self, HistoryError> {
        if !path.exists() {
            return Err(HistoryError::Missing { path: path.display().to_string() });
        }
        Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self, HistoryError> {
        let sql = |error| HistoryError::Sql { path: path.display().to_string(), error };
        let connection = Connection::open_with_flags(path, flags).map_err(sql)?;
        let mut history = Self { connection, path: path.to_owned() };
        history.identify()?;
        history.settle_patiently().map_err(sql)?;
        history.migrate()?;
        history.read_events()?;
        Ok(history)
    }

    /// Brings the layout up to date. Another process may do so in the same moment: whoever comes second
    /// fails somewhere in between, looks again, and finds less to do, or nothing.
    fn migrate(&mut self) -> Result<(), HistoryError> {
        let began = Instant::now();
        loop {
            let migrated = Migrations::from_slice(MIGRATIONS).to_latest(&mut self.connection);
            let Err(error) = migrated else { return Ok(()) };
            if began.elapsed() > MIGRATION_PATIENCE {
                let path = self.path.display().to_string();
                return Err(HistoryError::Migration { path, error });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// As [`Self::settle`], but waits for others. SQLite itself waits for locks everywhere but where a
    /// file's journal becomes a WAL.
    fn settle_patiently(&self) -> rusqlite::Result<()> {
        let began = Instant::now();
        loop {
            match self.settle() {
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                        && began.elapsed() < PATIENCE =>
                {
                    std::thread::sleep(LOOK_AGAIN);
                }
                settled => return settled,
            }
        }
    }

    /// Refuses what is no history of ours, or of a version that is not known, before anything is
    /// written.
    fn identify(&self) -> Result<(), HistoryError> {
        let path = || self.path.display().to_string();
        let pragma = |name: &str| {
            let value = self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            value.map_err(|error| self.sql(error))
        };
        self.connection.busy_timeout(PATIENCE).map_err(|error| self.sql(error))?;
        let tables = self
            .connection
            .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get::<_, i64>(0));
        let tables = tables.map_err(|error| self.sql(error))?;
        if tables > 0 && pragma("application_id")? != i64::from(APPLICATION_ID) {
            return Err(HistoryError::Foreign { path: path() });
        }
        match pragma("user_version")? {
            found if found > i64::from(HISTORY_SCHEMA) => {
                Err(HistoryError::Newer { path: path(), found })
            }
            _ => Ok(()),
        }
    }

    /// What was acknowledged is on the disk, whoever is killed and whatever loses its power.
    fn settle(&self) -> rusqlite::Result<()> {
        let connection = &self.connection;
        // Whoever watches the file takes a write for news, so it is marked once.
        let marked = connection.pragma_query_value(None, "application_id", |row| row.get(0));
        if marked != Ok(APPLICATION_ID) {
            connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // 64 MiB: the pages that the points of one night go to.
        connection.pragma_update(None, "cache_size", -65_536)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(())
    }

    fn sql(&self, error: rusqlite::Error) -> HistoryError {
        HistoryError::Sql { path: self.path.display().to_string(), error }
    }

    pub(crate) fn unknown(&self, what: &'static str, name: &str) -> HistoryError {
        let (path, name) = (self.path.display().to_string(), dmarig_model::text::shown(name));
        HistoryError::Unknown { path, what, name }
    }
}
