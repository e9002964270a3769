//! Records of runs into the history, and out of the way when they are in it.

use dmarig_records::{LoadError, RunLock, StoredRun};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::{
    entry::{DERIVATION_VERSION, RunEntry},
    store::{History, HistoryError, InsertOutcome, Known},
};

/// Runs that go into the history in one transaction.
const BATCH: usize = 32;

/// Stands before the name of a directory that is being removed.
const GONE: &str = ".gone-";

/// How records are put in.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImportOptions<'a> {
    /// The kernel that others are set in relation to, in runs that do not name one.
    pub reference: Option<&'a str>,
    /// Whether what is in already is made again. Runs whose records are gone stay as they are.
    pub again: bool,
}

/// What became of records.
#[derive(Debug, Default)]
pub struct ImportReport {
    /// Runs that are new.
    pub added: Vec<String>,
    /// Runs of which more is known now.
    pub replaced: Vec<String>,
    /// Runs that were in it.
    pub known: Vec<String>,
    /// Runs that are going on: their turn comes when they have ended.
    pub going_on: Vec<String>,
    /// Of those that were added, the ones whose last line was cut short.
    pub torn: Vec<String>,
    /// Records that could not be read.
    pub refused: Vec<LoadError>,
}

impl History {
    /// Puts the runs of these directories in. What can't be read is left out and told; everything else
    /// goes in.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]: the history can't be written.
    pub fn import(
        &mut self,
        directories: &[PathBuf],
        how: ImportOptions<'_>,
    ) -> Result<ImportReport, HistoryError> {
        let mut imported = ImportReport::default();
        for batch in directories.chunks(BATCH) {
            let mut entries = Vec::new();
            for directory in batch {
                let name = name(directory);
                match self.entry(directory, how) {
                    Ok(Found::New(entry, torn)) => {
                        if torn {
                            imported.torn.push(entry.id.clone());
                        }
                        entries.push(*entry);
                    }
                    Ok(Found::Known) => imported.known.push(name),
                    Ok(Found::GoingOn) => imported.going_on.push(name),
                    Err(Trouble::Record(error)) => imported.refused.push(error),
                    Err(Trouble::History(error)) => return Err(error),
                }
            }
            for (put, entry) in self.put_by(&entries, how.again)?.into_iter().zip(entries) {
                match put {
                    InsertOutcome::Added => imported.added.push(entry.id),
                    InsertOutcome::Replaced => imported.replaced.push(entry.id),
                    InsertOutcome::Known => imported.known.push(entry.id),
                }
            }
        }
        Ok(imported)
    }

    fn entry(&self, directory: &Path, how: ImportOptions<'_>) -> Result<Found, Trouble> {
        let Some(held) = RunLock::hold(directory).map_err(Trouble::Record)? else {
            return Ok(Found::GoingOn);
        };
        // A directory has its run's id for a name. One that was renamed is read, and known by its id.
        let known = self.known(&name(directory)).map_err(Trouble::History)?;
        let whole =
            |known: &Known| known.bytes == held.bytes && known.derivation >= DERIVATION_VERSION;
        if !how.again && known.is_some_and(|known| whole(&known)) {
            return Ok(Found::Known);
        }
        let run = StoredRun::read(directory).map_err(Trouble::Record)?;
        // One that is read again because more is derived now keeps the reference that it was given.
        let known = self.known(&run.meta.id).map_err(Trouble::History)?;
        let before = known.and_then(|known| known.reference).filter(|_| !how.again);
        let reference = before.as_deref().or(how.reference);
        let torn = run.torn;
        Ok(Found::New(Box::new(RunEntry::new(run, reference)), torn))
    }
}

enum Found {
    New(Box<RunEntry>, bool),
    Known,
    GoingOn,
}

enum Trouble {
    Record(LoadError),
    History(HistoryError),
}

