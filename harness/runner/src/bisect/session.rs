//! A bisection from its request to its summary.

use std::{
    fs,
    path::{Path, PathBuf},
};

use dmarig_bisect::{Bisection, Events, Journal, Question, Summary, Workspace};
use dmarig_images::Cache;
use dmarig_model::plan::shell_line;

use super::{
    judge::{CellJudge, JudgeSetup},
    spec::JudgeSpec,
};
use crate::error::{Error, RequestError};

/// Directory of bisections among the records of runs.
const BISECTIONS: &str = "bisections";
/// Directory of a bisection's own runs.
const RUNS: &str = "runs";
/// Directory of single steps among bisections. Its name sorts before any bisection.
const STEPS: &str = ".steps";

/// A bisection to begin.
#[derive(Debug, Clone)]
pub struct BisectRequest {
    /// A git tree of Linux.
    pub tree: PathBuf,
    /// A revision without the fault.
    pub good: String,
    /// A revision with the fault.
    pub bad: String,
    /// How revisions are judged.
    pub spec: JudgeSpec,
    /// Probability that the answer may be wrong because of noise.
    pub error: f64,
    /// The command line that the journal names.
    pub command: Vec<String>,
}

/// The directory of bisections in `runs`.
#[must_use]
pub fn bisections_directory(runs: &Path) -> PathBuf {
    runs.join(BISECTIONS)
}

/// The directory of single steps' records in `runs`. Like the runs of a bisection, they are not part of the
/// history, because the kernels are not in use.
#[must_use]
pub fn steps_directory(runs: &Path) -> PathBuf {
    bisections_directory(runs).join(STEPS)
}

/// Checks everything that can be checked, then creates the journal of a bisection in `runs`.
///
/// # Errors
/// [`Error::Request`], [`Error::Bisect`] or [`Error::Kernels`]
pub fn begin(request: &BisectRequest, runs: &Path, cache: &Cache) -> Result<Journal, Error> {
    let BisectRequest { spec, error, .. } = request;
    let tree = fs::canonicalize(&request.tree)
        .map_err(|source| RequestError::Tree { path: request.tree.clone(), source })?;
    let resolve = |revision: &String| -> Result<(String, String), Error> {
        Ok((revision.clone(), Workspace::resolve(&tree, revision)?))
    };
    let (good, bad) = (resolve(&request.good)?, resolve(&request.bad)?);
    let revisions = [&bad, &good].map(|(_, commit)| Some(commit.as_str()));
    spec.check(*error, &tree, revisions, cache)?;
    let question = Question {
        tree,
        good,
        bad,
        only: Default::default(),
        error: *error,
        subject: serde_json::to_value(spec).map_err(Error::Specification)?,
        command: shell_line(request.command.iter()),
    };
    let directory = bisections_directory(runs).join(dmarig_records::new_name());
    Ok(Journal::create(&directory, question)?)
}

/// Finds the journal of a bisection in `runs` by its id; `last` is the newest one.
///
/// # Errors
/// [`Error::Bisect`]
pub fn find(name: &str, runs: &Path) -> Result<Journal, Error> {
    Ok(Journal::find(&bisections_directory(runs), name)?)
}

/// Runs a bisection to its end, and writes its summary next to the journal. `setup.runs` is replaced by the
/// bisection's own directory. A bisection that was not `resumed` and cannot start is removed.
///
/// # Errors
/// [`Error`]
pub fn run(
    journal: Journal,
    resumed: bool,
    setup: JudgeSetup,
    events: &dyn Events,
) -> Result<Summary, Error> {
    let spec = journal.question().subject.clone();
    let spec: JudgeSpec = serde_json::from_value(spec).map_err(Error::Specification)?;
    let directory = journal.directory().to_owned();
    let tree = journal.question().tree.clone();
    let runs = directory.join(RUNS);
    let setup = JudgeSetup { runs: runs.clone(), ..setup };
    let mut judge = CellJudge::new(setup, spec.clone(), &tree);
    let bisection = Bisection::new(journal, &mut judge, events).map_err(Error::from);
    // The judgements share the error, and their number is known only now.
    let bisection = bisection.and_then(|bisection| {
        spec.judged(bisection.error_of_each())?;
        Ok(bisection)
    });
    let bisection = bisection.inspect_err(|_| {
        if !resumed && !runs.exists() {
            let _ = fs::remove_dir_all(&directory);
        }
    })?;
    let summary = bisection.run()?;
    for (name, text) in [
        ("summary.txt", summary.text()),
        ("mail.txt", summary.mail()),
        ("bisect.log", summary.bisect_log()),
    ] {
        fs::write(directory.join(name), text)?;
    }
    Ok(summary)
}
