//! Histories made for tests, and a fast judge of them.

use std::{
    cell::RefCell,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use dmarig_bisect::{
    Bisection, Commit, Error, Events, Evidence, Journal, Judge, JudgeError, JudgeRequest, Question,
    Role, SkipCause, Step, Summary, Workspace,
};
use tempfile::TempDir;

/// A repository, and a place for bisections of it.
pub(crate) struct History {
    pub(crate) root: TempDir,
    pub(crate) tree: PathBuf,
}

/// A commit: what it is, and the numbers of its parents (from 0).
pub(crate) type Made<'a> = (&'a str, &'a [usize]);

impl History {
    /// One commit after the other, each one of these words.
    pub(crate) fn line(words: &str) -> Self {
        let words: Vec<&str> = words.split_ascii_whitespace().collect();
        let parents: Vec<Vec<usize>> =
            (0..words.len()).map(|at| at.checked_sub(1).into_iter().collect()).collect();
        let made: Vec<Made<'_>> =
            words.iter().zip(&parents).map(|(word, parents)| (*word, &**parents)).collect();
        Self::of(&made, true)
    }

    /// Any history; each commit has the tag `c` and its number.
    pub(crate) fn of(commits: &[Made<'_>], bare: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("user");
        let init = ["init", "-q", "--initial-branch=main"];
        let words: &[&str] = if bare { &["--bare"] } else { &[] };
        git(root.path(), &[&init[..], words, &[tree.to_str().unwrap()]].concat());
        let mut stream = String::new();
        for (at, (word, parents)) in commits.iter().enumerate() {
            let message = format!("{word} {at}");
            stream += &format!(
                "commit refs/heads/main\nmark :{}\ncommitter A <a@b> {} +0000\ndata {}\n{message}\n",
                at + 1,
                1_000_000 + at * 60,
                message.len()
            );
            for (index, parent) in parents.iter().enumerate() {
                let verb = if index == 0 { "from" } else { "merge" };
                stream += &format!("{verb} :{}\n", parent + 1);
            }
            if parents.is_empty() && at > 0 {
                stream = stream.replace(
                    &format!("refs/heads/main\nmark :{}\n", at + 1),
                    &format!("refs/heads/r{at}\nmark :{}\n", at + 1),
                );
            }
            let number = at.to_string();
            for (file, text) in [("what", *word), ("number", number.as_str())] {
                stream += &format!("M 100644 inline {file}\ndata {}\n{text}\n", text.len());
            }
            // Each commit has a file of its own, which must be gone in the next one.
            stream += &format!(
                "deleteall\nM 100644 inline what\ndata {}\n{word}\nM 100644 inline dir/{at}\ndata 1\nx\n\n",
                word.len()
            );
            stream += &format!("reset refs/tags/c{at}\nfrom :{}\n\n", at + 1);
        }
        let mut import = Command::new("git")
            .args(["fast-import", "--quiet", "--force"])
            .current_dir(&tree)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        import.stdin.take().unwrap().write_all(stream.as_bytes()).unwrap();
        assert!(import.wait().unwrap().success(), "{stream}");
        Self { root, tree }
    }

    /// Where bisections are.
    pub(crate) fn place(&self) -> PathBuf {
        self.root.path().join("bisections")
    }

    /// The full name of a commit by its number.
    pub(crate) fn id(&self, number: usize) -> String {
        Workspace::resolve(&self.tree, &format!("c{number}")).unwrap()
    }

    pub(crate) fn question(&self, good: usize, bad: usize) -> Question {
        Question {
            tree: self.tree.clone(),
            good: (format!("c{good}"), self.id(good)),
            bad: (format!("c{bad}"), self.id(bad)),
            only: Default::default(),
            error: 0.02,
            subject: serde_json::json!({"case": "x"}),
            command: "dmarig bisect".into(),
        }
    }

    /// Bisects from the beginning.
    pub(crate) fn bisect(
        &self,
        good: usize,
        bad: usize,
        judge: &mut Fake,
    ) -> Result<Summary, Error> {
        let name = format!("b{}", fs::read_dir(self.place()).map_or(0, Iterator::count));
        let journal = Journal::create(&self.place().join(name), self.question(good, bad))?;
        Bisection::new(journal, judge, &Silent)?.run()
    }

    /// Goes on with the last one.
    pub(crate) fn resume(&self, judge: &mut Fake) -> Result<Summary, Error> {
        Bisection::new(Journal::find(&self.place(), "last")?, judge, &Silent)?.run()
    }
}

pub(crate) fn git(directory: &Path, arguments: &[&str]) {
    let status = Command::new("git").args(arguments).current_dir(directory).status().unwrap();
    assert!(status.success(), "{arguments:?}");
}

/// Reads what a commit is from its file.
#[derive(Default)]
pub(crate) struct Fake {
    /// Commits that were judged, by their numbers, with why.
    pub(crate) asked: RefCell<Vec<(usize, Role)>>,
    /// How many judgements until the user interrupts.
    pub(crate) patience: Option<usize>,
    /// Error that each judgement has.
    pub(crate) error: f64,
    /// Judgements that fail through no fault of the commit, by their index.
    pub(crate) troubles: Vec<usize>,
    /// Commits that come out otherwise when they are judged once more.
    pub(crate) fickle: bool,
}

impl Judge for Fake {
    fn judge(&mut self, asked: &JudgeRequest<'_>) -> Result<Evidence, JudgeError> {
        let count = self.asked.borrow().len();
        if self.patience.is_some_and(|patience| count >= patience) {
            return Err(JudgeError::Interrupted);
        }
        let tree = asked.workspace.checkout(&asked.commit.id).unwrap();
        let number = files(&tree);
        self.asked.borrow_mut().push((number, asked.role));
        if self.troubles.contains(&count) {
            return Err(JudgeError::Host("the disk is full".into()));
        }
        let mut what = fs::read_to_string(tree.join("what")).unwrap();
        // What a build leaves must not get into the next commit.
        fs::write(tree.join("what"), "spoilt").unwrap();
        fs::write(tree.join("left.o"), "x").unwrap();
        if self.fickle && asked.role == Role::Confirmation && what == "bad" {
            what = "good".into();
        }
        assert!(asked.error > 0.0 && asked.error <= 0.02);
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut seen = Evidence {
            error: self.error.min(asked.error),
            evidence: vec![what.clone()],
            ..Evidence::default()
        };
        match &*what {
            "good" => seen.held = set(&["warning", "psi"]),
            "bad" => (seen.failed, seen.held) = (set(&["psi"]), set(&["warning"])),
            "beside" => (seen.failed, seen.held) = (set(&["log"]), set(&["warning", "psi"])),
            "hidden" => seen.failed = set(&["log"]),
            // Of two cells one holds, and the other does not boot.
            "half" => {
                seen.held = set(&["warning", "psi"]);
                seen.unclear = Some(SkipCause::Boot("panic".into()));
            }
            "nobuild" => seen.obstacle = Some(SkipCause::Build("x.c:1: error: y".into())),
            "noboot" => seen.obstacle = Some(SkipCause::Boot("panic".into())),
            other => panic!("{other}"),
        }
        Ok(seen)
    }
}

/// The number of the one commit whose files these are, and no others.
fn files(tree: &Path) -> usize {
    let all =
        walkdir::WalkDir::new(tree).into_iter().filter_entry(|entry| entry.file_name() != ".git");
    let mut names: Vec<String> = all
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.path().strip_prefix(tree).unwrap().display().to_string())
        .collect();
    names.sort();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(names[1], "what");
    names[0].strip_prefix("dir/").unwrap().parse().unwrap()
}

pub(crate) struct Silent;

impl Events for Silent {
    fn judging(&self, _: &Commit, _: Role, _: Option<(u64, u32)>) {}
    fn judged(&self, _: &Step, _: bool) {}
    fn trouble(&self, _: &Commit, _: &str) {}
}
