//! Progress: a line per running guest on a terminal, a line per ended cell elsewhere.

use std::{
    cell::RefCell,
    collections::HashMap,
    time::{Duration, Instant},
};

use dmarig_model::{
    matrix::Cell,
    observation::{Outcome, WindowKind},
    text::shown as shown_text,
};
use dmarig_records::CellRecord;
use dmarig_report::number::quantity;
use dmarig_rig::launch::Stage;
use dmarig_runner::{Event, Reporter};
use dmarig_wire::ECHO;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::short;

/// Characters of a console's line that are shown.
const SHOWN: usize = 160;

fn stage_text(stage: &Stage) -> String {
    match stage {
        Stage::Starting => "starting QEMU".to_owned(),
        Stage::Booting => "booting".to_owned(),
        Stage::Working { kind, number, total } => {
            let what = match kind {
                WindowKind::Counting => "counting",
                WindowKind::Timing => "timing",
                WindowKind::WarmUp => "warming up",
            };
            format!("{what} ({number}/{total})")
        }
        Stage::ConsoleLine(line) => shown(line),
        Stage::Collecting => "collecting".to_owned(),
        Stage::Ending => "ending".to_owned(),
    }
}

/// A line of a console, as it may be shown: it comes from a guest.
fn shown(line: &str) -> String {
    line.trim_start_matches(ECHO).escape_debug().take(SHOWN).collect()
}

fn ended_line(cell: &Cell, record: &CellRecord, time: Duration) -> String {
    let verdict = &record.verdict;
    let reason = match (verdict.outcome, verdict.reasons.first()) {
        (Outcome::Passed, _) | (_, None) => String::new(),
        (_, Some(reason)) => format!(": {reason}"),
    };
    format!("{:>9}  {}  {:.1} s{reason}", verdict.outcome.name(), short(cell), time.as_secs_f64())
}

/// Progress on a terminal.
#[derive(Debug)]
pub(crate) struct Live {
    all: MultiProgress,
    total: ProgressBar,
    bars: RefCell<HashMap<String, Bar>>,
}

/// The line of one guest.
#[derive(Debug)]
struct Bar {
    bar: ProgressBar,
    start: Instant,
    stage: String,
}

impl Live {
    /// For a run of `cells` cells.
    pub(crate) fn new(cells: usize) -> Self {
        let all = MultiProgress::new();
        let total = all.add(ProgressBar::new(cells as u64));
        total.set_style(style("{pos}/{len} cells  {elapsed}"));
        Self { all, total, bars: RefCell::default() }
    }

