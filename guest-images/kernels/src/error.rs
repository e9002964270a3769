use std::io;
use std::path::{Path, PathBuf};

/// Why there is no kernel. [`Error::fault`] tells whose fault that is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The cache has no such source, or can't keep the kernel.
    #[error(transparent)]
    Cache(#[from] dmarig_images::Error),
    /// Reading or writing failed.
    #[error("{}: can't {action}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "read".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file or directory that the user named, and that isn't there or is something else.
    #[error("{}: can't read: {source}", path.display())]
    NotReadable {
        /// As given.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Neither a fragment's name nor a file.
    #[error("`{word}` is neither a fragment ({known}) nor a file")]
    UnknownFragment {
        /// As given.
        word: String,
        /// The names that would have been right.
        known: String,
    },
    /// The disk is full.
    #[error(
        "{}: no space left on its file system. Free some (`dmarig kernel list` shows what can be removed), or point \
         --cache at a larger one; nothing half-made is believed",
        path.display()
    )]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// Programs or libraries that a kernel's build needs are not here.
    #[error("a kernel can't be built here: {} missing. Install {}", what.join(", "), packages.join(" "))]
    MissingTools {
        /// The programs and headers.
        what: Vec<String>,
        /// Debian's packages that have them.
        packages: Vec<String>,
    },
    /// Neither a recipe's name nor a tree.
    #[error("there is no source `{name}`; there are {known}, and --tree DIR for one of your own")]
    UnknownSource {
        /// As given.
        name: String,
        /// The names that would have been right.
        known: String,
    },
    /// A directory that is no kernel's source.
    #[error("{}: no kernel's source: {reason}", path.display())]
    NotASource {
        /// The directory.
        path: PathBuf,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A git command failed.
    #[error("{}: `{command}` failed: {output}", path.display())]
    Git {
        /// The repository.
        path: PathBuf,
        /// What was run.
        command: String,
        /// What it said.
        output: String,
    },
    /// A revision that the tree does not have.
    #[error("{}: there is no revision `{rev}`: {output}", path.display())]
    NoRevision {
        /// The repository.
        path: PathBuf,
        /// As given.
        rev: String,
        /// What git said.
        output: String,
    },
    /// A file of edits or bugs that is not well-formed.
    #[error("{path}: {reason}")]
    BadEdits {
        /// The file.
        path: String,
        /// What is wrong, where, and what would be right.
        reason: String,
    },
    /// No bug or edit of this name.
    #[error("{path}: there is no `{id}` in it; there are {known}")]
    UnknownEdits {
        /// The file or list.
        path: String,
        /// As given.
        id: String,
        /// The names that would have been right.
        known: String,
    },
    /// An edit's anchor does not stand exactly once in its file.
    #[error(
        "{edits}: in {file} the text to find stands {} and must once: {}",
        times(*found),
        first_line(find)
    )]
    Anchor {
        /// The edits' name.
        edits: String,
        /// The file in the source.
        file: String,
        /// How often it stands there.
        found: usize,
        /// What was looked for.
        find: String,
    },
    /// An edit of a file that isn't there, or lies outside.
    #[error("{edits}: {file}: {reason}")]
    EditedFile {
        /// The edits' name.
        edits: String,
        /// The file, as given.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A configuration fragment that is not in the kernel's form.
    #[error(
        "{path}:{line}: `{text}` is not a setting: write `CONFIG_NAME=y` or `# CONFIG_NAME is not set`"
    )]
    BadFragment {
        /// The file.
        path: String,
        /// The line's number, from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// Options that were asked for and are not in the configuration that came out.
    #[error("these options did not survive the kernel's own configuration:\n{}", .lost.join("\n"))]
    LostOptions {
        /// Each with its reason.
        lost: Vec<String>,
    },
    /// The kernel does not build: the compiler, the linker or the configuration says so.
    #[error("the kernel does not build ({target}): {first}\n  the whole output: {}", log.display())]
    DoesNotBuild {
        /// What was made: `allnoconfig` or `vmlinux`.
        target: String,
        /// The first error, with what it is about.
        first: String,
        /// The whole output.
        log: PathBuf,
    },
    /// The kernel builds, and what came out is none that QEMU can start.
    #[error("the kernel builds, but can't be started: {refusal}")]
    NotStartable {
        /// What is wrong with the image.
        refusal: dmarig_images::Error,
    },
    /// The build broke for a reason that says nothing of the kernel.
    #[error("the build broke off ({target}): {reason}\n  the whole output: {}", log.display())]
    BuildBroke {
        /// What was made.
        target: String,
        /// What happened.
        reason: String,
        /// The whole output.
        log: PathBuf,
    },
    /// Stopped by the user.
    #[error("the build was interrupted; what is done of it is kept for the next one")]
    Interrupted,
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The source's, at this revision and with these edits: it does not build.
    Source,
    /// What was asked for: it would be wrong for every revision.
    Request,
    /// The host's: no disk, no compiler, killed. Nothing is said of the source.
    Host,
    /// The user stopped it.
    Interrupted,
}

impl Error {
    /// Whose fault it is: a bisection skips what does not build, and stops at everything else.
    pub fn fault(&self) -> Fault {
        match self {
            // Whether an option or an anchor is there differs from revision to revision.
            Error::DoesNotBuild { .. }
            | Error::NotStartable { .. }
            | Error::LostOptions { .. }
            | Error::Anchor { .. }
            | Error::EditedFile { .. } => Fault::Source,
            Error::NotReadable { .. }
            | Error::UnknownFragment { .. }
            | Error::UnknownSource { .. }
            | Error::NotASource { .. }
            | Error::NoRevision { .. }
            | Error::BadEdits { .. }
            | Error::UnknownEdits { .. }
            | Error::BadFragment { .. } => Fault::Request,
            Error::Cache(error) => match error {
                dmarig_images::Error::SourceNotFetched { .. }
                | dmarig_images::Error::BadKernelName { .. } => Fault::Request,
                _ => Fault::Host,
            },
            Error::Io { .. }
            | Error::DiskFull { .. }
            | Error::MissingTools { .. }
            | Error::Git { .. }
            | Error::BuildBroke { .. } => Fault::Host,
            Error::Interrupted => Fault::Interrupted,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull { path },
            _ => Error::Io { action, path, source },
        }
    }

    /// Of a file or directory that the user named: what isn't there, isn't theirs or isn't text is
    /// a wrong request. Only what keeps a right one from being read is the host's.
    pub(crate) fn named(path: &Path, source: io::Error) -> Error {
        use io::ErrorKind::{
            InvalidData, InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound,
            PermissionDenied,
        };
        match source.kind() {
            NotFound | NotADirectory | IsADirectory | PermissionDenied | InvalidData
            | InvalidFilename | InvalidInput => {
                Error::NotReadable { path: path.to_owned(), source }
            }
            _ => Error::io("read", path, source),
        }
    }

    /// Of a built image: that QEMU can't start it is the source's fault, that it can't be looked at
    /// is the host's.
    pub(crate) fn image(error: dmarig_images::Error) -> Error {
        use dmarig_images::Error::{Empty, NoPvh, NotAKernel, Truncated, WrongArch};
        match error {
            Empty { .. }
            | NoPvh { .. }
            | NotAKernel { .. }
            | Truncated { .. }
            | WrongArch { .. } => Error::NotStartable { refusal: error },
            error => Error::Cache(error),
        }
    }
}

fn times(count: usize) -> String {
    match count {
        0 => "nowhere".to_owned(),
        count => format!("{count} times"),
    }
}

fn first_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    format!("`{first}`{}", if lines.next().is_some() { " ..." } else { "" })
}
