//! `dmarig bisect`

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use dmarig_bisect::{
    Bisection, Commit, Conclusion, Error, Events, Journal, Question, Role, Step, Summary, Verdict,
    Workspace,
};
use dmarig_model::{plan::shell_line, text::shown};
use dmarig_runner::{
    bisect::{CellJudge, JudgeSetup, JudgeSpec},
    remove_left_directories,
    signals::InterruptibleRuntime,
};

use crate::{
    commands::kernel::new_bar,
    exit::{Exit, Failure},
    options::{JudgeOptions, Places},
    output::print,
    report::{BisectionCells, on_interrupt},
};

/// Where bisections are, among the records of runs.
pub(super) const PLACE: &str = "bisections";

/// Where one has its own records.
const RUNS: &str = "runs";

#[derive(Debug, Args)]
pub(crate) struct Bisect {
    #[command(flatten)]
    places: Places,
    /// A git tree of Linux, bare or not; nothing is written to it
    #[arg(long, value_name = "DIR", required_unless_present = "resume")]
    tree: Option<PathBuf>,
    /// A revision without the fault
    #[arg(long, value_name = "REV", required_unless_present = "resume")]
    good: Option<String>,
    /// A revision with it
    #[arg(long, value_name = "REV", required_unless_present = "resume")]
    bad: Option<String>,
    #[command(flatten)]
    judge: JudgeOptions,
    /// Go on with a bisection that was stopped or killed [default: the last one]
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "last", conflicts_with_all = ["tree", "good", "bad", "case", "cells", "checks", "metric", "limit", "error", "pairs", "config", "edits", "accelerator", "sets", "append", "probe_program", "patience", "jobs"])]
    resume: Option<String>,
    /// What to print on standard output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A summary for people
    Text,
    /// The same as a mail to a list, without addresses
    Mail,
    /// One JSON document
    Json,
}

impl Bisect {
    pub(crate) fn execute(self, words: Vec<String>) -> Result<Exit, Failure> {
        // Its variable may stay as it is, so the parser can't refuse it.
        let qemu = |word: &String| word == "--qemu" || word.starts_with("--qemu=");
        if self.resume.is_some() && words.iter().any(qemu) {
            return Err(Failure::usage(anyhow!(
                "--qemu can't be used with --resume: a bisection goes on with the QEMU that it was begun with"
            )));
        }
        let cache = self.places.open_cache()?;
        let runs = self.places.runs()?;
        let place = runs.join(PLACE);
        let journal = match &self.resume {
            Some(name) => Journal::find(&place, name).map_err(failure)?,
            None => self.begin(&place, &words)?,
        };
        let spec: JudgeSpec = serde_json::from_value(journal.question().subject.clone())
            .context("the journal's subject is not one of this dmarig's")?;
        remove_left_directories();
        let directory = journal.directory().to_owned();
        let tree = journal.question().tree.clone();
        // Kernels that are tried on the way have no place in the history of those that are in use.
        let runs = directory.join(RUNS);
        let runtime =
            InterruptibleRuntime::new(on_interrupt).context("signals can't be listened to")?;
        let setup = JudgeSetup {
            cache,
            runs: runs.clone(),
            command: words,
            runtime,
            reporter: Box::new(BisectionCells::default()),
            build_progress: new_bar,
        };
        let mut judge = CellJudge::new(setup, spec.clone(), &tree);
        errln!("bisection: {}", directory.display());
        let bisection = Bisection::new(journal, &mut judge, &Told).map_err(failure);
        // The error is shared by the judgements, and how many there are is known only now.
        let possible = bisection.and_then(|bisection| {
            spec.judged(bisection.error_of_each())?;
            Ok(bisection)
        });
        let bisection = possible.inspect_err(|_| {
            // What can't be asked is no bisection to go on with.
            if self.resume.is_none() && !runs.exists() {
                let _ = std::fs::remove_dir_all(&directory);
            }
        })?;
        let summary = bisection.run().map_err(failure)?;
        self.keep(&directory, &summary)?;
        self.print(&summary)?;
        Ok(exit(&summary.conclusion))
    }

