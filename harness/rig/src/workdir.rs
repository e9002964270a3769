//! A guest's private directory: sockets, FIFO and disk, gone with the guest.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use dmarig_model::plan::{DISK_BYTES, DISK_FILE};
use tempfile::TempDir;

const PREFIX: &str = "dmarig-guest-";

/// A directory that only its owner may enter, removed when dropped.
#[derive(Debug)]
pub struct Workdir {
    directory: TempDir,
}

impl Workdir {
    /// Makes one below the system's directory for temporary files.
    ///
    /// Its name tells whose it is, so that [`sweep`] finds those that a killed rig left.
    ///
    /// # Errors
    /// What the system says, with the place.
    pub fn new() -> io::Result<Self> {
        let base = std::env::temp_dir();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let directory = tempfile::Builder::new()
            .prefix(&prefix)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&base)
            .map_err(|error| {
                let base = base.display();
                let text = format!("can't make a directory for a guest in {base} (TMPDIR names another place): {error}");
                io::Error::new(error.kind(), text)
            })?;
        Ok(Self { directory })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes the disk under test: sparse, all zeros.
    ///
    /// # Errors
    /// What the system says, with the place.
    pub fn make_disk(&self) -> io::Result<()> {
        let path = self.path().join(DISK_FILE);
        fs::File::create_new(&path).and_then(|file| file.set_len(DISK_BYTES)).map_err(|error| {
            io::Error::new(error.kind(), format!("can't make {}: {error}", path.display()))
        })
    }
}

/// Removes the directories of rigs that no longer live, and tells which.
///
/// A process number that another program has now keeps its directory: better one too many.
pub fn sweep() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return Vec::new() };
    let dead = |name: &str| {
        let owner = name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok()?;
        (!Path::new(&format!("/proc/{owner}")).exists()).then_some(())
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().and_then(dead).is_some())
        .filter(|entry| fs::remove_dir_all(entry.path()).is_ok())
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_may_enter_and_nothing_stays() {
        let workdir = Workdir::new().unwrap();
        workdir.make_disk().unwrap();
        let path = workdir.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(workdir);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_dead_rig_left_is_swept_and_a_live_one_is_not() {
        let live = Workdir::new().unwrap();
        // No process has this number: the kernel's limit is 2^22.
        let dead =
            std::env::temp_dir().join(format!("{PREFIX}99999999-test{}", std::process::id()));
        fs::create_dir_all(&dead).unwrap();
        sweep();
        assert!(!dead.exists());
        assert!(live.path().exists());
    }
}
