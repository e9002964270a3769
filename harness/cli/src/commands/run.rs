//! `dmarig run`

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use dmarig_history::HistoryJudgement;
use dmarig_images::Cache;
use dmarig_model::{limit::Limit, matrix::Cell, sweep::Sweep, text::shown};
use dmarig_records::CellName;
use dmarig_report::{CellView, RunView, TableContext};
use dmarig_runner::{
    Baseline, FinishedCell, HistoryGate, Reporter, RunRequest, run_selected, select::Selected,
    signals::InterruptibleRuntime,
};
use dmarig_stats::paired::Judgement;
use tokio::sync::watch;

use crate::{
    exit::{Exit, Failure},
    options::{HistoryFile, Places, SelectionOptions},
    output::{self, Screen, print},
    report::{Lines, Live, on_interrupt},
};

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    selection: SelectionOptions,
    #[command(flatten)]
    baseline: BaselineOptions,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    places: Places,
    #[command(flatten)]
    history: HistoryFile,
    /// Number of guests to run at a time [default: by processors and free memory]
    #[arg(
        long,
        short = 'j',
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..),
        help_heading = "Cells"
    )]
    jobs: Option<u16>,
    /// Print a line for each stage of a guest if standard error is not a terminal
    #[arg(long, hide = true)]
    stages: bool,
}

/// Output of results.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Format of the results on standard output
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Also write the results to a file, as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    Table,
    /// One JSON document (`dmarig schema result`)
    Json,
}

/// Comparison with a baseline kernel.
#[derive(Debug, Args)]
#[command(next_help_heading = "Comparison with a baseline")]
struct BaselineOptions {
    /// Baseline kernel: cases with limits run on both kernels in pairs until the limit is decided
    #[arg(long, value_name = "NAME|PATH")]
    baseline: Option<String>,
    /// Percentage by which a metric may be worse than the baseline's, as in elapsed=5. Replaces the limits
    /// of the cases (may be repeated)
    #[arg(long = "limit", value_name = "METRIC=PERCENT", value_parser = Limit::parse, requires = "baseline")]
    limits: Vec<Limit>,
    /// Random seed for the order of pairs [default: a new one each time, which is printed]
    #[arg(long, value_name = "N", requires = "baseline")]
    seed: Option<u64>,
}

impl BaselineOptions {
    fn baseline(&self) -> Option<Baseline> {
        let kernel = self.baseline.clone()?;
        Some(Baseline { kernel, limits: self.limits.clone(), seed: self.seed })
    }
}

impl Run {
    pub(crate) fn execute(self, command: Vec<String>) -> Result<Exit, Failure> {
        let cache = self.places.open_cache()?;
        let request = RunRequest {
            selection: self.selection.selection(),
            jobs: self.jobs.map(usize::from),
            runs: PathBuf::new(),
            command,
            options: Some(self.selection.recorded(&self.places)),
        };
        let selected = request.select(&cache)?;
        let baseline = self.baseline.baseline();
        if let Some(baseline) = &baseline {
            baseline.check(&request.selection, &selected, &cache)?;
        }
        // A guest within a guest has neither a home nor a history.
        let gate = HistoryGate::open(self.history.path().ok(), &selected)?;
        let request = RunRequest { runs: self.places.runs()?, ..request };
        // When it is dropped, every guest is killed and its directory removed.
        let mut runtime = InterruptibleRuntime::new(on_interrupt)?;
        let interrupted = runtime.interrupted();
        let run = self.run(&cache, &request, &selected, gate, baseline, interrupted);
        runtime.run(run).unwrap_or(Ok(Exit::Interrupted))
    }

