//! How checks came out over the cells of a night, by case and kernel; checks of one kind are a family.

use std::collections::{BTreeMap, BTreeSet};

use dmarig_model::{metrics::Family, observation::Outcome};

use crate::site::{Cell, CellResult, Site};

/// How often something was judged, and how it came out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) held: u64,
    pub(crate) broken: u64,
    pub(crate) unjudged: u64,
}

/// All of it in a word, the worst last. What was never judged has not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CheckState {
    /// It was not checked.
    Unasked,
    /// Wherever it was judged, it held.
    Held,
    /// It was asked for, and could not be judged.
    Unjudged,
    /// Somewhere it did not hold.
    Broken,
}

impl Count {
    pub(crate) fn add(&mut self, other: Self) {
        self.held += other.held;
        self.broken += other.broken;
        self.unjudged += other.unjudged;
    }

    pub(crate) const fn came(self) -> CheckState {
        match self {
            Self { broken: 1.., .. } => CheckState::Broken,
            Self { held: 1.., .. } => CheckState::Held,
            Self { unjudged: 1.., .. } => CheckState::Unjudged,
            _ => CheckState::Unasked,
        }
    }
}

impl CheckState {
    pub(crate) const fn symbol(self) -> &'static str {
        match self {
            Self::Broken => "\u{2717}",
            Self::Held => "\u{2713}",
            Self::Unjudged => "?",
            Self::Unasked => "\u{b7}",
        }
    }

    /// Short, as there are thousands of them on a page.
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Broken => "cb",
            Self::Held => "ch",
            Self::Unjudged => "cu",
            Self::Unasked => "cn",
        }
    }

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Broken => "did not hold",
            Self::Held => "held",
            Self::Unjudged => "could not be judged",
            Self::Unasked => "not checked",
        }
    }
}

/// The checks of one case on one kernel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tile<'a> {
    pub(crate) checks: BTreeMap<&'a str, Count>,
    /// A run in which one did not hold.
    pub(crate) broken_in: Option<usize>,
}

impl Tile<'_> {
    /// The worst of a family's checks, with the names of those that came out so: one that was never judged
    /// is not made up for by others that held.
    pub(crate) fn family(&self, family: Family) -> (CheckState, Vec<&str>) {
        let of_family = || self.checks.iter().filter(|(name, _)| Family::of_check(name) == family);
        let came = of_family().map(|(_, count)| count.came()).max().unwrap_or(CheckState::Unasked);
        let like = of_family().filter(|(_, count)| count.came() == came);
        (came, like.map(|(name, _)| *name).collect())
    }
}

/// The checks of a night.
#[derive(Debug, Default)]
pub(crate) struct Checks<'a> {
    pub(crate) squares: BTreeMap<(&'a str, &'a str), Tile<'a>>,
    /// Families that any cell has a check of.
    pub(crate) families: BTreeSet<Family>,
    /// Cells that were judged and of which only is known what did not hold.
    pub(crate) half_known: usize,
}

impl<'a> Checks<'a> {
    /// Of these results, each with its run.
    pub(crate) fn new(
        site: &'a Site,
        results: impl IntoIterator<Item = (usize, &'a CellResult)>,
    ) -> Self {
        let mut all = Self::default();
        for (run, result) in results {
            let Some(cell) = site.cells.get(result.cell) else { continue };
            all.add(run, cell, result);
        }
        let names = all.squares.values().flat_map(|square| square.checks.keys());
        all.families = names.map(|name| Family::of_check(name)).collect();
        all
    }

    fn add(&mut self, run: usize, cell: &'a Cell, result: &'a CellResult) {
        let square = self.squares.entry((&cell.case, &cell.kernel)).or_default();
        let mut count = |name: &'a str, count: Count| {
            square.checks.entry(name).or_default().add(count);
            if count.broken > 0 {
                square.broken_in = Some(run);
            }
        };
        if let Some(checks) = &result.checks {
            for one in checks.iter() {
                let [held, broken, unjudged] = [one.held, one.broken, one.unjudged].map(u64::from);
                count(&one.name, Count { held, broken, unjudged });
            }
        } else {
            for name in &result.broken {
                count(name, Count { broken: 1, ..Count::default() });
            }
            let judged = matches!(result.outcome, Outcome::Passed | Outcome::Failed);
            self.half_known += usize::from(judged);
        }
    }

    /// One check of a case on a kernel.
    pub(crate) fn count(&self, case: &str, kernel: &str, check: &str) -> Count {
        let square = self.squares.get(&(case, kernel));
        square.and_then(|square| square.checks.get(check)).copied().unwrap_or_default()
    }

    /// All checks of a case, by family and name.
    pub(crate) fn of_case(&self, case: &str) -> BTreeSet<(Family, &'a str)> {
        let squares = self.squares.iter().filter(|((of, _), _)| *of == case);
        let names = squares.flat_map(|(_, square)| square.checks.keys());
        names.map(|name| (Family::of_check(name), *name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_told_by_the_worst_of_its_checks() {
        let held = Count { held: 3, ..Count::default() };
        let unjudged = Count { unjudged: 1, ..Count::default() };
        let checks = [("psi", held), ("coherence", unjudged), ("stale-requests", held)];
        let square = Tile { checks: checks.into(), broken_in: None };
        assert_eq!(square.family(Family::Invalidations), (CheckState::Held, vec!["psi"]));
        assert_eq!(square.family(Family::Mappings), (CheckState::Unjudged, vec!["coherence"]));
        assert_eq!(square.family(Family::Log), (CheckState::Unasked, vec![]));
    }

    #[test]
    fn what_was_never_judged_has_not_held() {
        let count = |held, broken, unjudged| Count { held, broken, unjudged }.came();
        assert_eq!(count(0, 0, 0), CheckState::Unasked);
        assert_eq!(count(0, 0, 3), CheckState::Unjudged);
        assert_eq!(count(9, 0, 3), CheckState::Held);
        assert_eq!(count(9, 1, 3), CheckState::Broken);
    }
}
