//! Builds a revision, runs the cells on it, and says what is seen.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use dmarig_bisect::{Evidence, Judge, JudgeError, JudgeRequest};

use super::{
    builds::{Kernel, build},
    evidence::evidence,
    guests::{Guests, RecordedCells},
    spec::JudgeSpec,
};
use crate::{builds::NewBuildProgress, event::Reporter, signals::InterruptibleRuntime};

/// A revision of the tree, or its files as they are now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Revision {
    /// A commit.
    At(String),
    /// What is checked out, with the user's changes.
    AsItIs,
}

/// Where a judge builds, runs and records, and how it reports that.
pub struct JudgeSetup {
    /// Where kernels and QEMUs are found, and built kernels are kept.
    pub cache: dmarig_images::Cache,
    /// Directory below which runs are recorded.
    pub runs: PathBuf,
    /// The command line that records name.
    pub command: Vec<String>,
    /// The runtime of builds and guests.
    pub runtime: InterruptibleRuntime,
    /// Takes the events of runs.
    pub reporter: Box<dyn Reporter>,
    /// Makes the progress of a build.
    pub build_progress: NewBuildProgress,
}

/// Judges revisions by cells: by their checks, or by a metric against the good kernel.
pub struct CellJudge {
    guests: Guests,
    spec: JudgeSpec,
    tree: PathBuf,
    runtime: InterruptibleRuntime,
    build_progress: NewBuildProgress,
    kernels: HashMap<Revision, Kernel>,
}

impl CellJudge {
    /// A judge of the revisions of `tree`.
    #[must_use]
    pub fn new(setup: JudgeSetup, spec: JudgeSpec, tree: &Path) -> Self {
        let JudgeSetup { cache, runs, command, runtime, reporter, build_progress } = setup;
        Self {
            guests: Guests { cache, runs, command, reporter },
            spec,
            tree: tree.to_owned(),
            runtime,
            build_progress,
            kernels: HashMap::new(),
        }
    }

    /// What is seen of a revision by its checks.
    pub fn checks(&mut self, revision: &Revision) -> Result<Evidence, JudgeError> {
        match self.kernel(revision)? {
            Ok(kernel) => settled(|| evidence(&self.run(&kernel)?, &self.spec.checks)),
            Err(obstacle) => Ok(Evidence { obstacle: Some(obstacle), ..Evidence::default() }),
        }
    }

    /// What is seen of a revision by the metric, against a good one, with at most so much error.
    pub fn compare(
        &mut self,
        good: &Revision,
        revision: &Revision,
        error: f64,
    ) -> Result<Evidence, JudgeError> {
        let (candidate, baseline) = (self.kernel(revision)?, self.kernel(good)?);
        let candidate = match candidate {
            Ok(kernel) => kernel,
            Err(obstacle) => {
                return Ok(Evidence { obstacle: Some(obstacle), ..Evidence::default() });
            }
        };
        let baseline = baseline
            .map_err(|obstacle| JudgeError::Host(format!("the good kernel {}", obstacle.told())))?;
        let comparison = self.spec.comparison(error)?;
        let interrupted = self.runtime.interrupted();
        let pairs = comparison.run(&self.guests, &self.spec, [&candidate, &baseline], interrupted);
        self.runtime.run(pairs).unwrap_or(Err(JudgeError::Interrupted))
    }

    fn run(&mut self, kernel: &str) -> Result<RecordedCells, JudgeError> {
        let interrupted = self.runtime.interrupted();
        let cells = self.guests.run(&self.spec, kernel, interrupted);
        self.runtime.run(cells).unwrap_or(Err(JudgeError::Interrupted))
    }

