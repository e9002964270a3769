//! The place in the cache where kernels are built from one source: a tree that follows what is to be
//! built, and a directory of objects for each configuration.
//!
//! ```text
//! work/KEY/tree/        the source as it is to be built; only what changes is written
//! work/KEY/state.json   what the tree is
//! work/KEY/files.json   of a plain directory: what was copied from it
//! work/KEY/objects-*/   what was made of it
//! work/KEY.lock         held by who builds, and by all that it started
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use dmarig_digest::short_id;
use dmarig_images::{Progress, SourceTree};
use rustix::fs::{FlockOperation, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::dir_source::{DirSource, TreeCopy, replace};
use crate::git_source::GitSource;
use crate::{Error, ID_DIGITS, Result};

/// Object directories that are kept for one source; those used last.
const KEEP_OBJECTS: usize = 4;
/// How often a lock that somebody else has is tried.
const POLL: Duration = Duration::from_millis(200);

/// Where a source comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A distribution's package, unpacked in the cache.
    Package(SourceTree),
    /// A user's git tree.
    Git(GitSource),
    /// A user's directory.
    Dir(DirSource),
}

/// A workspace whose lock we hold.
#[derive(Debug)]
pub(crate) struct Workspace {
    dir: PathBuf,
    lock: File,
}

/// What the tree of a workspace is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// What it was filled from; empty while it is being filled.
    base: String,
    /// Files that may differ from that.
    touched: BTreeSet<String>,
}

impl Origin {
    /// What the workspace of this source is called: of a user's tree it stays the same for all its
    /// revisions.
    fn key(&self) -> String {
        match self {
            Origin::Package(source) => {
                short_id(["package".as_bytes(), source.id.as_bytes()], ID_DIGITS)
            }
            Origin::Git(_) | Origin::Dir(_) => {
                let dir = self.dir().unwrap_or(Path::new(""));
                short_id(["tree".as_bytes(), dir.as_os_str().as_encoded_bytes()], ID_DIGITS)
            }
        }
    }

    fn dir(&self) -> Option<&Path> {
        match self {
            Origin::Package(_) => None,
            Origin::Git(source) => Some(source.dir()),
            Origin::Dir(source) => Some(&source.dir),
        }
    }

    /// What tells this source from others; `None` where it must be read for that.
    pub(crate) fn id(&self) -> Option<String> {
        match self {
            Origin::Package(source) => Some(format!("package {}", source.id)),
            Origin::Git(source) => Some(format!("git {}", source.tree)),
            Origin::Dir(_) => None,
        }
    }

    /// A file of the source, before anybody's edits.
    fn original(&self, file: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Origin::Package(source) => {
                let path = source.root.join(file);
                match path.is_file() {
                    true => fs::read(&path).map(Some).map_err(|e| Error::io("read", &path, e)),
                    false => Ok(None),
                }
            }
            Origin::Git(source) => source.original(file),
            Origin::Dir(source) => source.original(file),
        }
    }

    /// A file with what the user changed in it since the revision.
    pub(crate) fn current(&self, file: &str) -> Result<Option<Vec<u8>>> {
        match self.changed().and_then(|changed| changed.get(file)) {
            Some(content) => Ok(content.clone()),
            None => self.original(file),
        }
    }

    /// What the user changed since the revision.
    pub(crate) fn changed(&self) -> Option<&BTreeMap<String, Option<Vec<u8>>>> {
        match self {
            Origin::Git(source) => Some(&source.changed),
            Origin::Package(_) | Origin::Dir(_) => None,
        }
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Origin::Package(source) => format!(
                "{} ({} {} {})",
                source.name, source.package.name, source.version, source.package.sha256
            ),
            Origin::Git(source) => source.describe(),
            Origin::Dir(source) => source.dir.display().to_string(),
        }
    }
}

