//! The energy statistic, in double precision.

/// A split of a segment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Split {
    /// Index of the first point after the split.
    pub at: usize,
    /// Index after the last compared point, where the series may change back.
    pub end: usize,
    /// The energy statistic of `..at` and `at..end`.
    pub strength: f64,
}

/// The energy statistic of two samples of sizes n and m, each with two values or more:
///
/// nm / (n + m) * (2 * mean |x - y| - mean |x - x'| - mean |y - y'|)
///
/// The means are over all pairs of different values. The result has the unit of the values. It is
/// about 0, and often below, if both samples have the same distribution.
#[must_use]
pub fn energy(before: &[f64], after: &[f64]) -> f64 {
    let within = |values: &[f64]| -> f64 {
        let pairs = values.iter().enumerate();
        pairs.flat_map(|(i, a)| values[..i].iter().map(move |b| (a - b).abs())).sum()
    };
    let across: f64 = before.iter().flat_map(|a| after.iter().map(move |b| (a - b).abs())).sum();
    let (n, m) = (before.len() as f64, after.len() as f64);
    let all = n + m;
    (across - within(before) * m / (n - 1.0) - within(after) * n / (m - 1.0)) * 2.0 / all
}

/// The strongest split of a segment with at least `least` points on either side (never below 2).
/// The first one if several are equally strong; `None` if the segment is too short.
///
/// Let W(i, j) be the sum of all distances within `i..j`. Then the statistic of `..at` and
/// `at..end` is
///
/// 2 / end * (W(0, end) - (end - 1) * (W(0, at) / (at - 1) + W(at, end) / (end - at - 1)))
///
/// All W of an end follow from those of the end before it by adding the distances of the last
/// point.
#[must_use]
pub fn strongest(segment: &[f64], least: usize) -> Option<Split> {
    let least = least.max(2);
    // W(at, end) by `at`, and W(0, at) / (at - 1) by `at`.
    let mut within = vec![0.0; segment.len()];
    let mut head = vec![0.0; segment.len() + 1];
    let mut best: Option<Split> = None;
    for (last, value) in segment.iter().enumerate() {
        let mut distances = 0.0;
        for (within, other) in within[..last].iter_mut().zip(segment).rev() {
            distances += (value - other).abs();
            *within += distances;
        }
        let end = last + 1;
        let all = within[0];
        head[end] = all / (last as f64).max(1.0);
        if end < 2 * least {
            continue;
        }
        for at in least..=end - least {
            let tail = within[at] / (end - at - 1) as f64;
            let strength = (all - last as f64 * (head[at] + tail)) * 2.0 / end as f64;
            if best.is_none_or(|best| strength > best.strength) {
                best = Some(Split { at, end, strength });
            }
        }
    }
    best
}
