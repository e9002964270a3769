//! What a series does between its changes: its level, and how far its points lie from it.

use dmarig_stats::median;

use crate::site::{Better, Series};

/// How many standard deviations the band reaches on either side.
pub(crate) const BAND: f64 = 3.0;
/// Points that a level is told of, at least: noise of fewer is none.
pub(crate) const LEAST: usize = 4;
/// A normal distribution's standard deviation, of its median absolute deviation.
const NORMAL: f64 = 1.4826;

/// A part of a series without a change in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Segment {
    /// Index of its first point.
    pub(crate) start: usize,
    /// Index after its last point.
    pub(crate) end: usize,
    /// The median.
    pub(crate) level: f64,
    /// The standard deviation, robust.
    pub(crate) sd: f64,
}

impl Segment {
    /// Whether it has points enough to hold a value against it.
    pub(crate) const fn is_level(&self) -> bool {
        self.end - self.start >= LEAST
    }

    /// What lies within the noise.
    pub(crate) fn band(&self) -> (f64, f64) {
        (self.level - BAND * self.sd, self.level + BAND * self.sd)
    }
}

impl Series {
    /// Whether any of its points is another than the first.
    pub(crate) fn moved(&self) -> bool {
        let first = self.points.first().map(|point| point.value);
        !self.changes.is_empty() || self.points.iter().any(|point| Some(point.value) != first)
    }
}

/// The segments of a series, in their order.
pub(crate) fn segments(series: &Series) -> Vec<Segment> {
    let count = series.points.len();
    let mut edges: Vec<usize> =
        series.changes.iter().map(|change| change.at).filter(|at| *at > 0 && *at < count).collect();
    edges.push(count);
    edges.sort_unstable();
    edges.dedup();
    let mut start = 0;
    let mut found = Vec::new();
    for end in edges {
        let values = series.points[start..end].iter().map(|point| point.value);
        let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        if let Some(level) = median(&values) {
            let apart: Vec<f64> = values.iter().map(|value| (value - level).abs()).collect();
            let sd = NORMAL * median(&apart).unwrap_or(0.0);
            found.push(Segment { start, end, level, sd });
        }
        start = end;
    }
    found
}

/// How much worse the last point is than its segment's other points, in standard deviations; negative
/// where it is better. `None` where nothing can be said of it.
pub(crate) fn last_loss(series: &Series) -> Option<f64> {
    let (last, before) = series.points.split_last()?;
    let segment = *segments(series).last()?;
    let others = before.get(segment.start..)?;
    if others.len() + 1 < LEAST || !last.value.is_finite() {
        return None;
    }
    let values: Vec<f64> = others.iter().map(|point| point.value).collect();
    let level = median(&values)?;
    let apart: Vec<f64> = values.iter().map(|value| (value - level).abs()).collect();
    let sd = NORMAL * median(&apart)?;
    let away = last.value - level;
    // Counts that repeat exactly have no noise at all: then any other value is far away.
    let loss =
        if away == 0.0 { 0.0 } else { away / sd.max(level.abs() * 1e-4).max(f64::MIN_POSITIVE) };
    Some(match series.better {
        Better::Lower => loss,
        Better::Higher => -loss,
        Better::Unknown => loss.abs(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{Change, Point};

    fn series(values: &[f64], changes: &[usize]) -> Series {
        let point = |(run, value): (usize, &f64)| Point {
            run,
            value: *value,
            samples: 1,
            kernel: "".into(),
        };
        Series {
            better: Better::Lower,
            points: values.iter().enumerate().map(point).collect(),
            changes: changes.iter().map(|at| Change { at: *at, ..Change::default() }).collect(),
            ..Series::default()
        }
    }

    #[test]
    fn each_segment_has_its_level_whatever_the_changes_are() {
        let found = segments(&series(&[1.0, 2.0, 3.0, 10.0, 10.0], &[3, 3, 0, 99]));
        let told: Vec<_> = found.iter().map(|part| (part.start, part.end, part.level)).collect();
        assert_eq!(told, [(0, 3, 2.0), (3, 5, 10.0)]);
        assert!((found[0].sd - NORMAL).abs() < 1e-12 && found[1].sd == 0.0);
        assert!(segments(&series(&[], &[1])).is_empty());
        assert!(segments(&series(&[f64::NAN], &[])).is_empty());
    }

    #[test]
    fn a_series_moved_where_any_point_is_another() {
        let moved = |values: &[f64]| series(values, &[]).moved();
        assert!(!moved(&[]) && !moved(&[2.0]) && !moved(&[2.0, 2.0]) && moved(&[2.0, 2.0, 2.1]));
    }

    #[test]
    fn the_last_point_is_held_against_its_neighbours() {
        let loss = |values: &[f64]| last_loss(&series(values, &[]));
        assert!(loss(&[10.0, 11.0, 10.0, 11.0, 10.5, 40.0]).unwrap() > BAND);
        assert!(loss(&[10.0, 11.0, 10.0, 11.0, 10.5, 10.2]).unwrap().abs() < BAND);
        assert!(loss(&[1.0, 1.0, 1.0, 1.0, 2.0]).unwrap() > BAND);
        assert_eq!(loss(&[1.0, 1.0, 1.0, 1.0]), Some(0.0));
        assert_eq!(loss(&[1.0, 2.0]), None);
        assert_eq!(loss(&[]), None);
    }
}
