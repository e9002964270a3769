//! Reads the record of one run.

use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use dmarig_model::{
    case::Case,
    observation::{OBSERVATION_SCHEMA, Observation, Verdict},
};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::{
    across::judge_across_cells,
    cell::{Amendment, CellRecord, PairedBoot, RECORD_SCHEMA},
    error::LoadError,
    meta::{self, RunMeta},
    recorder::CELLS,
};

/// Of a run that is over and was to have more cells than it has: killed, or stopped by its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EarlyEnd {
    /// Cells that were to run.
    pub planned: u32,
    /// Those of them of which there is nothing.
    pub not_run: u32,
}

impl EarlyEnd {
    /// Of a run that is over. `None` where all ran, or where it is not known how many were to.
    #[must_use]
    pub fn of(planned: Option<u32>, ran: u64) -> Option<Self> {
        let planned = planned?;
        let not_run = planned.saturating_sub(u32::try_from(ran).unwrap_or(u32::MAX));
        (not_run > 0).then_some(Self { planned, not_run })
    }
}

impl fmt::Display for EarlyEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended early, {} of {} cells did not run", self.not_run, self.planned)
    }
}

/// A run that was read back.
#[derive(Debug, Clone)]
pub struct StoredRun {
    /// What it is.
    pub meta: RunMeta,
    /// Its cells, in the order in which they ended.
    pub cells: Vec<CellRecord>,
    /// Size of all whole lines of `cells.jsonl`.
    pub bytes: u64,
    /// Whether the last line was cut short, as a killed run may leave it.
    pub torn: bool,
    /// Whether more of it may come: its recorder lives.
    pub going_on: bool,
}

/// What tells of a layout, whatever else has changed.
#[derive(Deserialize)]
struct Versions {
    schema: u32,
    observation: Option<ObservationVersion>,
}

#[derive(Deserialize)]
struct ObservationVersion {
    schema: u32,
}

/// Something with its layout's version in it.
trait Versioned: for<'de> Deserialize<'de> {
    fn versions(&self) -> Versions;
}

impl Versioned for RunMeta {
    fn versions(&self) -> Versions {
        Versions { schema: self.schema, observation: None }
    }
}

impl Versioned for Amendment {
    fn versions(&self) -> Versions {
        Versions { schema: self.schema, observation: None }
    }
}

impl Versioned for CellRecord {
    fn versions(&self) -> Versions {
        let observation = ObservationVersion { schema: self.observation.schema };
        Versions { schema: self.schema, observation: Some(observation) }
    }
}

impl Versions {
    /// What of it is newer than what can be read, its version, and the newest that can.
    fn newer(&self) -> Option<(&'static str, u32, u32)> {
        let observation = self.observation.as_ref().map_or(0, |observation| observation.schema);
        let all = [
            ("record", self.schema, RECORD_SCHEMA),
            ("observation", observation, OBSERVATION_SCHEMA),
        ];
        all.into_iter().find(|(_, found, known)| found > known)
    }
}

impl StoredRun {
    /// Reads a run by its directory, its id below `runs`, or `last` for the newest there.
    ///
    /// # Errors
    /// [`LoadError`]
    pub fn load(name: &str, runs: &Path) -> Result<Self, LoadError> {
        Self::read(&find(name, runs)?)
    }

    /// The directory of a run by its directory, its id below `runs`, or `last` for the newest there.
    ///
    /// # Errors
    /// [`LoadError::Unknown`]
    pub fn find(name: &str, runs: &Path) -> Result<PathBuf, LoadError> {
        find(name, runs)
    }

    /// Reads the run of a directory.
    ///
    /// # Errors
    /// [`LoadError`]
    pub fn read(directory: &Path) -> Result<Self, LoadError> {
        let path = directory.join(meta::FILE);
        let meta = parse::<RunMeta>(&read(&path)?, &path, 1)?;
        // Before its cells are read: of what is over, all are there.
        let going_on = RunLock::hold(directory)?.is_none();
        let path = directory.join(CELLS);
        let text = read(&path)?;
        let bytes = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let lines = text[..bytes].split_inclusive(|byte| *byte == b'\n').enumerate();
        let mut run = Self {
            meta,
            cells: Vec::new(),
            bytes: bytes as u64,
            torn: bytes < text.len(),
            going_on,
        };
        for (index, line) in lines {
            match parse_line(line, &path, index + 1)? {
                Line::Cell(cell) => run.cells.push(*cell),
                Line::Amendment(amendment) => run.apply(amendment),
            }
        }
        if run.meta.schema < 2 {
            run.migrate_from_1();
        }
        Ok(run)
    }

    /// Whether its cells are the boots of a comparison.
    #[must_use]
    pub fn compares(&self) -> bool {
        self.cells.iter().any(|record| record.boot.is_some())
    }