    /// Takes the lines away that still stand there.
    pub(crate) fn clear(&self) {
        for (_, bar) in self.bars.borrow_mut().drain() {
            bar.bar.finish_and_clear();
        }
        self.total.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl Live {
    fn started(&self, cell: &Cell) {
        let bar = self.all.insert_before(&self.total, ProgressBar::new_spinner());
        bar.set_style(style("{spinner} {prefix}  {wide_msg} {elapsed}"));
        bar.set_prefix(short(cell));
        bar.enable_steady_tick(Duration::from_millis(200));
        let bar = Bar { bar, start: Instant::now(), stage: String::new() };
        self.bars.borrow_mut().insert(cell.id.clone(), bar);
    }

    fn stage(&self, cell: &Cell, stage: &Stage) {
        let mut bars = self.bars.borrow_mut();
        let Some(bar) = bars.get_mut(&cell.id) else { return };
        match stage {
            Stage::ConsoleLine(_) => {
                bar.bar.set_message(format!("{}: {}", bar.stage, stage_text(stage)));
            }
            stage => {
                bar.stage = stage_text(stage);
                bar.bar.set_message(bar.stage.clone());
            }
        }
    }

    fn finished(&self, cell: &Cell, record: &CellRecord) {
        self.total.inc(1);
        let bar = self.bars.borrow_mut().remove(&cell.id);
        let time = bar.map_or(Duration::ZERO, |bar| {
            bar.bar.finish_and_clear();
            bar.start.elapsed()
        });
        // One line for each cell that needs a look; the table has the others.
        if !matches!(record.verdict.outcome, Outcome::Passed | Outcome::Skipped) {
            let _ = self.all.println(ended_line(cell, record, time));
        }
    }
}

impl Reporter for Live {
    fn report(&self, event: &Event<'_>) {
        match event {
            Event::CellStarted(cell) => self.started(cell),
            Event::CellStage(cell, stage) => self.stage(cell, stage),
            Event::CellFinished(cell, record) => self.finished(cell, record),
            event => {
                if let Some(line) = note(event) {
                    let _ = self.all.println(line);
                }
            }
        }
    }
}

/// Notes only: for commands that summarize their cells in lines of their own.
#[derive(Debug, Default)]
pub(crate) struct Notes;

impl Reporter for Notes {
    fn report(&self, event: &Event<'_>) {
        if let Some(line) = note(event) {
            errln!("{line}");
        }
    }
}

/// Cells only: notes about a kernel are the same for each revision.
#[derive(Debug, Default)]
pub(crate) struct BisectionCells(Lines);

impl Reporter for BisectionCells {
    fn report(&self, event: &Event<'_>) {
        match event {
            Event::Note(text) => tracing::info!("{text}"),
            event => self.0.report(event),
        }
    }
}

/// The line of an event that is not about one cell.
fn note(event: &Event<'_>) -> Option<String> {
    Some(match event {
        Event::Note(text) => (*text).to_owned(),
        Event::ComparisonStarted { label } => format!("comparing {}", shown_text(label)),
        Event::PairMeasured { number, values } => {
            let values = values.iter().map(|value| {
                let candidate = quantity(value.candidate, &value.unit);
                let baseline = quantity(value.baseline, &value.unit);
                format!("{} {candidate} against {baseline}", shown_text(&value.metric))
            });
            format!("  pair {number}: {}", values.collect::<Vec<_>>().join(", "))
        }
        Event::PairDiscarded { reason } => format!("  pair discarded: {reason}"),
        Event::Recorded(directory) => format!("record: {}", directory.display()),
        Event::SourceFetched { name, version } => format!("{name} {version} fetched and verified"),
        Event::BuildStarted { name } => format!("building {name}"),
        Event::TimingStarted { candidate, baseline } => {
            format!("timing {candidate} and {baseline} in pairs")
        }
        Event::CellStarted(_)
        | Event::CellStage(..)
        | Event::CellFinished(..)
        | Event::TrialFinished(_) => return None,
    })
}

/// Announces that guests are being stopped.
pub(crate) fn on_interrupt() {
    errln!("dmarig: interrupted, stopping guests (press Ctrl-C again to force)");
}

/// Progress where no terminal is: a line when a cell has ended, and on demand for each stage.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    starts: RefCell<HashMap<String, Instant>>,
    stages: bool,
}

impl Lines {
    /// `stages`: a line for each stage as well.
    pub(crate) fn new(stages: bool) -> Self {
        Self { stages, ..Self::default() }
    }
}

impl Reporter for Lines {
    fn report(&self, event: &Event<'_>) {
        match event {
            Event::CellStarted(cell) => {
                self.starts.borrow_mut().insert(cell.id.clone(), Instant::now());
            }
            Event::CellStage(_, stage) => {
                if self.stages {
                    errln!("{}", stage_text(stage));
                }
            }
            Event::CellFinished(cell, record) => {
                let start = self.starts.borrow_mut().remove(&cell.id);
                let time = start.map_or(Duration::ZERO, |start| start.elapsed());
                errln!("{}", ended_line(cell, record, time));
            }
            event => {
                if let Some(line) = note(event) {
                    errln!("{line}");
                }
            }
        }
    }
}
