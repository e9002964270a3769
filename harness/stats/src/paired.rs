//! Types of paired comparisons: directions, losses, limits, judgements and estimates.

use serde::{Deserialize, Serialize};

use crate::signed_rank::{Null, Walsh, spread};

/// Largest noise of a pair (standard deviation, relative to the logarithm of the limit) with which
/// a limit is decided in about 9 to 13 pairs. With more noise the test may be inconclusive.
pub const RESOLVED: f64 = 0.6;

/// The side of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// The side that is judged.
    Candidate,
    /// The side that it is compared with.
    Baseline,
}

impl Arm {
    /// Name in records and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Baseline => "baseline",
        }
    }
}

/// The better direction of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// Lower values are better, as for a latency.
    Lower,
    /// Higher values are better, as for a throughput.
    Higher,
}

impl Better {
    /// The logarithm of how much worse the candidate is than the baseline; above 0 is worse. `None`
    /// if a value is not positive, so that there is no ratio.
    #[must_use]
    pub fn loss(self, candidate: f64, baseline: f64) -> Option<f64> {
        let is_positive = |value: f64| value.is_finite() && value > 0.0;
        if !is_positive(candidate) || !is_positive(baseline) {
            return None;
        }
        Some((candidate.ln() - baseline.ln()) * self.sign())
    }

    /// The ratio of candidate to baseline for a loss.
    #[must_use]
    pub fn ratio(self, loss: f64) -> f64 {
        (loss * self.sign()).exp()
    }

    /// The loss of a value that is worse by `percent`. `None` if that is not above 0, or 100 or
    /// more where higher is better.
    #[must_use]
    pub fn limit(self, percent: f64) -> Option<f64> {
        let loss = match self {
            Self::Lower => (percent / 100.0).ln_1p(),
            Self::Higher => -(-percent / 100.0).ln_1p(),
        };
        if loss.is_finite() && loss > 0.0 { Some(loss) } else { None }
    }

    /// The percentage by which a loss is worse: the inverse of [`Better::limit`].
    #[must_use]
    pub fn percent(self, loss: f64) -> f64 {
        match self {
            Self::Lower => loss.exp_m1() * 100.0,
            Self::Higher => -(-loss).exp_m1() * 100.0,
        }
    }

    fn sign(self) -> f64 {
        match self {
            Self::Lower => 1.0,
            Self::Higher => -1.0,
        }
    }
}

/// The judgement of a metric with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// The candidate is not worse by more than the limit.
    Pass,
    /// The candidate is worse by more than the limit.
    Fail,
    /// Not decided after all pairs.
    Inconclusive,
}

impl Judgement {
    /// Name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// The estimated ratio of candidate and baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Candidate over baseline: the Hodges-Lehmann estimate of the pairs' ratio.
    pub ratio: f64,
    /// Lower bound of the ratio; null if there are too few pairs.
    pub low: Option<f64>,
    /// Upper bound of the ratio.
    pub high: Option<f64>,
    /// Number of pairs.
    pub pairs: usize,
    /// Noise of one pair: the standard deviation of the ratio's logarithm; 0.03 is about 3 %.
    /// Robust: see [`spread`].
    pub noise: f64,
    /// Smallest limit that is decided in a few pairs with this noise, in percent.
    pub resolvable: f64,
}

impl Estimate {
    /// Estimates the ratio from the losses of pairs. Each bound misses the true ratio with a
    /// probability of `level` at most. `None` with fewer than two pairs. `null` must have the same
    /// number of values.
    #[must_use]
    pub fn new(losses: &[f64], better: Better, null: &Null, level: f64) -> Option<Self> {
        let walsh = Walsh::new(losses);
        let (low, high) = walsh.bounds(null, level);
        let (low, high) = match better {
            Better::Lower => (low, high),
            Better::Higher => (high, low),
        };
        let bound = |loss: f64| Some(better.ratio(loss)).filter(|_| loss.is_finite());
        let noise = spread(losses)?;
        Some(Self {
            ratio: better.ratio(walsh.centre()?),
            low: bound(low),
            high: bound(high),
            pairs: losses.len(),
            noise,
            resolvable: better.percent(noise / RESOLVED),
        })
    }
}
