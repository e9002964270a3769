//! Reads a history and records into a site.

mod alerts;
mod environments;
mod limits;
mod run_details;
mod sweeps;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use dmarig_history::{
    CellEntry, CheckTallies, History, HistoryError, ImportOptions, RunRow, SeriesFilter, SeriesRow,
    Tally,
};
use dmarig_records::{Build, run_directories};
use dmarig_report::kernel_name;

use self::{
    alerts::alerts,
    environments::{Environments, machine},
    limits::judged,
    run_details::{Details, record_of},
    sweeps::sweeps,
};
use crate::{
    Better, Cell, CellResult, Change, Checked, Dashboard, DashboardError, Point, Run, Series, Site,
};

/// Where things are read.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The history's file.
    pub history: PathBuf,
    /// Records of runs.
    pub runs: PathBuf,
    /// Whether records that the history does not have yet are put into it.
    pub add: bool,
    /// Of how many of the newest runs the records are read, for logs, evidence, and how numbers were judged.
    pub detailed: usize,
}

/// Puts a site together from all that the history has.
///
/// # Errors
/// What the history says.
pub fn build_dashboard(sources: &Sources, live: bool) -> Result<Dashboard, HistoryError> {
    let mut history = History::open(&sources.history)?;
    // Before the series are read: it also finds where they changed.
    let found = history.alerts()?;
    let mut site = Site { generated: now(), live, ..Site::default() };
    let mut runs = history.runs(None)?;
    runs.reverse();
    let facts = history.environments()?;
    let environments = Environments::new(facts.clone());
    site.environments = environments.told();
    let mut cells = Cells::new(&environments);
    for run in &runs {
        let of_run = history.cells(&run.id)?;
        site.runs.push(cells.run(run, &of_run));
    }
    let numbers: HashMap<&str, usize> =
        runs.iter().enumerate().map(|(at, run)| (run.id.as_str(), at)).collect();
    for row in history.series(&SeriesFilter::default())? {
        site.series.push(series(&history, row, &numbers, &mut cells.names, &environments)?);
    }
    site.sweeps = sweeps(&history, &runs, &environments)?;
    site.cells = cells.all;
    site.alerts = alerts(&site, &numbers, &found, &facts);
    let first = site.runs.len().saturating_sub(sources.detailed);
    let keys = site.series.iter().enumerate().map(|(at, one)| (one.key.clone(), at)).collect();
    site.judged_from = first;
    for run in &mut site.runs[first..] {
        let directory = record_of(&sources.runs, &run.id);
        run.judged =
            directory.map_or_else(Vec::new, |directory| judged(&directory, &run.machine, &keys));
    }
    let details =
        Details::new(sources, first, runs.into_iter().map(|run| (run.id, run.command)).collect());
    Ok(Dashboard::new(site, Box::new(move |site, run| details.of(site, run))))
}

/// The result of adding records to a history.
#[derive(Debug, Default)]
pub struct NewRecords {
    /// Whether the history has changed.
    pub changed: bool,
    /// Whether a run has not ended yet. It can be added when it has.
    pub running: bool,
}

