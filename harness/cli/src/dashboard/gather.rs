//! From the history to a site.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use dmarig_dashboard::{
    Better, Cell, CellResult, Change, Checked, Dashboard, Point, Run, Series, Site,
};
use dmarig_history::{
    Build, CellEntry, Environment, History, HistoryError, How, Judged, RunRow, SeriesFilter,
    SeriesRow, Tally, run_directories,
};
use dmarig_model::text::shown;

use super::{
    alerts::alerts,
    details::{Details, record_of},
    judged::judged,
    sweeps::sweeps,
};
use crate::report;

/// Where things are read.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// The history's file.
    pub(crate) history: PathBuf,
    /// Records of runs.
    pub(crate) runs: PathBuf,
    /// Whether records that the history does not have yet are put into it.
    pub(crate) add: bool,
    /// Of how many of the newest runs the records are read, for logs, evidence, and how numbers were judged.
    pub(crate) detailed: usize,
}

/// Puts a site together from all that the history has.
///
/// # Errors
/// What the history says.
pub(crate) fn gather(sources: &Sources, live: bool) -> Result<Dashboard, HistoryError> {
    let mut history = History::open(&sources.history)?;
    // Before the series are read: it also finds where they changed.
    let found = history.alerts()?;
    let mut site =
        Site { synthetic: history.is_synthetic()?, generated: now(), live, ..Site::default() };
    let mut runs = history.runs(None)?;
    runs.reverse();
    let mut cells = Cells::default();
    for run in &runs {
        let of_run = history.cells(&run.id)?;
        site.runs.push(cells.run(run, &of_run));
    }
    let numbers: HashMap<&str, usize> =
        runs.iter().enumerate().map(|(at, run)| (run.id.as_str(), at)).collect();
    let facts = history.environments()?;
    let environments = Environments::new(facts.clone());
    for row in history.series(&SeriesFilter::default())? {
        site.series.push(series(&history, row, &numbers, &mut cells.names, &environments)?);
    }
    site.sweeps = sweeps(&history, &runs)?;
    site.cells = cells.all;
    site.alerts = alerts(&site, &numbers, &found, &facts);
    let first = site.runs.len().saturating_sub(sources.detailed);
    let keys = site.series.iter().enumerate().map(|(at, one)| (one.key.clone(), at)).collect();
    site.judged_from = first;
    for run in &mut site.runs[first..] {
        let directory = record_of(&sources.runs, &run.id);
        run.judged = directory.map_or_else(Vec::new, |directory| judged(&directory, &keys));
    }
    let details =
        Details::new(sources, first, runs.into_iter().map(|run| (run.id, run.command)).collect());
    Ok(Dashboard::new(site, Box::new(move |site, run| details.of(site, run))))
}

/// What became of records that the history did not have.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Whether something is in it now that was not before.
    pub(crate) any: bool,
    /// Whether a run is going on, whose turn comes when it has ended.
    pub(crate) going_on: bool,
}

/// Why records are not put into a history, where they are not to be: what was made up is never mixed with what
/// was measured, and one that is `named` and has runs, but none of these, is other machines'.
///
/// # Errors
/// What the history says, but that there is none: then it will be of these runs. That the records can't be
/// listed.
pub(crate) fn left_alone(
    history: &Path,
    runs: &Path,
    named: bool,
) -> anyhow::Result<Option<String>> {
    let opened = match History::open(history) {
        Err(HistoryError::Missing { .. }) => return Ok(None),
        opened => opened?,
    };
    if opened.is_synthetic()? {
        return Ok(Some("it is made up, and nothing that was measured is put into it".to_owned()));
    }
    let known = opened.run_ids()?;
    if !named || known.is_empty() {
        return Ok(None);
    }
    let directories = run_directories(runs)?;
    let mut names = directories.iter().filter_map(|directory| directory.file_name()?.to_str());
    let one = names.any(|name| known.iter().any(|known| known == name));
    Ok((!one).then(|| {
        format!(
            "it has none of the runs in {}, which `dmarig history add` would put into it",
            runs.display()
        )
    }))
}

