//! Events: the states that people give to alerts. They can't be derived from records, so they are
//! also kept in an append-only file next to the history.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use rusqlite::params;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::{error::HistoryError, store::History};

/// Version of [`AlertEvent`].
pub const EVENT_SCHEMA: u32 = 1;

/// The triage state of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertState {
    /// Not triaged.
    New,
    /// Confirmed as a change of the kernel.
    Confirmed,
    /// Noise, or a fault of a machine.
    Invalid,
    /// No longer present.
    Fixed,
}

impl AlertState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::New, Self::Confirmed, Self::Invalid, Self::Fixed];

    /// Name of the state.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Confirmed => "confirmed",
            Self::Invalid => "invalid",
            Self::Fixed => "fixed",
        }
    }
}

/// A triage state that was given to an alert. The latest event of an alert holds; if several have
/// the same time, the one with the greatest id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertEvent {
    /// [`EVENT_SCHEMA`] of the writer.
    pub schema: u32,
    /// A UUID.
    pub id: String,
    /// Microseconds since 1970.
    pub time: i64,
    /// Subject of the alert: the id of a series, or a hash of a cell's key and an environment.
    pub subject: String,
    /// Id of the first bad run when the event was written.
    pub run: String,
    /// The state.
    pub state: AlertState,
    /// The author's note.
    pub note: String,
    /// Name of the author.
    pub author: String,
}

impl History {
    /// Path of the file of events: `history.alerts.jsonl` beside `history.sqlite`.
    #[must_use]
    pub fn events_file(&self) -> PathBuf {
        events_file(self.path())
    }

    /// All events, oldest first.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn events(&self) -> Result<Vec<AlertEvent>, HistoryError> {
        let sql = "SELECT id, time, subject, run, state, note, author \
            FROM alert_events \
            ORDER BY time, id";
        self.rows(sql, (), |row| {
            let word: String = row.get(4)?;
            let state = AlertState::ALL.into_iter().find(|state| state.name() == word);
            Ok(AlertEvent {
                schema: EVENT_SCHEMA,
                id: row.get(0)?,
                time: row.get(1)?,
                subject: row.get(2)?,
                run: row.get(3)?,
                // Only states with a name are ever written.
                state: state.unwrap_or(AlertState::New),
                note: row.get(5)?,
                author: row.get(6)?,
            })
        })
    }

    /// Adds the events that the history does not have. When this returns, they are on the disk.
    ///
    /// # Errors
    /// [`HistoryError`]
    pub fn add_events(&mut self, events: &[AlertEvent]) -> Result<(), HistoryError> {
        let path = self.events_file();
        append(&path, events)?;
        self.insert_events(events)
    }

    /// Inserts the events of the file that the table does not have.
    pub(crate) fn read_events(&mut self) -> Result<(), HistoryError> {
        let events = read(&self.events_file())?;
        let known: BTreeSet<String> =
            self.rows("SELECT id FROM alert_events", (), |row| row.get(0))?.into_iter().collect();
        let new: Vec<AlertEvent> =
            events.into_iter().filter(|event| !known.contains(&event.id)).collect();
        if new.is_empty() { Ok(()) } else { self.insert_events(&new) }
    }

    fn insert_events(&mut self, events: &[AlertEvent]) -> Result<(), HistoryError> {
        self.change(|transaction| {
            let mut insert = transaction.prepare_cached(
                "INSERT OR IGNORE INTO alert_events (id, time, subject, run, state, note, author) \
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )?;
            for event in events {
                let AlertEvent { id, time, subject, run, state, note, author, .. } = event;
                insert.execute(params![id, time, subject, run, state.name(), note, author])?;
            }
            Ok(())
        })
    }
}

/// A UUID (version 4).
pub(crate) fn uuid() -> io::Result<String> {
    let mut random = [0u8; 16];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(uuid::Builder::from_random_bytes(random).into_uuid().to_string())
}

pub(crate) fn events_file(history: &Path) -> PathBuf {
    history.with_extension("alerts.jsonl")
}

/// The events of a file; none if it does not exist. A truncated line is skipped.
pub(crate) fn read(path: &Path) -> Result<Vec<AlertEvent>, HistoryError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes.map_err(HistoryError::io(path))?,
    };
    parse(&bytes, path)
}

#[derive(Deserialize)]
struct EventVersion {
    schema: u32,
}

fn parse(bytes: &[u8], path: &Path) -> Result<Vec<AlertEvent>, HistoryError> {
    let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let lines = bytes[..complete].split_inclusive(|byte| *byte == b'\n');
    let mut events = Vec::new();
    for (index, text) in lines.enumerate() {
        // A line that a killed writer truncated, and the next writer terminated.
        let Ok(EventVersion { schema }) = serde_json::from_slice(text) else { continue };
        let (path, line) = (path.display().to_string(), index + 1);
        if schema > EVENT_SCHEMA {
            return Err(HistoryError::NewerEvent { path, line, found: schema });
        }
        match serde_json::from_slice(text) {
            Ok(event) => events.push(event),
            Err(error) => return Err(HistoryError::DamagedEvent { path, line, error }),
        }
    }
    Ok(events)
}

/// Appends the events that the file does not have in one write, and syncs it.
fn append(path: &Path, events: &[AlertEvent]) -> Result<(), HistoryError> {
    let io = || HistoryError::io(path);
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io())?;
    // Without the lock, two writers could both add an event that neither has read from the other.
    flock(&file, FlockOperation::LockExclusive).map_err(|error| io()(error.into()))?;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(io())?;
    file.read_to_end(&mut bytes).map_err(io())?;
    let known = parse(&bytes, path)?;
    let mut known: BTreeSet<&str> = known.iter().map(|event| event.id.as_str()).collect();
    let mut text = Vec::new();
    if bytes.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    for event in events.iter().filter(|event| known.insert(&event.id)) {
        serde_json::to_writer(&mut text, event).map_err(|error| io()(error.into()))?;
        text.push(b'\n');
    }
    write_and_sync(&mut file, &text, path).map_err(io())
}

fn write_and_sync(file: &mut File, text: &[u8], path: &Path) -> io::Result<()> {
    file.write_all(text)?;
    file.sync_data()?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
