//! Change points of a series: E-divisive (Matteson and James 2014, arXiv 1306.4933).
//!
//! A segment is split where the energy distance between the points before and the points after, up
//! to some later point, is largest. The split is kept if almost no shuffling of the segment has one
//! as large, and then both parts are searched. Comparing up to some later point finds bumps that
//! the rest of the segment would hide. The distribution is arbitrary, but neighbours must not be
//! correlated: search ratios to a reference that was measured at the same time, not absolute
//! values.

mod energy;
mod screen;

use serde::Serialize;

use crate::{median, random::Stream};

pub use energy::{Split, energy, strongest};

/// Parameters of a search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Search {
    /// Smallest number of points on either side of a change; 2 or more.
    pub least: usize,
    /// Number of shufflings of a segment.
    pub shuffles: usize,
    /// Significance level: the largest p-value of a change. The original order counts as one
    /// shuffling.
    pub level: f64,
    /// Random seed of the shufflings. The same segment is always shuffled in the same way,
    /// independent of the rest of the series.
    pub seed: u64,
}

impl Default for Search {
    /// 5 points on either side, 199 shufflings, and a level of 1 %.
    fn default() -> Self {
        Self { least: 5, shuffles: 199, level: 0.01, seed: 0 }
    }
}

/// A change point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Change {
    /// Index of the first point after the change.
    pub at: usize,
    /// The energy statistic, in units of the series.
    pub strength: f64,
    /// Permutation p-value.
    pub p: f64,
    /// Median of the points between the previous change, or the start, and this one.
    pub before: f64,
    /// Median of the points between this change and the next one, or the end.
    pub after: f64,
}

/// The series contains a number that is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("point {index} of the series is not a finite number")]
pub struct NotFinite {
    /// Index of the point.
    pub index: usize,
}

impl Search {
    /// Finds all changes of a series, in order. The time is quadratic in the length.
    ///
    /// # Errors
    /// [`NotFinite`]
    pub fn changes(&self, series: &[f64]) -> Result<Vec<Change>, NotFinite> {
        if let Some(index) = series.iter().position(|value| !value.is_finite()) {
            return Err(NotFinite { index });
        }
        let mut found = Vec::new();
        let mut segments = vec![(0, series.len())];
        while let Some((start, end)) = segments.pop() {
            let Some((split, p)) = self.split(&series[start..end], start) else { continue };
            let at = start + split.at;
            found.push((at, split.strength, p));
            segments.extend([(start, at), (at, end)]);
        }
        found.sort_unstable_by_key(|(at, ..)| *at);
        let edges: Vec<usize> =
            [0].into_iter().chain(found.iter().map(|(at, ..)| *at)).chain([series.len()]).collect();
        let changes = found.into_iter().zip(edges.windows(3)).map(|((at, strength, p), edges)| {
            let (before, after) = (&series[edges[0]..at], &series[at..edges[2]]);
            let median = |values| median(values).unwrap_or(f64::NAN);
            Change { at, strength, p, before: median(before), after: median(after) }
        });
        Ok(changes.collect())
    }

    /// The strongest split of a segment that begins at `start`, with its p-value; `None` if it is
    /// not significant.
    fn split(&self, segment: &[f64], start: usize) -> Option<(Split, f64)> {
        let split = strongest(segment, self.least)?;
        // Sums of very large numbers may be infinite or NaN.
        if !(split.strength > 0.0 && split.strength.is_finite()) {
            return None;
        }
        let orders = (self.shuffles + 1) as f64;
        // Largest number of shufflings that may be as strong. The original order is one more.
        let allowed = ((self.level * orders).floor() as usize).checked_sub(1)?;
        let seed = self.seed ^ ((start as u64) << 32) ^ segment.len() as u64;
        let mut stream = Stream::new(seed);
        let mut screen = screen::Screen::new(segment, self.least, split.strength);
        let (mut strong, mut remaining) = (0, self.shuffles);
        while remaining > 0 {
            let lanes = remaining.min(screen::LANES);
            strong += screen.count_as_strong(&mut stream, lanes);
            // Not significant, whatever the remaining shufflings are.
            if strong > allowed {
                return None;
            }
            remaining -= lanes;
        }
        Some((split, (strong + 1) as f64 / orders))
    }
}
