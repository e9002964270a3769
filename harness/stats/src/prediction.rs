//! Tests whether a new value is worse than the prediction interval of earlier runs.
//!
//! A new run is as noisy as each earlier one, so the question is where the *next* value may lie,
//! not where the centre of the earlier values lies. Robust bounds would be wrong here, since the
//! new value is as likely to be an outlier as the earlier ones. Two probabilities of such an
//! extreme value are computed, and the larger one is used:
//!
//! - Student's distribution, from mean and standard deviation of the earlier runs. It is exact for
//!   Gaussian noise. If neighbours are correlated, as on a drifting machine, the variance is
//!   increased in proportion, since a few runs show less of the drift than one more run will.
//! - Ranks. The new value exceeds all `n` earlier ones with a probability of `1 / (n + 1)`, for
//!   every distribution. For smaller probabilities, the tail is assumed to be as heavy as that of
//!   Student's distribution with [`TAIL`] degrees of freedom.
//!
//! `tests/it/predictions.rs` simulates the error rates.

use serde::{Deserialize, Serialize};

use crate::{
    change_points::Search,
    paired::{Better, Judgement},
    signed_rank::median_of_sorted,
};

/// Version of the decision rule. It changes whenever the same numbers could get another judgement.
pub const RULE_VERSION: u32 = 1;

/// Largest probability of a false FAIL, over all numbers that are judged together, and of a false
/// PASS.
pub const ERROR: f64 = 0.02;

/// Smallest number of earlier runs. With fewer, outliers would cause too many false failures: if a
/// share `w` of runs are outliers, `n` earlier runs have none with a probability of `(1 - w)^n`,
/// and the error `w (1 - w)^n` is at most 1.5 % for 24 runs and any `w`.
pub const LEAST: usize = 24;

/// Degrees of freedom of the assumed tail beyond all earlier runs.
pub const TAIL: i32 = 2;

/// Largest number of runs just before the new one that are set aside because they exceed the limit.
/// With one more, they are a change of the series.
const MAX_SET_ASIDE: usize = 4;

/// A value to be judged, with the earlier runs to judge it by.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    better: Better,
    limit: f64,
    loss: f64,
    /// Losses of the selected earlier runs, oldest first.
    earlier: Vec<f64>,
    /// Index of the first of them among all earlier runs.
    start: usize,
}

/// Why a value can't be judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum NotComparableSeries {
    /// Too few earlier runs.
    #[error("{runs} earlier runs are too few: {LEAST} are needed")]
    TooFew {
        /// Number of runs since the last change.
        runs: usize,
        /// Whether there are more runs before the last change.
        changed: bool,
    },
    /// A number that is not positive, so percentages of it make no sense.
    #[error("{0} has no ratio: all must be above 0")]
    NoRatio(f64),
    /// An invalid limit.
    #[error("invalid limit {0} %: it must be above 0, and below 100 where higher is better")]
    Limit(f64),
}

/// The judgement of a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The judgement.
    pub judgement: Judgement,
    /// The median of the earlier runs.
    pub level: f64,
    /// Ratio of the value to that median.
    pub ratio: f64,
    /// Standard deviation of the logarithm of a run; 0.03 is about 3 %.
    pub noise: f64,
    /// Lower prediction bound: without a change, a ratio is below it with a probability of
    /// [`ERROR`].
    pub low: f64,
    /// Upper prediction bound, with the same probability.
    pub high: f64,
    /// Smallest limit by which a run without a change almost certainly passes, in percent.
    pub resolvable: f64,
    /// Largest probability of this judgement if it is wrong; for a FAIL, over all values that were
    /// judged together. Null if inconclusive.
    pub error: Option<f64>,
}