impl Workspace {
    /// Takes the workspace of a source, and waits for whoever has it.
    pub(crate) fn open(
        cache: &Path,
        origin: &Origin,
        progress: &dyn Progress,
    ) -> Result<Workspace> {
        let work = cache.join("work");
        let dir = work.join(origin.key());
        fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
        let path = dir.with_extension("lock");
        let lock = File::options().create(true).truncate(false).write(true).read(true).open(&path);
        let lock = lock.map_err(|e| Error::io("open the lock", &path, e))?;
        let mut told = false;
        while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if !matches!(error, rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) {
                return Err(Error::io("lock", &path, error.into()));
            }
            if !told {
                progress.message("waiting for another build from the same source");
                told = true;
            }
            if progress.is_cancelled() {
                return Err(Error::Interrupted);
            }
            std::thread::sleep(POLL);
        }
        Ok(Workspace { dir, lock })
    }

    /// The lock's file, for who must hold it too.
    pub(crate) fn lock(&self) -> &File {
        &self.lock
    }

    /// The source.
    pub(crate) fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// The directory of objects of a configuration, which counts as used now.
    pub(crate) fn objects(&self, key: &str) -> Result<PathBuf> {
        let objects = self.dir.join(format!("objects-{key}"));
        fs::create_dir_all(&objects).map_err(|e| Error::io("create", &objects, e))?;
        let used = objects.join(".dmarig-used");
        fs::write(&used, "").map_err(|e| Error::io("write", &used, e))?;
        self.prune()?;
        Ok(objects)
    }

    /// Brings the tree to a source as it was given, and tells what that is. Files that are about to
    /// be edited are left as they are.
    pub(crate) fn fill(&self, origin: &Origin) -> Result<String> {
        let mut state = self.state()?;
        match origin {
            Origin::Package(source) => {
                let id = format!("package {}", source.id);
                if state.base != id {
                    self.link(source)?;
                    self.save(&State { base: id.clone(), touched: BTreeSet::new() })?;
                }
                Ok(id)
            }
            Origin::Git(source) => {
                let (id, base) = (format!("git {}", source.tree), format!("git {}", source.commit));
                if state.base != base {
                    state.base.clear();
                    self.save(&state)?;
                    self.remove_unknown(source, &state)?;
                    source.check_out(&self.tree())?;
                    self.save(&State { base, touched: BTreeSet::new() })?;
                }
                Ok(id)
            }
            Origin::Dir(source) => {
                let path = self.dir.join("files.json");
                let known = if self.tree().is_dir() { read(&path)? } else { None };
                let mut copied: TreeCopy = known.unwrap_or_default();
                // Whatever was edited is compared with what the user has by `put`.
                source.copy(&self.tree(), &mut copied)?;
                write(&path, &copied)?;
                Ok(format!("dir {}", copied.id()))
            }
        }
    }

    /// Gives the tree these files (`None` for those that must not be there), and takes back what
    /// was put there before. Only what differs is written, so that nothing else is compiled again.
    pub(crate) fn put(
        &self,
        origin: &Origin,
        files: &BTreeMap<String, Option<Vec<u8>>>,
    ) -> Result<()> {
        let mut state = self.state()?;
        let all: BTreeSet<String> = state.touched.iter().chain(files.keys()).cloned().collect();
        // Said before it is done: whoever comes after a kill then looks at each of them.
        state.touched.clone_from(&all);
        self.save(&state)?;
        for name in &all {
            let content = match files.get(name) {
                Some(content) => content.clone(),
                None => origin.original(name)?,
            };
            let path = self.tree().join(name);
            match content {
                Some(content) if fs::read(&path).is_ok_and(|now| now == content) => {}
                Some(content) => replace(&path, &content, None)?,
                None => match fs::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io("remove", &path, e));
                    }
                    _ => {}
                },
            }
        }
        state.touched = files.keys().cloned().collect();
        self.save(&state)
    }

    /// Fills the tree with second names of the cache's own files, which takes a second or two;
    /// what is edited becomes a file of its own.
    fn link(&self, source: &SourceTree) -> Result<()> {
        let (tree, new) = (self.tree(), self.dir.join("tree.new"));
        for old in [&new, &tree] {
            match fs::remove_dir_all(old) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", old, e));
                }
                _ => {}
            }
        }
        for entry in walkdir::WalkDir::new(&source.root) {
            let entry = entry.map_err(|e| Error::io("read", &source.root, e.into()))?;
            let Ok(below) = entry.path().strip_prefix(&source.root) else { continue };
            let to = new.join(below);
            let made = match entry.file_type() {
                kind if kind.is_dir() => fs::create_dir_all(&to),
                kind if kind.is_symlink() => fs::read_link(entry.path())
                    .and_then(|target| std::os::unix::fs::symlink(target, &to)),
                _ => fs::hard_link(entry.path(), &to)
                    // A file system may have none, or no more of them.
                    .or_else(|_| fs::copy(entry.path(), &to).map(|_| ())),
            };
            made.map_err(|e| Error::io("create", &to, e))?;
        }
        fs::rename(&new, &tree).map_err(|e| Error::io("create", &tree, e))
    }

    /// Removes files that were put into the tree and that neither revision may know: git would
    /// leave them.
    fn remove_unknown(&self, source: &GitSource, state: &State) -> Result<()> {
        for name in &state.touched {
            if source.original(name)?.is_none() {
                let _ = fs::remove_file(self.tree().join(name));
            }
        }
        Ok(())
    }

    fn state(&self) -> Result<State> {
        let state: State = read(&self.dir.join("state.json"))?.unwrap_or_default();
        Ok(if self.tree().is_dir() { state } else { State::default() })
    }

    fn save(&self, state: &State) -> Result<()> {
        write(&self.dir.join("state.json"), state)
    }

    fn prune(&self) -> Result<()> {
        let entries = fs::read_dir(&self.dir).map_err(|e| Error::io("read", &self.dir, e))?;
        let mut objects: Vec<(SystemTime, PathBuf)> = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("objects-"))
            .map(|entry| {
                let used = fs::metadata(entry.path().join(".dmarig-used"));
                let used = used.and_then(|meta| meta.modified());
                (used.unwrap_or(SystemTime::UNIX_EPOCH), entry.path())
            })
            .collect();
        objects.sort();
        let surplus = objects.len().saturating_sub(KEEP_OBJECTS);
        for (_, path) in objects.into_iter().take(surplus) {
            fs::remove_dir_all(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
        Ok(())
    }
}

/// Removes the workspaces that nobody builds in.
pub(crate) fn remove_all(cache: &Path) -> Result<()> {
    let work = cache.join("work");
    let Ok(entries) = fs::read_dir(&work) else { return Ok(()) };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.with_extension("lock"));
        let lock = lock.map_err(|e| Error::io("open the lock of", &path, e))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            fs::remove_dir_all(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
    }
    Ok(())
}

/// `None` where there is no such file, or it is of another version of this program.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|e| Error::io("write", path, e.into()))?;
    replace(path, &text, None)
}
