//! What charts on pages and pictures in files are drawn with.

use std::fmt::Write as _;

/// A range of values, never empty.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// What it is scaled to.
    pub to: f64,
}

impl Scale {
    /// The range of the values that are finite, with some room, scaled to `to`.
    #[must_use]
    pub fn new(values: impl Iterator<Item = f64>, to: f64) -> Self {
        let finite = values.filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        if low > high {
            return Self { low: 0.0, high: 1.0, to };
        }
        let room = match (high - low) * 0.08 {
            room if room > 0.0 => room,
            _ => (low.abs() * 0.5).max(0.5),
        };
        // What can't be negative is not drawn as if it could.
        let bottom = if low >= 0.0 { (low - room).max(0.0) } else { low - room };
        Self { low: bottom, high: high + room, to }
    }

    /// Where a value lies, from 0 to `to`.
    #[must_use]
    pub fn at(self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low) * self.to
    }
}

/// A line through these points, as data of an SVG path.
#[must_use]
pub fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut d = String::new();
    for (x, y) in points {
        let _ = write!(d, "{}{x:.1} {y:.1}", if d.is_empty() { 'M' } else { 'L' });
    }
    d
}

/// Dots stay round however the area is stretched: lines of no length, with round ends.
#[must_use]
pub fn dots(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut d = String::new();
    for (x, y) in points {
        let _ = write!(d, "M{x:.1} {y:.1}h0");
    }
    d
}

/// Round numbers within a range, four to eight of them.
#[must_use]
pub fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = high - low;
    if !(span > 0.0 && span.is_finite()) {
        return vec![low];
    }
    let rough = 10_f64.powf((span / 5.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * rough)
        .find(|step| span / step <= 6.0)
        .unwrap_or(rough * 10.0);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last.min(first + 12)).map(|at| at as f64 * step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_range() {
        assert_eq!(ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(97.0, 131.0), [100.0, 110.0, 120.0, 130.0]);
        for (low, high) in [(1e-9, 3e-9), (-5.0, 12.0), (1e12, 1.1e12), (0.999, 1.001)] {
            let found = ticks(low, high);
            assert!((2..=7).contains(&found.len()), "{low} {high}: {found:?}");
            let slack = (high - low) * 1e-6;
            assert!(found.iter().all(|at| *at >= low - slack && *at <= high + slack), "{found:?}");
        }
        assert_eq!(ticks(3.0, 3.0), [3.0]);
    }
}
