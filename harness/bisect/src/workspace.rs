//! A repository of our own that borrows the user's objects, and a worktree of one commit at a time.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, fcntl_lock, flock};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, git::Git};

/// A commit, as far as a report needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its full name.
    pub id: String,
    /// First line of its message.
    pub subject: String,
    /// `Name <address>` of its author.
    pub author: String,
    /// When it was written, ISO 8601.
    pub date: String,
}

impl Commit {
    /// Its name as people quote it.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.id[..self.id.len().min(12)]
    }
}

/// A repository of our own beside the user's, of which not a byte is written: it has the user's objects
/// as an alternate, no refs of theirs, and a worktree.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
    git: Git,
    /// Held as long as we live.
    _alive: File,
}

impl Workspace {
    /// The commit that `revision` names in the user's repository, bare or not, and any worktree of it.
    ///
    /// # Errors
    /// [`Error::NoRepository`], [`Error::NoRevision`]
    pub fn resolve(tree: &Path, revision: &str) -> Result<String> {
        let git = Git::reading(tree);
        let none = |said| Error::NoRepository { tree: tree.to_owned(), said };
        git.run(&["rev-parse", "--git-dir"])?.map_err(none)?;
        let wanted = format!("{revision}^{{commit}}");
        git.run(&["rev-parse", "--verify", "--end-of-options", &wanted])?.map_err(|said| {
            Error::NoRevision { tree: tree.to_owned(), revision: revision.to_owned(), said }
        })
    }

