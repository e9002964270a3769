//! What people say of alerts. That is not derived from anything, so it is kept in a file of lines beside
//! the history as well, of which none is ever changed.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use rusqlite::params;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::store::{History, HistoryError};

/// Version of an event's line.
pub const EVENT_SCHEMA: u32 = 1;

/// What somebody thinks of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlertState {
    /// Nobody has said anything.
    New,
    /// It is as it looks.
    Confirmed,
    /// It is not: noise, or a machine's trouble.
    Invalid,
    /// It was, and is over.
    Fixed,
}

impl AlertState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::New, Self::Confirmed, Self::Invalid, Self::Fixed];

    /// Its name.
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

/// Something that was said of an alert. Of several, the one of the latest time holds, and of one time that
/// of the greatest id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertEvent {
    /// [`EVENT_SCHEMA`] of the writer.
    pub schema: u32,
    /// A UUID.
    pub id: String,
    /// Microseconds since 1970.
    pub time: i64,
    /// What the alert is about: a series' id, or a hash of a place and an environment.
    pub subject: String,
    /// Id of the run from which on it was seen.
    pub run: String,
    /// What is thought of it.
    pub state: AlertState,
    /// Why.
    pub note: String,
    /// Who said so.
    pub author: String,
}

impl History {
    /// The file of events: `history.alerts.jsonl` beside `history.sqlite`.
    #[must_use]
    pub fn events_file(&self) -> PathBuf {
        events_file(self.path())
    }

    /// All that was said, in the order of time.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn events(&self) -> Result<Vec<AlertEvent>, HistoryError> {
        let sql = "SELECT id, time, subject, run, state, note, author FROM alert_events ORDER BY time, id";
        self.rows(sql, (), |row| {
            let word: String = row.get(4)?;
            let state = AlertState::ALL.into_iter().find(|state| state.name() == word);
            Ok(AlertEvent {
                schema: EVENT_SCHEMA,
                id: row.get(0)?,
                time: row.get(1)?,
                subject: row.get(2)?,
                run: row.get(3)?,
                // Written by this very program.
                state: state.unwrap_or(AlertState::New),
                note: row.get(5)?,
                author: row.get(6)?,
            })
        })
    }

    /// Takes events over, those that are there already but once. When this returns, they are on the disk.
    ///
    /// # Errors
    /// [`HistoryError`]
    pub fn add_events(&mut self, events: &[AlertEvent]) -> Result<(), HistoryError> {
        let path = self.events_file();
        append(&path, events).map_err(|error| io_error(&path, error))?;
        self.insert_events(events)
    }

    /// Brings the table up to what the file has.
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

/// The events of a file; none where there is no such file. A line that was cut short is none.
pub(crate) fn read(path: &Path) -> Result<Vec<AlertEvent>, HistoryError> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        bytes => bytes.map_err(|error| io_error(path, error))?,
    };
    parse(&bytes).map_err(|(line, error)| {
        let error = format!("line {line}: {error}; mend or remove that line");
        io_error(path, io::Error::new(io::ErrorKind::InvalidData, error))
    })
}

#[derive(Deserialize)]
struct JustSchema {
    schema: u32,
}

fn parse(bytes: &[u8]) -> Result<Vec<AlertEvent>, (usize, String)> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    let lines = bytes[..whole].split_inclusive(|byte| *byte == b'\n');
    let mut events = Vec::new();
    for (at, line) in lines.enumerate() {
        // Half a line of a writer that was killed, which the next one has ended.
        let Ok(JustSchema { schema }) = serde_json::from_slice(line) else { continue };
        if schema > EVENT_SCHEMA {
            return Err((at + 1, format!("event version {schema}: use a newer dmarig")));
        }
        events.push(serde_json::from_slice(line).map_err(|error| (at + 1, error.to_string()))?);
    }
    Ok(events)
}

/// Appends the events that the file has not, each in one write, and syncs it.
fn append(path: &Path, events: &[AlertEvent]) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    // Two that append at once must not both add what neither has seen of the other.
    flock(&file, FlockOperation::LockExclusive)?;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    let known =
        parse(&bytes).map_err(|(line, error)| io::Error::other(format!("line {line}: {error}")))?;
    let mut known: BTreeSet<&str> = known.iter().map(|event| event.id.as_str()).collect();
    let mut text = Vec::new();
    if bytes.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    for event in events.iter().filter(|event| known.insert(&event.id)) {
        serde_json::to_writer(&mut text, event)?;
        text.push(b'\n');
    }
    file.write_all(&text)?;
    file.sync_data()?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all())
}

fn io_error(path: &Path, error: io::Error) -> HistoryError {
    HistoryError::Io { path: path.display().to_string(), error }
}
