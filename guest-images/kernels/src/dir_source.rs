//! A user's directory that git knows nothing of: copied, and kept up to date file by file.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use dmarig_digest::{sha256_hex, short_id};
use serde::{Deserialize, Serialize};

use crate::{Error, ID_DIGITS, Result};

/// A plain directory with a kernel's source.
#[derive(Debug)]
pub(crate) struct DirSource {
    pub(crate) dir: PathBuf,
}

/// What is known of a copy's files, by path.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct TreeCopy {
    files: BTreeMap<String, FileCopy>,
}

/// A file, or a link whose target stands for its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileCopy {
    /// What tells one state of the user's file from another without reading it.
    stamp: String,
    sha256: String,
    runs: bool,
}

impl DirSource {
    pub(crate) fn open(dir: &Path) -> Result<DirSource> {
        let wrong =
            |reason: &str| Error::NotASource { path: dir.to_owned(), reason: reason.into() };
        if !dir.join("Kconfig").is_file() || !dir.join("Makefile").is_file() {
            return Err(wrong("there are no Kconfig and Makefile in it"));
        }
        // Its own build's files would be taken for source.
        if dir.join(".config").exists() || dir.join("include/config/auto.conf").exists() {
            return Err(wrong(
                "it was built in place; run `make mrproper` there, or give a git tree, of which the \
                 files that git ignores are left alone",
            ));
        }
        Ok(DirSource { dir: dir.to_owned() })
    }

    /// A file as the user has it.
    pub(crate) fn original(&self, file: &str) -> Result<Option<Vec<u8>>> {
        let path = self.dir.join(file);
        match path.is_file() {
            true => fs::read(&path).map(Some).map_err(|e| Error::io("read", &path, e)),
            false => Ok(None),
        }
    }

    /// Brings `tree` up to date with the directory, and `known` with that. Only what differs is
    /// read and written.
    pub(crate) fn copy(&self, tree: &Path, known: &mut TreeCopy) -> Result<()> {
        let mut seen = TreeCopy::default();
        let walk = walkdir::WalkDir::new(&self.dir).into_iter();
        for entry in walk.filter_entry(|entry| entry.file_name() != ".git") {
            let entry = entry.map_err(|e| Error::io("read", &self.dir, e.into()))?;
            let Ok(below) = entry.path().strip_prefix(&self.dir) else { continue };
            // Kernels have none; an editor's leavings may.
            let Some(name) = below.to_str().filter(|name| !name.is_empty()) else { continue };
            let to = tree.join(below);
            let meta = entry.metadata().map_err(|e| Error::io("read", entry.path(), e.into()))?;
            if meta.is_dir() {
                if fs::symlink_metadata(&to).is_ok_and(|meta| !meta.is_dir()) {
                    fs::remove_file(&to).map_err(|e| Error::io("remove", &to, e))?;
                }
                fs::create_dir_all(&to).map_err(|e| Error::io("create", &to, e))?;
                continue;
            }
            if !meta.is_file() && !meta.file_type().is_symlink() {
                continue;
            }
            let before = known.files.get(name);
            let file = copy_one(entry.path(), &to, &meta, before)?;
            seen.files.insert(name.to_owned(), file);
        }
        for name in known.files.keys().filter(|name| !seen.files.contains_key(*name)) {
            let gone = tree.join(name);
            match fs::remove_file(&gone) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound && !gone.is_dir() => {
                    return Err(Error::io("remove", &gone, e));
                }
                _ => {}
            }
        }
        *known = seen;
        Ok(())
    }
}

impl TreeCopy {
    /// What tells this content from all others.
    pub(crate) fn id(&self) -> String {
        let parts = self.files.iter().flat_map(|(name, file)| {
            [name.as_bytes(), file.sha256.as_bytes(), if file.runs { b"x" } else { b"-" }]
        });
        short_id(parts, ID_DIGITS)
    }
}

fn copy_one(
    from: &Path,
    to: &Path,
    meta: &Metadata,
    before: Option<&FileCopy>,
) -> Result<FileCopy> {
    let stamp = format!(
        "{}:{}:{}.{}:{}.{}",
        meta.ino(),
        meta.size(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec()
    );
    if let Some(before) = before.filter(|before| before.stamp == stamp) {
        return Ok(before.clone());
    }
    let is_link = meta.file_type().is_symlink();
    let content = match is_link {
        true => fs::read_link(from).map(|to| to.into_os_string().into_encoded_bytes()),
        false => fs::read(from),
    };
    let content = content.map_err(|e| Error::io("read", from, e))?;
    let kind: &[u8] = if is_link { b"link" } else { b"file" };
    let sha256 = sha256_hex(&[kind, &content].concat());
    let runs = !is_link && meta.mode() & 0o111 != 0;
    let file = FileCopy { stamp, sha256, runs };
    if before.is_some_and(|before| before.sha256 == file.sha256 && before.runs == runs) {
        return Ok(file);
    }
    if is_link {
        let _ = fs::remove_file(to);
        let target = fs::read_link(from).map_err(|e| Error::io("read", from, e))?;
        symlink(target, to).map_err(|e| Error::io("create", to, e))?;
    } else {
        replace(to, &content, Some(runs))?;
    }
    Ok(file)
}

/// Writes a file anew, whole or not at all; never through a link, nor into a file that has other
/// names. `runs` is whether it may be run; without it that stays as it was.
pub(crate) fn replace(path: &Path, content: &[u8], runs: Option<bool>) -> Result<()> {
    let fail = |e| Error::io("write", path, e);
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir).map_err(fail)?;
    let ran =
        || fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0);
    let mode = if runs.unwrap_or_else(ran) { 0o755 } else { 0o644 };
    let file = tempfile::Builder::new().prefix(".dmarig-").tempfile_in(dir).map_err(fail)?;
    fs::write(file.path(), content).map_err(fail)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode)).map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}
