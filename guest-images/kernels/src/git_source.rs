//! A user's git tree: read, never written to. What is built from it is checked out elsewhere, by a
//! repository of our own that borrows the user's objects.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{Error, Result};

/// Variables by which a git that started us (a hook, `git bisect run`) would redirect ours, or have
/// it write beside what it is asked. `dmarig bisect`'s own git forgets the same ones.
const REDIRECTING: [&str; 12] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_EXTERNAL_DIFF",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_TRACE",
    "GIT_WORK_TREE",
];

/// A revision of a git tree, with what the user changed since where no revision was named.
#[derive(Debug)]
pub(crate) struct GitSource {
    dir: PathBuf,
    pub(crate) commit: String,
    /// Of the commit: two commits of one tree make one kernel.
    pub(crate) tree: String,
    /// Files that differ from it, with their contents; `None` for those that are gone.
    pub(crate) changed: BTreeMap<String, Option<Vec<u8>>>,
}

/// Variables that hold settings, as a container does that marks the user's trees as safe: for reading
/// these, and not for what is checked out of them.
const SETTINGS: [&str; 2] = ["GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS"];

/// Whether a directory is a git repository, bare or not.
pub(crate) fn is_git(dir: &Path) -> bool {
    dir.join(".git").exists() || (dir.join("HEAD").is_file() && dir.join("objects").is_dir())
}

impl GitSource {
    /// Looks up `rev`; without one it is what the user's files are now.
    pub(crate) fn open(dir: &Path, rev: Option<&str>) -> Result<GitSource> {
        let of = |rev: &str| {
            let words = ["rev-parse", "--verify", "--quiet", "--end-of-options", rev];
            let output = run(git(dir).args(words), dir, "git rev-parse")?;
            match output.status.success() {
                true => Ok(text(&output)),
                false => Err(Error::NoRevision {
                    path: dir.to_owned(),
                    rev: rev.to_owned(),
                    output: complaint(&output),
                }),
            }
        };
        let commit = of(&format!("{}^{{commit}}", rev.unwrap_or("HEAD")))?;
        let tree = of(&format!("{commit}^{{tree}}"))?;
        let mut source = GitSource { dir: dir.to_owned(), commit, tree, changed: BTreeMap::new() };
        let bare = text(&checked(git(dir).args(["rev-parse", "--is-bare-repository"]), dir)?);
        if rev.is_none() && bare != "true" {
            source.changed = source.changes()?;
        }
        if source.original("Kconfig")?.is_none() || source.original("Makefile")?.is_none() {
            return Err(Error::NotASource {
                path: dir.to_owned(),
                reason: format!("at {} there are no Kconfig and Makefile", short(&source.commit)),
            });
        }
        Ok(source)
    }

