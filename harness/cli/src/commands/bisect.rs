//! `dmarig bisect`

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use dmarig_bisect::{Commit, Conclusion, Events, Role, Step, Summary, Verdict};
use dmarig_model::text::shown;
use dmarig_runner::{
    bisect::{
        JudgeSetup,
        session::{self, BisectRequest},
    },
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
    /// Format of the results on standard output
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
        let journal = match &self.resume {
            Some(name) => session::find(name, &runs)?,
            None => session::begin(&self.request(&words)?, &runs, &cache)?,
        };
        remove_left_directories();
        errln!("bisection: {}", journal.directory().display());
        let setup = JudgeSetup {
            cache,
            runs,
            command: words,
            runtime: InterruptibleRuntime::new(on_interrupt)?,
            reporter: Box::new(BisectionCells::default()),
            build_progress: new_bar,
        };
        let summary = session::run(journal, self.resume.is_some(), setup, &JudgementLines)?;
        self.print(&summary)?;
        Ok(exit(&summary.conclusion))
    }

    fn request(&self, words: &[String]) -> Result<BisectRequest, Failure> {
        Ok(BisectRequest {
            tree: self.tree.clone().unwrap_or_default(),
            good: self.good.clone().unwrap_or_default(),
            bad: self.bad.clone().unwrap_or_default(),
            spec: self.judge.spec()?,
            error: self.judge.error()?,
            command: words.to_vec(),
        })
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

/// Prints each judgement on standard error.
struct JudgementLines;

impl Events for JudgementLines {
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
