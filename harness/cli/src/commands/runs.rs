//! `dmarig runs`

use clap::Args;
use dmarig_records::run_directories;
use dmarig_report::{RecordedRun, recorded_runs_table};
use serde_json::json;

use super::history::print_json;
use crate::{
    exit::{Exit, Failure},
    options::Places,
    output::print,
};

#[derive(Debug, Args)]
pub(crate) struct Runs {
    #[command(flatten)]
    places: Places,
    /// Number of runs to list, the newest first
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    count: usize,
    /// List all runs
    #[arg(long, conflicts_with = "count")]
    all: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Runs {
    pub(crate) fn execute(self) -> Result<Exit, Failure> {
        let directory = self.places.runs()?;
        let directories = run_directories(&directory)?;
        let count = if self.all { directories.len() } else { self.count };
        let newest = directories.iter().rev().take(count);
        let runs: Vec<RecordedRun> = newest.map(|directory| RecordedRun::read(directory)).collect();
        if self.json {
            return print_json(&json!({ "schema": 1, "runs": runs }));
        }
        if directories.is_empty() {
            errln!("no runs are recorded in {}", directory.display());
            return Ok(Exit::Passed);
        }
        let text = recorded_runs_table(&runs);
        print(&format!(
            "{text}\n{} of {} runs in {}\n",
            runs.len(),
            directories.len(),
            directory.display()
        ))?;
        Ok(Exit::Passed)
    }
}
