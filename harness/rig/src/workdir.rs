//! A guest's private directory for sockets, FIFO and disk.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use dmarig_model::disk::{DISK_BYTES, DISK_FILE};
use tempfile::TempDir;

const PREFIX: &str = "dmarig-guest-";

/// A directory that only its owner may enter, removed when dropped.
#[derive(Debug)]
pub struct Workdir {
    directory: TempDir,
}

impl Workdir {
    /// Creates one below the system's directory for temporary files. Its name has the process id, by
    /// which [`sweep`] finds those of killed rigs.
    ///
    /// # Errors
    /// The system's error, with the path.
    pub fn new() -> io::Result<Self> {
        let base = std::env::temp_dir();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let directory = tempfile::Builder::new()
            .prefix(&prefix)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&base)
            .map_err(|error| {
                let base = base.display();
                let text = format!(
                    "can't make a directory for a guest in {base} (TMPDIR names another place): \
                     {error}"
                );
                io::Error::new(error.kind(), text)
            })?;
        Ok(Self { directory })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Creates the disk under test: sparse, all zeros.
    ///
    /// # Errors
    /// The system's error, with the path.
    pub fn make_disk(&self) -> io::Result<()> {
        let path = self.path().join(DISK_FILE);
        fs::File::create_new(&path).and_then(|file| file.set_len(DISK_BYTES)).map_err(|error| {
            io::Error::new(error.kind(), format!("can't make {}: {error}", path.display()))
        })
    }
}

/// Removes the directories of rigs that are dead, and returns their paths. If another program has the
/// process id now, the directory is kept.
pub fn sweep() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return Vec::new() };
    let mut removed = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(owner_of) else { continue };
        let is_dead = !Path::new(&format!("/proc/{owner}")).exists();
        if is_dead && fs::remove_dir_all(entry.path()).is_ok() {
            removed.push(entry.path());
        }
    }
    removed
}

/// The process id in the name of a guest's directory.
fn owner_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}
