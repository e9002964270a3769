//! Copies files from the guest to the host.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

use dmarig_model::observation::End;
use dmarig_wire::{Reply, Request};

use super::Session;
use crate::{
    agent::expect_reply,
    blame::{channel_broken, host_fault},
    launch::{GuestFiles, Launch},
};

/// Largest number of files that are copied.
const MAX_FILES: usize = 1000;
/// Largest number of bytes of all files together.
const MAX_BYTES: u64 = 64 << 20;
/// Longest path below the directory, in bytes.
const MAX_PATH: usize = 500;

impl Session {
    /// Copies all files below a directory of the guest.
    pub(super) async fn collect(
        &mut self,
        launch: &Launch<'_>,
        files: &GuestFiles,
    ) -> Result<(), End> {
        let deadline = launch.deadlines.request;
        let request = Request::ListFiles(files.guest.clone());
        let reply = self.ask("list of files in the guest", deadline, &request).await?;
        let names = expect_reply!(reply, Reply::Files(names) => names, "names of files")
            .map_err(channel_broken)?;
        if names.len() > MAX_FILES {
            return Err(too_much("files", files));
        }
        let mut remaining = MAX_BYTES;
        for name in names {
            self.copy(launch, files, &name, &mut remaining).await?;
        }
        Ok(())
    }

    /// Copies one file; its size is taken from the bytes that remain for all files.
    async fn copy(
        &mut self,
        launch: &Launch<'_>,
        files: &GuestFiles,
        name: &str,
        remaining: &mut u64,
    ) -> Result<(), End> {
        let Some(host_path) = path_below(&files.host, name) else {
            let what =
                format!("the guest names a file {name:?}, which is not a path below a directory");
            return Err(End::ChannelBroken { what });
        };
        let mut file = create(&host_path).map_err(|error| host_fault(&error))?;
        let guest_path = format!("{}/{name}", files.guest);
        let mut offset = 0;
        loop {
            let request = Request::ReadFile { path: guest_path.clone(), offset };
            let deadline = launch.deadlines.request;
            let reply = self.ask("piece of a file in the guest", deadline, &request).await?;
            let piece = expect_reply!(reply, Reply::Piece(piece) => piece, "a piece of a file")
                .map_err(channel_broken)?;
            if piece.is_empty() {
                return Ok(());
            }
            let length = piece.len() as u64;
            offset += length;
            *remaining = remaining.checked_sub(length).ok_or_else(|| too_much("bytes", files))?;
            let written = file.write_all(&piece);
            written.map_err(|error| host_fault(&cannot_write(&host_path, error)))?;
        }
    }
}

fn too_much(unit: &str, files: &GuestFiles) -> End {
    End::ChannelBroken {
        what: format!("the guest has more {unit} in {} than are taken", files.guest),
    }
}

fn create(path: &Path) -> io::Result<File> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| cannot_write(path, error))?;
    File::create_new(path).map_err(|error| cannot_write(path, error))
}

fn cannot_write(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("can't write {}: {error}", path.display()))
}

/// The path below `directory` of a name that a guest sent; `None` if it would lead elsewhere.
fn path_below(directory: &Path, name: &str) -> Option<PathBuf> {
    let is_plain = |component: Component<'_>| matches!(component, Component::Normal(_));
    let is_valid = !name.is_empty()
        && name.len() <= MAX_PATH
        && !name.contains(char::is_control)
        && Path::new(name).components().all(is_plain);
    if is_valid { Some(directory.join(name)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_paths_that_leave_the_directory() {
        let place = |name| path_below(Path::new("/runs"), name);
        assert_eq!(place("a/cells.jsonl"), Some(PathBuf::from("/runs/a/cells.jsonl")));
        for name in ["", "..", "a/../../etc/passwd", "/etc/passwd", "./a", "a\0b", "a\nb"] {
            assert_eq!(place(name), None, "{name:?}");
        }
        assert_eq!(place(&"x".repeat(MAX_PATH + 1)), None);
    }
}
