//! Writes a site into a directory, over an older one of itself and over nothing else.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Dashboard, DashboardError, Written};

/// Lists what was written, so that the next site can take away what it does not have any more. It
/// also marks the directory as one that may be written into.
const LIST: &str = ".dmarig-dashboard";

/// Writes all files; those of an older site that are none of this one are removed.
///
/// # Errors
/// A directory with something else in it is bad usage; else what the system says, with the path.
pub fn write_site(dashboard: &Dashboard, directory: &Path) -> Result<Written, DashboardError> {
    let before = earlier(directory)?;
    fs::create_dir_all(directory).map_err(cannot_write(directory))?;
    let paths = dashboard.paths();
    // Before anything else: what a killed one leaves is then known for ours.
    let all: BTreeSet<&str> =
        paths.iter().map(String::as_str).chain(before.iter().map(String::as_str)).collect();
    write_list(directory, &all)?;
    for path in &paths {
        if let Some(parent) = directory.join(path).parent() {
            fs::create_dir_all(parent).map_err(cannot_write(parent))?;
        }
    }
    let written = dashboard.write(|path, bytes| {
        let path = directory.join(path);
        replace(&path, bytes).map_err(cannot_write(&path))
    })?;
    let now: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
    for gone in before.iter().filter(|path| !now.contains(path.as_str())) {
        // Somebody may have removed it already.
        let _ = fs::remove_file(directory.join(gone));
    }
    write_list(directory, &now)?;
    Ok(written)
}

/// Paths of the site that is there. A directory with other things in it is not written into.
fn earlier(directory: &Path) -> Result<Vec<String>, DashboardError> {
    let path = directory.join(LIST);
    match fs::read_to_string(&path) {
        Ok(text) => {
            // Whatever somebody made of the list: nothing outside of the directory is removed.
            let plain =
                |path: &&str| !path.is_empty() && !path.contains("..") && !path.starts_with('/');
            Ok(text.lines().filter(plain).map(str::to_owned).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match fs::read_dir(directory).map(|mut entries| entries.next().is_some()) {
                Ok(true) => Err(DashboardError::ForeignDirectory { path: directory.to_owned() }),
                _ => Ok(Vec::new()),
            }
        }
        Err(source) => Err(DashboardError::File { action: "read", path, source }),
    }
}

fn write_list(directory: &Path, paths: &BTreeSet<&str>) -> Result<(), DashboardError> {
    let text: String = paths.iter().flat_map(|path| [path, "\n"]).collect();
    let path = directory.join(LIST);
    replace(&path, text.as_bytes()).map_err(cannot_write(&path))
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> DashboardError {
    |source| DashboardError::File { action: "write", path: path.to_owned(), source }
}

/// A reader never sees half a file: web servers may be serving the directory.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    fs::write(&new, bytes)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use crate::{Run, RunDetails, Site};

    use super::*;

    fn dashboard(runs: &[&str]) -> Dashboard {
        let run = |id: &&str| Run { id: (*id).to_owned(), ..Run::default() };
        let site = Site { runs: runs.iter().map(run).collect(), ..Site::default() };
        Dashboard::new(site, Box::new(|_, _| RunDetails::default()))
    }

    fn files(directory: &Path) -> usize {
        let entries = fs::read_dir(directory).unwrap().flatten();
        entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
    }

    #[test]
    fn a_site_replaces_its_older_self() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("site");
        let many = write_site(&dashboard(&["a", "b", "c"]), &out).unwrap();
        assert_eq!(files(&out), many.files + 1);
        fs::write(out.join("mine.txt"), "kept").unwrap();
        let few = write_site(&dashboard(&["b"]), &out).unwrap();
        assert_eq!((many.files - few.files, files(&out)), (4, few.files + 2));
        assert_eq!(fs::read_to_string(out.join("mine.txt")).unwrap(), "kept");
    }

    #[test]
    fn a_directory_of_something_else_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("thesis.txt"), "").unwrap();
        let error = write_site(&dashboard(&[]), place.path()).unwrap_err();
        assert!(matches!(error, DashboardError::ForeignDirectory { .. }), "{error}");
        assert_eq!(files(place.path()), 1);
    }

    #[test]
    fn no_list_removes_anything_outside() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("site");
        fs::create_dir(&out).unwrap();
        let outside = place.path().join("outside.txt");
        fs::write(&outside, "").unwrap();
        let text = format!("../outside.txt\n{}\n", outside.display());
        fs::write(out.join(LIST), text).unwrap();
        write_site(&dashboard(&[]), &out).unwrap();
        assert!(outside.exists());
    }
}
