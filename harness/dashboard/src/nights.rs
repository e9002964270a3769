//! Runs that belong together: those of one night, or of one afternoon at a desk.

use std::collections::{BTreeMap, BTreeSet};

use dmarig_model::observation::Outcome;

use crate::{
    outcomes::worst,
    site::{CellResult, Run, Site},
};

/// Runs that start within this many seconds of a night's first one are of that night.
const NIGHT: i64 = 12 * 3600;
/// Later runs are told with it within this time, until one machine has run half of what it ran in the night.
const LATER: i64 = 36 * 3600;
/// From this time on that may be a machine that has no run in it.
const OTHER: i64 = 18 * 3600;
/// Runs that begin a night together start within this time of each other.
const TOGETHER: i64 = 6 * 3600;

/// Runs of one night.
#[derive(Debug, Clone)]
pub(crate) struct Night {
    /// When its first run started, in seconds since 1970.
    pub(crate) started: i64,
    /// Indices of its runs, the oldest first.
    pub(crate) runs: Vec<usize>,
    /// How many of them are its own; those after them came later, and are no night by themselves.
    own: usize,
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

/// How many cells each machine has in these runs, those that it did not come to among them.
fn sizes<'a>(site: &'a Site, runs: &[usize]) -> BTreeMap<&'a str, usize> {
    let mut cells: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let mut planned: BTreeMap<&str, usize> = BTreeMap::new();
    for run in runs.iter().map(|run| &site.runs[*run]) {
        cells.entry(&run.machine).or_default().extend(run.results.iter().map(|of| of.cell));
        let most = planned.entry(&run.machine).or_default();
        *most = (*most).max(run.results.len() + run.not_run);
    }
    cells.into_iter().map(|(machine, of)| (machine, of.len().max(planned[machine]))).collect()
}

impl Night {
    fn new(site: &Site, runs: Vec<usize>) -> Self {
        let started = runs.first().map_or(0, |run| site.runs[*run].started);
        Self { started, own: runs.len(), runs }
    }

    /// The newest run of its own.
    pub(crate) fn newest(&self) -> usize {
        self.own().last().copied().unwrap_or(0)
    }

    /// Its own runs.
    pub(crate) fn own(&self) -> &[usize] {
        &self.runs[..self.own]
    }

    /// Runs that came later: what they ran again counts, and the rest stays as the night left it.
    pub(crate) fn later(&self) -> &[usize] {
        &self.runs[self.own..]
    }

    /// How each cell ended last, with the run that it is of.
    pub(crate) fn results<'a>(&self, site: &'a Site) -> BTreeMap<usize, (usize, &'a CellResult)> {
        results(site, &self.runs)
    }

    /// How many cells it has on all machines.
    fn size(&self, site: &Site) -> usize {
        sizes(site, &self.runs).into_values().sum()
    }

    /// From which of its runs on they are a night by themselves.
    fn next(&self, site: &Site) -> Option<usize> {
        let started = |at: usize| site.runs[self.runs[at]].started;
        let newest = self.runs.len() - 1;
        let together = |at: &usize| {
            started(at + 1).saturating_sub(started(*at)) < TOGETHER
                && started(newest).saturating_sub(started(*at)) < NIGHT
        };
        let first = (self.own..newest).rev().take_while(together).last().unwrap_or(newest);
        let own = sizes(site, self.own());
        let again = sizes(site, &self.runs[first..]);
        let other = started(first).saturating_sub(self.started) >= OTHER;
        let all = if other { own.values().sum() } else { usize::MAX };
        let whole = |(machine, count): (&&str, &usize)| {
            count.saturating_mul(2) >= *own.get(machine).unwrap_or(&all)
        };
        again.iter().any(whole).then_some(first)
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
        let newest =
            nights.last_mut().map(|night| (run.started.saturating_sub(night.started), night));
        match newest {
            Some((..NIGHT, night)) if night.later().is_empty() => {
                night.runs.push(index);
                night.own += 1;
            }
            Some((..LATER, night)) => {
                night.runs.push(index);
                if let Some(first) = night.next(site) {
                    let runs = night.runs.split_off(first);
                    nights.push(Night::new(site, runs));
                }
            }
            _ => nights.push(Night::new(site, vec![index])),
        }
    }
    nights
}

