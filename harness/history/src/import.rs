//! Import of recorded runs, and removal of old records that the history contains.

use dmarig_records::{RecordError, RunLock, StoredRun};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{
    entry::{DERIVATION_VERSION, RunEntry},
    error::HistoryError,
    store::{History, ImportState, InsertOutcome},
};

/// Number of runs that are imported in one transaction.
const BATCH: usize = 32;

/// Prefix of the name of a directory that is being removed.
const REMOVED_PREFIX: &str = ".gone-";

/// Options of an import.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImportOptions<'a> {
    /// Reference kernel of runs that name none.
    pub reference: Option<&'a str>,
    /// Whether runs that were imported before are derived again. Runs without a record stay
    /// unchanged.
    pub rebuild: bool,
}

/// The result of an import: ids or names of runs.
#[derive(Debug, Default)]
pub struct ImportReport {
    /// New runs.
    pub added: Vec<String>,
    /// Runs that replaced an older entry.
    pub replaced: Vec<String>,
    /// Runs that were imported before.
    pub unchanged: Vec<String>,
    /// Runs that are still running, and were not imported.
    pub running: Vec<String>,
    /// Imported runs whose last line is truncated.
    pub truncated: Vec<String>,
    /// Errors of records that could not be read.
    pub unreadable: Vec<RecordError>,
}

impl History {
    /// Imports the runs of these directories. Records that can't be read are skipped and reported.
    ///
    /// # Errors
    /// [`HistoryError::Sql`] if the history can't be read or written.
    pub fn import(
        &mut self,
        directories: &[PathBuf],
        options: ImportOptions<'_>,
    ) -> Result<ImportReport, HistoryError> {
        let mut report = ImportReport::default();
        for batch in directories.chunks(BATCH) {
            let mut entries = Vec::new();
            for directory in batch {
                match self.candidate(directory, options) {
                    Ok(ImportCandidate::Entry { entry, truncated }) => {
                        if truncated {
                            report.truncated.push(entry.id.clone());
                        }
                        entries.push(*entry);
                    }
                    Ok(ImportCandidate::Unchanged) => report.unchanged.push(name(directory)),
                    Ok(ImportCandidate::Running) => report.running.push(name(directory)),
                    Err(HistoryError::Record(error)) => report.unreadable.push(error),
                    Err(error) => return Err(error),
                }
            }
            let outcomes = self.insert_or_replace(&entries, options.rebuild)?;
            for (outcome, entry) in outcomes.into_iter().zip(entries) {
                match outcome {
                    InsertOutcome::Added => report.added.push(entry.id),
                    InsertOutcome::Replaced => report.replaced.push(entry.id),
                    InsertOutcome::Unchanged => report.unchanged.push(entry.id),
                }
            }
        }
        Ok(report)
    }

    /// Derives the entry of a record, unless that was imported before.
    fn candidate(
        &self,
        directory: &Path,
        options: ImportOptions<'_>,
    ) -> Result<ImportCandidate, HistoryError> {
        let Some(lock) = RunLock::acquire(directory)? else {
            return Ok(ImportCandidate::Running);
        };
        // Usually the directory's name is the run's id. A renamed one is read, and found by its id
        // below.
        let state = self.import_state(&name(directory))?;
        let is_complete = |state: ImportState| {
            state.bytes == lock.bytes && state.derivation >= DERIVATION_VERSION
        };
        if !options.rebuild && state.is_some_and(is_complete) {
            return Ok(ImportCandidate::Unchanged);
        }
        let run = StoredRun::read(directory)?;
        let mut reference = options.reference.map(str::to_owned);
        if !options.rebuild {
            // A run that is derived again keeps the reference that it was imported with.
            let state = self.import_state(&run.meta.id)?;
            reference = state.and_then(|state| state.reference).or(reference);
        }
        let truncated = run.truncated;
        let entry = Box::new(RunEntry::new(run, reference.as_deref()));
        Ok(ImportCandidate::Entry { entry, truncated })
    }
}

/// What an import does with one record.
enum ImportCandidate {
    /// It inserts this entry.
    Entry { entry: Box<RunEntry>, truncated: bool },
    /// Nothing: the history has all of the record.
    Unchanged,
    /// Nothing: the run has not ended.
    Running,
}

