//! Files of the cache: written whole or not at all, locked across processes, swept after crashes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// How long a loose temporary file may be there before it counts as a dead run's.
const LOOSE_FILE_AGE: Duration = Duration::from_secs(3600);

pub(crate) fn sha256_file(path: &Path) -> Result<String> {
    dmarig_digest::sha256_file(path).map_err(|e| Error::io("read", path, e))
}

/// What tells one state of a file from another without reading it.
pub(crate) fn stamp(meta: &fs::Metadata) -> String {
    let (m, c) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    format!("{}:{}:{}:{}.{}:{}.{}", meta.dev(), meta.ino(), meta.size(), m.0, m.1, c.0, c.1)
}

/// Whether a file's stamp can be relied on: one that was written a moment ago may be written
/// again without its time changing (the kernel's clock for it ticks every few milliseconds).
pub(crate) fn is_settled(meta: &fs::Metadata) -> bool {
    let age = meta.modified().ok().and_then(|t| SystemTime::now().duration_since(t).ok());
    age.is_some_and(|age| age > Duration::from_millis(100))
}

/// `None` when there is no such file, or it is of another version of this program: everything
/// read this way can be had again.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

pub(crate) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| Error::io("create the directory", path, e))
}

pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Has everything that was written so far to the file system of `path` on the disk. For a tree of
/// many files this is faster than file by file.
pub(crate) fn sync_all(path: &Path) -> Result<()> {
    let dir = File::open(path).map_err(|e| Error::io("read", path, e))?;
    rustix::fs::syncfs(&dir).map_err(|e| Error::io("write", path, e.into()))
}

/// Bytes that a tree takes, as allocated.
pub(crate) fn disk_usage(path: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(path).into_iter().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

/// The directory where files are made before they are moved to their place.
#[derive(Clone, Debug)]
pub(crate) struct Scratch {
    dir: PathBuf,
}

/// A temporary directory that is known to be in use for as long as its process lives.
#[derive(Debug)]
pub(crate) struct ScratchDir {
    path: PathBuf,
    lock: PathBuf,
    _held: File,
}

impl Scratch {
    pub(crate) fn open(dir: PathBuf) -> Result<Scratch> {
        create_dir(&dir)?;
        Ok(Scratch { dir })
    }

    /// Writes `path` by means of `fill`; it appears whole or not at all.
    pub(crate) fn write_with(
        &self,
        path: &Path,
        fill: impl FnOnce(&mut File) -> Result<()>,
    ) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)
            .map_err(|e| Error::io("create a file in", &self.dir, e))?;
        fill(file.as_file_mut())?;
        // Without this a power cut could leave the name with an empty file behind it.
        file.as_file().sync_all().map_err(|e| Error::io("write", path, e))?;
        file.persist(path).map_err(|e| Error::io("write", path, e.error))?;
        Ok(())
    }

    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.write_with(path, |f| f.write_all(bytes).map_err(|e| Error::io("write", path, e)))
    }

    pub(crate) fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec_pretty(value)
            .map_err(|e| Error::io("write", path, io::Error::other(e)))?;
        self.write(path, &text)
    }

    /// Makes a directory whose lock lasts as long as this process.
    pub(crate) fn dir(&self) -> Result<ScratchDir> {
        loop {
            let named = tempfile::Builder::new()
                .suffix(".lock")
                .tempfile_in(&self.dir)
                .and_then(|file| file.keep().map_err(Into::into));
            let (held, lock) = named.map_err(|e| Error::io("create a file in", &self.dir, e))?;
            if !try_lock(&held) || !is_at(&held, &lock) {
                continue; // A sweeper came between the creation and the lock.
            }
            let path = lock.with_extension("");
            create_dir(&path)?;
            return Ok(ScratchDir { path, lock, _held: held });
        }
    }

    /// Removes what runs left behind that were killed.
    pub(crate) fn sweep(&self) -> Result<()> {
        let entries = fs::read_dir(&self.dir).map_err(|e| Error::io("read", &self.dir, e))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if path.extension().is_some_and(|e| e == "lock") {
                let Ok(file) = File::open(&path) else { continue };
                if try_lock(&file) {
                    remove_tree(&path.with_extension(""))?;
                    remove_file(&path)?;
                }
            } else if meta.is_file() && age(&meta) > LOOSE_FILE_AGE {
                remove_file(&path)?;
            }
        }
        Ok(())
    }
}

