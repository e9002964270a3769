//! Lists and reads files of the guest.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use dmarig_wire::MAX_PIECE;

/// Lists the regular files below a directory, as paths relative to it, in order. Links are not
/// followed.
///
/// # Errors
/// Where it can't be read, or a name is no text.
pub(crate) fn list(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        let shown = next.display().to_string();
        for entry in fs::read_dir(&next).with_context(|| format!("can't read {shown}"))? {
            let entry = entry.with_context(|| format!("can't read {shown}"))?;
            let kind = entry.file_type().with_context(|| format!("can't read {shown}"))?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                let path = entry.path();
                let Some(name) = path.strip_prefix(directory)?.to_str() else {
                    bail!("{} is no text", path.display());
                };
                found.push(name.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Longest file that is read, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// A copy of the file that is being read, made with its first piece: the kernel generates some files
/// anew, at some cost, each time they are opened.
#[derive(Debug, Default)]
pub(crate) struct FileReader {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl FileReader {
    /// Reads a piece of a file; empty at its end.
    ///
    /// # Errors
    /// Where it can't be read, or is too long.
    pub(crate) fn read_piece(&mut self, path: &Path, offset: u64) -> Result<Vec<u8>> {
        if offset == 0 || self.path != path {
            self.bytes.clear();
            let shown = path.display();
            let file = File::open(path).with_context(|| format!("can't open {shown}"))?;
            file.take(MAX_BYTES + 1)
                .read_to_end(&mut self.bytes)
                .with_context(|| format!("can't read {shown}"))?;
            ensure!(self.bytes.len() as u64 <= MAX_BYTES, "{shown} has over {MAX_BYTES} bytes");
            path.clone_into(&mut self.path);
        }
        let rest = usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..));
        let piece = rest.unwrap_or_default();
        let piece = piece[..piece.len().min(MAX_PIECE)].to_vec();
        if piece.is_empty() {
            *self = Self::default();
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_files_and_reads_them_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("run/cells")).unwrap();
        let long = vec![7; MAX_PIECE + 3];
        fs::write(dir.path().join("run/cells/console.log"), &long).unwrap();
        fs::write(dir.path().join("run.json"), "{}").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert_eq!(list(dir.path()).unwrap(), ["run.json", "run/cells/console.log"]);
        let path = dir.path().join("run/cells/console.log");
        let mut reading = FileReader::default();
        let mut piece = |offset| reading.read_piece(&path, offset).unwrap();
        assert_eq!(piece(0).len(), MAX_PIECE);
        // What is read is what was there when it began.
        fs::write(&path, "x").unwrap();
        assert_eq!(piece(MAX_PIECE as u64), [7; 3]);
        assert!(piece(long.len() as u64).is_empty());
        assert_eq!(piece(0), b"x");
        assert!(piece(u64::MAX).is_empty());
    }

    #[test]
    fn reports_a_missing_directory() {
        let error = format!("{:#}", list(Path::new("/nowhere/at-all")).unwrap_err());
        assert!(error.contains("can't read /nowhere/at-all: No such file"), "{error}");
    }
}
