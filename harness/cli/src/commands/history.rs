//! `dmarig history`

mod export;
mod queries;

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::anyhow;
use clap::{Args, Subcommand};
use dmarig_history::{GcAction, History, ImportOptions, ImportReport, Retention, sweep_gone};
use dmarig_model::{text::shown, value::Size};
use dmarig_records::{StoredRun, is_run, run_directories};
use indicatif::HumanBytes;

pub(super) use self::queries::{made_up, print_json};
use crate::output::print;
use crate::{
    exit::{Exit, Failure},
    options::{HistoryFile, Places},
    report::diagnose,
};

#[derive(Debug, Args)]
pub(crate) struct HistoryCommand {
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    file: HistoryFile,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Put recorded runs in: those that are named, or all that are not in it yet
    Add(Add),
    /// List the newest runs
    List(queries::List),
    /// List series of numbers
    Series(queries::Series),
    /// Show a run with its cells, or a series with its points
    Show(queries::Show),
    /// Take over what other histories and other machines' records have
    Merge {
        /// Histories, directories of runs, or directories of records
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Write the numbers for another program
    Export(export::Export),
    /// Remove old records that are in the history; without a limit there is nothing to remove
    Gc(Gc),
}

#[derive(Debug, Args)]
struct Add {
    /// Runs: ids, directories, or `last` [default: all that are not in it]
    #[arg(value_name = "RUN")]
    names: Vec<String>,
    /// Make everything again from the records that are there
    #[arg(long)]
    rebuild: bool,
    /// Kernel to set the others in relation to, in runs that name none (`dmarig run --reference`)
    #[arg(long, value_name = "KERNEL")]
    reference: Option<String>,
}

#[derive(Debug, Args)]
struct Gc {
    /// Remove records that are older than so many days
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u32>,
    /// Keep so many of the newest
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Keep as many of the newest as take this much disk space, as in 500MiB or 20GiB
    #[arg(long, value_name = "SIZE", value_parser = clap::value_parser!(Size))]
    max_size: Option<Size>,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

impl HistoryCommand {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let file = self.file.path()?;
        match self.action {
            Action::Add(add) => add.execute(&file, &self.places.runs()?),
            Action::List(list) => list.execute(&History::open(&file)?),
            Action::Series(series) => series.execute(&History::open(&file)?),
            Action::Show(show) => show.execute(&History::open(&file)?),
            Action::Export(export) => export.execute(&History::open(&file)?),
            Action::Merge { paths } => merge(&file, &paths),
            Action::Gc(gc) => gc.execute(&file, &self.places.runs()?),
        }
    }
}

impl Add {
    fn execute(self, file: &Path, runs: &Path) -> Result<Exit, Failure> {
        let directories = match self.names.is_empty() {
            true => run_directories(runs)?,
            false => {
                let named = self.names.iter().map(|name| StoredRun::find(name, runs));
                named.collect::<Result<_, _>>().map_err(Failure::usage)?
            }
        };
        let mut history = History::create(file)?;
        let how = ImportOptions { reference: self.reference.as_deref(), rebuild: self.rebuild };
        let imported = history.import(&directories, how)?;
        Ok(told(&imported, file))
    }
}

/// Tells what became of records.
fn told(imported: &ImportReport, file: &Path) -> Exit {
    for run in &imported.truncated {
        errln!("dmarig: run {run}: the record's last line was cut short: that cell is left out");
    }
    for run in &imported.running {
        errln!("dmarig: run {} is going on: add it when it has ended", shown(run));
    }
    for error in &imported.unreadable {
        errln!("dmarig: left out: {error}");
    }
    let counts = [
        (imported.added.len(), "added"),
        (imported.replaced.len(), "brought up to date"),
        (imported.unchanged.len(), "known"),
        (imported.running.len(), "going on"),
        (imported.unreadable.len(), "left out"),
    ];
    let told: Vec<String> = counts
        .into_iter()
        .filter(|(count, what)| *count > 0 || *what == "added")
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    errln!("runs: {}; history: {}", told.join(", "), file.display());
    if imported.unreadable.is_empty() { Exit::Passed } else { Exit::Errored }
}

fn merge(file: &Path, paths: &[PathBuf]) -> Result<Exit, Failure> {
    let mut history = History::create(file)?;
    let mut exit = Exit::Passed;
    for path in paths {
        // One that can't be taken over keeps no other out.
        let one = merge_one(&mut history, path).unwrap_or_else(|failure| {
            diagnose(&failure.error);
            failure.exit
        });
        // What can't be read is worse than what is not there.
        if exit != Exit::Errored && one != Exit::Passed {
            exit = one;
        }
    }
    Ok(exit)
}

fn merge_one(history: &mut History, path: &Path) -> Result<Exit, Failure> {
    if path.is_dir() {
        let directories = if is_run(path) { vec![path.to_owned()] } else { run_directories(path)? };
        if directories.is_empty() {
            return Err(Failure::usage(anyhow!("there is no run in {}", path.display())));
        }
        return Ok(told(&history.import(&directories, ImportOptions::default())?, path));
    }
    let merged = history.merge(path)?;
    errln!(
        "{}: {} runs added, {} brought up to date, {} known",
        path.display(),
        merged.added,
        merged.replaced,
        merged.unchanged
    );
    Ok(Exit::Passed)
}

impl Gc {
    fn execute(self, file: &Path, runs: &Path) -> Result<Exit, Failure> {
        let day = Duration::from_secs(86_400);
        let keep = Retention {
            age: self.older_than.map(|days| day * days),
            count: self.keep,
            bytes: self.max_size.map(|size| size.0),
        };
        if keep == Retention::default() {
            return Err(Failure::usage(anyhow!(
                "nothing selects what to keep: add --older-than DAYS, --keep N or --max-size SIZE"
            )));
        }
        let mut history = History::open(file)?;
        for left in sweep_gone(runs) {
            errln!("removed {left}, which an earlier gc had left");
        }
        let directories = run_directories(runs)?;
        let all = history.collect_garbage(&directories, keep, SystemTime::now(), self.dry_run)?;
        let known = history.run_ids()?;
        let (mut kept, mut removed, mut bytes) = (0, 0, 0);
        let mut lines = String::new();
        let mut exit = Exit::Passed;
        for one in all {
            let what = match &one.action {
                GcAction::Kept => {
                    kept += 1;
                    continue;
                }
                GcAction::Removed => {
                    removed += 1;
                    bytes += one.bytes;
                    if self.dry_run { "would be removed" } else { "removed" }.to_owned()
                }
                GcAction::NotInHistory => {
                    "stays: not in the history (dmarig history add)".to_owned()
                }
                GcAction::Running => "stays: going on".to_owned(),
                GcAction::Failed(error) => {
                    exit = Exit::Errored;
                    format!("stays: {}", shown(&error.to_string()))
                }
            };
            lines.push_str(&format!("{} ({}): {what}\n", shown(&one.run), HumanBytes(one.bytes)));
        }
        let would = if self.dry_run { "would be " } else { "" };
        lines.push_str(&format!(
            "{removed} {would}removed, {} {would}freed, {kept} kept\n",
            HumanBytes(bytes)
        ));
        print(&lines)?;
        let gone = known.iter().filter(|run| !is_run(&runs.join(run))).count();
        if gone > 0 {
            let file = file.display();
            errln!("runs without a record here: {gone}; {file} has all that is kept of them");
        }
        Ok(exit)
    }
}
