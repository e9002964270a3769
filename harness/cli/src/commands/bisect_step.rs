//! `dmarig bisect-step`, for `git bisect run`.
//!
//! Git takes 0 for good, 125 for untestable, 1 to 127 for bad, and stops at anything above. So whatever is
//! not a verdict on the revision (bad words, the host's trouble, a panic of our own) must be above 127, and
//! 126 and 127 are a shell's, for a program that it can't start.

use std::path::PathBuf;

use clap::Args;
use dmarig_bisect::{Evidence, JudgeError, Workspace};
use dmarig_model::text::shown;

use dmarig_runner::{
    bisect::{CellJudge, JudgeSetup, Revision, session::steps_directory},
    signals::InterruptibleRuntime,
};

use crate::{
    commands::kernel::new_bar,
    exit::{Exit, Failure},
    options::{JudgeOptions, Places},
    report::{BisectionCells, on_interrupt},
};

/// The name of the command, by which its exit codes are told before its words are read.
pub(crate) const NAME: &str = "bisect-step";

#[derive(Debug, Args)]
pub(crate) struct BisectStep {
    #[command(flatten)]
    places: Places,
    /// The git tree, with the files to be judged
    #[arg(long, value_name = "DIR", default_value = ".")]
    tree: PathBuf,
    /// The revision to judge [default: the tree's files as they are now]
    #[arg(long, value_name = "REV")]
    rev: Option<String>,
    /// With --metric: the good revision to compare with
    #[arg(long, value_name = "REV", requires = "metric")]
    good: Option<String>,
    #[command(flatten)]
    judge: JudgeOptions,
}

impl BisectStep {
    pub(crate) fn execute(self, words: Vec<String>) -> Result<Exit, Failure> {
        let cache = self.places.open_cache()?;
        let runs = steps_directory(&self.places.runs()?);
        let spec = self.judge.spec()?;
        // A mistake in the words is told before an hour of building.
        let error = self.judge.error()?;
        let revs = [self.rev.as_deref()].into_iter().chain(self.good.as_deref().map(Some));
        spec.check(error, &self.tree, revs, &cache)?;
        let revision = self.rev.clone().map_or(Revision::AsItIs, Revision::At);
        let good = match (&spec.metric, &self.good) {
            (None, _) => None,
            (Some(_), Some(good)) => {
                let id = Workspace::resolve(&self.tree, good).map_err(Failure::usage)?;
                Some(Revision::At(id))
            }
            (Some(_), None) => {
                return Err(Failure::usage(anyhow::anyhow!(
                    "a metric is judged against a good kernel: --good REV"
                )));
            }
        };
        let setup = JudgeSetup {
            cache,
            runs,
            command: words,
            runtime: InterruptibleRuntime::new(on_interrupt)?,
            reporter: Box::new(BisectionCells::default()),
            build_progress: new_bar,
        };
        let mut judge = CellJudge::new(setup, spec, &self.tree);
        let mut look = || match &good {
            None => judge.checks(&revision),
            Some(good) => judge.compare(good, &revision, error),
        };
        let seen = match look() {
            Err(JudgeError::Host(said)) => {
                errln!("dmarig: trying again: {said}");
                look()
            }
            seen => seen,
        };
        Ok(match seen {
            Ok(seen) => tell(&seen),
            Err(JudgeError::Interrupted) => Exit::Interrupted,
            Err(JudgeError::Host(said)) => {
                return Err(anyhow::anyhow!("the revision could not be judged: {said}").into());
            }
        })
    }
}

/// Tells what was seen. Without a bad end to compare with, every check that fails counts.
fn tell(seen: &Evidence) -> Exit {
    if let Some(record) = &seen.record {
        errln!("record: {record}");
    }
    let (word, exit) = match (&seen.obstacle, seen.failed.is_empty(), seen.held.is_empty()) {
        (Some(obstacle), ..) => {
            outln!("skip: {}", shown(&obstacle.told()));
            return Exit::Untestable;
        }
        (None, false, _) => ("bad", Exit::Failed),
        (None, true, false) => match &seen.unclear {
            // What is open in one cell may be the very fault.
            Some(unclear) => {
                outln!("skip: {}", shown(&unclear.told()));
                return Exit::Untestable;
            }
            None => ("good", Exit::Passed),
        },
        (None, true, true) => ("skip: no check was judged", Exit::Untestable),
    };
    outln!("{word}");
    for line in &seen.evidence {
        outln!("  {}", shown(line));
    }
    exit
}

/// The exit code that git understands, of a command that ended so.
pub(crate) const fn git_code(exit: Exit) -> u8 {
    match exit {
        Exit::Passed => 0,
        Exit::Failed => 1,
        Exit::Untestable => 125,
        Exit::Interrupted => 130,
        Exit::Usage => 129,
        Exit::Errored | Exit::Nothing => 128,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dmarig_bisect::SkipCause;

    use super::*;

    #[test]
    fn only_verdicts_are_taken_for_verdicts() {
        let all = [
            Exit::Passed,
            Exit::Failed,
            Exit::Untestable,
            Exit::Interrupted,
            Exit::Usage,
            Exit::Errored,
            Exit::Nothing,
        ];
        for exit in all {
            let code = git_code(exit);
            let verdict = matches!(exit, Exit::Passed | Exit::Failed | Exit::Untestable);
            assert_eq!(code < 128, verdict, "{exit:?}");
            assert!(code != 126 && code != 127);
        }
    }

    #[test]
    fn what_was_seen_has_its_code() {
        let one = |name: &str| BTreeSet::from([name.to_owned()]);
        for (seen, exit) in [
            (Evidence { held: one("a"), ..Evidence::default() }, Exit::Passed),
            (Evidence { held: one("a"), failed: one("b"), ..Evidence::default() }, Exit::Failed),
            (
                Evidence {
                    failed: one("b"),
                    obstacle: Some(SkipCause::Boot("x".into())),
                    ..Evidence::default()
                },
                Exit::Untestable,
            ),
            (Evidence::default(), Exit::Untestable),
            (
                Evidence {
                    held: one("a"),
                    unclear: Some(SkipCause::Boot("x".into())),
                    ..Evidence::default()
                },
                Exit::Untestable,
            ),
            (
                Evidence {
                    failed: one("b"),
                    unclear: Some(SkipCause::Boot("x".into())),
                    ..Evidence::default()
                },
                Exit::Failed,
            ),
        ] {
            assert_eq!(tell(&seen), exit);
        }
    }
}
