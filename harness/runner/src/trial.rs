//! Trials of seeded bugs: one kernel, good or with a bug, and whether the rig catches it.

use std::{collections::BTreeMap, time::Duration};

use dmarig_kernels::Bug;
use dmarig_model::{document::CellResult, observation::Outcome};

/// The check that fails if a kernel takes longer than the good one.
pub const SLOWER: &str = "slower";

/// A kernel that is tried.
#[derive(Debug)]
pub struct Trial {
    /// The source that it is built from.
    pub kernel: String,
    /// The bug that it has; none for the good one.
    pub bug: Option<Bug>,
    /// How it came out.
    pub verdict: Verdict,
    /// The checks that failed, each with its first finding.
    pub failed: BTreeMap<String, Finding>,
    /// Cells that ran.
    pub cells: usize,
    /// How long it took to build.
    pub built: Duration,
    /// How long its cells took.
    pub ran: Duration,
    /// Why something was not seen, if that is so.
    unfit: Option<String>,
}

/// A check that failed, where it first did.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The cell.
    pub cell: String,
    /// What was found there, and expected.
    pub what: String,
    /// Cells on which it failed.
    pub cells: usize,
}

/// How a trial came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A good kernel of which nothing bad is said.
    Good,
    /// A good kernel that is blamed.
    FalsePositive,
    /// A bug that is caught by all of its own checks.
    Caught,
    /// A bug that some checks catch, and these of its own do not.
    CaughtByOthers {
        /// The bug's own checks that did not fail.
        lacking: Vec<String>,
    },
    /// A bug that nothing catches.
    Missed,
    /// It could not be tried.
    Errored(String),
}

/// The reason why pairs of runs are not a verdict about a kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCompared {
    /// The comparison was stopped.
    #[error("not compared with the good kernel: {0}")]
    Stopped(String),
    /// Noise hides the difference.
    #[error("too much noise to compare it with the good kernel")]
    Noise,
    /// Nothing was compared.
    #[error("not compared with the good kernel")]
    Nothing,
}

impl Verdict {
    /// In a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::FalsePositive => "BLAMED",
            Self::Caught => "caught",
            Self::CaughtByOthers { .. } => "OTHERWISE",
            Self::Missed => "MISSED",
            Self::Errored(_) => "errored",
        }
    }
}

impl Trial {
    /// A trial that has not started.
    #[must_use]
    pub fn new(kernel: &str, bug: Option<&Bug>) -> Self {
        Self {
            kernel: kernel.to_owned(),
            bug: bug.cloned(),
            verdict: Verdict::Errored("not tried".to_owned()),
            failed: BTreeMap::new(),
            cells: 0,
            built: Duration::ZERO,
            ran: Duration::ZERO,
            unfit: None,
        }
    }

    /// The bug's id, or that there is none.
    pub fn id(&self) -> &str {
        self.bug.as_ref().map_or("(none: the good kernel)", |bug| &bug.id)
    }

    /// Whether a check is among the bug's own.
    pub fn owns(&self, check: &str) -> bool {
        self.bug.as_ref().is_some_and(|bug| bug.caught_by.iter().any(|own| own == check))
    }