/// Puts records into the history that it does not have.
///
/// # Errors
/// What the history says, or that the records can't be listed.
pub(crate) fn add(sources: &Sources) -> anyhow::Result<News> {
    let directories = run_directories(&sources.runs)?;
    let imported = History::create(&sources.history)?.import(&directories, How::default())?;
    for error in &imported.refused {
        // One that can't be read hides no other.
        tracing::warn!("left out: {error}");
    }
    Ok(News {
        any: !imported.added.is_empty() || !imported.replaced.is_empty(),
        going_on: !imported.going_on.is_empty(),
    })
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

/// Cells of all runs, each once, and texts that many of them share.
#[derive(Default)]
struct Cells {
    all: Vec<Cell>,
    known: HashMap<String, usize>,
    names: Names,
    checks: Checks,
}

/// Texts that are there once, however often they are told.
#[derive(Default)]
struct Names(HashMap<String, Arc<str>>);

impl Names {
    fn of(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = text.into();
        self.0.insert(text.to_owned(), Arc::clone(&shared));
        shared
    }
}

/// Ways in which the checks of cells came out, each there once: there are few of them.
#[derive(Default)]
struct Checks(HashMap<Judged, Arc<[Checked]>>);

impl Checks {
    fn of(&mut self, judged: &Judged, names: &mut Names) -> Arc<[Checked]> {
        if let Some(known) = self.0.get(judged) {
            return Arc::clone(known);
        }
        let one = |(name, tally): (&String, &Tally)| Checked {
            name: names.of(name),
            held: tally.held,
            broken: tally.broken,
            unjudged: tally.unjudged,
        };
        let shared: Arc<[Checked]> = judged.iter().map(one).collect();
        self.0.insert(judged.clone(), Arc::clone(&shared));
        shared
    }
}

impl Cells {
    fn run(&mut self, run: &RunRow, cells: &[CellEntry]) -> Run {
        Run {
            id: run.id.clone(),
            started: run.started,
            command: run.command.join(" "),
            environment: environment(run, cells),
            results: cells.iter().map(|cell| self.result(cell)).collect(),
            not_run: run.ended_early.map_or(0, |early| early.not_run as usize),
            judged: Vec::new(),
        }
    }

    fn result(&mut self, row: &CellEntry) -> CellResult {
        let key = format!("{}\0{}", row.id, row.place.kernel);
        let cell = *self.known.entry(key).or_insert_with(|| {
            self.all.push(Cell {
                id: row.id.clone(),
                case: row.place.case.clone(),
                kernel: row.place.kernel.clone(),
                variant: row.place.variant.replace(',', " "),
            });
            self.all.len() - 1
        });
        CellResult {
            cell,
            outcome: row.outcome,
            kernel: self.names.of(&kernel(row.release.as_deref(), &row.build)),
            broken: row.checks.iter().map(|name| self.names.of(name)).collect(),
            checks: row.judged.as_ref().map(|judged| self.checks.of(judged, &mut self.names)),
        }
    }
}

fn kernel(release: Option<&str>, build: &Build) -> String {
    report::kernel(release, &build.short()).unwrap_or_default()
}

fn environment(run: &RunRow, cells: &[CellEntry]) -> Vec<(String, String)> {
    let told =
        |(name, value): (&str, String)| (!value.is_empty()).then(|| (name.to_owned(), value));
    let of_host = [
        ("dmarig", run.dmarig.clone()),
        ("load at the start", run.host.load.clone()),
        ("reference kernel", run.reference.clone().unwrap_or_default()),
        ("rules", run.rules.clone()),
    ];
    let mut facts: Vec<(String, String)> = of_host.into_iter().filter_map(told).collect();
    // Of a run on several QEMUs, each is told.
    for fact in cells.iter().flat_map(|cell| cell.environment.parts()).filter_map(told) {
        if !facts.contains(&fact) && facts.len() < 60 {
            facts.push(fact);
        }
    }
    facts
}

/// What environments are called, in as few words as tell them from each other.
struct Environments(HashMap<String, String>);

impl Environments {
    fn new(all: impl IntoIterator<Item = (String, Environment)>) -> Self {
        let all: Vec<(String, Environment)> = all.into_iter().collect();
        let parts: Vec<Vec<(&str, String)>> = all.iter().map(|(_, one)| one.parts()).collect();
        let differs = |at: usize| {
            parts.iter().any(|other| other.get(at) != parts.first().and_then(|of| of.get(at)))
        };
        let telling = ["cpu", "qemu", "accelerator"];
        let name = |of: &[(&str, String)]| {
            let told = of.iter().enumerate().filter(|(at, (name, value))| {
                !value.is_empty()
                    && *name != "qemu sha256"
                    && (telling.contains(name) || differs(*at))
            });
            let words: Vec<String> = told
                .map(|(_, (name, value))| match *name {
                    // Of a version, what distributions add is not told.
                    "qemu" => {
                        format!("QEMU {}", shown(value.split(' ').next().unwrap_or_default()))
                    }
                    name if telling.contains(&name) => shown(value),
                    name => format!("{name} {}", shown(value)),
                })
                .collect();
            words.join(", ")
        };
        Self(all.iter().zip(&parts).map(|((print, _), of)| (print.clone(), name(of))).collect())
    }

    fn name(&self, fingerprint: &str) -> String {
        self.0.get(fingerprint).cloned().unwrap_or_default()
    }
}

fn series(
    history: &History,
    row: SeriesRow,
    runs: &HashMap<&str, usize>,
    names: &mut Names,
    environments: &Environments,
) -> Result<Series, HistoryError> {
    let points = history.points(&row.id)?.into_iter().filter_map(|point| {
        let run = *runs.get(point.run.as_str())?;
        let kernel = names.of(&kernel(point.release.as_deref(), &point.build));
        Some(Point { run, value: point.value, samples: 0, kernel })
    });
    let points: Vec<Point> = points.collect();
    // As for alerts: in counts, and in ratios to what ran beside.
    let searched = row.key.reference.is_some() == (row.key.unit != "1");
    let changes = if searched { history.changes(&row.id)? } else { Vec::new() };
    let changes = changes.into_iter().map(|found| Change {
        at: found.at,
        before: found.before,
        after: found.after,
        p: found.p,
    });
    let better = match row.key.better() {
        Some(dmarig_model::limit::Better::Lower) => Better::Lower,
        Some(dmarig_model::limit::Better::Higher) => Better::Higher,
        None => Better::Unknown,
    };
    Ok(Series {
        key: row.id,
        case: row.key.place.case.clone(),
        variant: row.key.place.variant.replace(',', " "),
        kernel: row.key.place.kernel.clone(),
        metric: row.key.metric.clone(),
        unit: row.key.value_unit().to_owned(),
        environment: environments.name(&row.key.environment),
        reference: row.key.reference,
        better,
        points,
        searched,
        changes: changes.collect(),
    })
}

#[cfg(test)]
mod tests {
    use dmarig_history::{RunEntry, synthetic_year};

    use super::*;

    #[test]
    fn only_histories_of_these_runs_take_them() {
        let place = tempfile::tempdir().unwrap();
        let (history, runs) = (place.path().join("history.sqlite"), place.path().join("runs"));
        let why = |named| left_alone(&history, &runs, named).unwrap();
        let put = |synthetic| {
            let run = synthetic_year(1).next().unwrap();
            let run = RunEntry { id: format!("run-{synthetic}"), synthetic, ..run };
            History::create(&history).unwrap().put([&run]).unwrap();
        };
        let record = |run: &str| {
            std::fs::create_dir_all(runs.join(run)).unwrap();
            std::fs::write(runs.join(run).join("run.json"), "{}").unwrap();
        };
        // It will be of these.
        assert_eq!(why(true), None);
        History::create(&history).unwrap();
        assert_eq!(why(true), None);
        put(false);
        record("another");
        assert!(why(true).unwrap().contains("none of the runs"));
        assert_eq!(why(false), None);
        record("run-false");
        assert_eq!(why(true), None);
        // Whatever is in it besides.
        put(true);
        assert!(why(true).unwrap().contains("made up") && why(false).is_some());
    }
}
