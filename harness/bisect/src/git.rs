//! Git, kept from what the user's environment would have it do.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Error, Result};

/// Variables by which a git that started us (a hook, `git bisect run`) would redirect ours.
const REDIRECTING: &[&str] = &[
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_CEILING_DIRECTORIES",
    "GIT_EXTERNAL_DIFF",
    "GIT_TRACE",
];

/// Variables that hold settings, as a container does that marks the user's trees as safe: for reading
/// these, and not for our own checkouts.
const SETTINGS: &[&str] = &["GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS"];

/// Longest word of git that an error repeats, in characters.
const SAID: usize = 2000;

/// A git in one directory.
#[derive(Debug)]
pub(crate) struct Git {
    directory: PathBuf,
    /// Held open by each git that changes something, so that who comes after a killed process waits
    /// for the git that outlives it.
    lock: Option<File>,
}

impl Git {
    /// One that reads the user's repository.
    pub(crate) fn reading(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), lock: None }
    }

    /// One that works in our own.
    pub(crate) fn working(directory: &Path, lock: File) -> Self {
        Self { directory: directory.to_owned(), lock: Some(lock) }
    }

    /// What git prints, without the newline at its end.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        match self.run(arguments)? {
            Ok(text) => Ok(text),
            Err(said) => Err(Error::Git {
                command: arguments.join(" "),
                directory: self.directory.clone(),
                said,
            }),
        }
    }

    /// What git prints, or what it complains of.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Result<String, String>> {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.directory).args(arguments);
        for name in REDIRECTING {
            command.env_remove(name);
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            // Reading must not refresh an index, nor fetch what a partial clone lacks.
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_NO_REPLACE_OBJECTS", "1");
        match &self.lock {
            Some(lock) => {
                let lock = lock.try_clone().map_err(Error::io(&self.directory))?;
                // The user's settings (filters, hooks, line ends) are for the user's checkouts.
                for name in SETTINGS {
                    command.env_remove(name);
                }
                command
                    .stdin(Stdio::from(lock))
                    .env("GIT_CONFIG_GLOBAL", "/dev/null")
                    .env("GIT_CONFIG_NOSYSTEM", "1");
            }
            None => {
                command.stdin(Stdio::null());
            }
        }
        let output = command.output().map_err(Error::NoGit)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() {
            return Ok(Ok(text(&output.stdout)));
        }
        let said = text(&output.stderr);
        let left_out = said.chars().count().saturating_sub(SAID);
        let said: String = said.chars().skip(left_out).collect();
        Ok(Err(if said.is_empty() { output.status.to_string() } else { said }))
    }
}