fn name(directory: &Path) -> String {
    directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Limits of how many records are kept. A record that exceeds any of them is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Largest age.
    pub age: Option<Duration>,
    /// Largest number of records; the newest are kept.
    pub count: Option<usize>,
    /// Largest disk usage of all kept records, in bytes; the newest are kept.
    pub bytes: Option<u64>,
}

/// The result of garbage collection for one record.
#[derive(Debug)]
pub struct GcReport {
    /// The run.
    pub run: String,
    /// Disk usage of its directory, in bytes.
    pub bytes: u64,
    /// What was done with the record.
    pub action: GcAction,
}

/// What garbage collection does with a record.
#[derive(Debug)]
pub enum GcAction {
    /// No limit requires its removal.
    Kept,
    /// The record was removed, or would be in a dry run.
    Removed,
    /// Not removed, since the history lacks the run or a part of it.
    NotInHistory,
    /// Not removed, since the run has not ended.
    Running,
    /// The record can't be read or removed.
    Failed(HistoryError),
}

impl History {
    /// Removes old records, and reports on each directory in order. `directories` are sorted, the
    /// oldest first. A record is removed only if its run has ended and the history contains all of
    /// it. If an older version derived the entry, it is derived again first. With `dry_run` nothing
    /// is removed or written.
    ///
    /// # Errors
    /// [`HistoryError::Sql`]
    pub fn collect_garbage(
        &mut self,
        directories: &[PathBuf],
        retention: Retention,
        now: SystemTime,
        dry_run: bool,
    ) -> Result<Vec<GcReport>, HistoryError> {
        let mut reports = Vec::new();
        let (mut count, mut total) = (0, 0u64);
        for directory in directories.iter().rev() {
            let bytes = disk_usage(directory);
            count += 1;
            total = total.saturating_add(bytes);
            let is_young = retention
                .age
                .is_none_or(|largest| record_age(directory, now).is_none_or(|age| age < largest));
            let is_kept = is_young
                && retention.count.is_none_or(|largest| count <= largest)
                && retention.bytes.is_none_or(|largest| total <= largest);
            let action =
                if is_kept { GcAction::Kept } else { self.remove_record(directory, dry_run)? };
            reports.push(GcReport { run: name(directory), bytes, action });
        }
        reports.reverse();
        Ok(reports)
    }

    fn remove_record(&mut self, directory: &Path, dry_run: bool) -> Result<GcAction, HistoryError> {
        let _lock = match RunLock::acquire(directory) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(GcAction::Running),
            Err(error) => return Ok(GcAction::Failed(error.into())),
        };
        let run = match StoredRun::read(directory) {
            Ok(run) => run,
            Err(error) => return Ok(GcAction::Failed(error.into())),
        };
        // A truncated last line is in no history, so it does not count.
        let state = match self.import_state(&run.meta.id)? {
            Some(state) if state.bytes == run.bytes => state,
            _ => return Ok(GcAction::NotInHistory),
        };
        if dry_run {
            return Ok(GcAction::Removed);
        }
        if state.derivation < DERIVATION_VERSION {
            // Without the record it can't be derived any more.
            self.insert_runs([&RunEntry::new(run, state.reference.as_deref())])?;
        }
        // Renamed first, so that a partly removed directory is not taken for a run.
        let renamed = directory.with_file_name(format!("{REMOVED_PREFIX}{}", name(directory)));
        let removed = fs::rename(directory, &renamed).and_then(|()| fs::remove_dir_all(&renamed));
        Ok(match removed {
            Ok(()) => GcAction::Removed,
            Err(error) => GcAction::Failed(HistoryError::io(directory)(error)),
        })
    }
}

/// Time since the last cell of a record was written; `None` if it is unknown or in the future.
fn record_age(directory: &Path, now: SystemTime) -> Option<Duration> {
    let modified = fs::metadata(directory.join("cells.jsonl")).and_then(|meta| meta.modified());
    now.duration_since(modified.ok()?).ok()
}

/// Removes directories below `runs` that a killed garbage collection left, and returns their names.
pub fn sweep_gone(runs: &Path) -> Vec<String> {
    let paths = fs::read_dir(runs).into_iter().flatten().flatten().map(|entry| entry.path());
    let leftovers = paths.filter(|path| name(path).starts_with(REMOVED_PREFIX));
    leftovers.filter(|path| fs::remove_dir_all(path).is_ok()).map(|path| name(&path)).collect()
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
