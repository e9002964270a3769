use std::{
    ffi::OsStr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use crate::programs::program;

/// How a program behaves, which its file name says: `PROGRAM-ROLE`.
pub trait Role: ValueEnum + Copy {
    /// The name of the program that plays these roles.
    const PROGRAM: &'static str;

    /// The file name of a program that plays this role.
    fn file_name(self) -> String {
        let value = self.to_possible_value().expect("no role is hidden");
        format!("{}-{}", Self::PROGRAM, value.get_name())
    }

    /// Makes a link to the program in `directory`, if it is not there yet, and returns the link's path.
    ///
    /// # Panics
    /// If the program can't be built, or the link can't be made.
    fn link_in(self, directory: &Path) -> PathBuf {
        let link = directory.join(self.file_name());
        if !link.exists() {
            symlink(program(Self::PROGRAM), &link)
                .unwrap_or_else(|error| panic!("can't link {}: {error}", link.display()));
        }
        link
    }

    /// The role that this process is to play.
    ///
    /// # Panics
    /// If the name that this process was started by names no role.
    fn of_this_process() -> Self {
        let path = std::env::args_os().next().unwrap_or_default();
        let file_name = Path::new(&path).file_name().and_then(OsStr::to_str).unwrap_or_default();
        let prefix = format!("{}-", Self::PROGRAM);
        let role = file_name.strip_prefix(&prefix);
        role.and_then(|name| Self::from_str(name, false).ok()).unwrap_or_else(|| {
            panic!("`{file_name}` names no role: start {0} by a link named {0}-ROLE", Self::PROGRAM)
        })
    }
}