/// Why records are not put into a history, where they are not to be: one that is `named` and has
/// runs, but none of these, belongs to other machines.
///
/// # Errors
/// What the history says, but that there is none: then it will be of these runs. That the records can't be
/// listed.
pub fn why_not_added(
    history: &Path,
    runs: &Path,
    named: bool,
) -> Result<Option<String>, DashboardError> {
    let opened = match History::open(history) {
        Err(HistoryError::Missing { .. }) => return Ok(None),
        opened => opened?,
    };
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
pub fn add_records(sources: &Sources) -> Result<NewRecords, DashboardError> {
    let directories = run_directories(&sources.runs)?;
    let imported =
        History::create(&sources.history)?.import(&directories, ImportOptions::default())?;
    for error in &imported.unreadable {
        // One that can't be read hides no other.
        tracing::warn!("left out: {error}");
    }
    Ok(NewRecords {
        changed: !imported.added.is_empty() || !imported.replaced.is_empty(),
        running: !imported.running.is_empty(),
    })
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

/// Cells of all runs, each once in each environment, and texts that many of them share.
struct Cells<'a> {
    all: Vec<Cell>,
    known: HashMap<(String, String, usize), usize>,
    environments: &'a Environments,
    names: StringPool,
    checks: Checks,
}

/// Texts that are there once, however often they are told.
#[derive(Default)]
struct StringPool(HashMap<String, Arc<str>>);

impl StringPool {
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
struct Checks(HashMap<CheckTallies, Arc<[Checked]>>);

impl Checks {
    fn of(&mut self, judged: &CheckTallies, names: &mut StringPool) -> Arc<[Checked]> {
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

impl<'a> Cells<'a> {
    fn new(environments: &'a Environments) -> Self {
        let (all, known) = (Vec::new(), HashMap::new());
        Self { all, known, environments, names: StringPool::default(), checks: Checks::default() }
    }

    fn run(&mut self, run: &RunRow, cells: &[CellEntry]) -> Run {
        Run {
            id: run.id.clone(),
            started: run.started,
            command: run.command.join(" "),
            machine: machine(&run.host),
            environment: environment(run, cells),
            results: cells.iter().map(|cell| self.result(cell)).collect(),
            not_run: run.ended_early.map_or(0, |early| early.not_run as usize),
            judged: Vec::new(),
        }
    }

    fn result(&mut self, row: &CellEntry) -> CellResult {
        let environment = self.environments.of(&row.environment);
        let key = (row.id.clone(), row.place.kernel.clone(), environment);
        let cell = *self.known.entry(key).or_insert_with(|| {
            self.all.push(Cell {
                id: row.id.clone(),
                case: row.place.case.clone(),
                kernel: row.place.kernel.clone(),
                variant: row.place.variant.replace(',', " "),
                environment,
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
    kernel_name(release, &build.short()).unwrap_or_default()
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

fn series(
    history: &History,
    row: SeriesRow,
    runs: &HashMap<&str, usize>,
    names: &mut StringPool,
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
        Some(dmarig_model::metrics::Better::Lower) => Better::Lower,
        Some(dmarig_model::metrics::Better::Higher) => Better::Higher,
        None => Better::Unknown,
    };
    Ok(Series {
        key: row.id,
        case: row.key.place.case.clone(),
        variant: row.key.place.variant.replace(',', " "),
        kernel: row.key.place.kernel.clone(),
        metric: row.key.metric.clone(),
        unit: row.key.value_unit().to_owned(),
        environment: environments.of_print(&row.key.environment),
        reference: row.key.reference,
        better,
        points,
        searched,
        changes: changes.collect(),
    })
}

#[cfg(test)]
mod tests {
    use dmarig_demo::synthetic_year;
    use dmarig_history::RunEntry;

    use super::*;

    #[test]
    fn only_histories_of_these_runs_take_them() {
        let place = tempfile::tempdir().unwrap();
        let (history, runs) = (place.path().join("history.sqlite"), place.path().join("runs"));
        let why = |named| why_not_added(&history, &runs, named).unwrap();
        let record = |run: &str| {
            std::fs::create_dir_all(runs.join(run)).unwrap();
            std::fs::write(runs.join(run).join("run.json"), "{}").unwrap();
        };
        // It will be of these.
        assert_eq!(why(true), None);
        History::create(&history).unwrap();
        assert_eq!(why(true), None);
        let run = synthetic_year(1).next().unwrap();
        let run = RunEntry { id: "known".into(), ..run };
        History::create(&history).unwrap().insert_runs([&run]).unwrap();
        record("another");
        assert!(why(true).unwrap().contains("none of the runs"));
        assert_eq!(why(false), None);
        record("known");
        assert_eq!(why(true), None);
    }

    #[test]
    fn a_cell_is_another_one_on_another_machine() {
        let place = tempfile::tempdir().unwrap();
        let history = place.path().join("history.sqlite");
        let on = |id: &str, cpu: &str| {
            let mut run = RunEntry { id: id.into(), ..synthetic_year(1).next().unwrap() };
            run.points.clear();
            cpu.clone_into(&mut run.host.cpu);
            run.cells.iter_mut().for_each(|cell| cpu.clone_into(&mut cell.environment.cpu));
            run
        };
        // Two QEMUs in one run, too.
        let mut third = on("c", "EPYC");
        let mut other = third.cells[0].clone();
        other.number = third.cells.len() as u32;
        other.environment.qemu_version = "0.1".to_owned();
        third.cells.push(other);
        let runs = [on("a", "EPYC"), on("b", "Xeon"), third];
        History::create(&history).unwrap().insert_runs(&runs).unwrap();
        let runs = place.path().join("runs");
        let sources = Sources { history, runs, add: false, detailed: 1 };
        let dashboard = build_dashboard(&sources, false).unwrap();
        let site = dashboard.site();
        let cells = |run: usize| -> Vec<usize> {
            site.runs[run].results.iter().map(|result| result.cell).collect()
        };
        assert_eq!((site.environments.len(), site.cells.len()), (3, 2 * cells(0).len() + 1));
        assert!(cells(0).iter().all(|cell| !cells(1).contains(cell)));
        assert_eq!(cells(2)[..cells(0).len()], cells(0));
        assert_eq!(site.runs[0].machine, site.runs[2].machine);
        assert_ne!(site.runs[0].machine, site.runs[1].machine);
        // The page of a run has each of them.
        let page = dashboard.paths().into_iter().find(|path| path.starts_with("runs/c-")).unwrap();
        let page = dashboard.render(&page).unwrap();
        let last = cells(2).last().copied().unwrap();
        assert!(page.contains(&format!("cell-{last}-")) && page.contains("QEMU 0.1"), "{page}");
    }
}