    /// The cases as they were recorded. One that this version cannot read is left out.
    #[must_use]
    pub fn cases(&self) -> Vec<Case> {
        let recorded = self.meta.cases.iter();
        recorded.filter_map(|case| Case::parse(&case.file, &case.text).ok()).collect()
    }

    fn apply(&mut self, amendment: Amendment) {
        let amended =
            self.cells.iter_mut().find(|record| record.observation.cell == amendment.amends);
        if let Some(record) = amended {
            record.verdict = amendment.verdict;
        }
    }

    /// Fills in what records of version 1 leave to their readers.
    fn migrate_from_1(&mut self) {
        for record in &mut self.cells {
            record.boot = PairedBoot::from_id(&record.observation.cell);
        }
        let cases = self.cases();
        let mut cells: Vec<(&Observation, &mut Verdict)> = self
            .cells
            .iter_mut()
            .map(|record| (&record.observation, &mut record.verdict))
            .collect();
        judge_across_cells(&cases, &mut cells);
    }

    /// Whether cells that were planned never ran; of a run that is going on, nobody can say.
    #[must_use]
    pub fn ended_early(&self) -> Option<EarlyEnd> {
        EarlyEnd::of(self.meta.planned, self.cells.len() as u64).filter(|_| !self.going_on)
    }
}

/// Directories of runs below `runs`, by name: the oldest comes first.
///
/// # Errors
/// [`LoadError::Io`]; that there is no directory of that name is no error, since it is made by the first
/// run.
pub fn run_directories(runs: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let io = |error| LoadError::Io { path: runs.display().to_string(), error };
    let entries = match fs::read_dir(runs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        if is_run(&path) && !hidden(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether it is the directory of a run.
#[must_use]
pub fn is_run(directory: &Path) -> bool {
    directory.join(meta::FILE).is_file()
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// A hold on a run that is not going on: nobody writes to it, and while this lives nobody takes it away.
#[derive(Debug)]
pub struct RunLock {
    /// Size of its `cells.jsonl`.
    pub bytes: u64,
    _lock: File,
}

impl RunLock {
    /// `None` where the run is going on.
    ///
    /// # Errors
    /// [`LoadError::Io`]
    pub fn hold(directory: &Path) -> Result<Option<Self>, LoadError> {
        let path = directory.join(CELLS);
        let io = |error| LoadError::Io { path: path.display().to_string(), error };
        let lock = File::open(&path).map_err(io)?;
        // Where there are no locks, nobody can say.
        let locked = flock(&lock, FlockOperation::NonBlockingLockShared);
        if locked == Err(rustix::io::Errno::WOULDBLOCK) {
            return Ok(None);
        }
        let bytes = lock.metadata().map_err(io)?.len();
        Ok(Some(Self { bytes, _lock: lock }))
    }
}

fn find(name: &str, runs: &Path) -> Result<PathBuf, LoadError> {
    let unknown = || LoadError::Unknown { name: name.to_owned(), runs: runs.display().to_string() };
    if name == "last" {
        let entries = fs::read_dir(runs).map_err(|_| unknown())?;
        let paths = entries.flatten().map(|entry| entry.path());
        return paths.filter(|path| is_run(path) && !hidden(path)).max().ok_or_else(unknown);
    }
    [PathBuf::from(name), runs.join(name)].into_iter().find(|path| is_run(path)).ok_or_else(unknown)
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    fs::read(path).map_err(|error| LoadError::Io { path: path.display().to_string(), error })
}

/// A line of `cells.jsonl`.
enum Line {
    Cell(Box<CellRecord>),
    Amendment(Amendment),
}

fn parse_line(text: &[u8], path: &Path, number: usize) -> Result<Line, LoadError> {
    /// What tells an amendment from a cell.
    #[derive(Deserialize)]
    struct Kind {
        amends: Option<serde::de::IgnoredAny>,
    }

    match serde_json::from_slice(text) {
        Ok(Kind { amends: Some(_) }) => parse(text, path, number).map(Line::Amendment),
        _ => parse(text, path, number).map(|cell| Line::Cell(Box::new(cell))),
    }
}

fn parse<T: Versioned>(text: &[u8], path: &Path, line: usize) -> Result<T, LoadError> {
    let parsed = serde_json::from_slice::<T>(text);
    // A newer layout may well not parse.
    let versions = match &parsed {
        Ok(parsed) => Some(parsed.versions()),
        Err(_) => serde_json::from_slice(text).ok(),
    };
    let path = path.display().to_string();
    if let Some((what, found, known)) = versions.and_then(|versions| versions.newer()) {
        return Err(LoadError::Newer { path, what, found, known });
    }
    parsed.map_err(|error| LoadError::Damaged { path, line, error: error.to_string() })
}

#[cfg(test)]
mod tests;
