//! What a run's own page tells: from the history what every run has, and from its record, as long as it
//! is there, what was checked and what was logged.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use dmarig_history::{
    CellEntry, CellRecord, Environment, History, HistoryError, HostFacts, StoredRun,
};
use dmarig_model::{
    axes::DEFAULT_QEMU,
    document::CellResult,
    observation::{Observation, Outcome},
    plan::shell_line,
};

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
        match History::open(&self.history).and_then(|history| history.cells(id)) {
            Ok(rows) => {
                let known = rows.iter().filter_map(|row| {
                    let environment = row.environment.fingerprint();
                    let key = [&row.id, &row.place.kernel, &environment].map(String::as_str);
                    Some(from_history(*indices.get(&key)?, row, command))
                });
                details.cells.extend(known);
            }
            Err(error) => details.notes.push(unread(&error)),
        }
        if let Some(record) = self.record(run, id, &mut details.notes) {
            if record.torn {
                details
                    .notes
                    .push("the record's last line was cut short: that cell is left out".into());
            }
            for cell in &record.cells {
                add_record(&mut details, &indices, (&record.meta.host, cell), command);
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

fn from_history(cell: usize, row: &CellEntry, command: &[String]) -> CellDetails {
    let seconds = format!("{:.1}", std::time::Duration::from_micros(row.duration_us).as_secs_f64());
    let warning = row.warning.map_or("-", |warning| if warning { "yes" } else { "no" });
    let group = row.group_type.clone().unwrap_or_else(|| "-".to_owned());
    CellDetails {
        cell,
        reasons: row.reasons.clone(),
        facts: vec![
            ("warning".to_owned(), warning.to_owned()),
            ("group".to_owned(), group),
            ("s".to_owned(), seconds),
        ],
        checks: Vec::new(),
        logs: Vec::new(),
        again: again(command, &row.id, DEFAULT_QEMU),
    }
}

/// Options of `dmarig run` that say what to run or to print, each with a value; the others say how.
const REPLACED: [&str; 4] = ["--cell", "-c", "--format", "--junit"];

/// The command that runs a cell again: that of its run, for this cell alone and on its QEMU. What other
/// commands ran has no cells that could be named.
fn again(command: &[String], cell: &str, qemu: &str) -> String {
    // No option stands before the subcommand.
    let run = command.get(1).is_some_and(|word| word == "run");
    if command.is_empty() {
        return String::new();
    }
    let mut words = vec!["dmarig".to_owned()];
    let mut rest = command.iter().skip(1);
    while let Some(word) = rest.next() {
        let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
        let joined = word.starts_with("-c") && word.len() > 2;
        if run && (REPLACED.contains(&name) || joined) {
            if name == word && !joined {
                rest.next();
            }
        } else {
            words.push(word.clone());
        }
    }
    if run {
        // Where no word names another QEMU than the default, the environment did, or the case: then it changes
        // nothing that it is named.
        let named = |word: &String| word == "--qemu" || word.contains("qemu=");
        words.extend(["--cell".to_owned(), cell.to_owned()]);
        if qemu != DEFAULT_QEMU && !command.iter().any(named) {
            words.extend(["--qemu".to_owned(), qemu.to_owned()]);
        }
    }
    shell_line(words.iter())
}

/// Adds what only the record has.
fn add_record(
    details: &mut RunDetails,
    indices: &Indices<'_>,
    (host, record): (&HostFacts, &CellRecord),
    command: &[String],
) {
    let seen = &record.observation;
    let environment = Environment::of(host, seen).fingerprint();
    let key = [&seen.cell, &seen.axes.kernel, &environment].map(String::as_str);
    let index = indices.get(&key);
    // What wrote the record may have told kernels and machines in other words than what put it into the history.
    let index =
        index.or_else(|| indices.iter().find(|(of, _)| of[..2] == key[..2]).map(|(_, at)| at));
    let index = index.or_else(|| indices.iter().find(|(of, _)| of[0] == key[0]).map(|(_, at)| at));
    let Some(cell) = index else { return };
    let Some(known) = details.cells.iter_mut().find(|known| known.cell == *cell) else { return };
    known.again = again(command, &seen.cell, &seen.axes.qemu);
    let result = CellResult::new(seen, &record.verdict);
    let count =
        |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let fact = |name: &str, value: String| (name.to_owned(), value);
    let counts = &result.counts;
    let more = [
        fact("PSI", count(counts.psi)),
        fact("DSI", count(counts.dsi)),
        fact("in vain", count(counts.page_walk_in_vain)),
        fact("ops", count(counts.dma_ops)),
    ];
    let at = known.facts.len().min(2);
    known.facts.splice(at..at, more.into_iter().filter(|(_, value)| value != "-"));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What runs a cell on this QEMU again.
    fn on(qemu: &str, command: &str) -> String {
        let words: Vec<String> = command.split(' ').map(str::to_owned).collect();
        again(&words, "mine/policy=lazy", qemu)
    }

    #[test]
    fn a_cell_is_run_again_as_it_was_run() {
        for (command, told) in [
            (
                "/opt/dmarig run my.yaml -c a --cell=b -cx -k linux --set device=virtio-blk --junit x.xml --append a=b",
                "dmarig run my.yaml -k linux --set device=virtio-blk --append a=b --cell mine/policy=lazy",
            ),
            (
                "dmarig run --runs /srv/runs smoke --format json",
                "dmarig run --runs /srv/runs smoke --cell mine/policy=lazy",
            ),
            ("dmarig compare a run --case timing", "dmarig compare a run --case timing"),
        ] {
            assert_eq!(on(DEFAULT_QEMU, command), told);
        }
        assert_eq!(again(&[], "x", "qemu-11.1"), "");
    }

    #[test]
    fn a_qemu_that_the_environment_named_is_named() {
        let cell = "--cell mine/policy=lazy";
        assert_eq!(on("qemu-11.1", "dmarig run"), format!("dmarig run {cell} --qemu qemu-11.1"));
        for named in ["--qemu a --qemu b", "--qemu=a", "--set qemu=a,b", "-sqemu=a"] {
            let told = format!("dmarig run {named} {cell}");
            assert_eq!(on("a", &format!("dmarig run {named}")), told);
        }
        // A cell's id has a name for it that need not be the very one.
        let words = ["dmarig", "run", "my.yaml"].map(str::to_owned);
        let told = again(&words, "mine/qemu=_opt_qemu", "/opt/qemu");
        assert_eq!(told, "dmarig run my.yaml --cell mine/qemu=_opt_qemu --qemu /opt/qemu");
        let compared = "dmarig compare a b --case timing";
        assert_eq!(on("a", compared), compared);
    }
}
