//! The user's repository is left as it was found, to the byte.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use dmarig_bisect::{Conclusion, Error, Journal, Workspace};
use sha2::{Digest as _, Sha256};

use crate::history::{Fake, History, git};

/// Every file and directory: its name, mode, times and content.
pub(crate) fn fingerprint(tree: &Path) -> String {
    let mut hash = Sha256::new();
    for entry in walkdir::WalkDir::new(tree).sort_by_file_name() {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        hash.update(entry.path().to_str().unwrap());
        for number in [
            i64::from(meta.mode()),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
            meta.size() as i64,
        ] {
            hash.update(number.to_le_bytes());
        }
        if meta.is_file() {
            hash.update(fs::read(entry.path()).unwrap());
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

const WORDS: &str = "good nobuild good good bad bad noboot bad";

#[track_caller]
fn check(history: &History) {
    let before = fingerprint(&history.tree);
    // Interrupted everywhere, and gone on with.
    let mut judge = Fake { patience: Some(0), ..Fake::default() };
    let mut result = history.bisect(0, 7, &mut judge);
    for _ in 0..20 {
        assert_eq!(fingerprint(&history.tree), before);
        let Err(Error::Interrupted(_)) = &result else { break };
        result = history.resume(&mut Fake { patience: Some(1), ..Fake::default() });
    }
    let summary = result.unwrap();
    let Conclusion::Guilty { commit, .. } = &summary.conclusion else { panic!("{summary:?}") };
    assert_eq!(commit.subject, "bad 4");
    assert_eq!(fingerprint(&history.tree), before);
}

#[test]
fn a_bare_clone() {
    check(&History::line(WORDS));
}

#[test]
fn a_clone_that_borrows_from_another_is_bare_and_packed() {
    let mut history = History::line(WORDS);
    git(history.root.path(), &["clone", "-q", "--bare", "--shared", "user", "second"]);
    git(&history.root.path().join("second"), &["pack-refs", "--all"]);
    let first = fingerprint(&history.tree);
    history.tree = history.root.path().join("second");
    check(&history);
    assert_eq!(fingerprint(&history.root.path().join("user")), first);
}

#[test]
fn a_checkout_in_the_middle_of_work() {
    let mut history = History::line(WORDS);
    git(history.root.path(), &["clone", "-q", "user", "work"]);
    history.tree = history.root.path().join("work");
    fs::write(history.tree.join("what"), "changed").unwrap();
    fs::write(history.tree.join("new"), "untracked").unwrap();
    git(&history.tree, &["add", "new"]);
    git(&history.tree, &["config", "core.autocrlf", "true"]);
    // Settings and hooks of the user's are for the user.
    fs::write(history.tree.join(".git/hooks/post-checkout"), "#!/bin/sh\nexit 1\n").unwrap();
    check(&history);
    // A worktree of it as well.
    git(&history.tree, &["worktree", "add", "-q", "--detach", "../linked", "c2"]);
    history.tree = history.root.path().join("linked");
    fs::remove_dir_all(history.place()).unwrap();
    check(&history);
}

#[test]
fn a_shallow_clone_ends_where_it_ends() {
    let mut history = History::line(WORDS);
    let from = format!("file://{}", history.tree.display());
    git(history.root.path(), &["clone", "-q", "--depth=8", &from, "shallow"]);
    git(&history.root.path().join("shallow"), &["fetch", "-q", "--tags", "--depth=8"]);
    history.tree = history.root.path().join("shallow");
    check(&history);
}

#[test]
fn rejects_a_directory_without_a_repository() {
    let place = tempfile::tempdir().unwrap();
    let error = Workspace::resolve(place.path(), "HEAD").unwrap_err().to_string();
    assert!(error.contains("is not a readable git repository"), "{error}");
    let history = History::line("good bad");
    for (revision, told) in [
        ("nope", "no revision `nope`"),
        ("--all", "no revision `--all`"),
        ("c0:what", "no revision"),
    ] {
        let error = Workspace::resolve(&history.tree, revision).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
    let error = Journal::find(&history.place(), "../x").unwrap_err().to_string();
    assert!(error.contains("there is no bisection `../x`"), "{error}");
}