impl Subject {
    /// Selects the earlier runs to judge a value by: the newest ones since the last change, `most`
    /// at most. `earlier` are all earlier runs, oldest first. Runs at the end that would have
    /// failed themselves are set aside; otherwise the second run of a regression would count it as
    /// noise.
    ///
    /// # Errors
    /// [`NotComparableSeries`]
    pub fn new(
        better: Better,
        percent: f64,
        earlier: &[f64],
        most: usize,
        value: f64,
    ) -> Result<Self, NotComparableSeries> {
        let limit = better.limit(percent).ok_or(NotComparableSeries::Limit(percent))?;
        let loss =
            |value: &f64| better.loss(*value, 1.0).ok_or(NotComparableSeries::NoRatio(*value));
        let changes = Search::default().changes(earlier).unwrap_or_default();
        let edges: Vec<usize> =
            [0].into_iter().chain(changes.iter().map(|change| change.at)).collect();
        let runs = earlier.len() - edges[changes.len()];
        // The last change may consist of a few worse runs only; these are set aside below.
        let since = match changes.len() {
            last if runs >= LEAST => edges[last],
            0 => return Err(NotComparableSeries::TooFew { runs, changed: false }),
            last => edges[last - 1],
        };
        let losses = earlier[since..].iter().map(loss).collect::<Result<Vec<f64>, _>>()?;
        let set_aside = count_set_aside(&losses, most, limit);
        if runs < LEAST && set_aside == 0 {
            return Err(NotComparableSeries::TooFew { runs, changed: true });
        }
        let end = losses.len() - set_aside;
        let start = end - most.clamp(LEAST, end);
        Ok(Self {
            better,
            limit,
            loss: loss(&value)?,
            earlier: losses[start..end].to_vec(),
            start: since + start,
        })
    }

    /// The range of earlier runs that are used. Later ones were set aside.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.earlier.len()
    }
}

/// Number of runs at the end that each exceed the limit, judged by the runs before all of them.
fn count_set_aside(losses: &[f64], most: usize, limit: f64) -> usize {
    let fails = |last: &usize| {
        let (before, after) = losses.split_at(losses.len() - last);
        let spread = Spread::new(&before[before.len() - most.clamp(LEAST, before.len())..]);
        after.iter().all(|loss| spread.above(loss - limit) <= ERROR)
    };
    (1..=MAX_SET_ASIDE.min(losses.len().saturating_sub(LEAST))).rev().find(fails).unwrap_or(0)
}

/// Judges values together. One failure fails the whole, so the probabilities are adjusted by their
/// number (Holm 1979). A pass needs no adjustment, since all values must pass.
#[must_use]
pub fn judge(subjects: &[Subject]) -> Vec<Prediction> {
    let spreads: Vec<Spread> =
        subjects.iter().map(|subject| Spread::new(&subject.earlier)).collect();
    let both = || subjects.iter().zip(&spreads);
    let worse: Vec<f64> =
        both().map(|(subject, spread)| spread.above(subject.loss - subject.limit)).collect();
    let failed = holm(&worse);
    both().zip(failed).map(|((subject, spread), failed)| finding(subject, spread, failed)).collect()
}

/// Adjusts probabilities; `None` for those that are too large to fail.
fn holm(probabilities: &[f64]) -> Vec<Option<f64>> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]));
    let mut adjusted = vec![None; probabilities.len()];
    let mut most = 0.0_f64;
    for (rank, at) in order.into_iter().enumerate() {
        most = most.max(probabilities[at] * (probabilities.len() - rank) as f64);
        if most > ERROR {
            break;
        }
        adjusted[at] = Some(most);
    }
    adjusted
}

fn finding(subject: &Subject, spread: &Spread, failed: Option<f64>) -> Prediction {
    let Subject { better, limit, loss, .. } = *subject;
    let better_than_limit = spread.below(loss - limit);
    let (judgement, error) = match failed {
        Some(error) => (Judgement::Fail, Some(error)),
        None if better_than_limit <= ERROR => (Judgement::Pass, Some(better_than_limit)),
        None => (Judgement::Inconclusive, None),
    };
    let (best, worst) = (-spread.mirrored().bound(ERROR), spread.bound(ERROR));
    let (low, high) = match better {
        Better::Lower => (best, worst),
        Better::Higher => (worst, best),
    };
    Prediction {
        judgement,
        level: better.ratio(spread.median),
        ratio: better.ratio(loss - spread.median),
        noise: spread.deviation,
        low: better.ratio(low),
        high: better.ratio(high),
        resolvable: better.percent(worst - best),
        error,
    }
}

