//! Takes files out of a guest.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

use dmarig_model::observation::End;
use dmarig_wire::{Reply, Request};

use super::{Session, broken, host_fault};
use crate::{
    expect_reply,
    guest::{Collect, Launch},
};

/// Most files that are taken.
const MAX_FILES: usize = 1000;
/// Most bytes that they have together.
const MAX_BYTES: u64 = 64 << 20;
/// Longest path below the directory, in bytes.
const MAX_PATH: usize = 500;

impl Session {
    /// Takes all that is below a directory of the guest's.
    pub(super) async fn collect(
        &mut self,
        launch: &Launch<'_>,
        collect: &Collect,
    ) -> Result<(), End> {
        let after = launch.deadlines.request;
        let request = Request::ListFiles(collect.guest.clone());
        let reply = self.ask("list of files in the guest", after, &request).await?;
        let names =
            expect_reply!(reply, Reply::Files(names) => names, "names of files").map_err(broken)?;
        let endless = |what: &str| End::ChannelBroken {
            what: format!("the guest has {what} in {} than are taken", collect.guest),
        };
        if names.len() > MAX_FILES {
            return Err(endless("more files"));
        }
        let mut left = MAX_BYTES;
        for name in names {
            let place = below(&collect.host, &name).ok_or_else(|| End::ChannelBroken {
                what: format!(
                    "the guest names a file {name:?}, which is no path below a directory"
                ),
            })?;
            let mut file = create(&place).map_err(|error| host_fault(&error))?;
            let path = format!("{}/{name}", collect.guest);
            let mut offset = 0;
            loop {
                let request = Request::ReadFile { path: path.clone(), offset };
                let reply = self.ask("piece of a file in the guest", after, &request).await?;
                let piece = expect_reply!(reply, Reply::Piece(piece) => piece, "a piece of a file")
                    .map_err(broken)?;
                let length = piece.len() as u64;
                if length == 0 {
                    break;
                }
                offset += length;
                left = left.checked_sub(length).ok_or_else(|| endless("more bytes"))?;
                file.write_all(&piece).map_err(|error| End::HostFault {
                    what: format!("can't write {}: {error}", place.display()),
                })?;
            }
        }
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    let told = |error: io::Error| {
        io::Error::new(error.kind(), format!("can't write {}: {error}", path.display()))
    };
    path.parent().map_or(Ok(()), fs::create_dir_all).map_err(told)?;
    File::create_new(path).map_err(told)
}

/// A name that a guest gave, below a directory of the host's; `None` where it would lead elsewhere.
fn below(directory: &Path, name: &str) -> Option<PathBuf> {
    let plain = |component: Component<'_>| matches!(component, Component::Normal(_));
    let fine = !name.is_empty()
        && name.len() <= MAX_PATH
        && !name.contains(char::is_control)
        && Path::new(name).components().all(plain);
    fine.then(|| directory.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let place = |name| below(Path::new("/runs"), name);
        assert_eq!(place("a/cells.jsonl"), Some(PathBuf::from("/runs/a/cells.jsonl")));
        for name in ["", "..", "a/../../etc/passwd", "/etc/passwd", "./a", "a\0b", "a\nb"] {
            assert_eq!(place(name), None, "{name:?}");
        }
        assert_eq!(place(&"x".repeat(MAX_PATH + 1)), None);
    }
}
