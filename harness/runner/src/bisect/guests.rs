//! Cells of a kernel, run and recorded as `dmarig run` does.

use std::path::PathBuf;

use dmarig_bisect::JudgeError;
use dmarig_images::Cache;
use dmarig_records::Recorder;
use tokio::sync::watch;

use super::spec::JudgeSpec;
use crate::{
    cell_run::CellRun,
    error::Error,
    event::Reporter,
    meta::run_meta,
    request::Selection,
    schedule::FinishedCell,
    select::{Selected, select},
};

/// Cells that ended, and the directory of their record.
pub(super) struct RecordedCells {
    pub(super) cells: Vec<FinishedCell>,
    pub(super) record: String,
}

/// Where guests run and are recorded.
pub(super) struct Guests {
    pub(super) cache: Cache,
    pub(super) runs: PathBuf,
    pub(super) command: Vec<String>,
    pub(super) reporter: Box<dyn Reporter>,
}

impl Guests {
    /// Runs the cells of a specification on a kernel; those of a measurement one at a time.
    pub(super) async fn run(
        &self,
        spec: &JudgeSpec,
        kernel: &str,
        interrupted: watch::Receiver<bool>,
    ) -> Result<RecordedCells, JudgeError> {
        let cells = self.cells(spec, kernel, &interrupted).await;
        if *interrupted.borrow() {
            return Err(JudgeError::Interrupted);
        }
        cells.map_err(|error| JudgeError::Host(with_sources(&error)))
    }

    async fn cells(
        &self,
        spec: &JudgeSpec,
        kernel: &str,
        interrupted: &watch::Receiver<bool>,
    ) -> Result<RecordedCells, Error> {
        let selection: Selection = spec.selection(kernel)?;
        let selected: Selected = select(&selection, &self.cache)?;
        let mut meta = run_meta(&selected, self.command.clone());
        let mut recorder = Recorder::create(&self.runs, &mut meta)?;
        let run = CellRun {
            cache: &self.cache,
            selection: &selection,
            selected: &selected,
            device: None,
            jobs: if spec.metric.is_some() { Some(1) } else { None },
            interrupted,
            reporter: &*self.reporter,
        };
        let cells = run.run(&mut recorder).await.cells;
        Ok(RecordedCells { cells, record: recorder.directory().display().to_string() })
    }
}

/// An error on one line, with what caused it.
fn with_sources(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
