//! One number beside those of earlier runs: whether it is more worse than a run may be that nothing has
//! changed for.
//!
//! A new run is a single one, as noisy as each of those before it, so what is asked of the earlier ones is
//! not where their centre lies but where the *next* one may: a prediction. Bounds that leave wild runs out
//! of account would be wrong here, since the new one is as likely to be wild as they were. Two
//! probabilities of a run so far out are taken, and the larger holds:
//!
//! - Student's, from mean and standard deviation of the earlier runs, which is exact for Gaussian ones.
//!   Where neighbours are alike, which is how a machine's mood shows, the variance is taken as much larger
//!   as they are correlated: what wanders has wandered less in some runs than it will have in one more.
//! - that of ranks. The new one is beyond all `n` earlier ones with a probability of `1 / (n + 1)`, whatever
//!   the distribution. For probabilities below, which a few dozen runs can't show, the tail beyond them is
//!   taken for as heavy as that of Student's distribution with [`TAIL`] degrees of freedom.
//!
//! `tests/it/predictions.rs` simulates how often it errs.

use serde::{Deserialize, Serialize};

use crate::{
    change_points::Search,
    paired::{Better, Judgement},
    signed_rank::median_of_sorted,
};

/// Version of how numbers are judged by earlier ones: it changes whenever the same ones could be judged
/// otherwise.
pub const RULE_VERSION: u32 = 1;

/// The probability of a wrong FAIL, all numbers together that are judged at once, and that of a wrong PASS.
pub const ERROR: f64 = 0.02;

/// Fewest earlier runs to judge by. Of fewer, no two wild ones need be among them, and a third one would
/// be blamed too often: in a share `w` of runs that are wild, `n` earlier ones show none with
/// `(1 - w)^n`, and the error `w (1 - w)^n` is at most 1.5 % with 24, whatever `w` is.
pub const LEAST: usize = 24;

/// How heavy the tail is taken for beyond all earlier runs.
pub const TAIL: i32 = 2;

/// Runs just before the new one that may be worse than the limit without being what it is judged by: one
/// more, and they are a change of the series.
const UNSETTLED: usize = 4;

/// What is to be judged, and by what.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    better: Better,
    limit: f64,
    loss: f64,
    /// Losses of the earlier runs that it is judged by, oldest first.
    earlier: Vec<f64>,
    /// Where they begin among those that were given.
    start: usize,
}

/// Why there is nothing to judge by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum Unfit {
    /// Too few earlier runs.
    #[error("{runs} earlier runs are too few: {LEAST} are needed")]
    TooFew {
        /// Runs that there are, of those that belong together.
        runs: usize,
        /// Whether there were others, before the series changed.
        changed: bool,
    },
    /// A number of which no other one is so many percent.
    #[error("{0} has no ratio: all must be above 0")]
    NoRatio(f64),
    /// A limit that is none.
    #[error("{0} % is no limit: it must be above 0, and below 100 where higher is better")]
    Limit(f64),
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// What is thought of it.
    pub judgement: Judgement,
    /// The median of the earlier runs.
    pub level: f64,
    /// The new number over it.
    pub ratio: f64,
    /// Standard deviation of the logarithm of a run, so that 0.03 is about 3 %.
    pub noise: f64,
    /// A run for which nothing has changed is hardly below this one: with a probability of [`ERROR`].
    pub low: f64,
    /// ... nor above this one.
    pub high: f64,
    /// The finest limit by which a run for which nothing has changed is nearly sure to pass, in percent.
    pub resolvable: f64,
    /// The most that the probability of such a judgement is if it is wrong; for a FAIL of all that was
    /// judged together. Null where there is none.
    pub error: Option<f64>,
}

