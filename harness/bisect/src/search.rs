//! Which commit to judge next. Nothing is remembered between two questions but the verdicts themselves,
//! so there is nothing that a killed process could leave wrong.

use std::collections::BTreeMap;

use crate::{Result, workspace::Workspace};

/// What is known.
#[derive(Debug, Clone)]
pub(crate) struct Verdicts {
    /// Commits that are good, and all before them with them.
    pub(crate) good: Vec<String>,
    /// The oldest that is known to be bad.
    pub(crate) bad: String,
    /// Commits that say nothing, each with its reason.
    pub(crate) skipped: BTreeMap<String, String>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Judge this one; so many may still be guilty.
    Judge { commit: String, left: u64 },
    /// This one is guilty.
    Guilty(String),
    /// One of these is, and no more can be said: all but the bad one were skipped.
    Among(Vec<String>),
}

pub(crate) fn next(workspace: &Workspace, known: &Verdicts) -> Result<Next> {
    let candidates = workspace.candidates(&known.bad, &known.good)?;
    let left = candidates.len() as u64;
    let open: Vec<&(String, u64)> = candidates
        .iter()
        .filter(|(id, _)| *id != known.bad && !known.skipped.contains_key(id))
        .collect();
    if open.is_empty() {
        let skipped: Vec<String> = candidates
            .into_iter()
            .map(|(id, _)| id)
            .filter(|id| known.skipped.contains_key(id))
            .collect();
        return Ok(if skipped.is_empty() {
            Next::Guilty(known.bad.clone())
        } else {
            // A bisection's order is by distance; these are few, and the bad one comes last.
            Next::Among(skipped.into_iter().chain([known.bad.clone()]).collect())
        });
    }
    let skips = candidates.iter().filter(|(id, _)| known.skipped.contains_key(id)).count();
    let at = away(open.len(), skips);
    Ok(Next::Judge { commit: open[at].0.clone(), left })
}

/// Which of `open` commits, best first, to take after `skips` of them were skipped. Commits that don't
/// build come in rows: beside one stands another, so it is gone some way off, and never twice the same
/// one.
fn away(open: usize, skips: usize) -> usize {
    if skips == 0 {
        return 0;
    }
    // The golden ratio's multiples fill the range evenly; the square keeps to the better half.
    let part = (skips as f64 * 0.618_033_988_749_895).fract();
    ((part * part * open as f64) as usize).min(open - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_skips_the_best_is_taken_and_with_them_one_further_off() {
        assert_eq!(away(1000, 0), 0);
        let taken: Vec<usize> = (1..6).map(|skips| away(1000, skips)).collect();
        assert!(taken.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 10), "{taken:?}");
        for open in 1..50 {
            assert!((0..500).all(|skips| away(open, skips) < open));
        }
    }
}
