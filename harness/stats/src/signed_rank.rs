//! Wilcoxon's signed-rank test and the interval that belongs to it, exact.
//!
//! Both are told through Walsh averages: the averages of each two of the values, and of each with
//! itself. The signed-rank statistic of `values - shift` *is* the number of Walsh averages above
//! `shift` (Tukey 1949), so test and interval can't contradict each other, and no ranks have to be
//! shared out. Ties among the values need no care: they only make Walsh averages equal. A Walsh
//! average that equals the shift (a zero, or a tie of opposite signs) is counted *against* whatever
//! is claimed, which keeps the promised error under every symmetric distribution, discrete ones
//! included: shaking the values infinitesimally could only help the claim.

use std::cmp::Ordering;

/// The null distribution of the signed-rank statistic of `n` values: of all assignments of signs to
/// the ranks 1 to `n`, each as likely as another.
#[derive(Debug, Clone)]
pub struct Null {
    n: usize,
    /// Probability of at most as many Walsh averages on one side, by that number.
    cumulative: Vec<f64>,
}

impl Null {
    /// For `n` values.
    ///
    /// # Panics
    /// For more than 1,000, where probabilities are no longer normal floating point numbers.
    #[must_use]
    pub fn new(n: usize) -> Self {
        assert!(n <= 1000, "{n} values are too many for an exact distribution");
        let mut mass = vec![0.0; n * (n + 1) / 2 + 1];
        mass[0] = 1.0;
        // Rank by rank, each with either sign; from above, so that each rank counts once.
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

    /// How many Walsh averages may lie beyond a bound that errs with at most `level` on its side:
    /// the bound is the next one. `None` where so few values bound nothing at this level.
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
    /// Of values that are all finite.
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

    /// The Hodges-Lehmann estimate of the centre: their median. `None` of no values.
    #[must_use]
    pub fn centre(&self) -> Option<f64> {
        median_of_sorted(&self.sorted)
    }

    /// Bounds of the centre, each of which errs with a probability of at most `level`; infinite where
    /// so few values bound nothing. `null` must be that of as many values.
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

    /// The probability of values at least so far *above* `shift` if their centre were at or below it.
    #[must_use]
    pub fn above(&self, null: &Null, shift: f64) -> f64 {
        self.check(null);
        null.at_most(self.sorted.partition_point(|average| *average <= shift))
    }

    /// The probability of values at least so far *below* `shift` if their centre were at or above it.
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

/// The standard deviation of values, if they were Gaussian, from the median distance of two (Shamos
/// 1976): one value in four may be wild without turning it, and of Gaussian ones it wastes 14 %.
/// `None` of fewer than two.
#[must_use]
pub fn spread(values: &[f64]) -> Option<f64> {
    let distances = values
        .iter()
        .enumerate()
        .flat_map(|(i, a)| values[i + 1..].iter().map(move |b| (a - b).abs()));
    let mut distances: Vec<f64> = distances.collect();
    distances.sort_unstable_by(f64::total_cmp);
    // Of few values it comes out too large on average, by about this (simulated, 5 to 30 values).
    let few = 1.0 + 0.45 / values.len() as f64;
    median_of_sorted(&distances).map(|median| median * 1.048_358 / few)
}

/// The median of values in any order; `None` where there are none.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    median_of_sorted(&sorted)
}

/// The middle value, or the middle between the two in the middle.
pub(crate) fn median_of_sorted(sorted: &[f64]) -> Option<f64> {
    debug_assert!(sorted.is_sorted_by(|a, b| a.total_cmp(b) != Ordering::Greater));
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 0 => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        _ => Some(sorted[middle]),
    }
}