    /// Judges by the results of the cells.
    pub fn judge<'a>(&mut self, results: impl IntoIterator<Item = &'a CellResult>) {
        for result in results {
            self.cells += 1;
            match result.outcome {
                Outcome::Passed | Outcome::Failed => {}
                // What the kernel did to the guest is a finding, too.
                Outcome::TimedOut => {
                    self.note(&result.id, "timed-out", &result.reasons.join("; "));
                }
                Outcome::Skipped | Outcome::Errored => {
                    let why = result.reasons.first().map_or("", String::as_str);
                    self.unfit = Some(format!("{}: {why}", result.id));
                }
            }
            let broken = result.checks.iter().filter(|check| check.held == Some(false));
            let mut count = 0;
            for check in broken {
                count += 1;
                let what = format!("{}, expected {}", check.found, check.expected);
                self.note(&result.id, &check.name, &what);
            }
            if count == 0 && result.outcome == Outcome::Failed {
                // A panic, or a rate without anything to divide by.
                self.note(&result.id, "ended", &result.reasons.join("; "));
            }
        }
        self.verdict = self.conclude();
    }

    /// Whether pairs of runs have to decide: nothing else did, or the bug has to be caught by them.
    #[must_use]
    pub fn needs_pairs(&self) -> bool {
        self.bug.is_some() && (self.failed.is_empty() || self.owns(SLOWER))
    }

    /// Also judges by pairs of runs with the good kernel: findings with their cells, or the reason why
    /// there are none.
    pub fn judge_times(&mut self, findings: Result<Vec<(String, String)>, NotCompared>) {
        match findings {
            Ok(found) => found.iter().for_each(|(cell, what)| self.note(cell, SLOWER, what)),
            Err(reason) => self.unfit = self.unfit.take().or_else(|| Some(reason.to_string())),
        }
        self.verdict = self.conclude();
    }

    fn note(&mut self, cell: &str, check: &str, what: &str) {
        let found = self.failed.entry(check.to_owned()).or_insert_with(|| Finding {
            cell: cell.to_owned(),
            what: what.to_owned(),
            cells: 0,
        });
        found.cells += 1;
    }

    fn conclude(&self) -> Verdict {
        let unfit = self.unfit.clone();
        let Some(bug) = &self.bug else {
            return match (self.failed.is_empty(), unfit) {
                (false, _) => Verdict::FalsePositive,
                (true, Some(why)) => Verdict::Errored(why),
                (true, None) => Verdict::Good,
            };
        };
        let lacking: Vec<String> =
            bug.caught_by.iter().filter(|own| !self.failed.contains_key(*own)).cloned().collect();
        match (self.failed.is_empty(), lacking.is_empty(), unfit) {
            (false, true, _) => Verdict::Caught,
            // What was not seen may have been the reason.
            (_, _, Some(why)) => Verdict::Errored(why),
            (false, false, None) => Verdict::CaughtByOthers { lacking },
            (true, _, None) => Verdict::Missed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dmarig_kernels::Edits;

    fn bug(caught_by: &[&str]) -> Bug {
        Bug {
            id: "b".into(),
            what: String::new(),
            why: String::new(),
            edits: Edits { name: "b".into(), edits: Vec::new() },
            caught_by: caught_by.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[track_caller]
    fn check(bug: Option<Bug>, failed: &[&str], unfit: Option<&str>, expected: &Verdict) {
        let finding = Finding { cell: String::new(), what: String::new(), cells: 1 };
        let failed = failed.iter().map(|name| ((*name).to_owned(), finding.clone()));
        let unfit = unfit.map(str::to_owned);
        let trial = Trial { failed: failed.collect(), unfit, ..Trial::new("k", bug.as_ref()) };
        assert_eq!(trial.conclude(), *expected);
    }

    #[test]
    fn a_bug_is_caught_by_its_own_reasons_alone() {
        let own = || Some(bug(&["psi", "warning"]));
        check(own(), &["psi", "warning", "log"], None, &Verdict::Caught);
        // What else went wrong does not undo it.
        check(own(), &["psi", "warning"], Some("errored"), &Verdict::Caught);
        let lacking = vec!["warning".to_owned()];
        check(own(), &["psi", "log"], None, &Verdict::CaughtByOthers { lacking });
        check(own(), &[], None, &Verdict::Missed);
        check(own(), &["psi"], Some("why"), &Verdict::Errored("why".into()));
        // A bug that names no reason of its own is caught by any.
        check(Some(bug(&[])), &["log"], None, &Verdict::Caught);
        check(Some(bug(&[])), &[], None, &Verdict::Missed);
    }

    #[test]
    fn what_only_takes_longer_is_caught_by_pairs() {
        let bugs = |own: &[&str]| Trial::new("k", Some(&bug(own)));
        let found = || Ok(vec![("cell".to_owned(), "1.5 times".to_owned())]);
        let mut slow = bugs(&["slower"]);
        assert!(slow.needs_pairs());
        slow.judge_times(found());
        assert_eq!(slow.verdict, Verdict::Caught);
        // It was compared, and was no slower.
        let mut fast = bugs(&["slower"]);
        fast.judge_times(Ok(Vec::new()));
        assert_eq!(fast.verdict, Verdict::Missed);
        // Nothing is said where it was not compared to the end.
        let mut stopped = bugs(&[]);
        assert!(stopped.needs_pairs());
        stopped.judge_times(Err(NotCompared::Noise));
        assert_eq!(stopped.verdict, Verdict::Errored(NotCompared::Noise.to_string()));
        // A bug that the cells show needs no pairs, nor does the good kernel.
        let mut seen = bugs(&["psi"]);
        seen.note("cell", "psi", "");
        assert!(!seen.needs_pairs());
        assert!(!Trial::new("k", None).needs_pairs());
    }

    #[test]
    fn a_good_kernel_is_blamed_by_any_check() {
        check(None, &[], None, &Verdict::Good);
        check(None, &["psi"], None, &Verdict::FalsePositive);
        check(None, &[], Some("why"), &Verdict::Errored("why".into()));
    }
}
