//! The SQLite file of a history. It is derived from records and can be rebuilt from those that
//! still exist; it is the only copy of runs whose records were collected.

mod read;
mod rows;
mod write;

use dmarig_records::state_directory;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rusqlite_migration::{M, Migrations};

pub(crate) use self::{
    read::{sample, series_key},
    rows::ImportState,
};
pub use self::{
    rows::{CellVisit, Outcomes, Point, RunRow, SeriesFilter, SeriesRow, Summary},
    write::InsertOutcome,
};
use crate::error::HistoryError;

/// Version of the file's layout: the number of migrations.
pub const HISTORY_SCHEMA: u32 = MIGRATIONS.len() as u32;

const MIGRATIONS: &[M<'_>] = &[
    M::up(include_str!("store/schema/v1.sql")),
    M::up(include_str!("store/schema/v2.sql")),
    M::up(include_str!("store/schema/v3.sql")),
    M::up(include_str!("store/schema/v4.sql")),
];

/// Marks an SQLite file as a history of dmarig: `dmar` in ASCII.
const APPLICATION_ID: i32 = 0x646d_6172;

/// Longest wait for another process that holds a lock on the file.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for the migration of another process.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Default file of the history: `$XDG_STATE_HOME/dmarig/history.sqlite` or
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
    /// Opens a history for reading and writing, and creates it if it does not exist. A file of an
    /// older version is migrated.
    ///
    /// # Errors
    /// [`HistoryError`]
    pub fn create(path: &Path) -> Result<Self, HistoryError> {
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory).map_err(HistoryError::io(path))?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Self::connect(path, flags)
    }

    /// Opens an existing history for reading and writing. A file of an older version is migrated.
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
        let connection =
            Connection::open_with_flags(path, flags).map_err(HistoryError::sql(path))?;
        let mut history = Self { connection, path: path.to_owned() };
        history.identify()?;
        history.configure_with_retries().map_err(HistoryError::sql(path))?;
        history.migrate()?;
        history.read_events()?;
        Ok(history)
    }

    /// Migrates the file to the current layout. If another process migrates it at the same time,
    /// this one fails, retries, and finds fewer migrations to do, or none.
    fn migrate(&mut self) -> Result<(), HistoryError> {
        let began = Instant::now();
        loop {
            let migrated = Migrations::from_slice(MIGRATIONS).to_latest(&mut self.connection);
            let Err(error) = migrated else { return Ok(()) };
            if began.elapsed() > MIGRATION_TIMEOUT {
                let path = self.path.display().to_string();
                return Err(HistoryError::Migration { path, error });
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
    }

    /// Calls [`Self::configure`] until no other process is in the way. SQLite waits for locks
    /// itself, except while it changes a journal to a WAL.
    fn configure_with_retries(&self) -> rusqlite::Result<()> {
        let began = Instant::now();
        loop {
            match self.configure() {
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                        && began.elapsed() < LOCK_TIMEOUT =>
                {
                    std::thread::sleep(RETRY_INTERVAL);
                }
                result => return result,
            }
        }
    }

    /// Rejects files of other programs and of newer versions before anything is written.
    fn identify(&self) -> Result<(), HistoryError> {
        let pragma = |name: &str| {
            let value = self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            value.map_err(HistoryError::sql(&self.path))
        };
        let path = self.path.display().to_string();
        self.connection.busy_timeout(LOCK_TIMEOUT).map_err(HistoryError::sql(&self.path))?;
        let tables = self
            .connection
            .query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get::<_, i64>(0));
        let tables = tables.map_err(HistoryError::sql(&self.path))?;
        if tables > 0 && pragma("application_id")? != i64::from(APPLICATION_ID) {
            return Err(HistoryError::Foreign { path });
        }
        let found = pragma("user_version")?;
        if found > i64::from(HISTORY_SCHEMA) {
            return Err(HistoryError::Newer { path, found });
        }
        Ok(())
    }

    /// Sets the connection up so that committed data survives a kill and a loss of power.
    fn configure(&self) -> rusqlite::Result<()> {
        let connection = &self.connection;
        // A process that watches the file reacts to each write, so the mark is written only once.
        let mark = connection.pragma_query_value(None, "application_id", |row| row.get(0));
        if mark != Ok(APPLICATION_ID) {
            connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // 64 MiB, enough for the pages that one night's points are written to.
        connection.pragma_update(None, "cache_size", -65_536)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(())
    }

    pub(crate) fn unknown(&self, what: &'static str, name: &str) -> HistoryError {
        let (path, name) = (self.path.display().to_string(), dmarig_model::text::shown(name));
        HistoryError::Unknown { path, what, name }
    }
}
