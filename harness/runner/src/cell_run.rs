//! Cells, from their selection to their verdicts: shared by runs, trials and bisections.

use dmarig_images::Cache;
use dmarig_model::sweep::Sweep;
use dmarig_records::Recorder;
use tokio::sync::watch;

use crate::{
    event::Reporter,
    host_device::HostDevice,
    prepare::Preparer,
    request::Selection,
    schedule::{self, FinishedCell},
    select::Selected,
};

/// Cells to run, and how.
pub struct CellRun<'a> {
    /// Where kernels and QEMUs are found.
    pub cache: &'a Cache,
    /// What was requested.
    pub selection: &'a Selection,
    /// The cells.
    pub selected: &'a Selected,
    /// The device of the host that was taken for them.
    pub device: Option<&'a HostDevice>,
    /// Guests at once; without it, by cores and free memory.
    pub jobs: Option<usize>,
    /// Turns true when the user interrupts.
    pub interrupted: &'a watch::Receiver<bool>,
    /// Takes the progress.
    pub reporter: &'a dyn Reporter,
}

/// Cells that ended.
#[derive(Debug)]
pub struct RunOutcome {
    /// In the order of the matrix. Cells that an interrupt kept from starting are left out.
    pub cells: Vec<FinishedCell>,
    /// How numbers grow with live mappings, where cells differ in those.
    pub sweeps: Vec<Sweep>,
}

impl CellRun<'_> {
    /// Prepares the cells, runs and records them, and judges each by itself and against the others.
    pub async fn run(&self, recorder: &mut Recorder) -> RunOutcome {
        let selected = self.selected;
        let mut preparer = Preparer::new(
            self.cache,
            self.selection,
            self.device,
            self.interrupted.clone(),
            self.reporter,
        );
        let mut prepared = Vec::new();
        let mut interrupted = self.interrupted.clone();
        for cell in &selected.cells {
            tokio::select! {
                ready = preparer.prepare(selected.case(cell), cell) => prepared.push(ready),
                // What is not prepared is not started.
                Ok(_) = interrupted.wait_for(|interrupted| *interrupted) => break,
            }
        }
        let jobs = schedule::jobs(self.jobs, selected.memory_mib());
        let mut cells =
            schedule::run(selected, prepared, jobs, recorder, self.interrupted, self.reporter)
                .await;
        let sweeps = schedule::conclude_run(&selected.cases, &mut cells, recorder);
        RunOutcome { cells, sweeps }
    }
}