/// The distribution of the next value.
#[derive(Debug, Clone)]
struct Spread {
    /// The earlier values, sorted.
    sorted: Vec<f64>,
    median: f64,
    mean: f64,
    /// Standard deviation of a single value, increased for correlation between neighbours.
    deviation: f64,
}

impl Spread {
    /// Estimates the distribution from two values or more.
    fn new(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let n = values.len() as f64;
        let median = median_of_sorted(&sorted).unwrap_or(f64::NAN);
        // Computed relative to the median, so that the variance of equal values is exactly 0.
        let mean = median + values.iter().map(|value| value - median).sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let products: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
        let correlation = if squares > 0.0 { (products / squares).max(0.0) } else { 0.0 };
        let deviation = (squares / (n - 1.0) * (1.0 + correlation)).sqrt();
        Self { sorted, median, mean, deviation }
    }

    /// The distribution of the negated value.
    fn mirrored(&self) -> Self {
        Self {
            sorted: self.sorted.iter().rev().map(|value| -value).collect(),
            median: -self.median,
            mean: -self.mean,
            deviation: self.deviation,
        }
    }

    /// The probability that the next value is `value` or above it.
    fn above(&self, value: f64) -> f64 {
        if self.deviation == 0.0 {
            return if value > self.median { 0.0 } else { 1.0 };
        }
        self.student(value).max(self.ranks(value))
    }

    fn below(&self, value: f64) -> f64 {
        self.mirrored().above(-value)
    }

    fn student(&self, value: f64) -> f64 {
        let n = self.sorted.len();
        let error = self.deviation * (1.0 + 1.0 / n as f64).sqrt();
        student_above((value - self.mean) / error, n - 1)
    }

    fn ranks(&self, value: f64) -> f64 {
        let n = self.sorted.len();
        let beyond = n - self.sorted.partition_point(|earlier| *earlier < value);
        let share = (1 + beyond) as f64 / (n + 1) as f64;
        if beyond > 0 {
            return share;
        }
        // If many values equal the largest, the distance to it is no measure of the tail.
        let reach = (self.sorted[n - 1] - self.median).max(self.deviation);
        share * (reach / (value - self.median)).powi(TAIL).min(1.0)
    }

    /// The smallest value that the next one reaches with a probability of `level` at most.
    fn bound(&self, level: f64) -> f64 {
        if self.deviation == 0.0 {
            return self.median;
        }
        let (mut under, mut step) = (self.median, self.deviation);
        while self.above(under + step) > level {
            under += step;
            step *= 2.0;
        }
        let mut over = under + step;
        for _ in 0..60 {
            let middle = f64::midpoint(under, over);
            if self.above(middle) > level { under = middle } else { over = middle }
        }
        over
    }
}

/// The probability of `t` or more in Student's distribution with `freedom` degrees of freedom
/// (Abramowitz and Stegun, 26.7.3 and 26.7.4: a finite series).
fn student_above(t: f64, freedom: usize) -> f64 {
    let angle = (t.abs() / (freedom as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    let (mut term, mut sum) = if odd { (cosine, 0.0) } else { (1.0, 0.0) };
    let mut at = if odd { 1 } else { 0 };
    while at + 2 <= freedom {
        sum += term;
        at += 2;
        term *= cosine * cosine * (at - 1) as f64 / at as f64;
    }
    let within = match odd {
        true => (angle + sine * sum) * std::f64::consts::FRAC_2_PI,
        false => sine * sum,
    };
    let above = ((1.0 - within) / 2.0).max(0.0);
    if t < 0.0 { 1.0 - above } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_tables_of_students_distribution() {
        for (t, freedom, above) in [
            (12.7062, 1, 0.025),
            (4.3027, 2, 0.025),
            (3.1824, 3, 0.025),
            (4.6041, 4, 0.005),
            (2.0930, 19, 0.025),
            (2.8453, 20, 0.005),
            (1.9623, 1000, 0.025),
        ] {
            assert!((student_above(t, freedom) - above).abs() < 1e-5, "{t} {freedom}");
            assert!((student_above(-t, freedom) - 1.0 + above).abs() < 1e-5, "{t} {freedom}");
        }
        assert_eq!(student_above(0.0, 7), 0.5);
        assert_eq!(student_above(f64::INFINITY, 8), 0.0);
    }
}
