//! The numbers of a run compared with those of earlier runs, by the `history` limits of its cases.

use std::path::{Path, PathBuf};

use dmarig_history::{
    CellKey, History, HistoryCheckInput, HistoryError, HistoryJudgement, RunEntry,
};
use dmarig_records::{RecordFile, StoredRun};

use crate::{baseline::Baseline, error::Error, select::Selected};

/// The history that a run is judged by.
#[derive(Debug)]
pub struct HistoryGate {
    /// `None` where there is no place for one.
    file: Option<PathBuf>,
    /// `None` where there is none yet.
    history: Option<History>,
}

impl HistoryGate {
    /// Opens the history before anything runs, if a case needs it.
    ///
    /// # Errors
    /// [`Error::History`] where there is one that can't be read.
    pub fn open(file: Option<PathBuf>, selected: &Selected) -> Result<Option<Self>, Error> {
        if selected.cases.iter().all(|case| case.history.is_empty()) {
            return Ok(None);
        }
        let history = match file.as_deref().map(History::open) {
            None | Some(Err(HistoryError::Missing { .. })) => None,
            Some(opened) => Some(opened?),
        };
        Ok(Some(Self { file, history }))
    }

    /// Judges the run whose record is in `directory`, and writes the judgement into the record.
    ///
    /// # Errors
    /// [`Error`] where the record or the history can't be read, or nothing can be written.
    pub fn judge(
        &self,
        directory: &Path,
        selected: &Selected,
        baseline: Option<&Baseline>,
    ) -> Result<HistoryJudgement, Error> {
        let run = RunEntry::new(StoredRun::read(directory)?, None);
        let file = self.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let beside = |place: &CellKey, metric: &str| {
            let judging = baseline.filter(|baseline| baseline.judges(selected, place, metric));
            judging.map(|baseline| baseline.kernel.clone())
        };
        let standing = HistoryJudgement::new(&HistoryCheckInput {
            run: &run,
            cases: &selected.cases,
            history: self.history.as_ref(),
            file: &file,
            beside: &beside,
        })?;
        standing.write(directory)?;
        Ok(standing)
    }
}
