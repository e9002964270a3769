//! The writer of a run's record.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use dmarig_model::observation::Verdict;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use crate::{
    cell::{Amendment, CellRecord, RECORD_SCHEMA},
    error::RecordError,
    meta::{self, RunMeta},
    time::new_id,
};

/// Name of the file with a line for each cell.
pub(crate) const CELLS: &str = "cells.jsonl";

/// Writes the record of one run.
#[derive(Debug)]
pub struct Recorder {
    directory: PathBuf,
    pub(crate) cells: File,
}

impl Recorder {
    /// Creates the run's directory below `runs` and writes `run.json`. Sets `meta.id` and
    /// `meta.started`.
    ///
    /// # Errors
    /// [`RecordError::Write`]
    pub fn create(runs: &Path, meta: &mut RunMeta) -> Result<Self, RecordError> {
        let now = Timestamp::now();
        meta.started = now.as_second();
        meta.id = new_id(now);
        let directory = runs.join(&meta.id);
        match create_files(&directory, meta) {
            Ok(cells) => Ok(Self { directory, cells }),
            Err(error) => Err(RecordError::writing(&directory)(error)),
        }
    }

    /// The run's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Creates the directory for the logs of one cell.
    ///
    /// # Errors
    /// [`RecordError::Write`]
    pub fn artifacts(&self, cell: &str) -> Result<PathBuf, RecordError> {
        let directory = self.directory.join("cells").join(cell.replace('/', "_"));
        fs::create_dir_all(&directory).map_err(RecordError::writing(&directory))?;
        Ok(directory)
    }

    /// Appends one cell, and returns when it is on the disk.
    ///
    /// # Errors
    /// [`RecordError::Write`]; the cell is then not recorded.
    pub fn add(&mut self, cell: &CellRecord) -> Result<(), RecordError> {
        self.append(cell)
    }

    /// Replaces the verdict of a cell that was added, once the cells that it is compared with have
    /// ended. The earlier verdict stays in the file; readers take the last one.
    ///
    /// # Errors
    /// As for [`Recorder::add`].
    pub fn amend(&mut self, cell: &str, verdict: &Verdict) -> Result<(), RecordError> {
        let verdict = verdict.clone();
        self.append(&Amendment { schema: RECORD_SCHEMA, amends: cell.to_owned(), verdict })
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), RecordError> {
        let path = self.directory.join(CELLS);
        append_line(&mut self.cells, line).map_err(RecordError::writing(&path))
    }
}

/// Creates the files of a run, and returns its `cells.jsonl`.
fn create_files(directory: &Path, meta: &RunMeta) -> io::Result<File> {
    create_synced(&directory.join("cells"))?;
    let cells = OpenOptions::new().append(true).create_new(true).open(directory.join(CELLS))?;
    // The lock marks the run as running while this process lives. On a file system without locks
    // every run counts as ended.
    let _ = flock(&cells, FlockOperation::NonBlockingLockExclusive);
    // The rename makes the directory a run, so `run.json` is never incomplete.
    let new = directory.join("run.json.new");
    write_synced(&new, &serde_json::to_vec_pretty(meta)?)?;
    fs::rename(new, directory.join(meta::FILE))?;
    File::open(directory)?.sync_all()?;
    Ok(cells)
}

fn append_line(file: &mut File, line: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    whole_or_nothing(file, |file| {
        file.write_all(&bytes)?;
        file.sync_data()
    })
}

/// Runs `write`, and truncates the file to its old length if that fails: on a full disk, half a
/// line would remain and the next line would be appended to it.
pub(crate) fn whole_or_nothing(
    file: &mut File,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let before = file.metadata()?.len();
    write(file).inspect_err(|_| {
        // If this fails as well, the line stays truncated, as after a killed run.
        let _ = file.set_len(before);
    })
}

/// Creates a directory and its missing parents, and syncs the directories that hold them: otherwise
/// files that are synced in a new directory may be lost with it.
pub(crate) fn create_synced(directory: &Path) -> io::Result<()> {
    let holders = parents_of_new(directory);
    fs::create_dir_all(directory)?;
    holders.iter().try_for_each(|holder| File::open(holder)?.sync_all())
}

/// The parents of those directories in `directory`'s path that do not exist yet, deepest first.
pub(crate) fn parents_of_new(directory: &Path) -> Vec<PathBuf> {
    let named = |path: &&Path| !path.as_os_str().is_empty();
    let new = directory.ancestors().take_while(|path| named(path) && !path.exists());
    let holder = |new: &Path| new.parent().filter(named).unwrap_or(Path::new(".")).to_owned();
    new.map(holder).collect()
}

pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
