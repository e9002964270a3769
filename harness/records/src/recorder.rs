//! Writes the record of one run.

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
    meta::{self, RunMeta},
    time::new_id,
};

/// Name of the file with the cells.
pub(crate) const CELLS: &str = "cells.jsonl";

/// Writes one run's record.
#[derive(Debug)]
pub struct Recorder {
    directory: PathBuf,
    pub(crate) cells: File,
}

impl Recorder {
    /// Makes the run's directory below `runs` and writes what the run is; `meta.id` and
    /// `meta.started` are set here.
    ///
    /// # Errors
    /// What the system says, with the place.
    pub fn create(runs: &Path, meta: &mut RunMeta) -> io::Result<Self> {
        let now = Timestamp::now();
        meta.started = now.as_second();
        meta.id = new_id(now);
        let directory = runs.join(&meta.id);
        let with_path = |error: io::Error| {
            let path = directory.display();
            io::Error::new(error.kind(), format!("can't write the run's record in {path}: {error}"))
        };
        create_synced(&directory.join("cells")).map_err(with_path)?;
        let cells = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(directory.join(CELLS))
            .map_err(with_path)?;
        // As long as this process lives, the run is going on. A file system that knows no locks has
        // none that are in the way.
        let _ = flock(&cells, FlockOperation::NonBlockingLockExclusive);
        // It is a run from when it has this file, which is therefore never half of one.
        let new = directory.join("run.json.new");
        write_synced(&new, &serde_json::to_vec_pretty(meta)?).map_err(with_path)?;
        fs::rename(new, directory.join(meta::FILE)).map_err(with_path)?;
        File::open(&directory).and_then(|directory| directory.sync_all()).map_err(with_path)?;
        Ok(Self { directory, cells })
    }

    /// The run's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the directory of one cell's logs.
    ///
    /// # Errors
    /// What the system says, with the place.
    pub fn artifacts(&self, cell: &str) -> io::Result<PathBuf> {
        let directory = self.directory.join("cells").join(cell.replace('/', "_"));
        fs::create_dir_all(&directory).map_err(|error| {
            io::Error::new(error.kind(), format!("can't make {}: {error}", directory.display()))
        })?;
        Ok(directory)
    }

    /// Appends one cell, and returns when it is on the disk.
    ///
    /// # Errors
    /// The system's error with the path: the cell is then not recorded.
    pub fn add(&mut self, cell: &CellRecord) -> io::Result<()> {
        self.append(cell)
    }

    /// Replaces the verdict of a cell that was added, once the cells that it is compared with have
    /// ended. The earlier verdict stays in the file; readers take the last one.
    ///
    /// # Errors
    /// As for [`Recorder::add`].
    pub fn amend(&mut self, cell: &str, verdict: &Verdict) -> io::Result<()> {
        let verdict = verdict.clone();
        self.append(&Amendment { schema: RECORD_SCHEMA, amends: cell.to_owned(), verdict })
    }

    fn append(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        let write = |file: &mut File| file.write_all(&bytes).and_then(|()| file.sync_data());
        whole_or_nothing(&mut self.cells, write).map_err(|error| {
            let path = self.directory.join(CELLS);
            io::Error::new(error.kind(), format!("can't record in {}: {error}", path.display()))
        })
    }
}

/// Takes back what a failed write left: on a full disk that is half a line, which the next one would
/// be glued to.
pub(crate) fn whole_or_nothing(
    file: &mut File,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let before = file.metadata()?.len();
    write(file).inspect_err(|_| {
        // Where even this fails, the line stays torn, as a killed run may leave it.
        let _ = file.set_len(before);
    })
}

/// Makes a directory and those above it; when this returns, the entries by which they are found are on
/// the disk. Otherwise what is synced in them may be lost with them.
pub(crate) fn create_synced(directory: &Path) -> io::Result<()> {
    let holders = holders_of_new(directory);
    fs::create_dir_all(directory)?;
    holders.iter().try_for_each(|holder| File::open(holder)?.sync_all())
}

/// What the directories are in that are not there yet, of `directory` and those above it.
pub(crate) fn holders_of_new(directory: &Path) -> Vec<PathBuf> {
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