fn name(directory: &Path) -> String {
    directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// How much of the records is kept. A run that any of these would not keep goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Those that are younger.
    pub age: Option<Duration>,
    /// As many of the newest.
    pub count: Option<usize>,
    /// Of the newest, as many as take this much disk space together.
    pub bytes: Option<u64>,
}

/// What became of a record, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// The run.
    pub run: String,
    /// Disk space of its directory, in bytes.
    pub bytes: u64,
    /// What was done with it.
    pub fate: GcAction,
}

/// What was done with a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum GcAction {
    /// It is still wanted.
    Kept,
    /// It was removed, or would be.
    Removed,
    /// It would go, but is not in the history, or not all of it.
    NotInHistory,
    /// It would go, but is going on.
    GoingOn,
    /// It would go, but can't be removed.
    Stuck {
        /// Why.
        why: String,
    },
}

impl History {
    /// Removes old records, given with the oldest first; tells of each what became of it, in that
    /// order. Nothing goes that is not in the history to its last line, and nothing that is going on.
    /// What an older dmarig derived of one that goes is derived anew before. With `dry_run` nothing goes
    /// at all, and nothing is written.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn collect_garbage(
        &mut self,
        directories: &[PathBuf],
        keep: Retention,
        now: SystemTime,
        dry_run: bool,
    ) -> Result<Vec<GcReport>, HistoryError> {
        let mut all = Vec::new();
        let (mut count, mut total) = (0, 0u64);
        for directory in directories.iter().rev() {
            let bytes = disk_usage(directory);
            count += 1;
            total = total.saturating_add(bytes);
            let old = || {
                let modified =
                    fs::metadata(directory.join("cells.jsonl")).and_then(|meta| meta.modified());
                modified.ok().and_then(|then| now.duration_since(then).ok())
            };
            let wanted = keep.age.is_none_or(|age| old().is_none_or(|old| old < age))
                && keep.count.is_none_or(|most| count <= most)
                && keep.bytes.is_none_or(|most| total <= most);
            let fate = if wanted { GcAction::Kept } else { self.remove(directory, dry_run)? };
            all.push(GcReport { run: name(directory), bytes, fate });
        }
        all.reverse();
        Ok(all)
    }

    fn remove(&mut self, directory: &Path, dry_run: bool) -> Result<GcAction, HistoryError> {
        let _held = match RunLock::hold(directory) {
            Ok(Some(held)) => held,
            Ok(None) => return Ok(GcAction::GoingOn),
            Err(error) => return Ok(GcAction::Stuck { why: error.to_string() }),
        };
        let run = match StoredRun::read(directory) {
            Ok(run) => run,
            Err(error) => return Ok(GcAction::Stuck { why: error.to_string() }),
        };
        // A line that was cut short is in no history, and nobody misses it.
        let known = match self.known(&run.meta.id)? {
            Some(known) if known.bytes == run.bytes => known,
            _ => return Ok(GcAction::NotInHistory),
        };
        if dry_run {
            return Ok(GcAction::Removed);
        }
        if known.derivation < DERIVATION_VERSION {
            // Afterwards there is nothing to derive it from.
            self.put([&RunEntry::new(run, known.reference.as_deref())])?;
        }
        // Half of a run must not be taken for one.
        let gone = directory.with_file_name(format!("{GONE}{}", name(directory)));
        let removed = fs::rename(directory, &gone).and_then(|()| fs::remove_dir_all(&gone));
        Ok(match removed {
            Ok(()) => GcAction::Removed,
            Err(error) => GcAction::Stuck { why: error.to_string() },
        })
    }
}

/// Removes what a collection that was killed has left below `runs`; gives its names.
pub fn sweep_gone(runs: &Path) -> Vec<String> {
    let entries = fs::read_dir(runs).into_iter().flatten().flatten().map(|entry| entry.path());
    let left = entries.filter(|path| name(path).starts_with(GONE));
    left.filter(|path| fs::remove_dir_all(path).is_ok()).map(|path| name(&path)).collect()
}

fn disk_usage(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;

    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_usage(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}
