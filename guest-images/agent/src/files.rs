//! Files that a program left in the guest.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::FileExt,
    path::Path,
};

use anyhow::{Context, Result, bail};
use dmarig_wire::MAX_PIECE;

/// The plain files below a directory, as paths below it, in order. Links are not followed.
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

/// A piece of a file; empty at its end.
///
/// # Errors
/// Where it can't be read.
pub(crate) fn piece(path: &Path, offset: u64) -> Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("can't open {}", path.display()))?;
    let mut bytes = vec![0; MAX_PIECE];
    let mut count = 0;
    // Files that the kernel makes up come a page at a time.
    while count < MAX_PIECE {
        match file.read_at(&mut bytes[count..], offset + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(error).with_context(|| format!("can't read {}", path.display()));
            }
        }
    }
    bytes.truncate(count);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_and_read_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("run/cells")).unwrap();
        let long = vec![7; MAX_PIECE + 3];
        fs::write(dir.path().join("run/cells/console.log"), &long).unwrap();
        fs::write(dir.path().join("run.json"), "{}").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert_eq!(list(dir.path()).unwrap(), ["run.json", "run/cells/console.log"]);
        let path = dir.path().join("run/cells/console.log");
        assert_eq!(piece(&path, 0).unwrap().len(), MAX_PIECE);
        assert_eq!(piece(&path, MAX_PIECE as u64).unwrap(), [7; 3]);
        assert!(piece(&path, long.len() as u64).unwrap().is_empty());
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = format!("{:#}", list(Path::new("/nowhere/at-all")).unwrap_err());
        assert!(error.contains("can't read /nowhere/at-all: No such file"), "{error}");
    }
}
