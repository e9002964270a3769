//! Cells, from their selection to what each came to: what `run`, `prove` and `bisect` have in common.

use dmarig_history::Recorder;
use dmarig_images::Cache;
use dmarig_model::sweep::Sweep;
use tokio::sync::watch;

use crate::{
    cases::Selected,
    host_device::HostDevice,
    options::Selection,
    prepare::Preparer,
    report::Events,
    scheduler::{self, Ended, compare},
};

/// Cells to run, and how.
pub(crate) struct Work<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) selection: &'a Selection,
    pub(crate) selected: &'a Selected,
    /// The device of the host's that was taken for them.
    pub(crate) device: Option<&'a HostDevice>,
    /// Guests at once; by cores and free memory where nothing is said.
    pub(crate) jobs: Option<usize>,
    pub(crate) interrupted: &'a watch::Receiver<bool>,
    pub(crate) events: &'a dyn Events,
    /// Where notes of their preparation go.
    pub(crate) say: &'a dyn Fn(&str),
}

/// What came of them.
pub(crate) struct Done {
    /// Cells that ended, in the order of the matrix; those that an interrupt kept from starting are not
    /// among them.
    pub(crate) ended: Vec<Ended>,
    /// What live mappings cost, where cells differ in their number.
    pub(crate) sweeps: Vec<Sweep>,
}

impl Work<'_> {
    /// Prepares the cells, runs and records them, and judges each by itself and beside the others.
    pub(crate) async fn run(&self, recorder: &mut Recorder) -> Done {
        let selected = self.selected;
        let mut preparer = Preparer::new(
            self.cache,
            self.selection,
            self.device,
            self.interrupted.clone(),
            self.say,
        );
        let mut prepared = Vec::new();
        let mut stopped = self.interrupted.clone();
        for cell in &selected.cells {
            tokio::select! {
                ready = preparer.prepare(selected.case(cell), cell) => prepared.push(ready),
                // What is not prepared is not started.
                Ok(_) = stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        let jobs = scheduler::jobs(self.jobs, memory_mib(selected));
        let mut ended =
            scheduler::run(selected, prepared, jobs, recorder, self.interrupted, self.events).await;
        let sweeps = compare(&selected.cases, &mut ended);
        Done { ended, sweeps }
    }
}

/// Memory of the largest guest, in MiB.
pub(crate) fn memory_mib(selected: &Selected) -> u32 {
    selected.cells.iter().map(|cell| cell.axes.memory_mib).max().unwrap_or(0)
}