/// The night that one is held against: the newest before it that is no mere part of it.
pub(crate) fn before(site: &Site, nights: &[Night], at: usize) -> Option<usize> {
    let size = nights.get(at)?.size(site);
    let like = |earlier: &usize| 2 * nights[*earlier].size(site) >= size;
    (0..at).rev().find(like).or_else(|| at.checked_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run so many hours after the first one, of these cells.
    fn run(hours: i64, machine: &str, cells: std::ops::Range<usize>) -> Run {
        let result = |cell| CellResult {
            cell,
            outcome: Outcome::Passed,
            kernel: "".into(),
            broken: Vec::new(),
            checks: None,
        };
        let results = cells.map(result).collect();
        Run { started: hours * 3600, machine: machine.into(), results, ..Run::default() }
    }

    /// Runs of nights: their own, and those that came later.
    #[track_caller]
    fn check(runs: &[Run], expected: &[(&[usize], &[usize])]) {
        let site = Site { runs: runs.to_vec(), ..Site::default() };
        let nights = nights(&site);
        let found: Vec<_> = nights.iter().map(|night| (night.own(), night.later())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn runs_of_one_night_are_told_together() {
        let runs = [0, 1, 11, 24, 30, 48].map(|hours| run(hours, "a", 0..2));
        check(&runs, &[(&[0, 1, 2], &[]), (&[3, 4], &[]), (&[5], &[])]);
    }

    #[test]
    fn a_run_at_a_desk_is_no_night() {
        let night = |hours| run(hours, "a", 0..10);
        let desk = |hours| run(hours, "a", 0..1);
        // However many there are of one cell, and however near to the next night.
        let runs = [night(0), desk(13), desk(14), desk(23), night(24), desk(35)];
        check(&runs, &[(&[0], &[1, 2]), (&[3, 4], &[5])]);
        // Where no night comes any more, the last one does not stay for ever.
        check(&[night(0), desk(35), desk(36)], &[(&[0], &[1]), (&[2], &[])]);
        // A night that is made of several runs, none of which is half of it.
        let parts = |hours| [0..4, 4..7, 7..10].map(|cells| run(hours, "a", cells));
        let runs = [&parts(0)[..], &[desk(13)], &parts(24)].concat();
        check(&runs, &[(&[0, 1, 2], &[3]), (&[4, 5, 6], &[])]);
        // One that was killed is as large as it was meant to be.
        let killed = Run { not_run: 9, ..run(24, "a", 0..1) };
        check(&[night(0), killed], &[(&[0], &[]), (&[1], &[])]);
    }

    #[test]
    fn machines_share_a_night_at_whatever_hour_they_run() {
        let [a, b] = ["a", "b"].map(|machine| move |hours| run(hours, machine, 0..10));
        let runs = [a(0), b(15), a(24), b(39), a(48)];
        check(&runs, &[(&[0], &[1]), (&[2], &[3]), (&[4], &[])]);
        let runs = [a(0), b(21), a(24), b(45), a(48)];
        check(&runs, &[(&[0], &[]), (&[1, 2], &[]), (&[3, 4], &[])]);
        // Each night on another one of many, and a desk that is no machine of the night's.
        check(&[a(0), b(24), run(47, "c", 0..1)], &[(&[0], &[]), (&[1], &[2])]);
    }

    #[test]
    fn a_night_is_held_against_the_newest_that_is_no_part_of_it() {
        let runs = [run(0, "a", 0..10), run(60, "a", 0..1), run(96, "a", 0..10)];
        let site = Site { runs: runs.to_vec(), ..Site::default() };
        let nights = nights(&site);
        assert_eq!([0, 1, 2].map(|at| before(&site, &nights, at)), [None, Some(0), Some(0)]);
    }
}
