//! Why a bisection can't be begun or gone on with.

use std::{io, path::PathBuf};

/// Why a bisection can't be begun or gone on with. None of them says anything of a commit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tree is no repository, or git won't read it.
    #[error("{} is not a readable git repository: {said}", tree.display())]
    NoRepository {
        /// What was given.
        tree: PathBuf,
        /// Git's words.
        said: String,
    },
    /// A revision that the tree does not have.
    #[error("{} has no revision `{revision}`: {said}", tree.display())]
    NoRevision {
        /// The tree.
        tree: PathBuf,
        /// What was asked for.
        revision: String,
        /// Git's words.
        said: String,
    },
    /// The two ends are one commit.
    #[error("good and bad are the same commit, {0}: give two that differ")]
    SameEnds(String),
    /// The two ends have no common history.
    #[error("good ({good}) and bad ({bad}) have no common ancestor: nothing lies between them")]
    Unrelated {
        /// The good end.
        good: String,
        /// The bad end.
        bad: String,
    },
    /// Good comes after bad.
    #[error(
        "good ({good}) is newer than bad ({bad}): a fix is not looked for, only what broke it; swap them if they \
         are the wrong way round"
    )]
    Reversed {
        /// The good end.
        good: String,
        /// The bad end.
        bad: String,
    },
    /// Git failed at something that should work.
    #[error("`git {command}` failed in {}: {said}", directory.display())]
    Git {
        /// Its words.
        command: String,
        /// Where.
        directory: PathBuf,
        /// What it said.
        said: String,
    },
    /// There is no git.
    #[error("git can't be started: {0}; install it (on Debian: apt-get install git)")]
    NoGit(io::Error),
    /// A file or directory of the bisection's own.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// The journal is not what it should be.
    #[error("{}, line {line}: {error}", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong.
        error: String,
    },
    /// The journal is of a newer dmarig.
    #[error("{} is of version {found}: use a newer dmarig", path.display())]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// There is no such bisection.
    #[error("there is no bisection `{name}` in {}; `ls` shows which exist", place.display())]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where.
        place: PathBuf,
    },
    /// Another process is at it.
    #[error("{} is being worked on by another process: wait for it, or end it", .0.display())]
    InUse(PathBuf),
    /// Infrastructure failed at judging, twice.
    #[error("{commit} could not be judged and has no verdict: {said}; continue with --resume {id}")]
    Host {
        /// The commit.
        commit: String,
        /// What happened.
        said: String,
        /// The bisection.
        id: String,
    },
    /// The user stopped it.
    #[error("interrupted; go on with --resume {0}")]
    Interrupted(String),
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { path, error }
    }
}
