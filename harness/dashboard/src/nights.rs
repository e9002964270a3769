//! Runs that belong together: those of one night, or of one afternoon at a desk.

use std::collections::BTreeMap;

use dmarig_model::observation::Outcome;

use crate::{
    page::worst,
    site::{CellResult, Run, Site},
};

/// Runs that start within this many seconds of a night's first one are of that night.
const NIGHT: i64 = 12 * 3600;

/// Runs of one night.
#[derive(Debug, Clone)]
pub(crate) struct Night {
    /// When its first run started, in seconds since 1970.
    pub(crate) started: i64,
    /// Indices of its runs, the oldest first.
    pub(crate) runs: Vec<usize>,
}

/// How each cell ended last in these runs, with the run that it is of.
pub(crate) fn results<'a>(
    site: &'a Site,
    runs: &[usize],
) -> BTreeMap<usize, (usize, &'a CellResult)> {
    let of_run = |run: &usize| {
        let run = *run;
        site.runs[run].results.iter().map(move |result| (result.cell, (run, result)))
    };
    runs.iter().flat_map(of_run).filter(|(cell, _)| *cell < site.cells.len()).collect()
}

impl Night {
    /// The newest run.
    pub(crate) fn newest(&self) -> usize {
        self.runs.last().copied().unwrap_or(0)
    }

    /// How each cell ended last, with the run that it is of.
    pub(crate) fn results<'a>(&self, site: &'a Site) -> BTreeMap<usize, (usize, &'a CellResult)> {
        results(site, &self.runs)
    }

    /// How cells of these results went wrong in earlier runs of the night, at their worst, that did not in their
    /// last: how many in which way.
    pub(crate) fn wrong_first(
        &self,
        site: &Site,
        results: &BTreeMap<usize, (usize, &CellResult)>,
    ) -> BTreeMap<Outcome, usize> {
        let fine = |outcome| matches!(outcome, Outcome::Passed | Outcome::Skipped);
        let mut seen: BTreeMap<usize, Vec<Outcome>> = BTreeMap::new();
        for result in self.runs.iter().flat_map(|run| &site.runs[*run].results) {
            let last = results.get(&result.cell);
            if !fine(result.outcome) && last.is_some_and(|(_, last)| fine(last.outcome)) {
                seen.entry(result.cell).or_default().push(result.outcome);
            }
        }
        let mut counts = BTreeMap::new();
        for outcome in seen.into_values().filter_map(worst) {
            *counts.entry(outcome).or_default() += 1;
        }
        counts
    }

    /// Runs that ended early, and were not run again to their end.
    pub(crate) fn cut_short<'a>(&self, site: &'a Site) -> Vec<&'a Run> {
        let runs: Vec<&Run> = self.runs.iter().map(|run| &site.runs[*run]).collect();
        let again = |at: usize| {
            let mut later = runs[at + 1..].iter();
            let like =
                |run: &Run| (&run.command, &run.machine) == (&runs[at].command, &runs[at].machine);
            later.any(|run| run.not_run == 0 && like(run))
        };
        let cut = |at: &usize| runs[*at].not_run > 0 && !again(*at);
        (0..runs.len()).filter(cut).map(|at| runs[at]).collect()
    }
}

/// The nights of all runs, the oldest first.
pub(crate) fn nights(site: &Site) -> Vec<Night> {
    let mut nights: Vec<Night> = Vec::new();
    for (index, run) in site.runs.iter().enumerate() {
        match nights.last_mut() {
            Some(night) if run.started.saturating_sub(night.started) < NIGHT => {
                night.runs.push(index);
            }
            _ => nights.push(Night { started: run.started, runs: vec![index] }),
        }
    }
    nights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_one_night_are_told_together() {
        let run = |hours: i64| Run { started: hours * 3600, ..Run::default() };
        let site = Site { runs: [0, 1, 11, 24, 30, 48].map(run).into(), ..Site::default() };
        let found: Vec<Vec<usize>> = nights(&site).into_iter().map(|night| night.runs).collect();
        assert_eq!(found, [vec![0, 1, 2], vec![3, 4], vec![5]]);
    }
}
