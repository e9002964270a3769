//! Wilcoxon's signed-rank test and its interval, exact.
//!
//! Both are computed from Walsh averages: the averages of all pairs of values, and the values
//! themselves. The signed-rank statistic of `values - shift` equals the number of Walsh averages
//! above `shift` (Tukey 1949), so test and interval never contradict each other, and ranks are not
//! needed. Ties among values only make Walsh averages equal. A Walsh average that equals the shift
//! (a zero, or a tie of opposite signs) counts *against* the claim. So the error bound holds for
//! every symmetric distribution, including discrete ones: an infinitesimal change of the values
//! could only support the claim.

use std::cmp::Ordering;

/// The null distribution of the signed-rank statistic of `n` values: all assignments of signs to
/// the ranks 1 to `n` are equally likely.
#[derive(Debug, Clone)]
pub struct Null {
    n: usize,
    /// Cumulative probability, by the number of Walsh averages on one side.
    cumulative: Vec<f64>,
}

impl Null {
    /// Computes the distribution for `n` values.
    ///
    /// # Panics
    /// If `n` is above 1,000, where probabilities are not normal floating point numbers any more.
    #[must_use]
    pub fn new(n: usize) -> Self {
        assert!(n <= 1000, "{n} values are too many for an exact distribution");
        let mut mass = vec![0.0; n * (n + 1) / 2 + 1];
        mass[0] = 1.0;
        // Adds each rank with either sign. Descending, so that each rank is added once.
        let mut top = 0;
        for rank in 1..=n {
            top += rank;
            for sum in (0..=top).rev() {
                let with = if sum >= rank { mass[sum - rank] } else { 0.0 };
                mass[sum] = 0.5 * (mass[sum] + with);
            }
        }
        let mut total = 0.0;
        for value in &mut mass {
            total += *value;
            *value = total;
        }
        Self { n, cumulative: mass }
    }

    /// The probability of a statistic of at most `sum`.
    #[must_use]
    pub fn at_most(&self, sum: usize) -> f64 {
        self.cumulative.get(sum).copied().unwrap_or(1.0).min(1.0)
    }

    /// Number of Walsh averages that may lie beyond a bound with an error of `level` at most; the
    /// bound is the next one. `None` if there are too few values for a bound.
    #[must_use]
    pub fn beyond(&self, level: f64) -> Option<usize> {
        self.cumulative.partition_point(|probability| *probability <= level).checked_sub(1)
    }
}

/// The Walsh averages of some values, sorted.
#[derive(Debug, Clone)]
pub struct Walsh {
    n: usize,
    sorted: Vec<f64>,
}

impl Walsh {
    /// Computes the averages of values, which must be finite.
    #[must_use]
    pub fn new(values: &[f64]) -> Self {
        let averages = values
            .iter()
            .enumerate()
            .flat_map(|(i, a)| values[i..].iter().map(move |b| f64::midpoint(*a, *b)));
        let mut sorted: Vec<f64> = averages.collect();
        sorted.sort_unstable_by(f64::total_cmp);
        Self { n: values.len(), sorted }
    }

    /// The Hodges-Lehmann estimate of the centre: the median of the averages. `None` without
    /// values.
    #[must_use]
    pub fn centre(&self) -> Option<f64> {
        median_of_sorted(&self.sorted)
    }

    /// Bounds of the centre, each with an error of `level` at most; infinite if there are too few
    /// values. `null` must have the same number of values.
    #[must_use]
    pub fn bounds(&self, null: &Null, level: f64) -> (f64, f64) {
        self.check(null);
        match null.beyond(level) {
            Some(beyond) if !self.sorted.is_empty() => {
                (self.sorted[beyond], self.sorted[self.sorted.len() - 1 - beyond])
            }
            _ => (f64::NEG_INFINITY, f64::INFINITY),
        }
    }

    /// The probability of values at least this far *above* `shift` if their centre is at or below
    /// it.
    #[must_use]
    pub fn above(&self, null: &Null, shift: f64) -> f64 {
        self.check(null);
        null.at_most(self.sorted.partition_point(|average| *average <= shift))
    }

    /// The probability of values at least this far *below* `shift` if their centre is at or above
    /// it.
    #[must_use]
    pub fn below(&self, null: &Null, shift: f64) -> f64 {
        self.check(null);
        let under = self.sorted.partition_point(|average| *average < shift);
        null.at_most(self.sorted.len() - under)
    }

    fn check(&self, null: &Null) {
        assert_eq!(self.n, null.n, "the distribution is that of another number of values");
    }
}

/// A robust standard deviation: the median distance of two values, scaled for a Gaussian
/// distribution (Shamos 1976). It tolerates one outlier in four values, with an efficiency of 86 %
/// for Gaussian values. `None` with fewer than two values.
#[must_use]
pub fn spread(values: &[f64]) -> Option<f64> {
    let distances = values
        .iter()
        .enumerate()
        .flat_map(|(i, a)| values[i + 1..].iter().map(move |b| (a - b).abs()));
    let mut distances: Vec<f64> = distances.collect();
    distances.sort_unstable_by(f64::total_cmp);
    // Corrects the bias for few values (simulated for 5 to 30 values).
    let few = 1.0 + 0.45 / values.len() as f64;
    median_of_sorted(&distances).map(|median| median * 1.048_358 / few)
}

/// The median of values in any order; `None` without values.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    median_of_sorted(&sorted)
}

/// The median of sorted values; `None` without values.
pub(crate) fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    debug_assert!(sorted.is_sorted_by(|a, b| a.total_cmp(b) != Ordering::Greater));
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 0 => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        _ => Some(sorted[middle]),
    }
}
