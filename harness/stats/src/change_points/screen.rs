//! Counts the shufflings of a segment with a split as strong as the one found. A search spends
//! nearly all of its time here.
//!
//! Several shufflings are scanned in parallel, in single precision. Only close results are computed
//! again in double precision, so the count is exact. A single scan can't be vectorised, since each
//! of its sums depends on the one before.

use wide::f32x4;

use crate::random::Stream;

use super::energy::strongest;

/// Number of shufflings that are scanned in parallel.
pub(super) const LANES: usize = 4;

type Lane = f32x4;

/// Added to each sum of distances, so that none is 0: 0 times an infinite weight would be NaN. It
/// is too small to change a sum.
const TINY: f32 = 1e-20;

pub(super) struct Screen<'a> {
    segment: &'a [f64],
    least: usize,
    /// Strength that a split must reach.
    strength: f64,
    /// That strength in units of the mean distance, minus and plus the error of single precision.
    near: f32,
    sure: f32,
    /// The segment relative to its median, in units of the mean distance, since single precision
    /// needs numbers of similar size.
    scaled: Vec<f32>,
    /// The order of points in each shuffling.
    orders: [Vec<u32>; LANES],
    /// Points, sums and weighted sums of the shufflings, as in [`strongest`]. They have one element
    /// more, since two ends are computed at once.
    points: Vec<Lane>,
    within: Vec<Lane>,
    head: Vec<Lane>,
    /// 1 / (points - 1), by the number of points; with fewer than `least` points so large that the
    /// split is never the strongest.
    weights: Vec<Lane>,
}

impl<'a> Screen<'a> {
    /// Prepares a count of splits with this strength, which must be above 0.
    pub(super) fn new(segment: &'a [f64], least: usize, strength: f64) -> Self {
        let least = least.max(2);
        let n = segment.len();
        let mut sorted = segment.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted[n / 2];
        // A value is the larger one in as many pairs as there are values below it.
        let sum: f64 = sorted
            .iter()
            .enumerate()
            .map(|(below, value)| (value - middle) * (2.0 * below as f64 + 1.0 - n as f64))
            .sum();
        let mean = sum / (n as f64 * (n as f64 - 1.0) / 2.0);
        // Each distance in a sum is rounded up to 2 n times, and a strength is the difference of
        // two numbers of up to n mean distances.
        let slack = 2.0 * (n as f64).powi(2) * f64::from(f32::EPSILON);
        Self {
            segment,
            least,
            strength,
            near: (strength / mean - slack) as f32,
            sure: (strength / mean + slack) as f32,
            scaled: segment.iter().map(|value| ((value - middle) / mean) as f32).collect(),
            orders: std::array::from_fn(|_| (0..n as u32).collect()),
            points: vec![Lane::ZERO; n + 1],
            within: vec![Lane::ZERO; n + 1],
            head: vec![Lane::splat(f32::INFINITY); n + 2],
            weights: (0..n + 3).map(|points| Lane::splat(weight(points, least))).collect(),
        }
    }

    /// Draws `lanes` shufflings and counts those with a split as strong.
    pub(super) fn count_as_strong(&mut self, stream: &mut Stream, lanes: usize) -> usize {
        for (lane, order) in self.orders.iter_mut().take(lanes).enumerate() {
            stream.shuffle(order);
            for (point, from) in self.points.iter_mut().zip(order) {
                point.as_mut_array()[lane] = self.scaled[*from as usize];
            }
        }
        let found = self.scan();
        let strong = found.iter().zip(&self.orders).take(lanes).filter(|(found, order)| {
            **found >= self.sure || **found >= self.near && self.is_as_strong(order)
        });
        strong.count()
    }

    /// Whether a shuffling has a split as strong, in double precision.
    fn is_as_strong(&self, order: &[u32]) -> bool {
        let shuffled: Vec<f64> = order.iter().map(|from| self.segment[*from as usize]).collect();
        // Differences within rounding errors count as equal.
        strongest(&shuffled, self.least)
            .is_some_and(|split| split.strength >= self.strength * (1.0 - 1e-9))
    }