    /// Checks all that can be checked, and only then begins.
    fn begin(&self, place: &Path, words: &[String]) -> Result<Journal, Failure> {
        let given = |word: &Option<String>| word.clone().unwrap_or_default();
        let tree = self.tree.clone().unwrap_or_default();
        let tree = std::fs::canonicalize(&tree)
            .with_context(|| format!("can't read {}", tree.display()))
            .map_err(Failure::usage)?;
        let spec = self.judge.spec()?;
        let end = |word: String| -> Result<(String, String), Failure> {
            let id = Workspace::resolve(&tree, &word).map_err(failure)?;
            Ok((word, id))
        };
        let (good, bad) = (end(given(&self.good))?, end(given(&self.bad))?);
        let cache = self.places.open_cache()?;
        let error = self.judge.error()?;
        let revisions = [&bad, &good].map(|end| Some(end.1.as_str()));
        spec.check(error, &tree, revisions, &cache)?;
        let question = Question {
            tree,
            good,
            bad,
            only: Default::default(),
            error,
            subject: serde_json::to_value(&spec)?,
            command: shell_line(words.iter()),
        };
        let directory = place.join(dmarig_records::new_name());
        Journal::create(&directory, question).map_err(failure)
    }

    fn keep(&self, directory: &Path, summary: &Summary) -> Result<(), Failure> {
        for (name, text) in [
            ("summary.txt", summary.text()),
            ("mail.txt", summary.mail()),
            ("bisect.log", summary.bisect_log()),
        ] {
            let path = directory.join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("can't write {}", path.display()))?;
        }
        Ok(())
    }

    fn print(&self, summary: &Summary) -> Result<(), Failure> {
        let text = match self.format {
            Format::Text => summary.text(),
            Format::Mail => summary.mail(),
            Format::Json => serde_json::to_string_pretty(summary)? + "\n",
        };
        print(&text)
    }
}

/// The exit of what a bisection came to.
fn exit(conclusion: &Conclusion) -> Exit {
    match conclusion {
        Conclusion::Guilty { doubts, .. } if doubts.is_empty() => Exit::Passed,
        Conclusion::Guilty { .. } | Conclusion::Among { .. } | Conclusion::OlderThanFork { .. } => {
            Exit::Failed
        }
        Conclusion::BadIsGood { .. } | Conclusion::GoodIsBad { .. } => Exit::Usage,
        Conclusion::EndUnusable { .. } => Exit::Nothing,
    }
}

fn failure(error: Error) -> Failure {
    let exit = match &error {
        Error::NoRepository { .. }
        | Error::NoRevision { .. }
        | Error::SameEnds(_)
        | Error::Unrelated { .. }
        | Error::Reversed { .. }
        | Error::Unknown { .. } => Exit::Usage,
        Error::Interrupted(_) => Exit::Interrupted,
        _ => Exit::Errored,
    };
    Failure { exit, error: error.into() }
}

/// Tells each judgement on standard error.
struct Told;

impl Events for Told {
    fn judging(&self, commit: &Commit, role: Role, left: Option<(u64, u32)>) {
        let left = left.map_or_else(String::new, |(left, steps)| {
            let plural = if steps == 1 { "" } else { "s" };
            format!(", {left} may be guilty, about {steps} step{plural}")
        });
        errln!("{}: {} {}{left}", role.name(), commit.short(), shown(&commit.subject));
    }

    fn judged(&self, step: &Step, again: bool) {
        let why = match &step.verdict {
            Verdict::Skip(why) => format!(": {}", shown(why)),
            _ => step
                .seen
                .evidence
                .first()
                .map_or_else(String::new, |line| format!(": {}", shown(line))),
        };
        let again = if again { " (from the journal)" } else { "" };
        errln!("  {} is {}{again}{why}", step.commit.short(), step.verdict.name());
    }

    fn trouble(&self, commit: &Commit, said: &str) {
        errln!("  {} is tried once more: {}", commit.short(), shown(said));
    }
}
