//! The errors of the crate.

use std::{io, path::Path};

/// Why a record can't be read, written or compared.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// No run has this name.
    #[error("there is no run `{name}` in {runs}; `ls {runs}` lists the recorded runs")]
    UnknownRun {
        /// The requested name.
        name: String,
        /// The directory that was searched.
        runs: String,
    },
    /// A file can't be read.
    #[error("can't read {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// The error of the system.
        error: io::Error,
    },
    /// A file or directory can't be written.
    #[error("can't write {path}: {error}")]
    Write {
        /// The file or directory.
        path: String,
        /// The error of the system.
        error: io::Error,
    },
    /// A file is not valid.
    #[error("{path}, line {line}: {error}")]
    Damaged {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// The error of the parser.
        error: serde_json::Error,
    },
    /// A newer version of dmarig wrote the file.
    #[error(
        "{path} has {what} version {found}, this dmarig reads up to {known}: use a newer dmarig"
    )]
    Newer {
        /// The file.
        path: String,
        /// Which part of it: the record, or an observation in it.
        what: &'static str,
        /// The version of that part.
        found: u32,
        /// The newest version that can be read.
        known: u32,
    },
    /// Two runs have no cell in common.
    #[error(
        "no completed cell of {candidate} has a counterpart in {baseline}: they may differ in \
         kernel, QEMU and named axes only"
    )]
    NoCommonCells {
        /// The candidate's run.
        candidate: String,
        /// The baseline's run.
        baseline: String,
    },
    /// Several cells of the baseline fit one of the candidate.
    #[error("{cell} could be compared with {count} cells of {baseline}: name one, as in {remedy}")]
    AmbiguousCell {
        /// The candidate's cell.
        cell: String,
        /// Number of cells that fit.
        count: usize,
        /// The baseline's run.
        baseline: String,
        /// The baseline with the first of them named.
        remedy: String,
    },
    /// No compared cell has this metric.
    #[error("the compared cells have no metric `{metric}`: expected one of {known}")]
    UnknownMetric {
        /// The requested metric.
        metric: String,
        /// The metrics that the candidate has.
        known: String,
    },
    /// The run is itself a comparison: only that knows which of its boots form a pair.
    #[error("{run} is the record of a comparison: `dmarig compare {id}` shows its result")]
    PairedRun {
        /// The run, as it was named.
        run: String,
        /// Its id.
        id: String,
    },
}

impl RecordError {
    /// Adds the path to an error of reading.
    pub(crate) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Read { path: path.display().to_string(), error }
    }

    /// Adds the path to an error of writing.
    pub(crate) fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Write { path: path.display().to_string(), error }
    }
}