    /// What the user's files are other than in HEAD, and those that git does not know or ignore.
    fn changes(&self) -> Result<BTreeMap<String, Option<Vec<u8>>>> {
        let differ = ["diff", "--name-only", "--no-renames", "--no-ext-diff", "-z", "HEAD", "--"];
        let unknown = ["ls-files", "--others", "--exclude-standard", "--full-name", "-z"];
        let mut changed = BTreeMap::new();
        for words in [&differ[..], &unknown[..]] {
            let output = checked(git(&self.dir).args(words), &self.dir)?;
            for name in output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
                let Ok(name) = std::str::from_utf8(name) else { continue };
                let path = self.dir.join(name);
                let content = match fs::metadata(&path) {
                    Ok(meta) if meta.is_file() => {
                        Some(fs::read(&path).map_err(|e| Error::io("read", &path, e))?)
                    }
                    // A submodule, or a link to a directory.
                    Ok(_) => continue,
                    Err(_) => None,
                };
                changed.insert(name.to_owned(), content);
            }
        }
        Ok(changed)
    }

    /// A file as it is in the commit.
    pub(crate) fn original(&self, file: &str) -> Result<Option<Vec<u8>>> {
        let object = format!("{}:{file}", self.commit);
        let output =
            run(git(&self.dir).args(["cat-file", "blob", &object]), &self.dir, "git cat-file")?;
        if output.status.success() {
            return Ok(Some(output.stdout));
        }
        // A partial clone may know of a file and not have it: that says nothing of the source.
        let words = ["ls-tree", "-z", &self.commit, "--", file];
        let entry = text(&checked(git(&self.dir).args(words), &self.dir)?);
        match entry.split_whitespace().nth(1) {
            Some("blob") => Err(Error::Git {
                path: self.dir.clone(),
                command: format!("git cat-file blob {object}"),
                output: format!(
                    "{}; nothing is fetched into your tree: where it is a partial clone, check the \
                     revision out there first",
                    complaint(&output)
                ),
            }),
            _ => Ok(None),
        }
    }

    /// Where the user has it.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Brings the files of the commit to `tree`, a repository of our own; only what differs from
    /// what is there is written.
    pub(crate) fn check_out(&self, tree: &Path) -> Result<()> {
        let path = |what: &str| -> Result<PathBuf> {
            let words = ["rev-parse", "--path-format=absolute", "--git-path", what];
            Ok(text(&checked(git(&self.dir).args(words), &self.dir)?).into())
        };
        let mine = tree.join(".git");
        if !mine.join("HEAD").is_file() {
            let format =
                checked(git(&self.dir).args(["rev-parse", "--show-object-format"]), &self.dir)?;
            let mut init = own_git(Path::new("/"));
            init.args(["init", "--quiet", "--template="]);
            init.arg(format!("--object-format={}", text(&format))).arg(tree);
            checked(&mut init, tree)?;
        }
        // Always said anew: the user's repository may have been moved.
        let alternates = mine.join("objects/info/alternates");
        let write = |path: &Path, bytes: &[u8]| {
            let made = path.parent().map_or(Ok(()), fs::create_dir_all);
            made.and_then(|()| fs::write(path, bytes)).map_err(|e| Error::io("write", path, e))
        };
        write(&alternates, format!("{}\n", path("objects")?.display()).as_bytes())?;
        if let Ok(shallow) = fs::read(path("shallow")?) {
            write(&mine.join("shallow"), &shallow)?;
        }
        // We have the only lock that counts: one of git's is a killed git's.
        let _ = fs::remove_file(mine.join("index.lock"));
        let words = ["checkout", "--quiet", "--force", "--detach", &self.commit];
        checked(own_git(tree).args(words), tree)?;
        Ok(())
    }

    /// Where it is and what, for people.
    pub(crate) fn describe(&self) -> String {
        let more = match self.changed.len() {
            0 => String::new(),
            1 => ", and a changed file".to_owned(),
            count => format!(", and {count} changed files"),
        };
        format!("{} at {}{more}", self.dir.display(), self.commit)
    }
}

pub(crate) fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// Git in the user's repository: told to write nothing, not even its notes on files' times, and to
/// start nothing that stays and does.
fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(dir).args(["-c", "core.fsmonitor=false"]).env("GIT_OPTIONAL_LOCKS", "0");
    settle(&mut command);
    command
}

/// Git in our own repository: none of the user's settings, which could change what is written.
fn own_git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.args(["-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"]);
    for name in SETTINGS {
        command.env_remove(name);
    }
    settle(&mut command);
    command
}

fn settle(command: &mut Command) {
    for name in REDIRECTING {
        command.env_remove(name);
    }
    command
        .env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        // What a partial clone lacks would be written into it.
        .env("GIT_NO_LAZY_FETCH", "1")
        // What is checked out is by a repository that has no replacements.
        .env("GIT_NO_REPLACE_OBJECTS", "1");
}

fn checked(command: &mut Command, dir: &Path) -> Result<Output> {
    let words: Vec<_> =
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let shown = format!("git {}", words.join(" "));
    let output = run(command, dir, &shown)?;
    match output.status.success() {
        true => Ok(output),
        false => {
            let (path, output) = (dir.to_owned(), complaint(&output));
            Err(Error::Git { path, command: shown, output })
        }
    }
}

fn run(command: &mut Command, dir: &Path, shown: &str) -> Result<Output> {
    command.output().map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => "git is not installed".to_owned(),
            _ => error.to_string(),
        };
        Error::Git { path: dir.to_owned(), command: shown.to_owned(), output: reason }
    })
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match text.is_empty() {
        true => format!("git printed nothing ({})", output.status),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignores_git_variables_of_the_environment() {
        for command in [git(Path::new("/")), own_git(Path::new("/"))] {
            let set: BTreeMap<_, _> = command.get_envs().collect();
            for name in REDIRECTING {
                assert_eq!(set.get(std::ffi::OsStr::new(name)), Some(&None), "{name}");
            }
            for name in ["GIT_NO_LAZY_FETCH", "GIT_NO_REPLACE_OBJECTS"] {
                assert_eq!(set[std::ffi::OsStr::new(name)], Some("1".as_ref()), "{name}");
            }
        }
        // What says that the user's tree is safe to read is the user's word.
        let forgets = |command: Command, name: &str| {
            command.get_envs().any(|(key, value)| key == name && value.is_none())
        };
        for name in SETTINGS {
            assert!(!forgets(git(Path::new("/")), name) && forgets(own_git(Path::new("/")), name));
        }
    }
}