impl ScratchDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the subdirectory `name` to `to`. Where another run was first, its result stays.
    pub(crate) fn publish(&self, name: &str, to: &Path) -> Result<()> {
        let from = self.path.join(name);
        match fs::rename(&from, to) {
            Err(_) if to.is_dir() => Ok(()),
            result => result.map_err(|e| Error::io("create", to, e)),
        }
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // What stays here is swept later.
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_file(&self.lock);
    }
}

/// Holds a lock across processes until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock; `waiting` is called once if that isn't at once.
    pub(crate) fn take(path: &Path, waiting: impl FnOnce()) -> Result<Lock> {
        let file = File::options().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(|e| Error::io("open the lock", path, e))?;
        if !try_lock(&file) {
            waiting();
            while let Err(e) = flock(&file, FlockOperation::LockExclusive) {
                if e != rustix::io::Errno::INTR {
                    return Err(Error::io("lock", path, e.into()));
                }
            }
        }
        Ok(Lock { _file: file })
    }
}

/// Removes the oldest entries beyond `keep`, of those that weren't used for a day and aren't
/// `kept` for another reason.
pub(crate) fn prune(dir: &Path, keep: usize, kept: &BTreeSet<PathBuf>) -> Result<()> {
    const IN_USE: Duration = Duration::from_secs(24 * 3600);
    let entries = fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))?;
    let mut entries: Vec<_> = entries
        .flatten()
        .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
        .filter(|(_, path)| !kept.contains(path))
        .collect();
    entries.sort();
    let surplus = entries.len().saturating_sub(keep);
    for (used, path) in entries.into_iter().take(surplus) {
        if used.elapsed().is_ok_and(|age| age > IN_USE) {
            if path.is_dir() { remove_tree(&path)? } else { remove_file(&path)? }
        }
    }
    Ok(())
}

/// Marks an entry as used now, for [`prune`]. A read-only cache is used all the same.
pub(crate) fn touch(path: &Path) {
    let now = fs::FileTimes::new().set_modified(SystemTime::now());
    let _ = File::open(path).and_then(|file| file.set_times(now));
}

fn age(meta: &fs::Metadata) -> Duration {
    meta.modified().ok().and_then(|t| t.elapsed().ok()).unwrap_or_default()
}

fn try_lock(file: &File) -> bool {
    flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), fs::metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn leaves_nothing_after_a_failed_write() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::open(dir.path().join("tmp")).unwrap();
        let target = dir.path().join("file");
        let result = scratch.write_with(&target, |file| {
            file.write_all(b"half").unwrap();
            Err(Error::NoHome)
        });
        assert!(result.is_err());
        assert!(!target.exists());
        assert_eq!(names(&dir.path().join("tmp")), 0);
    }

    #[test]
    fn sweeps_only_what_dead_runs_left() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::open(dir.path().to_owned()).unwrap();
        let alive = scratch.dir().unwrap();
        // A killed run: directory and lock file are there, nobody holds the lock.
        fs::create_dir(dir.path().join("dead")).unwrap();
        fs::write(dir.path().join("dead/half"), "x").unwrap();
        fs::write(dir.path().join("dead.lock"), "").unwrap();
        fs::write(dir.path().join("young"), "x").unwrap();
        let old = File::create(dir.path().join("old")).unwrap();
        old.set_modified(SystemTime::now() - LOOSE_FILE_AGE * 2).unwrap();
        scratch.sweep().unwrap();
        assert!(alive.path().is_dir());
        assert!(!dir.path().join("dead").exists());
        assert!(!dir.path().join("dead.lock").exists());
        assert!(dir.path().join("young").exists());
        assert!(!dir.path().join("old").exists());
        drop(alive);
        assert_eq!(names(dir.path()), 1);
    }

    #[test]
    fn reports_a_full_disk() {
        let full = Path::new("/dev/full");
        let error = fs::write(full, "x").map_err(|e| Error::io("write", full, e)).unwrap_err();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    }
}