    async fn run(
        &self,
        cache: &Cache,
        request: &RunRequest,
        selected: &Selected,
        gate: Option<HistoryGate>,
        baseline: Option<Baseline>,
        interrupted: watch::Receiver<bool>,
    ) -> Result<Exit, Failure> {
        let live = output::shows_progress().then(|| Live::new(selected.cells.len()));
        let lines = Lines::new(self.stages);
        let reporter: &dyn Reporter = match &live {
            Some(live) => live,
            None => &lines,
        };
        let run = run_selected(request, selected, cache, &interrupted, reporter).await?;
        if let Some(live) = &live {
            live.clear();
        }
        let judged = gate.map(|gate| gate.judge(&run.directory, selected, baseline.as_ref()));
        let compared = match &baseline {
            Some(baseline) => {
                baseline.compare(request, selected, cache, &interrupted, &Lines::default()).await?
            }
            None => Vec::new(),
        };
        let options = request.options.clone().unwrap_or_default();
        let rerun = |cell: &Cell| options.rerun_command(&cell_name(cell));
        let logs = |cell: &Cell| logs(&run.directory, cell);
        let judged = judged.transpose();
        let standing = match &judged {
            Ok(standing) => standing.as_ref(),
            Err(_) => None,
        };
        if let Some(standing) = standing {
            warn(standing);
        }
        // The results come first, whatever becomes of the device.
        let view = RunView {
            id: run.id.clone(),
            dmarig: dmarig_version::VERSION.to_owned(),
            cells: run.outcome.cells.into_iter().map(cell_view).collect(),
            sweeps: run.outcome.sweeps,
            comparisons: compared,
            standing: standing.cloned(),
        };
        print_report(&self.output, &view, &rerun, &logs)?;
        for sweep in &view.sweeps {
            picture(sweep, &run.directory)?;
        }
        errln!("record: {}", run.directory.display());
        run.device_restored?;
        let exit = Exit::of(view.outcomes());
        judged?;
        let interrupted = *interrupted.borrow();
        Ok(if interrupted { Exit::Interrupted } else { exit })
    }
}

/// What names a cell on a command line.
pub(crate) fn cell_name(cell: &Cell) -> CellName<'_> {
    let (kernel, qemu) = (&cell.axes.kernel, &cell.axes.qemu);
    CellName { case: &cell.case, id: &cell.id, kernel, qemu }
}

/// The directory of a cell's logs.
pub(crate) fn logs(directory: &Path, cell: &Cell) -> String {
    directory.join("cells").join(cell.id.replace('/', "_")).display().to_string()
}

/// Warns about numbers that neither passed nor failed: one line for each reason, since at first as many
/// numbers lack a history as there are numbers.
fn warn(standing: &HistoryJudgement) {
    let mut open: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for metric in &standing.metrics {
        let reason = match (metric.not_compared(), metric.judgement()) {
            (Some(reason), _) => format!("not compared: {}", shown(&reason)),
            (None, Some(Judgement::Inconclusive)) => "inconclusive".to_owned(),
            (None, _) => continue,
        };
        let name = format!("{}, {}", shown(&metric.place.to_string()), shown(&metric.metric));
        open.entry(reason).or_default().push(name);
    }
    for (reason, names) in open {
        let more = match names.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        tracing::warn!("against the history, {}{more}: {reason}", names[0]);
    }
}

/// What is reported of a cell.
pub(crate) fn cell_view(cell: FinishedCell) -> CellView {
    CellView { cell: cell.cell, result: cell.result }
}

/// Prints the results, and writes them as JUnit where that is asked for.
pub(crate) fn print_report(
    output: &Output,
    view: &RunView,
    rerun: &dyn Fn(&Cell) -> String,
    logs: &dyn Fn(&Cell) -> String,
) -> Result<(), Failure> {
    let text = match output.format {
        Format::Json => view.json()?,
        Format::Table => {
            let Screen { width, colour } = Screen::new(80);
            view.table(&TableContext { width, colour, rerun, logs })
        }
    };
    print(&text)?;
    if let Some(path) = &output.junit {
        let xml = view.junit()?;
        std::fs::write(path, xml).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

/// Draws a sweep into the run's directory.
fn picture(sweep: &Sweep, directory: &Path) -> Result<(), Failure> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "=.-".contains(c) { c } else { '_' };
    let name: String = format!("sweep-{}-{}", sweep.case, sweep.label).chars().map(plain).collect();
    let path = directory.join(format!("{name}.svg"));
    std::fs::write(&path, dmarig_report::sweep_picture(sweep))
        .with_context(|| format!("can't write {}", path.display()))?;
    errln!("picture: {}", path.display());
    Ok(())
}
