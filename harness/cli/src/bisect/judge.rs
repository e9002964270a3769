//! Builds a revision, runs the cells on it, and says what is seen.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use dmarig_bisect::{Asked, Judge, Seen, Trouble};

use super::{
    builds::{Kernel, build},
    compare::Comparison,
    guests::{Guests, Ran},
    seen::seen,
    subject::Subject,
};
use crate::hearing::Hearing;

/// A revision of the tree, or its files as they are now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Revision {
    /// A commit.
    At(String),
    /// What is checked out, with the user's changes.
    AsItIs,
}

/// Judges revisions by cells: by their checks, or by a metric against the good kernel.
pub(crate) struct CellJudge {
    guests: Guests,
    subject: Subject,
    tree: PathBuf,
    hearing: Hearing,
    kernels: HashMap<Revision, Kernel>,
}

impl CellJudge {
    /// A judge of `tree`'s revisions.
    pub(crate) fn new(
        cache: dmarig_images::Cache,
        runs: PathBuf,
        words: Vec<String>,
        subject: Subject,
        tree: &Path,
    ) -> std::io::Result<Self> {
        Ok(Self {
            guests: Guests { cache, runs, words },
            subject,
            tree: tree.to_owned(),
            hearing: Hearing::new()?,
            kernels: HashMap::new(),
        })
    }

    /// What is seen of a revision by its checks.
    pub(crate) fn checks(&mut self, revision: &Revision) -> Result<Seen, Trouble> {
        match self.kernel(revision)? {
            Ok(kernel) => settled(|| seen(&self.run(&kernel)?, &self.subject.checks)),
            Err(obstacle) => Ok(Seen { obstacle: Some(obstacle), ..Seen::default() }),
        }
    }

    /// What is seen of a revision by a metric, against a good one, with at most so much error.
    pub(crate) fn compare(
        &mut self,
        metric: &str,
        good: &Revision,
        revision: &Revision,
        error: f64,
    ) -> Result<Seen, Trouble> {
        let (candidate, baseline) = (self.kernel(revision)?, self.kernel(good)?);
        let candidate = match candidate {
            Ok(kernel) => kernel,
            Err(obstacle) => return Ok(Seen { obstacle: Some(obstacle), ..Seen::default() }),
        };
        let baseline = baseline
            .map_err(|obstacle| Trouble::Host(format!("the good kernel {}", obstacle.told())))?;
        let Subject { limit, pairs, .. } = self.subject;
        let mut comparison = Comparison::new(metric, limit, error, pairs)?;
        comparison.run(&mut |arm| {
            self.run(match arm {
                dmarig_stats::paired::Arm::Candidate => &candidate,
                dmarig_stats::paired::Arm::Baseline => &baseline,
            })
        })
    }

    fn run(&mut self, kernel: &str) -> Result<Ran, Trouble> {
        self.guests.run(&self.subject, kernel, &mut self.hearing)
    }

    fn kernel(&mut self, revision: &Revision) -> Result<Kernel, Trouble> {
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
        let kernel = build(&self.guests.cache, &self.subject, &self.tree, rev, &mut self.hearing)?;
        self.kernels.insert(revision.clone(), kernel.clone());
        Ok(kernel)
    }
}

/// What is seen, and where a clock decided some of that, what is seen once more: a busy machine may be
/// late once.
fn settled(mut look: impl FnMut() -> Result<Seen, Trouble>) -> Result<Seen, Trouble> {
    let first = look()?;
    if first.clocked.is_empty() { Ok(first) } else { look() }
}

impl Judge for CellJudge {
    fn judge(&mut self, asked: &Asked<'_>) -> Result<Seen, Trouble> {
        if self.hearing.is_stopped() {
            return Err(Trouble::Interrupted);
        }
        let revision = Revision::At(asked.commit.id.clone());
        match self.subject.metric.clone() {
            None => self.checks(&revision),
            Some(metric) => {
                let good = Revision::At(asked.good.id.clone());
                self.compare(&metric, &good, &revision, asked.error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_guest_that_is_late_is_looked_at_once_more() {
        let late = || {
            let names = BTreeSet::from(["smoke: time-out".to_owned()]);
            Seen { failed: names.clone(), clocked: names, ..Seen::default() }
        };
        let held = || Seen { held: BTreeSet::from(["psi".to_owned()]), ..Seen::default() };
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
        assert!(matches!(settled(|| Err(Trouble::Interrupted)), Err(Trouble::Interrupted)));
    }
}
