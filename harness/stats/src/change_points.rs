//! Where a series changed: E-divisive (Matteson and James 2014, arXiv 1306.4933).
//!
//! A segment is split where the energy distance between what lies before and what comes after, up to
//! some later point, is largest; the split stands if hardly any shuffling of the segment has one as
//! large, and then both parts are searched in turn. Looking only up to some later point finds bumps
//! that the whole rest of the segment would hide. Nothing is assumed of the distribution, but
//! neighbours must not be correlated: store ratios to a reference that was measured beside, not bare
//! values.

mod energy;
mod screen;

use serde::Serialize;

use crate::{random::Stream, signed_rank::median_of_sorted};

pub use energy::{Split, energy, strongest};

/// How a series is searched.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Search {
    /// Points at least on either side of a change; 2 or more.
    pub least: usize,
    /// How often a segment is shuffled.
    pub shuffles: usize,
    /// A change stands if the part of shufflings with one as strong, the order found being one of
    /// them, is at most this.
    pub level: f64,
    /// From which the shufflings are drawn. The same segment of the same series is always shuffled
    /// alike, whatever the rest of the series is.
    pub seed: u64,
}

impl Default for Search {
    /// At least 5 points a side, 199 shufflings, of which one may have a change as strong: 1 %.
    fn default() -> Self {
        Self { least: 5, shuffles: 199, level: 0.01, seed: 0 }
    }
}

/// A change.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Change {
    /// Index of the first point of what is new.
    pub at: usize,
    /// The energy statistic, in units of the series.
    pub strength: f64,
    /// The part of shufflings with a change as strong.
    pub p: f64,
    /// Median from the change before, or the start, up to here.
    pub before: f64,
    /// Median from here to the next change, or the end.
    pub after: f64,
}

/// A series that can't be searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("point {index} of the series is not a finite number")]
pub struct NotFinite {
    /// Index of the point.
    pub index: usize,
}

impl Search {
    /// All changes of a series, in its order. Takes time that grows with the square of the length.
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
            Change { at, strength, p, before: median(before), after: median(after) }
        });
        Ok(changes.collect())
    }

    /// The strongest split of a segment that begins at `start`, where it is no accident.
    fn split(&self, segment: &[f64], start: usize) -> Option<(Split, f64)> {
        let split = strongest(segment, self.least)?;
        // Sums of the largest of numbers are none.
        if !(split.strength > 0.0 && split.strength.is_finite()) {
            return None;
        }
        let of = (self.shuffles + 1) as f64;
        // How many shufflings may be as strong; the order found is one more.
        let allowed = ((self.level * of).floor() as usize).checked_sub(1)?;
        let seed = self.seed ^ ((start as u64) << 32) ^ segment.len() as u64;
        let mut stream = Stream::new(seed);
        let mut screen = screen::Screen::new(segment, self.least, split.strength);
        let (mut strong, mut left) = (0, self.shuffles);
        while left > 0 {
            let lanes = left.min(screen::LANES);
            strong += screen.as_strong(&mut stream, lanes);
            // Whatever the rest would show.
            if strong > allowed {
                return None;
            }
            left -= lanes;
        }
        Some((split, (strong + 1) as f64 / of))
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    median_of_sorted(&sorted).unwrap_or(f64::NAN)
}
