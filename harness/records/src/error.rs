//! Why a record cannot be read.

use std::io;

/// Why a stored run can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is none of that name.
    #[error("there is no run `{name}` in {runs}; `ls {runs}` shows those that are there")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        runs: String,
    },
    /// A file can't be read.
    #[error("can't read {path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// The system's words.
        error: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}, line {line}: {error}")]
    Damaged {
        /// The file.
        path: String,
        /// The line.
        line: usize,
        /// What is wrong.
        error: String,
    },
    /// Written by a newer dmarig.
    #[error(
        "{path} has {what} version {found}, this dmarig reads up to {known}: use a newer dmarig"
    )]
    Newer {
        /// The file.
        path: String,
        /// What of it: the record, or an observation in it.
        what: &'static str,
        /// Its version.
        found: u32,
        /// The newest that can be read.
        known: u32,
    },
}
