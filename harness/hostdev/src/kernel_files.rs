//! The kernel's files below a root. What is not there reads as nothing: a kernel without a feature
//! has no file for it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

#[derive(Debug, Clone)]
pub(crate) struct KernelFiles {
    root: PathBuf,
}

impl KernelFiles {
    pub(crate) fn new(root: &Path) -> Self {
        // Where links lead is compared with the root, so it must be without links itself.
        Self { root: root.canonicalize().unwrap_or_else(|_| root.to_owned()) }
    }

    /// A path below the root, from one that is relative to it.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The content of a file, without white space at its ends.
    pub(crate) fn text(&self, relative: &str) -> Option<String> {
        text(&self.path(relative))
    }

    /// The path of a file as it is for those below the root.
    pub(crate) fn shown(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root)
            .map_or_else(|_| path.to_owned(), |below| Path::new("/").join(below))
    }

    /// The absolute path of a device node as others name it (by a link, say), below the root.
    pub(crate) fn resolved(&self, absolute: &str) -> Option<PathBuf> {
        self.path(absolute.strip_prefix('/')?).canonicalize().ok()
    }

    /// The numbers of processes that can be seen.
    pub(crate) fn processes(&self) -> BTreeSet<u32> {
        names(&self.path("proc")).iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// The processes that have one of `nodes` (paths as they are below the root) open, with their
    /// names. Those of others are seen by root alone.
    pub(crate) fn openers(&self, nodes: &BTreeSet<PathBuf>) -> Vec<Opener> {
        let mut openers = Vec::new();
        if nodes.is_empty() {
            return openers;
        }
        for process in self.processes() {
            let directory = self.path(&format!("proc/{process}/fd"));
            let links = names(&directory);
            let mut links =
                links.iter().filter_map(|name| fs::read_link(directory.join(name)).ok());
            if let Some(node) = links.find(|link| nodes.contains(link)) {
                let name = self.text(&format!("proc/{process}/comm")).unwrap_or_default();
                openers.push(Opener { process, name, node });
            }
        }
        openers
    }
}

/// A process that has a device node open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opener {
    pub(crate) process: u32,
    pub(crate) name: String,
    pub(crate) node: PathBuf,
}

impl std::fmt::Display for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({})", self.process, self.name)
    }
}

/// The content of a file, without white space at its ends.
pub(crate) fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// A hexadecimal number with or without its `0x`.
pub(crate) fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
}

/// The names in a directory, sorted; none where there is no such directory.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The last part of where a link leads.
pub(crate) fn link_name(path: &Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.file_name()?.to_string_lossy().into_owned())
}

/// Writes to one of the kernel's files, which has to be there.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    // The kernel doesn't mind the truncation, and whatever stands for it in a test needs it. All in
    // one call, since each call is an order of its own.
    let mut file = fs::OpenOptions::new().write(true).truncate(true).open(path)?;
    io::Write::write_all(&mut file, format!("{text}\n").as_bytes())
}
