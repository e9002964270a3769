//! A run beside those before it, by the `history` limits of its cases.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use dmarig_history::{Asked, History, HistoryError, Place, RunEntry, Standing, StoredRun};
use dmarig_model::text::shown;
use dmarig_stats::paired::Judgement;

use super::Against;
use crate::{cases::Selected, exit::Failure, options::HistoryFile};

/// The history that a run is judged by.
pub(crate) struct Before {
    /// `None` where there is no place for one.
    file: Option<PathBuf>,
    /// `None` where there is none yet.
    history: Option<History>,
}

impl Before {
    /// Opens it before anything is run, where a case asks for it: what is wrong with it is told then.
    ///
    /// # Errors
    /// Where there is one that can't be read.
    pub(crate) fn open(file: &HistoryFile, selected: &Selected) -> Result<Option<Self>, Failure> {
        if selected.cases.iter().all(|case| case.history.is_empty()) {
            return Ok(None);
        }
        // A guest within a guest has neither a home nor a history.
        let file = file.path().ok();
        let history = match file.as_deref().map(History::open) {
            None | Some(Err(HistoryError::Missing { .. })) => None,
            Some(opened) => Some(opened?),
        };
        Ok(Some(Self { file, history }))
    }

    /// Judges the run whose record is in `directory`, and puts what came of it beside that.
    ///
    /// # Errors
    /// Where the record or the history can't be read, or nothing can be written.
    pub(crate) fn judge(
        &self,
        directory: &Path,
        selected: &Selected,
        against: &Against,
    ) -> Result<Standing, Failure> {
        let run = RunEntry::new(StoredRun::read(directory)?, None);
        let file = self.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let beside = |place: &Place, metric: &str| against.judges(selected, place, metric);
        let standing = Standing::new(&Asked {
            run: &run,
            cases: &selected.cases,
            history: self.history.as_ref(),
            file: &file,
            beside: &beside,
        })?;
        standing.write(directory)?;
        warn(&standing);
        Ok(standing)
    }
}

/// Tells what is neither a pass nor a failure: in a line for each reason, since at first there are as many
/// numbers without a history as there are numbers.
fn warn(standing: &Standing) {
    let mut open: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for metric in &standing.metrics {
        let why = match (metric.not_compared(), metric.judgement()) {
            (Some(why), _) => format!("not compared: {}", shown(&why)),
            (None, Some(Judgement::Inconclusive)) => "inconclusive".to_owned(),
            (None, _) => continue,
        };
        let what = format!("{}, {}", shown(&metric.place.to_string()), shown(&metric.metric));
        open.entry(why).or_default().push(what);
    }
    for (why, what) in open {
        let more = match what.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        tracing::warn!("against the history, {}{more}: {why}", what[0]);
    }
}