impl Subject {
    /// A number, and those of earlier runs, oldest first. It is judged by the newest of them, `most` at
    /// most, since the series changed last; those at the end that would have failed by the ones before
    /// them are set aside, or a regression would by its second run be taken for noise.
    ///
    /// # Errors
    /// [`Unfit`]
    pub fn new(
        better: Better,
        percent: f64,
        earlier: &[f64],
        most: usize,
        value: f64,
    ) -> Result<Self, Unfit> {
        let limit = better.limit(percent).ok_or(Unfit::Limit(percent))?;
        let loss = |value: &f64| better.loss(*value, 1.0).ok_or(Unfit::NoRatio(*value));
        let changes = Search::default().changes(earlier).unwrap_or_default();
        let edges: Vec<usize> =
            [0].into_iter().chain(changes.iter().map(|change| change.at)).collect();
        let runs = earlier.len() - edges[changes.len()];
        // The newest change may be no more than a few runs that are worse, with some from before them.
        let since = match changes.len() {
            last if runs >= LEAST => edges[last],
            0 => return Err(Unfit::TooFew { runs, changed: false }),
            last => edges[last - 1],
        };
        let losses = earlier[since..].iter().map(loss).collect::<Result<Vec<f64>, _>>()?;
        let set_aside = unsettled(&losses, most, limit);
        if runs < LEAST && set_aside == 0 {
            return Err(Unfit::TooFew { runs, changed: true });
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

    /// Which of the earlier runs it is judged by; what lies behind them was set aside.
    #[must_use]
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.earlier.len()
    }
}

/// How many runs at the end are each worse than the limit by those before all of them.
fn unsettled(losses: &[f64], most: usize, limit: f64) -> usize {
    let fails = |last: &usize| {
        let (before, after) = losses.split_at(losses.len() - last);
        let spread = Spread::new(&before[before.len() - most.clamp(LEAST, before.len())..]);
        after.iter().all(|loss| spread.above(loss - limit) <= ERROR)
    };
    (1..=UNSETTLED.min(losses.len().saturating_sub(LEAST))).rev().find(fails).unwrap_or(0)
}

/// Judges numbers together. A single one is enough to fail the whole, so each must show the more, the
/// more there are (Holm 1979); to pass, all must pass, and that errs no more often than the one that
/// should not have.
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

/// The adjusted probabilities of those that are small enough, in their order.
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

/// Where a next one may lie.
#[derive(Debug, Clone)]
struct Spread {
    /// In order.
    sorted: Vec<f64>,
    median: f64,
    mean: f64,
    /// Standard deviation of one, whatever is known of its neighbours.
    deviation: f64,
}

impl Spread {
    /// Of two values or more.
    fn new(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let n = values.len() as f64;
        let median = median_of_sorted(&sorted).unwrap_or(f64::NAN);
        // Around one of them, so that equal ones have exactly no variance.
        let mean = median + values.iter().map(|value| value - median).sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let products: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
        let alike = if squares > 0.0 { (products / squares).max(0.0) } else { 0.0 };
        let deviation = (squares / (n - 1.0) * (1.0 + alike)).sqrt();
        Self { sorted, median, mean, deviation }
    }

    /// With worse for better.
    fn mirrored(&self) -> Self {
        Self {
            sorted: self.sorted.iter().rev().map(|value| -value).collect(),
            median: -self.median,
            mean: -self.mean,
            deviation: self.deviation,
        }
    }

    /// The probability that a next one is `value` or above it.
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
        let beyond = n - self.sorted.partition_point(|one| *one < value);
        let share = (1 + beyond) as f64 / (n + 1) as f64;
        if beyond > 0 {
            return share;
        }
        // Where many are as large as the largest, it says little of how far out one may be.
        let reach = (self.sorted[n - 1] - self.median).max(self.deviation);
        share * (reach / (value - self.median)).powi(TAIL).min(1.0)
    }

    /// The least value that a next one reaches with a probability of `level` at most.
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

/// The probability of `t` or more by Student's distribution with so many degrees of freedom (Abramowitz and
/// Stegun, 26.7.3 and 26.7.4: a finite series).
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
    fn students_distribution_is_that_of_the_tables() {
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
