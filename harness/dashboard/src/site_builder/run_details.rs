//! What a run's own page tells: from the history what every run has, and from its record, as long as it
//! is there, what was checked and what was logged.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use dmarig_history::{CellEntry, History, HistoryError};
use dmarig_model::{
    axes::DEFAULT_QEMU,
    document::CellResult,
    observation::{Observation, Outcome},
};
use dmarig_records::{CellName, CellRecord, Environment, RunMeta, StoredRun};
use dmarig_report::CellFacts;

use super::Sources;
use crate::{CellDetails, Check, RunDetails, Site};

/// Lines of a kernel log that are shown of a cell that did not pass.
const LINES: usize = 60;
/// Bytes of what QEMU said, from its end.
const STDERR: usize = 4000;
/// From this level on a kernel's line is at most a notice.
const NOTICE: u8 = 5;

/// Indices of a run's cells, by id, kernel and fingerprint of the environment.
type Indices<'a> = HashMap<[&'a str; 3], usize>;

/// Looks details up, when a page is made.
pub(super) struct Details {
    history: PathBuf,
    runs: PathBuf,
    /// The first run of which the record is read.
    first: usize,
    /// Their ids, and the command lines that started them.
    runs_told: Vec<(String, Vec<String>)>,
}

impl Details {
    pub(super) fn new(
        sources: &Sources,
        first: usize,
        runs_told: Vec<(String, Vec<String>)>,
    ) -> Self {
        Self { history: sources.history.clone(), runs: sources.runs.clone(), first, runs_told }
    }

    /// Of a run; what can't be read is told instead.
    pub(super) fn of(&self, site: &Site, run: usize) -> RunDetails {
        let Some((id, command)) = self.runs_told.get(run) else { return RunDetails::default() };
        let mut details = RunDetails::default();
        let indices: Indices<'_> = site.runs[run]
            .results
            .iter()
            .filter_map(|result| {
                let cell = site.cells.get(result.cell)?;
                let environment = site.environments.get(cell.environment)?;
                Some(([&cell.id, &cell.kernel, &environment.key].map(String::as_str), result.cell))
            })
            .collect();
        // The history keeps the command line, not the options.
        let meta = RunMeta { command: command.clone(), ..RunMeta::default() };
        match History::open(&self.history).and_then(|history| history.cells(id)) {
            Ok(rows) => {
                let known = rows.iter().filter_map(|row| {
                    let environment = row.environment.fingerprint();
                    let key = [&row.id, &row.place.kernel, &environment].map(String::as_str);
                    Some(from_history(*indices.get(&key)?, row, &meta))
                });
                details.cells.extend(known);
            }
            Err(error) => details.notes.push(unread(&error)),
        }
        if let Some(record) = self.record(run, id, &mut details.notes) {
            if record.truncated {
                details
                    .notes
                    .push("the record's last line was cut short: that cell is left out".into());
            }
            for cell in &record.cells {
                add_record(&mut details, &indices, &record.meta, cell);
            }
        }
        details
    }

    /// The record, where it is one of those to be read and is there.
    fn record(&self, run: usize, id: &str, notes: &mut Vec<String>) -> Option<StoredRun> {
        let directory = record_of(&self.runs, id)?;
        if run < self.first {
            let read = self.runs_told.len() - self.first;
            notes.push(format!(
                "logs, evidence, and how its numbers were judged are in its record, and shown of the newest \
                 {read} runs alone (--detailed)"
            ));
            return None;
        }
        let loaded = StoredRun::load(&directory.display().to_string(), &self.runs);
        loaded.map_err(|error| notes.push(format!("its record can't be read: {error}"))).ok()
    }
}

/// Where the record of a run is, where it is there. A history from elsewhere may name a run as it likes:
/// only a plain name is looked for.
pub(super) fn record_of(runs: &Path, id: &str) -> Option<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if id.is_empty() || id.starts_with('.') || !id.chars().all(plain) {
        return None;
    }
    let directory = runs.join(id);
    directory.join("run.json").exists().then_some(directory)
}

fn unread(error: &HistoryError) -> String {
    format!("its cells can't be read: {error}")
}

fn from_history(cell: usize, row: &CellEntry, meta: &RunMeta) -> CellDetails {
    CellDetails {
        cell,
        reasons: row.reasons.clone(),
        facts: CellFacts {
            warning: row.warning,
            group_type: row.group_type.clone(),
            duration_us: row.duration_us,
            ..CellFacts::default()
        },
        checks: Vec::new(),
        logs: Vec::new(),
        again: meta.rerun_command(&CellName {
            case: &row.place.case,
            id: &row.id,
            kernel: &row.place.kernel,
            qemu: DEFAULT_QEMU,
        }),
    }
}

/// Adds what only the record has.
fn add_record(
    details: &mut RunDetails,
    indices: &Indices<'_>,
    meta: &RunMeta,
    record: &CellRecord,
) {
    let seen = &record.observation;
    let environment = Environment::new(&meta.host, seen).fingerprint();
    let key = [&seen.cell, &seen.axes.kernel, &environment].map(String::as_str);
    let index = indices.get(&key);
    // What wrote the record may have told kernels and machines in other words than what put it into the history.
    let index =
        index.or_else(|| indices.iter().find(|(of, _)| of[..2] == key[..2]).map(|(_, at)| at));
    let index = index.or_else(|| indices.iter().find(|(of, _)| of[0] == key[0]).map(|(_, at)| at));
    let Some(cell) = index else { return };
    let Some(known) = details.cells.iter_mut().find(|known| known.cell == *cell) else { return };
    known.again = meta.rerun_command(&CellName {
        case: &seen.case,
        id: &seen.cell,
        kernel: &seen.axes.kernel,
        qemu: &seen.axes.qemu,
    });
    let result = CellResult::new(seen, &record.verdict);
    // What the history has stays as it is there.
    let CellFacts { psi, dsi, walked_in_vain, operations, .. } = CellFacts::from(&result);
    known.facts = CellFacts { psi, dsi, walked_in_vain, operations, ..known.facts.clone() };
    known.checks = result
        .checks
        .iter()
        .map(|check| Check {
            name: check.name.clone(),
            expected: check.expected.clone(),
            found: check.found.clone(),
            held: check.held,
            evidence: check.evidence.clone(),
        })
        .collect();
    if !matches!(record.verdict.outcome, Outcome::Passed | Outcome::Skipped) {
        known.logs = logs(seen);
    }
}

/// What is worth reading of a guest that did not pass: what its kernel said of IOMMUs or louder than a
/// notice, and what QEMU said last.
fn logs(seen: &Observation) -> Vec<(String, Vec<String>)> {
    let telling = |text: &str| {
        let text = text.to_ascii_lowercase();
        ["dmar", "iommu", "swiotlb"].iter().any(|word| text.contains(word))
    };
    let lines: Vec<String> = seen
        .log
        .records
        .iter()
        .filter(|record| record.level < NOTICE || telling(&record.text))
        .map(|record| {
            let seconds = std::time::Duration::from_micros(record.time_us).as_secs_f64();
            format!("[{seconds:12.6}] {}", record.text)
        })
        .collect();
    let from = lines.len().saturating_sub(LINES);
    let mut end = seen.qemu_stderr.len().saturating_sub(STDERR);
    while !seen.qemu_stderr.is_char_boundary(end) {
        end += 1;
    }
    let stderr = seen.qemu_stderr[end..].lines().map(str::to_owned).collect();
    vec![
        ("kernel log: IOMMU, and what is louder than a notice".to_owned(), lines[from..].to_vec()),
        ("QEMU's standard error".to_owned(), stderr),
    ]
}
