//! Cells of a kernel, run and recorded as `dmarig run` does.

use std::path::PathBuf;

use dmarig_bisect::Trouble;
use dmarig_history::Recorder;
use dmarig_images::Cache;
use tokio::sync::watch;

use super::subject::Subject;
use crate::hearing::Hearing;
use crate::{
    cases::{Selected, select},
    commands::run_meta,
    exit::Failure,
    options::Selection,
    report::Lines,
    scheduler::Ended,
    work::Work,
};

/// Cells that have ended, and where their record is.
pub(crate) struct Ran {
    pub(crate) ended: Vec<Ended>,
    pub(crate) record: String,
}

/// Where guests run and are recorded.
pub(crate) struct Guests {
    pub(crate) cache: Cache,
    pub(crate) runs: PathBuf,
    pub(crate) words: Vec<String>,
}

impl Guests {
    /// What the subject selects, on a kernel; a mistake in it is the user's.
    pub(crate) fn select(
        &self,
        subject: &Subject,
        kernel: &str,
    ) -> Result<(Selection, Selected), Failure> {
        let selection = subject.selection(kernel)?;
        let selected = select(&selection, &self.cache)?;
        Ok((selection, selected))
    }

    /// Runs them; those of a measurement one at a time.
    pub(crate) fn run(
        &self,
        subject: &Subject,
        kernel: &str,
        hearing: &mut Hearing,
    ) -> Result<Ran, Trouble> {
        let host = |failure: Failure| Trouble::Host(format!("{:#}", failure.error));
        let (selection, selected) = self.select(subject, kernel).map_err(host)?;
        let interrupted = hearing.interrupted();
        let alone = subject.metric.is_some();
        let work = self.cells(&selection, &selected, interrupted, alone);
        let ran = hearing.run(work).ok_or(Trouble::Interrupted)?;
        if hearing.is_stopped() {
            return Err(Trouble::Interrupted);
        }
        ran.map_err(host)
    }

    async fn cells(
        &self,
        selection: &Selection,
        selected: &Selected,
        interrupted: watch::Receiver<bool>,
        alone: bool,
    ) -> Result<Ran, Failure> {
        let mut meta = run_meta(selected, self.words.clone());
        let mut recorder = Recorder::create(&self.runs, &mut meta)?;
        let lines = Lines::default();
        // Notes on a kernel are the same for each revision.
        let say = |text: &str| tracing::info!("{text}");
        let work = Work {
            cache: &self.cache,
            selection,
            selected,
            device: None,
            jobs: alone.then_some(1),
            interrupted: &interrupted,
            events: &lines,
            say: &say,
        };
        let ended = work.run(&mut recorder).await.ended;
        Ok(Ran { ended, record: recorder.directory().display().to_string() })
    }
}
