//! The reader of a run's record.

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
    error::RecordError,
    meta::{self, RunMeta},
    recorder::CELLS,
};

/// The missing cells of a run that was killed or stopped by its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EarlyEnd {
    /// Number of planned cells.
    pub planned: u32,
    /// Number of planned cells that are not recorded.
    pub not_run: u32,
}

impl EarlyEnd {
    /// Compares the planned with the recorded cells of a run that has ended. `None` if none is
    /// missing, or if the number of planned cells is unknown.
    #[must_use]
    pub fn new(planned: Option<u32>, recorded: u64) -> Option<Self> {
        let planned = planned?;
        let not_run = planned.saturating_sub(u32::try_from(recorded).unwrap_or(u32::MAX));
        if not_run > 0 { Some(Self { planned, not_run }) } else { None }
    }
}

impl fmt::Display for EarlyEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended early, {} of {} cells did not run", self.not_run, self.planned)
    }
}

/// A run as read from its record.
#[derive(Debug, Clone)]
pub struct StoredRun {
    /// `run.json`.
    pub meta: RunMeta,
    /// The cells, in the order in which they ended.
    pub cells: Vec<CellRecord>,
    /// Size of the complete lines of `cells.jsonl`, in bytes.
    pub bytes: u64,
    /// Whether the last line is incomplete, as after a killed run.
    pub truncated: bool,
    /// Whether the process that records the run is alive.
    pub running: bool,
}

/// The versions in a document, which every layout has at the same place.
#[derive(Deserialize)]
struct Versions {
    schema: u32,
    observation: Option<ObservationVersion>,
}

#[derive(Deserialize)]
struct ObservationVersion {
    schema: u32,
}

/// A document that contains the version of its layout.
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
    /// The first part that is too new, with its version and the newest that can be read.
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
    /// Reads a run by its directory, by its id below `runs`, or `last` for the newest there.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn load(name: &str, runs: &Path) -> Result<Self, RecordError> {
        Self::read(&find(name, runs)?)
    }

    /// Finds the directory of a run by its path, by its id below `runs`, or `last` for the newest
    /// there.
    ///
    /// # Errors
    /// [`RecordError::UnknownRun`]
    pub fn find(name: &str, runs: &Path) -> Result<PathBuf, RecordError> {
        find(name, runs)
    }

    /// Reads the run in a directory.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn read(directory: &Path) -> Result<Self, RecordError> {
        let path = directory.join(meta::FILE);
        let meta = parse::<RunMeta>(&read(&path)?, &path, 1)?;
        // Checked before the cells are read: then all cells of a run that has ended are read.
        let running = RunLock::acquire(directory)?.is_none();
        let path = directory.join(CELLS);
        let text = read(&path)?;
        let bytes = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let lines = text[..bytes].split_inclusive(|byte| *byte == b'\n').enumerate();
        let mut run = Self {
            meta,
            cells: Vec::new(),
            bytes: bytes as u64,
            truncated: bytes < text.len(),
            running,
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

    /// Whether the cells are boots of a comparison.
    #[must_use]
    pub fn is_comparison(&self) -> bool {
        self.cells.iter().any(|record| record.boot.is_some())
    }

    /// The recorded cases, without those that this version cannot parse.
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

    /// Computes the fields that records of version 1 do not have.
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

    /// The missing cells of a run that has ended; `None` for a run that is still running.
    #[must_use]
    pub fn ended_early(&self) -> Option<EarlyEnd> {
        EarlyEnd::new(self.meta.planned, self.cells.len() as u64).filter(|_| !self.running)
    }
}

/// Lists the directories of runs below `runs`, the oldest first. Empty if `runs` does not exist:
/// the first run creates it.
///
/// # Errors
/// [`RecordError::Read`]
pub fn run_directories(runs: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let entries = match fs::read_dir(runs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(RecordError::reading(runs))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(RecordError::reading(runs))?.path();
        if is_run(&path) && !is_hidden(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a directory is the record of a run.
#[must_use]
pub fn is_run(directory: &Path) -> bool {
    directory.join(meta::FILE).is_file()
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// A shared lock on a run that is not running. While it is held, no process writes to the run or
/// removes it.
#[derive(Debug)]
pub struct RunLock {
    /// Size of `cells.jsonl`, in bytes.
    pub bytes: u64,
    _lock: File,
}

impl RunLock {
    /// Locks a run; `None` if it is still running.
    ///
    /// # Errors
    /// [`RecordError::Read`]
    pub fn acquire(directory: &Path) -> Result<Option<Self>, RecordError> {
        let path = directory.join(CELLS);
        let lock = File::open(&path).map_err(RecordError::reading(&path))?;
        // On a file system without locks every run counts as ended.
        let locked = flock(&lock, FlockOperation::NonBlockingLockShared);
        if locked == Err(rustix::io::Errno::WOULDBLOCK) {
            return Ok(None);
        }
        let bytes = lock.metadata().map_err(RecordError::reading(&path))?.len();
        Ok(Some(Self { bytes, _lock: lock }))
    }
}

fn find(name: &str, runs: &Path) -> Result<PathBuf, RecordError> {
    let unknown =
        || RecordError::UnknownRun { name: name.to_owned(), runs: runs.display().to_string() };
    if name == "last" {
        let entries = fs::read_dir(runs).map_err(|_| unknown())?;
        let paths = entries.flatten().map(|entry| entry.path());
        return paths.filter(|path| is_run(path) && !is_hidden(path)).max().ok_or_else(unknown);
    }
    [PathBuf::from(name), runs.join(name)].into_iter().find(|path| is_run(path)).ok_or_else(unknown)
}

fn read(path: &Path) -> Result<Vec<u8>, RecordError> {
    fs::read(path).map_err(RecordError::reading(path))
}

/// A line of `cells.jsonl`.
enum Line {
    Cell(Box<CellRecord>),
    Amendment(Amendment),
}

fn parse_line(text: &[u8], path: &Path, number: usize) -> Result<Line, RecordError> {
    /// The field that distinguishes an amendment from a cell.
    #[derive(Deserialize)]
    struct Kind {
        amends: Option<serde::de::IgnoredAny>,
    }

    match serde_json::from_slice(text) {
        Ok(Kind { amends: Some(_) }) => parse(text, path, number).map(Line::Amendment),
        _ => parse(text, path, number).map(|cell| Line::Cell(Box::new(cell))),
    }
}

fn parse<T: Versioned>(text: &[u8], path: &Path, line: usize) -> Result<T, RecordError> {
    let parsed = serde_json::from_slice::<T>(text);
    // A newer layout may not parse at all, so the versions are read on their own.
    let versions = match &parsed {
        Ok(parsed) => Some(parsed.versions()),
        Err(_) => serde_json::from_slice(text).ok(),
    };
    let path = path.display().to_string();
    if let Some((what, found, known)) = versions.and_then(|versions| versions.newer()) {
        return Err(RecordError::Newer { path, what, found, known });
    }
    parsed.map_err(|error| RecordError::Damaged { path, line, error })
}

#[cfg(test)]
mod tests;