    /// Opens the workspace in `root`, and makes or mends it where it is not whole.
    ///
    /// # Errors
    /// [`Error::InUse`] where another process has it; what git or the system says.
    pub fn open(root: &Path, tree: &Path) -> Result<Self> {
        fs::create_dir_all(root).map_err(Error::io(root))?;
        let alive = lock_file(&root.join("alive"))?;
        // Of this process alone: what it starts does not inherit it, as it would a `flock`.
        if fcntl_lock(&alive, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::InUse(root.to_owned()));
        }
        // A git that outlived a killed process ends soon: it is waited for.
        let busy = lock_file(&root.join("busy"))?;
        flock(&busy, FlockOperation::LockExclusive)
            .map_err(|error| Error::io(root.join("busy"))(error.into()))?;
        let git = Git::working(&root.join("tree"), busy);
        let workspace = Self { root: root.to_owned(), git, _alive: alive };
        workspace.make(tree)?;
        Ok(workspace)
    }

    /// The worktree. It holds the last commit that was [checked out](Self::checkout).
    #[must_use]
    pub fn worktree(&self) -> PathBuf {
        self.root.join("tree")
    }

    /// The repository of the worktree, in which every commit of the user's can be had.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.worktree().join(".git")
    }

    /// Puts exactly one commit into the worktree. Files that did not change keep their times.
    ///
    /// # Errors
    /// What git says.
    pub fn checkout(&self, commit: &str) -> Result<PathBuf> {
        self.git.ask(&["checkout", "--quiet", "--force", "--detach", commit])?;
        self.git.ask(&["clean", "-ffdxq"])?;
        // A killed checkout may have left a file that the index takes for another's.
        if self.git.run(&["diff", "--quiet", "--no-ext-diff", "HEAD"])?.is_err() {
            self.git.ask(&["reset", "--quiet", "--hard", commit])?;
        }
        Ok(self.worktree())
    }

    /// What is to be known of a commit.
    ///
    /// # Errors
    /// What git says.
    pub fn commit(&self, id: &str) -> Result<Commit> {
        let format = "--format=%H%n%s%n%an <%ae>%n%aI";
        let text =
            self.git.ask(&["show", "-s", "--no-show-signature", format, "--end-of-options", id])?;
        let mut lines = text.lines().map(str::to_owned);
        let mut next = || lines.next().unwrap_or_default();
        Ok(Commit { id: next(), subject: next(), author: next(), date: next() })
    }

    /// The parents of a commit.
    ///
    /// # Errors
    /// What git says.
    pub fn parents(&self, id: &str) -> Result<Vec<String>> {
        let text = self.git.ask(&["rev-list", "--parents", "-1", "--end-of-options", id])?;
        Ok(text.split_ascii_whitespace().skip(1).map(str::to_owned).collect())
    }

    /// Where two commits forked, best first; empty where they have nothing in common.
    pub(crate) fn merge_bases(&self, one: &str, other: &str) -> Result<Vec<String>> {
        // Every commit is among those that have it for an ancestor, so this fails on real trouble alone.
        let known = self.git.ask(&["rev-list", "--count", "--max-count=1", one, other])?;
        debug_assert_eq!(known, "1");
        // And this without a word where there is none.
        let found = self.git.run(&["merge-base", "--all", one, other])?.unwrap_or_default();
        Ok(found.lines().map(str::to_owned).collect())
    }

    /// The commits that are in `bad` and in none of `good`, each with how many of the others it would
    /// settle, most first. `bad` itself is among them.
    pub(crate) fn candidates(&self, bad: &str, good: &[String]) -> Result<Vec<(String, u64)>> {
        let not: Vec<String> = good.iter().map(|good| format!("^{good}")).collect();
        let mut arguments = vec!["rev-list", "--bisect-all", bad];
        arguments.extend(not.iter().map(String::as_str));
        let text = self.git.ask(&arguments)?;
        let line = |line: &str| {
            let (id, rest) = line.split_once(' ').unwrap_or((line, ""));
            let settles = rest.split_once("dist=").and_then(|(_, rest)| {
                rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            });
            (id.to_owned(), settles.unwrap_or(0))
        };
        Ok(text.lines().map(line).collect())
    }

    /// Removes the worktree, which is large, when it is no longer needed.
    ///
    /// # Errors
    /// What the system says.
    pub fn discard(self) -> Result<()> {
        let tree = self.worktree();
        fs::remove_dir_all(&tree).map_err(Error::io(&tree))
    }

    fn make(&self, tree: &Path) -> Result<()> {
        let repository = self.repository();
        let done = repository.join("made");
        if !done.exists() {
            self.create(tree)?;
            File::create(&done).and_then(|file| file.sync_all()).map_err(Error::io(&done))?;
        }
        // Nobody else works here, so these are a killed git's.
        for name in ["index.lock", "HEAD.lock", "config.lock", "shallow.lock"] {
            let path = repository.join(name);
            if path.exists() {
                fs::remove_file(&path).map_err(Error::io(&path))?;
            }
        }
        Ok(())
    }

    fn create(&self, tree: &Path) -> Result<()> {
        let user = Git::reading(tree);
        let none = |said| Error::NoRepository { tree: tree.to_owned(), said };
        let path = |what: &str| -> Result<PathBuf> {
            let path = user.run(&["rev-parse", "--git-path", what])?.map_err(none)?;
            let path = tree.join(path);
            fs::canonicalize(&path).or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(path.clone()),
                _ => Err(Error::io(&path)(error)),
            })
        };
        let format = user.run(&["rev-parse", "--show-object-format"])?.map_err(none)?;
        let objects = path("objects")?;
        let shallow = path("shallow")?;
        let own = self.worktree();
        if own.exists() {
            // Half made: nothing of it is worth anything.
            fs::remove_dir_all(&own).map_err(Error::io(&own))?;
        }
        fs::create_dir_all(&own).map_err(Error::io(&own))?;
        let format = format!("--object-format={format}");
        self.git.ask(&["init", "--quiet", "--template=", "--initial-branch=none", &format])?;
        for setting in [
            ["core.hooksPath", "/dev/null"],
            ["core.autocrlf", "false"],
            ["gc.auto", "0"],
            ["maintenance.auto", "false"],
            ["advice.detachedHead", "false"],
        ] {
            self.git.ask(&["config", setting[0], setting[1]])?;
        }
        let repository = self.repository();
        if shallow.exists() {
            let own = repository.join("shallow");
            fs::copy(&shallow, &own).map_err(Error::io(&own))?;
        }
        let info = repository.join("objects/info");
        fs::create_dir_all(&info).map_err(Error::io(&info))?;
        let alternates = info.join("alternates");
        let mut file = File::create(&alternates).map_err(Error::io(&alternates))?;
        let borrowed =
            objects.to_str().filter(|path| !path.contains(['\n', '"'])).ok_or_else(|| {
                none(format!(
                    "the path of its objects, {}, can't be written down for git",
                    objects.display()
                ))
            })?;
        writeln!(file, "{borrowed}").and_then(|()| file.sync_all()).map_err(Error::io(&alternates))
    }
}

fn lock_file(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).read(true).append(true).open(path).map_err(Error::io(path))
}