    fn kernel(&mut self, revision: &Revision) -> Result<Kernel, JudgeError> {
        // One that was pruned from the cache meanwhile is built again.
        if let Some(kernel) = self.kernels.get(revision)
            && kernel.as_ref().map_or(true, |path| Path::new(path).exists())
        {
            return Ok(kernel.clone());
        }
        let rev = match revision {
            Revision::At(rev) => Some(rev.as_str()),
            Revision::AsItIs => None,
        };
        let kernel = build(
            &self.guests.cache,
            &self.spec,
            &self.tree,
            rev,
            &mut self.runtime,
            self.build_progress,
        )?;
        self.kernels.insert(revision.clone(), kernel.clone());
        Ok(kernel)
    }
}

/// What is seen, and where a clock decided some of that, what is seen once more: a busy machine may be
/// late once. What failed without a clock has failed, though it did not the second time.
fn settled(mut look: impl FnMut() -> Result<Evidence, JudgeError>) -> Result<Evidence, JudgeError> {
    let mut first = look()?;
    if first.clocked.is_empty() {
        return Ok(first);
    }
    let second = look()?;
    let exact: BTreeSet<String> = first.failed.difference(&first.clocked).cloned().collect();
    if exact.is_subset(&second.failed) {
        return Ok(second);
    }
    first.failed = &exact | &second.failed;
    first.held = &(&first.held | &second.held) - &first.failed;
    first.clocked = second.clocked;
    first.evidence.extend(second.evidence.into_iter().map(|line| format!("once more: {line}")));
    Ok(first)
}

impl Judge for CellJudge {
    fn judge(&mut self, asked: &JudgeRequest<'_>) -> Result<Evidence, JudgeError> {
        if self.runtime.is_stopped() {
            return Err(JudgeError::Interrupted);
        }
        let revision = Revision::At(asked.commit.id.clone());
        if self.spec.metric.is_none() {
            return self.checks(&revision);
        }
        self.compare(&Revision::At(asked.good.id.clone()), &revision, asked.error)
    }
}

#[cfg(test)]
mod tests {
    use dmarig_bisect::SkipCause;

    use super::*;

    #[test]
    fn a_guest_that_is_late_is_looked_at_once_more() {
        let late = || {
            let names = BTreeSet::from(["smoke: time-out".to_owned()]);
            Evidence { failed: names.clone(), clocked: names, ..Evidence::default() }
        };
        let held = || Evidence { held: BTreeSet::from(["psi".to_owned()]), ..Evidence::default() };
        for (answers, expected, looks) in [
            (vec![held(), late()], held(), 1),
            (vec![late(), held()], held(), 2),
            (vec![late(), late()], late(), 2),
        ] {
            let mut left = answers.into_iter();
            let mut count = 0;
            let seen = settled(|| {
                count += 1;
                Ok(left.next().unwrap())
            });
            assert_eq!((seen.unwrap(), count), (expected, looks));
        }
        assert!(matches!(settled(|| Err(JudgeError::Interrupted)), Err(JudgeError::Interrupted)));
    }

    /// A bug that corrupts data now and then is one, whatever a guest beside it did to the clock.
    #[test]
    fn what_failed_without_a_clock_is_not_forgotten() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let first = || Evidence {
            failed: names(&["a: time-out", "b: integrity"]),
            clocked: names(&["a: time-out"]),
            held: names(&["b: psi"]),
            evidence: vec!["b: integrity: 1 block differs".into()],
            ..Evidence::default()
        };
        let held = Evidence {
            held: names(&["a: time-out", "b: integrity", "b: psi"]),
            evidence: vec!["a: psi: 1".into()],
            ..Evidence::default()
        };
        let goes_down =
            Evidence { obstacle: Some(SkipCause::Boot("x".into())), ..Evidence::default() };
        for (second, still_held) in
            [(held, names(&["a: time-out", "b: psi"])), (goes_down, names(&["b: psi"]))]
        {
            let mut looks = [first(), second].into_iter();
            let seen = settled(|| Ok(looks.next().unwrap())).unwrap();
            assert_eq!(seen.failed, names(&["b: integrity"]));
            assert_eq!((seen.held, seen.obstacle), (still_held, None));
            assert!(seen.clocked.is_empty());
            assert_eq!(seen.evidence[0], "b: integrity: 1 block differs");
        }
    }
}
