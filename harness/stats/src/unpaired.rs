//! Estimates the ratio of two samples that were not measured in pairs, such as those of two stored
//! runs, by the Mann-Whitney test and its interval (Hodges and Lehmann 1963).
//!
//! The interval covers the noise within each sample only. Drift of the machine between them is part
//! of the difference; on a drifting machine half of all such intervals miss. So this module
//! estimates and never judges. Only limits far beyond such drifts may be judged by it.

use serde::{Deserialize, Serialize};

use crate::{
    paired::Better,
    signed_rank::{median_of_sorted, spread},
};

/// Largest number of values for which the exact distribution is computed. Above it, a Gaussian
/// approximates it.
const EXACT: usize = 50;

/// The estimated ratio of two samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Candidate over baseline: the median of the ratios of all combinations.
    pub ratio: f64,
    /// Lower bound of the ratio; null if there are too few values.
    pub low: Option<f64>,
    /// Upper bound of the ratio.
    pub high: Option<f64>,
    /// The larger noise of both samples: the robust standard deviation of the logarithm; null if
    /// both have a single value.
    pub noise: Option<f64>,
}

impl Estimate {
    /// Estimates the ratio from positive values. Each bound misses the true ratio with a
    /// probability of `level` at most, if the values are independent. `None` if a sample is empty
    /// or a value is not positive.
    #[must_use]
    pub fn new(candidate: &[f64], baseline: &[f64], level: f64) -> Option<Self> {
        let logs = |values: &[f64]| -> Option<Vec<f64>> {
            values.iter().map(|value| Better::Lower.loss(*value, 1.0)).collect()
        };
        let (candidate, baseline) = (logs(candidate)?, logs(baseline)?);
        let mut apart: Vec<f64> =
            candidate.iter().flat_map(|a| baseline.iter().map(move |b| a - b)).collect();
        apart.sort_unstable_by(f64::total_cmp);
        let centre = median_of_sorted(&apart)?;
        let beyond = beyond(candidate.len(), baseline.len(), level);
        let bound = |at: usize| apart[at].exp();
        let noise = [&candidate, &baseline].into_iter().filter_map(|lot| spread(lot));
        Some(Self {
            ratio: centre.exp(),
            low: beyond.map(bound),
            high: beyond.map(|beyond| bound(apart.len() - 1 - beyond)),
            noise: noise.reduce(f64::max),
        })
    }

    /// Whether the interval excludes a ratio of 1.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.low.is_some_and(|low| low > 1.0) || self.high.is_some_and(|high| high < 1.0)
    }
}

/// Number of differences, between n and m values, that may lie beyond a bound with an error of
/// `level` at most. `None` if there are too few values for a bound.
#[must_use]
pub fn beyond(n: usize, m: usize, level: f64) -> Option<usize> {
    if n > EXACT || m > EXACT {
        let (n, m) = (n as f64, m as f64);
        let sigma = (n * m * (n + m + 1.0) / 12.0).sqrt();
        let bound = n * m / 2.0 - quantile(level) * sigma - 0.5;
        return if bound >= 0.0 { Some(bound as usize) } else { None };
    }
    let mut total = 0.0;
    let within = null(n, m).into_iter().take_while(|mass| {
        total += mass;
        total <= level
    });
    within.count().checked_sub(1)
}

/// The null distribution: the probability of each number of combinations in which the first value
/// is the larger one, for n and m values in a random order.
fn null(n: usize, m: usize) -> Vec<f64> {
    // The largest value is one of the n with probability n / (n + m), and is then above all m.
    let mut rows: Vec<Vec<f64>> = vec![vec![1.0]; m + 1];
    for i in 1..=n {
        let mut next: Vec<Vec<f64>> = vec![vec![1.0]];
        for j in 1..=m {
            let ours = i as f64 / (i + j) as f64;
            let mass = (0..=i * j).map(|at| {
                let mass_at = |row: &[f64], at: Option<usize>| {
                    at.and_then(|at| row.get(at)).copied().unwrap_or(0.0)
                };
                ours * mass_at(&rows[j], at.checked_sub(j))
                    + (1.0 - ours) * mass_at(&next[j - 1], Some(at))
            });
            next.push(mass.collect());
        }
        rows = next;
    }
    rows.pop().unwrap_or_default()
}

/// The upper quantile of the standard Gaussian distribution, for levels below 0.5 (Hastings'
/// approximation in Abramowitz and Stegun, 26.2.23, exact to 0.00045).
fn quantile(level: f64) -> f64 {
    let t = (-2.0 * level.ln()).sqrt();
    let over = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let under = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    t - over / under
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_distribution_matches_all_orders() {
        for (n, m) in [(1, 1), (1, 4), (3, 2), (4, 4), (6, 5)] {
            let mut counts = vec![0.0; n * m + 1];
            let mut orders = 0.0;
            for places in (0_u32..1 << (n + m)).filter(|places| places.count_ones() == n as u32) {
                let (mut below, mut larger) = (0, 0);
                for place in 0..n + m {
                    if places >> place & 1 == 1 { larger += below } else { below += 1 }
                }
                counts[larger] += 1.0;
                orders += 1.0;
            }
            let ours = null(n, m);
            assert_eq!(ours.len(), counts.len());
            for (ours, count) in ours.iter().zip(&counts) {
                assert!((ours - count / orders).abs() < 1e-12, "{n} and {m}");
            }
        }
    }

    #[test]
    fn gaussian_approximates_the_exact_bound() {
        for level in [0.005, 0.02, 0.05] {
            let exact = beyond(EXACT, EXACT, level).unwrap();
            let near = beyond(EXACT, EXACT + 1, level).unwrap();
            // One value more adds 25 differences on average, at a bound some ten fewer.
            assert!((exact..exact + 30).contains(&near), "{exact} {near}");
        }
    }

    #[test]
    fn interval_contains_the_true_ratio() {
        let baseline: Vec<f64> = (0..9).map(|at| 100.0 + f64::from(at * 7 % 9)).collect();
        let candidate: Vec<f64> = baseline.iter().rev().map(|value| value * 1.2).collect();
        let estimate = Estimate::new(&candidate, &baseline, 0.02).unwrap();
        assert!((estimate.ratio - 1.2).abs() < 0.01, "{estimate:?}");
        assert!(estimate.low.unwrap() > 1.1 && estimate.high.unwrap() < 1.3, "{estimate:?}");
        assert!(estimate.differs());
        let same = Estimate::new(&baseline, &baseline, 0.02).unwrap();
        assert!(!same.differs() && (same.ratio - 1.0).abs() < 1e-12, "{same:?}");
    }

    #[test]
    fn has_no_bounds_with_few_values_and_no_estimate_without() {
        let estimate = Estimate::new(&[2.0], &[1.0, 1.0], 0.02).unwrap();
        assert_eq!((estimate.low, estimate.high, estimate.ratio), (None, None, 2.0));
        assert!(!estimate.differs());
        assert_eq!(Estimate::new(&[], &[1.0], 0.02), None);
        assert_eq!(Estimate::new(&[0.0], &[1.0], 0.02), None);
        assert_eq!(beyond(3, 3, 0.02), None);
        // 2 of 252 orders have at most one such pair, 4 have at most two.
        assert_eq!(beyond(5, 5, 0.02), Some(2));
    }
}