    /// The largest strength of each shuffling, approximately. Computed as in [`strongest`], with
    /// two differences: for each end, only the minimum of the part in the inner parentheses is
    /// needed, and two ends are computed in one pass, which halves the memory accesses.
    fn scan(&mut self) -> [f32; LANES] {
        self.within.fill(Lane::ZERO);
        let mut largest = Lane::splat(f32::NEG_INFINITY);
        for last in (0..self.segment.len()).step_by(2) {
            let ends = self.pass(last);
            // If the number of points is odd, the last pass has one end only.
            for (end, (all, smallest)) in (last + 1..=self.segment.len()).zip(ends) {
                let strength = (all - smallest * (end as f32 - 1.0)) * (2.0 / end as f32);
                largest = strength.fast_max(largest);
            }
        }
        largest.to_array()
    }

    /// For the ends after `last` and `last + 1`: the sum of all distances, and the minimum of the
    /// weighted sums.
    fn pass(&mut self, last: usize) -> [(Lane, Lane); 2] {
        let (first, second) = (self.points[last], self.points[last + 1]);
        let apart = (first - second).abs() + TINY;
        let (mut all, mut distances) = ([Lane::ZERO, apart], [Lane::splat(TINY), apart]);
        let mut smallest = [Lane::splat(f32::INFINITY); 2];
        self.within[last] = apart;
        smallest[1] = self.head[last] + apart * self.weights[2];
        let points = self.points[..last].iter().rev();
        let sums = self.within[..last].iter_mut().rev().zip(self.head[..last].iter().rev());
        // Between `at` and the first end there are `last + 1 - at` points.
        let weights = self.weights[2..].windows(2);
        for ((point, (within, head)), weights) in points.zip(sums).zip(weights) {
            distances[0] += (*point - first).abs();
            distances[1] += (*point - second).abs();
            let one = *within + distances[0];
            let two = one + distances[1];
            *within = two;
            smallest[0] = (one * weights[0] + *head).fast_min(smallest[0]);
            smallest[1] = (two * weights[1] + *head).fast_min(smallest[1]);
            all = [one, two];
        }
        for (end, all) in (last + 1..).zip(all) {
            if end >= self.least {
                self.head[end] = all / Lane::splat(end as f32 - 1.0);
            }
        }
        [(all[0], smallest[0]), (all[1], smallest[1])]
    }
}

fn weight(points: usize, least: usize) -> f32 {
    if points < least { f32::MAX } else { 1.0 / (points as f32 - 1.0) }
}

#[cfg(test)]
mod tests {
    use super::{super::energy::Split, *};

    /// Counts in both precisions how many shufflings of a generated segment are as strong as
    /// another one.
    fn check(seed: u64, points: usize, value: impl Fn(&mut Stream, usize) -> f64) {
        let mut stream = Stream::new(seed);
        let segment: Vec<f64> = (0..points).map(|at| value(&mut stream, at)).collect();
        // The strength is that of a typical shuffling, so that many are close to it.
        let mut other = segment.clone();
        stream.shuffle(&mut other);
        let Some(Split { strength, .. }) =
            strongest(&other, 5).filter(|split| split.strength > 0.0)
        else {
            return;
        };
        let mut screen = Screen::new(&segment, 5, strength);
        let (mut ours, mut theirs) = (0, 0);
        for _ in 0..10 {
            ours += screen.count_as_strong(&mut stream, LANES);
            for order in &screen.orders {
                let shuffled: Vec<f64> = order.iter().map(|from| segment[*from as usize]).collect();
                let split = strongest(&shuffled, 5).unwrap();
                theirs += usize::from(split.strength >= strength * (1.0 - 1e-9));
            }
        }
        assert_eq!(ours, theirs, "{points} points of seed {seed}");
    }

    #[test]
    fn counts_the_same_as_in_double_precision() {
        let uniform = |stream: &mut Stream| {
            (0..24).fold(0.0, |sum, _| (sum + f64::from(u8::from(stream.coin()))) / 2.0)
        };
        for seed in 0..30 {
            let points = 10 + seed as usize * 7 % 41;
            check(seed, points, |stream, _| uniform(stream));
            check(seed, points, |stream, _| 1e9 + uniform(stream));
            check(seed, points, |stream, _| uniform(stream) * 1e-12);
            check(seed, points, |stream, _| (uniform(stream) * 4.0).floor());
            check(seed, points, |stream, at| uniform(stream) + if at == 3 { 1e6 } else { 0.0 });
            check(seed, points, |_, at| f64::from(u8::from(at == 0)));
        }
        check(1, 400, |stream, _| uniform(stream));
    }
}
