//! One run of selected cells, recorded.

use std::path::PathBuf;

use dmarig_images::Cache;
use dmarig_records::{Recorder, RunOptions};
use tokio::sync::watch;

use crate::{
    cell_run::{CellRun, RunOutcome},
    error::Error,
    event::Reporter,
    host_device::HostDevice,
    meta::run_meta,
    request::Selection,
    select::{Selected, check_kernel, check_kernels, check_qemus, select},
};

/// What to run, and where to record it.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// Which cells, on what.
    pub selection: Selection,
    /// Guests at once; without it, by cores and free memory.
    pub jobs: Option<usize>,
    /// Directory below which the run's record is made.
    pub runs: PathBuf,
    /// The command line that the record names.
    pub command: Vec<String>,
    /// The options that the record needs for commands that run one cell again.
    pub options: Option<RunOptions>,
}

/// A run that ended.
#[derive(Debug)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// The directory of its record.
    pub directory: PathBuf,
    /// Its cells.
    pub outcome: RunOutcome,
    /// Whether the device of the host was given back to its driver.
    pub device_restored: Result<(), Error>,
}

impl RunRequest {
    /// Reads the cases, unfolds the cells, and checks that the kernels can exist.
    ///
    /// # Errors
    /// [`Error::Request`] for what is wrong with the request.
    pub fn select(&self, cache: &Cache) -> Result<Selected, Error> {
        let selected = select(&self.selection, cache)?;
        check_kernels(&selected, cache)?;
        check_qemus(&selected, cache)?;
        if let Some(reference) = &self.selection.reference {
            check_kernel("--reference", reference, cache)?;
        }
        Ok(selected)
    }
}

/// Runs what is requested, records it, and reports events on the way. `interrupted` turns true when the
/// user stops the run: guests are then ended in order, and what was not started stays so.
///
/// QEMU dies with the thread that starts it, so the future has to stay on one thread.
///
/// # Errors
/// [`Error`]; what goes wrong with one cell is that cell's outcome instead.
pub async fn run(
    request: &RunRequest,
    cache: &Cache,
    interrupted: &watch::Receiver<bool>,
    reporter: &dyn Reporter,
) -> Result<Run, Error> {
    let selected = request.select(cache)?;
    run_selected(request, &selected, cache, interrupted, reporter).await
}

/// Runs cells that were selected already.
///
/// # Errors
/// As for [`run`].
pub async fn run_selected(
    request: &RunRequest,
    selected: &Selected,
    cache: &Cache,
    interrupted: &watch::Receiver<bool>,
    reporter: &dyn Reporter,
) -> Result<Run, Error> {
    remove_left_directories();
    let mut meta = run_meta(selected, request.command.clone());
    meta.reference.clone_from(&request.selection.reference);
    meta.options.clone_from(&request.options);
    let mut recorder = Recorder::create(&request.runs, &mut meta)?;
    let memory = u64::from(selected.memory_mib()) << 20;
    // Declared before the guests, so that it is given back after they have ended.
    let device = request.selection.device.take(memory, &request.runs, reporter)?;
    let cells = CellRun {
        cache,
        selection: &request.selection,
        selected,
        device: device.as_ref(),
        jobs: request.jobs,
        interrupted,
        reporter,
    };
    let outcome = cells.run(&mut recorder).await;
    let device_restored = device.map_or(Ok(()), HostDevice::restore);
    let directory = recorder.directory().to_owned();
    Ok(Run { id: meta.id, directory, outcome, device_restored })
}

/// Removes what killed runs left in the directory for temporary files.
pub fn remove_left_directories() {
    for directory in dmarig_rig::workdir::sweep() {
        tracing::info!("removed {}, which a killed run had left", directory.display());
    }
}
