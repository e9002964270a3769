//! The list of recorded runs.

use std::{collections::BTreeMap, path::Path};

use dmarig_model::text::shown;
use dmarig_records::{StoredRun, utc};
use serde::Serialize;

use crate::history_tables::{rendered, table};

/// A recorded run, for lists.
#[derive(Debug, Serialize)]
pub struct RecordedRun {
    /// The run's id.
    pub id: String,
    /// Start, in seconds since 1970; `None` if the record cannot be read.
    pub started: Option<i64>,
    /// The command line.
    pub command: Vec<String>,
    /// Number of cells by outcome.
    pub outcomes: BTreeMap<String, usize>,
    /// The kernels of its cells.
    pub kernels: Vec<String>,
    /// Whether the run has not ended yet.
    pub running: bool,
    /// Whether the run was killed, or the reason why its record cannot be read.
    pub problem: Option<String>,
}

impl RecordedRun {
    /// Reads the record in a directory. A record that cannot be read is listed with the reason.
    #[must_use]
    pub fn read(directory: &Path) -> Self {
        let id = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match StoredRun::read(directory) {
            Ok(run) => Self::new(id, &run),
            Err(error) => Self {
                id,
                started: None,
                command: Vec::new(),
                outcomes: BTreeMap::new(),
                kernels: Vec::new(),
                running: false,
                problem: Some(error.to_string()),
            },
        }
    }

    fn new(id: String, run: &StoredRun) -> Self {
        let mut outcomes = BTreeMap::new();
        let mut kernels: Vec<String> = Vec::new();
        for cell in &run.cells {
            *outcomes.entry(cell.verdict.outcome.name().to_owned()).or_default() += 1;
            let kernel = &cell.observation.axes.kernel;
            if !kernels.contains(kernel) {
                kernels.push(kernel.clone());
            }
        }
        Self {
            id,
            started: Some(run.meta.started),
            command: run.meta.command.clone(),
            outcomes,
            kernels,
            running: run.running,
            problem: run.ended_early().map(|end| end.to_string()),
        }
    }
}

/// A table of recorded runs.
#[must_use]
pub fn recorded_runs_table(runs: &[RecordedRun]) -> String {
    let mut table = table(["run", "started", "cells", "kernels", "command"]);
    for run in runs {
        let outcomes = run.outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}"));
        let mut parts: Vec<String> = outcomes.collect();
        if run.running {
            parts.push("running".to_owned());
        }
        parts.extend(run.problem.iter().map(|problem| shown(problem)));
        // The program's path says little.
        let command: Vec<&str> = run.command.iter().skip(1).map(String::as_str).collect();
        table.add_row([
            shown(&run.id),
            run.started.map_or_else(|| "-".to_owned(), utc),
            parts.join(", "),
            shown(&run.kernels.join(", ")),
            shown(&command.join(" ")),
        ]);
    }
    rendered(&table)
}
